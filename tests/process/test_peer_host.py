# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hosts on loopback: what they promise to the code above them."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_victims import Deaf, muxed

from actors.errors import InvalidArgumentsError, PeerIdMismatchError, PeerUnreachableError, UnavailableError
from actors.p2p.identity import peer_id
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.kept_port import keep, kept, open_host_again
from actors.p2p.peer_registry.stream import StreamBrokenError

pytestmark = pytest.mark.process

ECHO = "/greenroom-test/echo/1"
SERVER = HostRules()
DIALLER = HostRules(listen=())


async def echo(stream):
    while data := await stream.read():
        await stream.write(data)


@asynccontextmanager
async def two(server_rules=SERVER, client_rules=DIALLER):
    """A server that echoes and a client that knows where it is."""
    with trio.fail_after(20):
        async with (
            open_host(server_rules, Ed25519PrivateKey.generate()) as server,
            open_host(client_rules, Ed25519PrivateKey.generate()) as client,
        ):
            server.serve(ECHO, echo)
            yield server, client


async def test_a_host_has_the_peer_id_of_its_key():
    key = Ed25519PrivateKey.generate()
    with trio.fail_after(20):
        async with open_host(HostRules(), key) as host:
            assert host.peer_id == peer_id(key)
            assert [address.rpartition("/p2p/")[2] for address in host.addresses] == [host.peer_id]


async def test_bytes_come_back_over_a_stream_and_its_end_too():
    async with two() as (server, client):
        await client.dial(server.addresses[0], server.peer_id, 5)
        stream = await client.open_stream(server.peer_id, ECHO, 5)
        await stream.write(b"hello")
        assert await stream.read() == b"hello"
        await stream.finish()
        assert await stream.read() == b""


@pytest.mark.parametrize("loopback", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"])
async def test_both_sides_know_who_and_where_the_other_is(loopback):
    async with two(HostRules(listen=(loopback,))) as (server, client):
        heard = []
        server.on_connected = heard.append
        await client.dial(server.addresses[0], server.peer_id, 5)
        stream = await client.open_stream(server.peer_id, ECHO, 5)
        await stream.write(b"x")
        await stream.read()
        assert (stream.peer_id, stream.inbound) == (server.peer_id, False)
        assert server.addresses[0] == f"{stream.address}/p2p/{server.peer_id}"
        assert heard == [client.peer_id]
        (view,) = server.connections()
        assert (view.peer_id, view.inbound) == (client.peer_id, True)
        assert view.address.startswith(loopback.removesuffix("0"))


@pytest.mark.parametrize("kind", ["dns", "dns4"])
async def test_a_name_can_be_dialled(kind):
    async with two() as (server, client):
        port = server.addresses[0].split("/")[4]
        await client.dial(f"/{kind}/localhost/tcp/{port}", server.peer_id, 5)
        assert client.connections()[0].peer_id == server.peer_id
        with pytest.raises(PeerUnreachableError):
            await client.dial(f"/{kind}/nobody.invalid/tcp/{port}", peer_id(Ed25519PrivateKey.generate()), 5)


async def test_a_lost_connection_is_told_and_can_be_made_again():
    async with two() as (server, client):
        lost = trio.Event()
        client.on_disconnected = lambda _: lost.set()
        await client.dial(server.addresses[0], server.peer_id, 5)
        await server.disconnect(client.peer_id)
        await lost.wait()
        assert client.connections() == []
        with pytest.raises(PeerUnreachableError):
            await client.open_stream(server.peer_id, ECHO, 5)
        await client.dial(server.addresses[0], server.peer_id, 5)
        assert 0 < await client.ping(server.peer_id, 5) < 5


async def test_another_peer_at_the_address_is_told_apart_from_nobody():
    other = peer_id(Ed25519PrivateKey.generate())
    async with two() as (server, client):
        address = server.addresses[0].partition("/p2p/")[0]
        with pytest.raises(PeerIdMismatchError):
            await client.dial(address, other, 5)
        with pytest.raises(PeerIdMismatchError):
            await client.dial(server.addresses[0], other, 5)
        with pytest.raises(PeerUnreachableError):
            await client.dial("/ip4/127.0.0.1/tcp/1", other, 5)
        for nowhere in ("nowhere", "", "/"):
            with pytest.raises(InvalidArgumentsError):
                await client.dial(nowhere, other, 5)


async def test_an_unknown_protocol_is_told_apart_from_an_unreachable_peer():
    async with two() as (server, client):
        await client.dial(server.addresses[0], server.peer_id, 5)
        with pytest.raises(UnavailableError):
            await client.open_stream(server.peer_id, "/unheard/of", 5)


async def test_peers_say_what_they_are():
    async with two() as (server, client):
        said = trio.Event()
        client.on_identified = lambda _: said.set()
        await client.dial(server.addresses[0], server.peer_id, 5)
        await said.wait()
        assert ECHO in client.protocols(server.peer_id)
        assert client.agent(server.peer_id) == "greenroom"
        assert [
            f"{address}/p2p/{server.peer_id}" for address in client.says(server.peer_id).addresses
        ] == server.addresses
        await client.disconnect(server.peer_id)
        assert client.says(server.peer_id) is None


async def test_peers_are_told_the_addresses_that_are_announced():
    announced = "/dns4/peer.example.org/tcp/4001"
    async with two(HostRules(announce=(announced,))) as (server, client):
        said = trio.Event()
        client.on_identified = lambda _: said.set()
        await client.dial(server.addresses[0], server.peer_id, 5)
        await said.wait()
        assert client.says(server.peer_id).addresses == (announced,)
        assert server.announced == [f"{announced}/p2p/{server.peer_id}"]


async def test_what_a_stream_is_cancelled_in_harms_nobody():
    """Dials and openings that are given up leave nothing behind."""
    async with two() as (server, client):
        start = server.counters()
        for number in range(20):
            with trio.move_on_after(0.001 * number):
                await client.dial(server.addresses[0], server.peer_id, 5)
        await client.dial(server.addresses[0], server.peer_id, 5)
        for number in range(20):
            with trio.move_on_after(0.0005 * number):
                await (await client.open_stream(server.peer_id, ECHO, 5)).reset()
            while server.counters().streams:
                await trio.sleep(0.001)
        with pytest.raises(PeerUnreachableError):
            await client.open_stream(server.peer_id, ECHO, 0)
        while server.counters().streams:
            await trio.sleep(0.01)
        assert 0 < await client.ping(server.peer_id, 5) < 5
        await client.disconnect(server.peer_id)
        while server.counters() != start or server.connections():
            await trio.sleep(0.01)


async def test_a_frozen_peer_holds_nobody_up():
    """It reads nothing from its socket any more, which is full."""
    async with two() as (server, client):
        await client.dial(server.addresses[0], server.peer_id, 5)
        full, other = [await client.open_stream(server.peer_id, ECHO, 5) for _ in range(2)]
        deaf = Deaf(muxed(server))
        full._stream.muxed_stream.send_window = 1 << 30
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_much, full)
            await trio.sleep(0.5)
            with pytest.raises(PeerUnreachableError):
                await client.open_stream(server.peer_id, ECHO, 0.1)
            begin = trio.current_time()
            await other.reset()
            assert trio.current_time() - begin < 2.5
            begin = trio.current_time()
            await client.disconnect(server.peer_id)
            assert trio.current_time() - begin < 2.5
        assert client.connections() == []
        deaf.hear()


