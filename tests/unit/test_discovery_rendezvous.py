# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes meet at a point; neither it nor those who come there can do much with it."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from peer_books import Clock
from peer_streams import KEYS, A, B, C, pair

from actors.errors import PeerUnreachableError
from actors.p2p.peer_registry.discovery.candidates import candidate
from actors.p2p.peer_registry.discovery.rendezvous import ANSWER_BYTES, ASK_S, TTL_S, Rendezvous, candidates
from actors.p2p.peer_registry.discovery.rendezvous_messages import (
    MOST_ADDRESSES,
    MOST_REGISTRATIONS,
    Discover,
    Discovered,
    Register,
    Registered,
    Status,
    Unregister,
    decode,
    encode,
)
from actors.p2p.peer_registry.discovery.rendezvous_point import (
    IDLE_S,
    LEAST_TTL_S,
    MESSAGE_BYTES,
    MOST,
    MOST_OF_NEIGHBOUR,
    MOST_OF_PEER,
    MOST_PLACES,
    MOST_TTL_S,
    Registrations,
    RendezvousPoint,
)
from actors.p2p.peer_registry.hardening import stand_ins
from actors.p2p.peer_registry.prefixed import read_message, with_length
from actors.p2p.peer_registry.stream import StreamBrokenError

stand_ins.install()

D, E = sorted(KEYS)[3:5]
PLACE = "/ip4/192.0.2.1/tcp/4001"
FROM = "/ip4/198.51.100.1/tcp/50000"
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def peer(number):
    return "12D3KooW" + "".join(DIGITS[number // 58**k % 58] for k in range(44))


def said(peer_id=A, namespace="x", places=(PLACE,), ttl_s=7200):
    return Register(namespace=namespace, peer_id=peer_id, addresses=list(places), ttl_s=ttl_s)


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        said(),
        Registered(status=0, text="fine", ttl_s=7200),
        Unregister(namespace="x", peer_id=A),
        Discover(namespace="x", most=7, cookie=b"12345678"),
        Discovered(status=0, registrations=[said(), said(B, places=[])], cookie=b"1"),
    ],
)
def test_a_message_is_read_as_it_was_sent(message):
    assert decode(encode(message)) == message


def test_of_a_long_message_only_so_much_is_kept():
    many = Discovered(status=0, registrations=[said(places=[PLACE] * 40)] * 200)
    read = decode(encode(many))
    assert len(read.registrations) == MOST_REGISTRATIONS
    assert len(read.registrations[0].addresses) == MOST_ADDRESSES


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_none(data):
    with contextlib.suppress(ValueError):
        decode(data)


async def test_lengths_come_first_and_have_a_bound():
    for size in (1, 127, 128, 300, 70_000):
        left, right = pair()
        await left.write(with_length(b"x" * size))
        await left.finish()
        assert len(await read_message(right, 70_000)) == size
        assert await read_message(right, 70_000) is None


@pytest.mark.parametrize("data", [b"\x00", b"\xff\xff\xff\xff\x01", b"\x80", b"\x05abc", b"\x05", b"\x65" + b"x" * 101])
async def test_a_length_that_makes_no_sense_breaks_the_stream(data):
    left, right = pair()
    await left.write(data)
    await left.finish()
    with pytest.raises(StreamBrokenError):
        await read_message(right, 100)


# --- the point -------------------------------------------------------------------------------------------------------


class Book:
    """Registrations, on a clock."""

    def __init__(self):
        self.clock = Clock(0.0)
        self.registrations = Registrations(self.clock)

    def register(self, peer_id=A, address=FROM, **more):
        return self.registrations.answer(said(peer_id, **more), peer_id, address).status

    def named(self, namespace="x", most=0, cookie=b""):
        return self.registrations.answer(Discover(namespace=namespace, most=most, cookie=cookie), B, FROM)

    def ids(self, **more):
        return [one.peer_id for one in self.named(**more).registrations]


def test_who_registers_is_named_to_those_who_ask_for_that_name():
    book = Book()
    assert book.register(ttl_s=7200) == Status.OK
    assert book.named().registrations == [said(ttl_s=7201)]
    assert book.ids(namespace="y") == []


