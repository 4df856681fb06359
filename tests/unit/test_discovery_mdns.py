# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes in a local network find each other, and what strangers send there does little."""

from __future__ import annotations

import math
import struct

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.peer_registry.discovery.mdns import (
    FIRST_ASKED_S,
    LEAST_EVERY_S,
    LISTEN_S,
    MOST_INTERFACES,
    PACKETS_PER_S,
    READ_PER_S,
    SCAN_S,
    Mdns,
    candidates,
    is_near,
    places,
)
from actors.p2p.peer_registry.discovery.mdns_packets import (
    MOST_ADDRESSES,
    MOST_BYTES,
    MOST_RECORDS,
    Packet,
    answer,
    new_name,
    question,
    read,
)

A = "12D3KooWGuEhyjCQTdBV6dVWELDWtRgVXfbBMuVGKUzoRN93Nmjk"
B = "12D3KooWPxoPmMGHmwnNuq8qZZrwZxQXfhnTiLHZbPCjchKLRnKK"
IP, OTHER = "192.168.1.2", "192.168.1.3"
ADDRESS = f"/ip4/{OTHER}/tcp/4001/p2p/{B}"
SERVICE = b"\x04_p2p\x04_udp\x05local\x00"


# --- packets ---------------------------------------------------------------------------------------------------------


def test_a_question_and_an_answer_are_read():
    assert read(question()) == Packet(asks=True, addresses=[])
    assert read(answer(new_name(), [ADDRESS, "/x"])) == Packet(asks=False, addresses=[ADDRESS, "/x"])


def test_names_of_nodes_differ_and_fit_into_a_label():
    assert 32 <= len(new_name()) <= 63
    assert new_name() != new_name()


def test_the_question_of_another_library_is_read():
    """As go-libp2p asks, with the bit for an answer to itself."""
    assert read(struct.pack("!6H", 7, 0, 1, 0, 0, 0) + SERVICE.upper() + struct.pack("!HH", 12, 0x8001)).asks


def test_the_answer_of_another_library_is_read():
    """With the bit that says that the record is unique, and with numbered keys."""
    text = b"".join(bytes([len(one)]) + one for one in (b"dnsaddr=/a", b"dnsaddr2=/b", b"dnsaddrx=/c", b"v=1"))
    records = (
        SERVICE + struct.pack("!HHIH", 12, 1, 120, 4) + b"\x01n\xc0\x0c"
        b"\x01n\xc0\x0c" + struct.pack("!HHIH", 16, 0x8001, 120, len(text)) + text
    )
    assert read(struct.pack("!6H", 0, 0x8400, 0, 1, 0, 1) + records).addresses == ["/a", "/b"]


def test_who_says_good_bye_is_not_there():
    """A record that lives for 0 s is withdrawn."""
    gone = answer("n" * 40, [ADDRESS]).replace(struct.pack("!I", 120), bytes(4))
    assert read(gone) == Packet(asks=False, addresses=[])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SERVICE,
        question()[:-1],
        question().replace(b"_p2p", b"_http"),
        question()[:12] + b"\xc0\x0c" + question()[12:],
        question() + bytes(MOST_BYTES),
        struct.pack("!6H", 0, 0, MOST_RECORDS + 1, 0, 0, 0) + (SERVICE + b"\0\x0c\0\1") * (MOST_RECORDS + 1),
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + SERVICE + struct.pack("!HH", 1, 1),
    ],
)
def test_what_is_no_matter_of_ours_or_makes_no_sense_is_nothing(data):
    assert read(data) is None