async def write_much(stream):
    with pytest.raises(StreamBrokenError):
        await stream.write(bytes(64 << 20))


async def test_a_stream_that_was_reset_is_broken_on_both_sides():
    ended = []

    async def serve(stream):
        with pytest.raises(StreamBrokenError):
            await stream.read()
        ended.append(stream.peer_id)

    async with two() as (server, client):
        server.serve("/served/1", serve)
        await client.dial(server.addresses[0], server.peer_id, 5)
        stream = await client.open_stream(server.peer_id, "/served/1", 5)
        await stream.reset()
        await stream.reset()
        with pytest.raises(StreamBrokenError):
            await stream.write(b"x")
        while not ended:
            await trio.sleep(0.01)


async def test_what_was_written_before_the_end_arrives():
    """Also when the handler returns at once, and when there is more than a window of it."""
    much = 3 << 20

    async def answer(stream):
        await stream.write(bytes(much))

    async with two() as (server, client):
        server.serve("/answer/1", answer)
        await client.dial(server.addresses[0], server.peer_id, 5)
        stream = await client.open_stream(server.peer_id, "/answer/1", 5)
        got = 0
        while data := await stream.read():
            got += len(data)
        assert got == much


async def test_a_port_in_use_is_an_error():
    async with two() as (server, _):
        taken = server.addresses[0].partition("/p2p/")[0]
        with pytest.raises(UnavailableError):
            async with open_host(HostRules(listen=(taken,)), Ed25519PrivateKey.generate()):
                pass


async def test_a_host_at_any_port_comes_back_at_the_same_one(tmp_path):
    key, ports = Ed25519PrivateKey.generate(), []
    with trio.fail_after(20):
        for _ in range(2):
            async with open_host_again(HostRules(), key, tmp_path) as host:
                ports.append(port_of(host))
    assert ports[0] == ports[1]


async def test_a_host_whose_port_was_taken_gets_another_and_keeps_that_one(tmp_path):
    key = Ed25519PrivateKey.generate()
    with trio.fail_after(20), socket.create_server(("127.0.0.1", 0)) as other:
        keep(tmp_path / "peer.port", other.getsockname()[1])
        async with open_host_again(HostRules(), key, tmp_path) as host:
            assert port_of(host) == kept(tmp_path / "peer.port") != other.getsockname()[1]
        with pytest.raises(UnavailableError, match="can't listen"):
            async with open_host_again(
                HostRules(listen=(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}",)), key, tmp_path
            ):
                pass


async def test_what_fails_inside_of_a_host_is_no_reason_for_a_second_one(tmp_path):
    with trio.fail_after(20), pytest.raises(UnavailableError, match="inside"):
        async with open_host_again(HostRules(), Ed25519PrivateKey.generate(), tmp_path):
            raise UnavailableError("inside")


def port_of(host):
    return int(host.addresses[0].split("/")[4])
