# SPDX-License-Identifier: AGPL-3.0-or-later
"""The parts of a host that need no network."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import msgspec
import pytest
import trio

from actors.p2p.peer_registry import hardening
from actors.p2p.peer_registry.background import Background, TookTooLongError
from actors.p2p.peer_registry.hardening import closing, stand_ins
from actors.p2p.peer_registry.hardening.addresses import Shares, owner
from actors.p2p.peer_registry.hardening.inbound import _plain
from actors.p2p.peer_registry.hardening.limits import FLOOD, INBOUND_STREAMS, MOST_UNREAD, TooMuchError
from actors.p2p.peer_registry.hardening.receiving import Streams, Unread
from actors.p2p.peer_registry.host_parts import addresses
from actors.p2p.peer_registry.host_protocols import ping, read_said, serve_ping
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.stream import StreamBrokenError


class Reading:
    """A stream of which there is only this to read; what is written to it is kept."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)
        self.written = b""

    async def read(self, most=65536):
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            return b""
        piece, self._pieces[0] = self._pieces[0][:most], self._pieces[0][most:]
        if not self._pieces[0]:
            del self._pieces[0]
        return piece

    async def write(self, data):
        await trio.lowlevel.checkpoint()
        self.written += data


# Rules


def test_the_default_rules_make_sense():
    HostRules().check()


@pytest.mark.parametrize(
    "change",
    [
        {"max_inbound": 256},
        {"max_inbound": 0},
        {"max_streams": 256 * 8},
        {"negotiate_s": 0},
    ],
)
def test_rules_that_contradict_each_other_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        msgspec.structs.replace(HostRules(), **change).check()


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001"])
def test_concrete_addresses_can_be_listened_on(address):
    assert [str(one) for one in addresses((address,))] == [address]


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:4001", "/dns4/example.org/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1/ws"],
)
def test_nothing_else_can_be_listened_on(address):
    with pytest.raises(ValueError, match=r"multiaddr|listened"):
        addresses((address,))


# What others may make us keep


def test_unread_bytes_have_a_limit_that_ends_the_connection():
    unread = Unread()
    unread.extend(bytes(MOST_UNREAD))
    with pytest.raises(trio.TooSlowError):
        unread.extend(b"x")
    del unread[:1]
    unread.extend(b"x")


def test_only_the_streams_of_the_other_side_are_limited():
    muxed = SimpleNamespace()
    streams = Streams(muxed)
    theirs, ours = SimpleNamespace(is_initiator=False), SimpleNamespace(is_initiator=True)
    most = FLOOD * INBOUND_STREAMS
    for number in range(most):
        streams[2 * number] = theirs
        streams[2 * number + 1] = ours
    with pytest.raises(TooMuchError):
        streams[-1] = theirs
    del streams[0]
    streams[-1] = theirs
    muxed.swarm = SimpleNamespace(greenroom_inbound_streams=2 * most)
    streams[-2] = theirs


def test_an_address_has_a_share_and_gives_it_back():
    shares = Shares(connections=2, handshakes=1)
    with shares.one("connection", "192.0.2.1") as first, shares.one("connection", "192.0.2.1") as second:
        with shares.one("connection", "192.0.2.1") as third:
            assert (first, second, third) == (True, True, False)
        with shares.one("connection", "192.0.2.2") as other, shares.one("handshake", "192.0.2.1") as handshake:
            assert (other, handshake) == (True, True)
    assert len(shares) == 0


def test_a_network_of_ipv6_is_one_owner():
    assert owner("2001:db8::1") == owner("2001:db8::ffff:1") != owner("2001:db8:0:1::1")
    assert owner("192.0.2.1") != owner("192.0.2.2")
    assert owner("no address") == ""


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 1)),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::1", 1)),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::1", 1)),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 1)),
    ],
)
def test_a_peers_address_is_written_in_one_way(name, plain):
    assert _plain(name) == plain


def test_the_socket_is_found_under_whatever_lies_on_it():
    layers = SimpleNamespace(conn=SimpleNamespace(read_writer=SimpleNamespace(read_write_closer=None)))
    assert closing._socket(layers) is None
    endless = SimpleNamespace()
    endless.conn = endless
    assert closing._socket(endless) is None


# Operations that outlive their callers


async def test_an_operation_ends_though_nobody_waits_any_more(autojump_clock):
    late = []
    async with trio.open_nursery() as nursery:
        background = Background(nursery)

        async def work():
            await trio.sleep(10)
            return "result"

        async def keep(result):
            late.append(result)

        with pytest.raises(TookTooLongError):
            await background.result(work, 1, late=keep)
        assert background.running == 1
        with trio.move_on_after(1):
            await background.result(work, 100, late=keep)
        assert not await background.run(work, 1)
    assert late == ["result", "result"]
    assert background.running == 0


async def test_what_an_operation_returns_or_raises_reaches_its_caller(autojump_clock):
    async with trio.open_nursery() as nursery:
        background = Background(nursery)

        async def fail():
            await trio.sleep(1)
            raise KeyError("why")

        async def work():
            await trio.sleep(1)
            return 1

        with pytest.raises(KeyError):
            await background.result(fail, 10)
        assert await background.result(work, 10) == 1
        assert await background.run(fail, 10)
        background.start(fail)


async def test_a_result_in_the_moment_of_the_callers_end_is_not_lost(autojump_clock):
    late = []
    async with trio.open_nursery() as nursery:
        background = Background(nursery)
        scope = trio.CancelScope()

        async def work():
            await trio.sleep(1)
            scope.cancel()
            return "result"

        async def keep(result):
            await trio.lowlevel.checkpoint()
            late.append(result)

        fetched = []
        with scope:
            fetched.append(await background.result(work, 10, late=keep))
    assert fetched + late == ["result"]


# Ping, and what a peer says of itself


async def test_a_ping_is_answered_piece_by_piece():
    stream = Reading(bytes(20), bytes(44))
    await serve_ping(stream)
    assert stream.written == bytes(64)


async def test_an_idle_ping_stream_is_ended(autojump_clock):
    class Silent:
        async def read(self, _most):
            await trio.sleep_forever()

    await serve_ping(Silent())


async def test_a_wrong_answer_to_a_ping_is_none():
    with pytest.raises(StreamBrokenError):
        await ping(Reading(bytes(32)))
    with pytest.raises(StreamBrokenError):
        await ping(Reading(bytes(31)))


@pytest.mark.parametrize("message", [b"", b"\x00", b"\xff\xff\x7f", b"\x81\x80\x04", b"\xff\xff\xff\xff\x01"])
async def test_a_message_without_a_sensible_length_is_refused(message):
    with pytest.raises(StreamBrokenError):
        await read_said(Reading(message))


# libp2p itself


def test_the_stand_ins_leave_what_is_installed_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "trio_typing", real := object())
    stand_ins.install()
    assert sys.modules["trio_typing"] is real


def test_another_release_of_libp2p_is_refused(monkeypatch):
    monkeypatch.setattr(hardening, "_applied", set())
    monkeypatch.setattr(hardening, "VERSION", "0.0.0")
    with pytest.raises(RuntimeError, match=r"0\.0\.0"):
        hardening.apply()