def test_only_its_own_peer_can_register_or_remove_itself():
    book = Book()
    assert book.registrations.answer(said(A), B, FROM).status == Status.NOT_AUTHORIZED
    book.register(A)
    assert book.registrations.answer(Unregister(namespace="x", peer_id=A), B, FROM) is None
    assert book.ids() == [A]
    book.registrations.answer(Unregister(namespace="x", peer_id=A), A, FROM)
    assert len(book.registrations) == 0


def test_a_registration_ends_with_its_time_and_not_before():
    book = Book()
    book.register(ttl_s=LEAST_TTL_S)
    book.clock.now += LEAST_TTL_S - 1
    assert book.ids() == [A]
    book.clock.now += 1
    assert book.ids() == []
    book.registrations.sweep()
    assert len(book.registrations) == 0


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"namespace": ""}, Status.INVALID_NAMESPACE),
        ({"namespace": "x" * 256}, Status.INVALID_NAMESPACE),
        ({"ttl_s": LEAST_TTL_S - 1}, Status.INVALID_TTL),
        ({"ttl_s": MOST_TTL_S + 1}, Status.INVALID_TTL),
        ({"ttl_s": -1}, Status.INVALID_TTL),
        ({"places": []}, Status.INVALID_PEER),
        ({"places": ["/ip4/192.0.2.1/udp/1/quic-v1"]}, Status.INVALID_PEER),
    ],
)
def test_what_can_not_be_kept_is_refused(wrong, status):
    book = Book()
    assert book.register(**wrong) == status
    assert len(book.registrations) == 0


def test_of_one_peer_and_of_one_address_only_so_many_are_kept():
    book = Book()
    names = [str(n) for n in range(MOST_OF_PEER + 1)]
    assert [book.register(namespace=one) for one in names] == [Status.OK] * MOST_OF_PEER + [Status.UNAVAILABLE]
    assert book.register(namespace=names[0]) == Status.OK, "it is only renewed"
    kept = [book.register(peer(n)) for n in range(100)]
    assert kept.count(Status.OK) == MOST_OF_NEIGHBOUR - MOST_OF_PEER
    assert book.register(B, address="/ip4/198.51.100.2/tcp/1") == Status.OK


def test_in_all_only_so_many_are_kept_until_some_have_ended():
    book = Book()
    statuses = [book.register(peer(n), f"/ip4/10.0.{n // 60}.1/tcp/1", ttl_s=200) for n in range(MOST + 5)]
    assert statuses.count(Status.OK) == MOST
    book.clock.now += 201
    assert book.register(B) == Status.OK
    assert len(book.registrations) == 1


def test_of_one_registration_only_so_many_addresses_are_kept():
    book = Book()
    book.register(places=[f"/ip4/192.0.2.{n}/tcp/1" for n in range(1, 17)])
    assert len(book.named().registrations[0].addresses) == MOST_PLACES


def test_they_are_told_page_by_page_and_a_cookie_goes_on_where_the_page_ended():
    book = Book()
    ids = [peer(n) for n in range(5)]
    for one in ids:
        book.register(one)
    first = book.named(most=3)
    assert [one.peer_id for one in first.registrations] == ids[:3]
    assert book.ids(cookie=first.cookie) == ids[3:]
    assert book.ids(cookie=book.named().cookie) == []
    assert book.named(cookie=b"x").status == Status.INVALID_COOKIE


def test_the_answer_to_the_greediest_question_fits():
    book = Book()
    for n in range(300):
        places = [f"/ip6/2001:db8:aaaa:bbbb:cccc:dddd:eeee:{k}/tcp/65535" for k in range(MOST_PLACES)]
        book.register(peer(n), f"/ip4/10.0.{n // 60}.1/tcp/1", places=places)
    answer = book.named(most=10**9)
    assert len(answer.registrations) == MOST_REGISTRATIONS
    assert len(encode(answer)) < ANSWER_BYTES


# --- both over streams -----------------------------------------------------------------------------------------------