@given(st.data())
def test_no_packet_is_more_than_nothing_a_question_or_some_addresses(data):
    packet = bytearray(data.draw(st.sampled_from([question(), answer("n" * 40, [ADDRESS])])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    found = read(bytes(packet))
    assert found is None or len(found.addresses) <= MOST_ADDRESSES


def test_of_many_addresses_only_some_are_looked_at():
    many = [f"/ip4/192.168.0.{n}/tcp/1" for n in range(60)]
    assert read(answer(new_name(), many)).addresses == many[:MOST_ADDRESSES]


# --- which addresses count -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "near"),
    [
        (OTHER, True),
        ("203.0.114.7", False),
        ("10.1.2.3", True),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("fd00::7", True),
        ("fe80::7", False),
        ("2606:4700::1", False),
        ("victim.example", False),
    ],
)
def test_only_addresses_of_the_local_network_count(host, near):
    assert is_near(host, OTHER) is near


def test_a_sender_may_always_name_itself():
    assert is_near("127.0.0.1", "127.0.0.1")
    assert is_near("203.0.114.7", "203.0.114.7")


def test_what_can_not_be_dialled_is_left_out():
    named = ["", "/x", f"/ip4/203.0.114.7/tcp/1/p2p/{B}", f"/dns4/a.local/tcp/1/p2p/{B}", ADDRESS]
    assert [one.place for one in candidates(named, OTHER)] == [f"/ip4/{OTHER}/tcp/4001"]


def test_a_node_names_its_address_on_that_interface():
    anywhere = [f"/ip4/0.0.0.0/tcp/4001/p2p/{A}"]
    assert places(anywhere, IP) == [f"/ip4/{IP}/tcp/4001/p2p/{A}"]
    assert places([f"/ip4/{OTHER}/tcp/4001/p2p/{A}", f"/ip6/::1/tcp/4001/p2p/{A}"], IP) == []


# --- speaking --------------------------------------------------------------------------------------------------------


class Lan:
    """Interfaces that are one network."""

    def __init__(self):
        self.wires = []
        self.sent = []

    def open(self, ip):
        wire = LanWire(self, ip)
        self.wires.append(wire)
        return wire

    def put(self, data, ip, port=5353):
        for wire in self.wires:
            wire.inbox.append((data, ip, port))
            wire.some.set()


class LanWire:
    def __init__(self, lan, ip):
        self.lan, self.ip = lan, ip
        self.inbox = []
        self.some = trio.Event()
        self.taken = 0
        self.broken = False

    async def receive(self):
        await trio.lowlevel.checkpoint()
        while not self.inbox:
            self.some = trio.Event()
            await self.some.wait()
        if self.broken:
            raise OSError(100, "Network is down")
        self.taken += 1
        return self.inbox.pop(0)

    async def send(self, packet):
        await trio.lowlevel.checkpoint()
        self.lan.sent.append((trio.current_time(), self.ip, read(packet)))
        self.lan.put(packet, self.ip)

    def close(self):
        self.lan.wires.remove(self)


class Node:
    """One that speaks; what it found is kept."""

    def __init__(self, lan, ip, peer_id, *, where=None, own=(), every_s=60.0, listens=True):
        self.found = {}
        self.lan = lan
        self.own = list(own) or [ip]
        self.listens = [f"/ip4/{where or ip}/tcp/4001/p2p/{peer_id}"] if listens else []
        self.mdns = Mdns(
            lambda: self.listens,
            self.take,
            where=ip if where is None else where,
            every_s=every_s,
            open_wire=lan.open,
            own=self.own_addresses,
            between=lambda least, most: (least + most) / 2,
        )

    async def own_addresses(self):
        await trio.lowlevel.checkpoint()
        return self.own

    def take(self, way, candidates):
        new = {one.peer_id for one in candidates} - self.found.keys()
        for one in candidates:
            self.found.setdefault(one.peer_id, set()).add(one.place)
        return len(new)


@pytest.fixture
def lan():
    return Lan()


async def test_two_nodes_find_each_other_at_once(lan, nursery, autojump_clock):
    a, b = Node(lan, IP, A), Node(lan, OTHER, B)
    nursery.start_soon(a.mdns.run)
    await trio.sleep(10)
    nursery.start_soon(b.mdns.run)
    await trio.sleep(1)
    assert a.found[B] == {f"/ip4/{OTHER}/tcp/4001"}
    assert b.found[A] == {f"/ip4/{IP}/tcp/4001"}
    assert a.mdns.state == "ok"
    nursery.cancel_scope.cancel()


async def test_one_who_comes_later_is_found_by_one_who_looks(lan, nursery, autojump_clock):
    a, b = Node(lan, IP, A, every_s=3600.0), Node(lan, OTHER, B)
    nursery.start_soon(a.mdns.run)
    await trio.sleep(60)
    assert await a.mdns.look(10) == 0
    nursery.start_soon(b.mdns.run)
    began = trio.current_time()
    assert await a.mdns.look(10) == 1
    assert trio.current_time() - began == pytest.approx(LISTEN_S)
    assert await a.mdns.look(0.1) == 0
    nursery.cancel_scope.cancel()


async def test_who_listens_nowhere_only_asks(lan, nursery, autojump_clock):
    a, b = Node(lan, IP, A, listens=False), Node(lan, OTHER, B)
    nursery.start_soon(a.mdns.run)
    nursery.start_soon(b.mdns.run)
    await trio.sleep(10)
    assert set(a.found) >= {B}
    assert A not in b.found
    nursery.cancel_scope.cancel()


async def test_it_asks_at_first_and_then_at_its_interval(lan, nursery, autojump_clock):
    began = trio.current_time()
    nursery.start_soon(Node(lan, IP, A, every_s=60.0).mdns.run)
    await trio.sleep(200)
    asked = [at - began for at, _, packet in lan.sent if packet.asks]
    assert asked == pytest.approx([*FIRST_ASKED_S, 63.0, 123.0, 183.0])
    nursery.cancel_scope.cancel()


async def test_however_often_it_is_told_to_it_does_not_ask_more_often_than_it_should(lan, nursery, autojump_clock):
    began = trio.current_time()
    a = Node(lan, IP, A, every_s=0.001)
    nursery.start_soon(a.mdns.run)
    await trio.sleep(100)
    assert sum(packet.asks for _, _, packet in lan.sent) <= len(FIRST_ASKED_S) + 100 / LEAST_EVERY_S
    lan.sent.clear()
    for _ in range(100):
        await a.mdns.look(0.01)
    assert sum(packet.asks for _, _, packet in lan.sent) <= math.ceil(100 * 0.01) + 1
    assert trio.current_time() - began < 110
    nursery.cancel_scope.cancel()


async def test_a_flood_of_questions_has_one_answer_in_a_second(lan, nursery, autojump_clock):
    nursery.start_soon(Node(lan, IP, A).mdns.run)
    await trio.sleep(10)
    lan.sent.clear()
    for _ in range(50):
        for _ in range(20):
            lan.put(question(), OTHER)
        await trio.sleep(0.1)
    answers = [at for at, _, packet in lan.sent if not packet.asks]
    assert 3 <= len(answers) <= 6
    nursery.cancel_scope.cancel()


async def test_a_question_from_another_port_has_no_answer(lan, nursery, autojump_clock):
    nursery.start_soon(Node(lan, IP, A).mdns.run)
    await trio.sleep(10)
    lan.sent.clear()
    lan.put(question(), OTHER, 40_000)
    await trio.sleep(5)
    assert lan.sent == []
    nursery.cancel_scope.cancel()


async def test_only_so_many_packets_are_taken_apart_and_only_so_many_read(lan, nursery, autojump_clock):
    a = Node(lan, IP, A)
    nursery.start_soon(a.mdns.run)
    await trio.sleep(10)
    (wire,) = lan.wires
    wire.taken, a.found = 0, {}
    calls = []
    a.mdns._found = lambda way, found: calls.append(found) or 0
    wire.inbox += [(answer("n" * 40, [ADDRESS]), OTHER, 5353)] * 20_000
    wire.some.set()
    await trio.sleep(10)
    assert 1000 < wire.taken <= 10 * PACKETS_PER_S + 200
    assert 10 * READ_PER_S <= len(calls) <= 10 * READ_PER_S + 60
    nursery.cancel_scope.cancel()


async def test_it_speaks_on_all_interfaces_when_it_listens_everywhere(lan, nursery, autojump_clock):
    a = Node(lan, IP, A, where="0.0.0.0", own=[IP, "10.0.0.1"])
    b = Node(lan, OTHER, B)
    nursery.start_soon(a.mdns.run)
    nursery.start_soon(b.mdns.run)
    await trio.sleep(5)
    assert b.found[A] == {f"/ip4/{IP}/tcp/4001", "/ip4/10.0.0.1/tcp/4001"}
    a.own = [f"10.0.1.{n}" for n in range(100)]
    await trio.sleep(SCAN_S + 1)
    assert sorted(wire.ip for wire in lan.wires) == sorted([OTHER, *a.own[:MOST_INTERFACES]])
    nursery.cancel_scope.cancel()


async def test_an_interface_that_breaks_is_opened_again(lan, nursery, autojump_clock):
    nursery.start_soon(Node(lan, IP, A).mdns.run)
    await trio.sleep(10)
    (wire,) = lan.wires
    wire.broken = True
    lan.put(question(), OTHER)
    await trio.sleep(1)
    assert lan.wires == []
    await trio.sleep(SCAN_S)
    assert [one.ip for one in lan.wires] == [IP]
    nursery.cancel_scope.cancel()


async def test_where_it_can_not_be_spoken_it_says_why(nursery, autojump_clock):
    class Closed(Lan):
        def open(self, ip):
            raise OSError(98, "Address already in use")

    a = Node(Closed(), IP, A)
    nursery.start_soon(a.mdns.run)
    await trio.sleep(1)
    assert a.mdns.state == f"it can't be spoken here: {IP}: Address already in use"
    assert await a.mdns.look(1) == 0
    nursery.cancel_scope.cancel()