class World:
    """A point D, and nodes that go there."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.bans = []
        self.point = RendezvousPoint(lambda peer_id, reason: self.bans.append((peer_id, reason)))
        self.serve = self.point.serve
        self.away = False
        self.opened = 0

    def node(self, *arguments, **more):
        return Visitor(self, *arguments, **more)


class Visitor:
    def __init__(self, world, peer_id, places=(PLACE,), via=f"{PLACE}/p2p/{D}", every_s=60.0):
        self.world, self.peer_id, self.places, self.via = world, peer_id, list(places), via
        self.found = {}
        points = [candidate(f"{PLACE}/p2p/{D}")]
        self.way = Rendezvous(self, points, self.take, namespace="greenroom", every_s=every_s)

    def take(self, way, candidates):
        new = {one.peer_id for one in candidates} - self.found.keys()
        for one in candidates:
            self.found[one.peer_id] = one.place
        return len(new)

    async def announced(self):
        return self.places

    async def reach(self, peer_id, places, timeout_s):
        await trio.lowlevel.checkpoint()
        if self.world.away:
            raise PeerUnreachableError("it is away")
        return self.via

    async def open_stream(self, peer_id, protocol, timeout_s):
        mine, its = pair(self.peer_id, D)
        self.world.opened += 1
        self.world.nursery.start_soon(self._serve, its)
        return mine

    async def _serve(self, stream):
        try:
            await self.world.serve(stream)
            await stream.finish()
        except StreamBrokenError:
            await stream.reset()


@pytest.fixture
async def world(nursery):
    yield World(nursery)
    nursery.cancel_scope.cancel()


async def test_two_nodes_meet(world, autojump_clock):
    a, b = world.node(A), world.node(B, ["/ip4/192.0.2.2/tcp/4001"])
    assert await a.way.look() == 1, "itself, which others leave out"
    assert await b.way.look() == 2
    assert await a.way.look() == 1
    assert a.found[B] == "/ip4/192.0.2.2/tcp/4001"
    assert (a.way.state, world.bans) == ("ok", [])


async def test_it_registers_again_before_its_time_is_over_and_when_it_has_moved(world, autojump_clock, nursery):
    a = world.node(A)
    nursery.start_soon(a.way.run)
    await trio.sleep(10 * TTL_S)
    world.point.registrations.sweep()
    assert len(world.point.registrations) == 1
    a.places = ["/ip4/192.0.2.9/tcp/1"]
    await trio.sleep(61)
    asked = world.point.registrations.answer(Discover(namespace="greenroom", most=0), B, FROM)
    assert asked.registrations[0].addresses == a.places


async def test_who_listens_nowhere_only_asks(world, autojump_clock):
    a, b = world.node(A), world.node(B, [])
    await a.way.look()
    assert await b.way.look() == 1
    assert await a.way.look() == 0
    assert len(world.point.registrations) == 1


async def test_a_loopback_address_is_told_only_on_this_machine(world, autojump_clock):
    far = world.node(A, ["/ip4/127.0.0.1/tcp/1"])
    near = world.node(B, ["/ip4/127.0.0.1/tcp/1"], via="/ip4/127.0.0.1/tcp/2")
    await far.way.look()
    assert len(world.point.registrations) == 0
    await near.way.look()
    assert len(world.point.registrations) == 1
    await far.way.look()
    assert far.found == {}


@pytest.mark.parametrize(
    ("address", "far", "near"),
    [
        ("/ip4/192.0.2.1/tcp/1", 1, 1),
        ("/ip4/127.0.0.1/tcp/1", 0, 1),
        ("/ip4/169.254.0.1/tcp/1", 0, 0),
        ("/ip6/fe80::1/tcp/1", 0, 0),
        ("/dns4/victim.example/tcp/1", 0, 0),
        ("/ip4/192.0.2.1/udp/1", 0, 0),
    ],
)
def test_only_addresses_that_may_be_dialled_count(address, far, near):
    assert len(candidates([said(places=[address])], on_this_machine=False)) == far
    assert len(candidates([said(places=[address])], on_this_machine=True)) == near


async def test_all_of_many_are_found_page_by_page(world, autojump_clock):
    for n in range(150):
        one = said(peer(n), "greenroom")
        assert world.point.registrations.answer(one, peer(n), f"/ip4/10.0.{n // 60}.1/tcp/1").status == Status.OK
    b = world.node(B, [])
    assert await b.way.look() == MOST_REGISTRATIONS
    assert await b.way.look() == 50
    assert await b.way.look() == 0, "from the first one again"


async def test_a_point_that_is_away_is_named_and_asked_again(world, autojump_clock, nursery):
    world.away = True
    a = world.node(A)
    nursery.start_soon(a.way.run)
    await trio.sleep(1)
    assert a.way.state == f"{D}: it is away"
    world.away = False
    await trio.sleep(70)
    assert a.way.state == "ok"


async def test_a_point_that_is_silent_costs_its_time_and_nothing_more(world, autojump_clock):
    world.serve = lambda stream: trio.sleep(10_000)
    a = world.node(A)
    began = trio.current_time()
    assert await a.way.look(100) == 0
    assert trio.current_time() - began == pytest.approx(ASK_S)
    assert "no answer" in a.way.state


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (encode(Registered(status=Status.UNAVAILABLE, text="full")), "it refused: 400 full"),
        (encode(Discovered(status=0)), "does not fit"),
        (b"\xff\xff", "no message"),
        (bytes(ANSWER_BYTES + 1), "a message has"),
        (b"", "without an answer"),
    ],
)
async def test_what_a_point_answers_wrongly_is_told(world, autojump_clock, answer, state):
    async def serve(stream):
        await stream.read()
        if answer:
            await stream.write(with_length(answer))

    world.serve = serve
    a = world.node(A)
    assert await a.way.look() == 0
    assert state in a.way.state


async def test_who_sends_no_message_is_told_of_and_cut_off(world, autojump_clock):
    mine, its = pair(C, D)
    await mine.write(with_length(b"\xff\xff\xff"))
    await world.point.serve(its)
    assert [one for one, _ in world.bans] == [C]


async def test_who_asks_for_more_than_there_is_here_is_only_left_alone(world, autojump_clock):
    """To be told of new ones at once is a later addition to the protocol."""
    mine, its = pair(C, D)
    await mine.write(with_length(b"\x08\x64"))
    await world.point.serve(its)
    assert world.bans == []


async def test_an_answer_that_nobody_asked_for_breaks_the_protocol(world, autojump_clock):
    mine, its = pair(C, D)
    await mine.write(with_length(encode(Registered(status=0))))
    await world.point.serve(its)
    assert world.bans == [(C, "that is no request")]


async def test_a_message_that_is_too_long_is_not_read(world, autojump_clock):
    mine, its = pair(C, D)
    await mine.write(with_length(bytes(MESSAGE_BYTES + 1)))
    with pytest.raises(StreamBrokenError):
        await world.point.serve(its)


async def test_a_stream_on_which_nothing_comes_is_ended(world, autojump_clock):
    _, its = pair(C, D)
    began = trio.current_time()
    await world.point.serve(its)
    assert trio.current_time() - began == pytest.approx(IDLE_S)


async def test_many_questions_are_answered_slowly_and_on_few_streams(world, autojump_clock, nursery):
    ends = [pair(C, D) for _ in range(3)]
    question = with_length(encode(Discover(namespace="x", most=1)))
    for mine, its in ends[:2]:
        nursery.start_soon(world.point.serve, its)
        await mine.write(question * 100)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(1):
        await world.point.serve(ends[2][1])  # there is no room for a third one
    began, answers = trio.current_time(), 0
    with trio.move_on_after(60):
        while await read_message(ends[0][0], 1000):
            answers += 1
    assert trio.current_time() - began == pytest.approx(60, abs=1)
    assert answers <= 20 + 61


async def test_who_does_not_read_his_answers_is_cut_off(world, autojump_clock):
    mine, its = pair(C, D)
    its.stall()
    await mine.write(with_length(encode(Discover(namespace="x", most=1))))
    with trio.fail_after(2 * IDLE_S + 1):
        await world.point.serve(its)
