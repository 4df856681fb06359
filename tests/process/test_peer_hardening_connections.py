# SPDX-License-Identifier: AGPL-3.0-or-later
"""What whole connections may do to a host. Each fault shows without its patch."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_victim import ECHO, SPEW
from peer_victims import (
    WINDOW_UPDATE,
    Deaf,
    at_rest,
    closes,
    connected,
    echoes,
    exactly,
    frame,
    muxed,
    peer,
    send,
    unharmed,
    victim,
)

from actors.errors import PeerUnreachableError
from actors.p2p.peer_registry.host_protocols import MOST_PROTOCOLS, MOST_SAID
from actors.p2p.peer_registry.stream import StreamBrokenError

pytestmark = pytest.mark.process


@pytest.fixture(params=["patched", "unpatched"])
def patched(request):
    return request.param == "patched"


async def test_b4_a_connection_that_has_ended_leaves_its_place_to_others(patched, tmp_path):
    places = 4
    rules = {"max_connections": places, "max_inbound": places - 1}
    with trio.fail_after(30):
        async with victim(tmp_path, without=() if patched else ("B4",), **rules) as target:
            if patched:
                start = await at_rest(target)
            served = 0
            for _ in range(2 * places):
                try:
                    served += await echoes(target)
                except PeerUnreachableError:
                    break
            assert (served == 2 * places) == patched
            if patched:
                await unharmed(target, start)


async def test_b13_a_connection_that_is_denied_takes_no_place(patched, tmp_path):
    """Two connections are allowed per peer, and more are tried."""
    key = Ed25519PrivateKey.generate()
    with trio.fail_after(30):
        async with victim(tmp_path, without=() if patched else ("B13",)) as target:
            start = await at_rest(target)
            async with connected(target, key), connected(target, key):
                for _ in range(4):
                    async with peer(key) as third:
                        # What is denied looks fine to the dialler for a moment.
                        await third.dial(target.address, target.peer_id, 5)
                        assert await closes(muxed(third), 5)
            await trio.sleep(0.5)
            left = (await target.ask("counters"))["connections"] - start["connections"]
            assert (left == 0) == patched
            if patched:
                await unharmed(target, start)


async def test_b12_a_peer_on_ipv6_has_an_address(patched, tmp_path):
    rules = {"listen": ("/ip6/::1/tcp/0",)}
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B12",), **rules) as target, connected(target):
            ((_, address, _),) = await target.ask("wait_views")
            assert address.startswith("/ip6/::1/tcp/") == patched


async def test_b12_a_peer_on_ipv4_is_known_as_such_on_a_socket_for_both(tmp_path):
    """Otherwise a deny list of IPv4 networks could be walked around."""
    with trio.fail_after(20):
        async with victim(tmp_path, listen=("/ip6/::/tcp/0",)) as target, peer() as dialler:
            port = target.address.split("/")[4]
            await dialler.dial(f"/ip4/127.0.0.1/tcp/{port}", target.peer_id, 5)
            ((_, address, _),) = await target.ask("wait_views")
            assert address.startswith("/ip4/127.0.0.1/tcp/")


async def test_b11_a_port_has_one_owner(patched, tmp_path):
    without = () if patched else ("B11",)
    with trio.fail_after(20):
        async with victim(tmp_path, without=without) as first:
            taken = first.address.partition("/p2p/")[0]
            try:
                async with victim(tmp_path, without=without, listen=(taken,)):
                    shared = True
            except EOFError:
                shared = False
            assert shared != patched


async def test_b3_a_write_that_is_cancelled_harms_no_other_stream(patched, tmp_path):
    """The victim's writes stall in the socket, which nobody reads, and are given up there."""
    with trio.fail_after(30):
        async with victim(tmp_path, without=() if patched else ("B3",)) as target:
            start = await at_rest(target)
            async with connected(target) as reader:
                other = await reader.open_stream(target.peer_id, ECHO, 5)
                spewing = await reader.open_stream(target.peer_id, SPEW, 5)
                connection = muxed(reader)
                # A window that can't hold the writes up.
                number = spewing._stream.muxed_stream.stream_id
                await send(connection, frame(WINDOW_UPDATE, 0, number, 256 << 20))
                deaf = Deaf(connection)
                await spewing.write(b"%d" % 300)
                await trio.sleep(1.5)
                deaf.hear()
                works = False
                with trio.move_on_after(3):
                    try:
                        await other.write(b"still there?")
                        works = await exactly(other, 12) == b"still there?"
                    except StreamBrokenError:
                        pass
                assert works == patched
            if patched:
                await unharmed(target, start)


async def test_b3_a_frame_that_gets_nowhere_ends_the_connection(tmp_path):
    """In time; the victim isn't held up by a peer that reads nothing."""
    with trio.fail_after(30):
        async with victim(tmp_path, numbers={"sending.FRAME_S": 0.5}) as target:
            start = await at_rest(target)
            async with connected(target) as reader:
                spewing = await reader.open_stream(target.peer_id, SPEW, 5)
                connection = muxed(reader)
                number = spewing._stream.muxed_stream.stream_id
                await send(connection, frame(WINDOW_UPDATE, 0, number, 256 << 20))
                deaf = Deaf(connection)
                await spewing.write(b"%d" % 300)
                await target.settled(start)
                deaf.hear()


async def test_b8_a_peer_that_answers_no_ping_is_disconnected(patched, tmp_path):
    numbers = {"liveness.PING_EVERY_S": 0.3, "liveness.PING_WITHIN_S": 0.3}
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B8",), numbers=numbers) as target:
            start = await at_rest(target)
            async with connected(target) as frozen:
                deaf = Deaf(muxed(frozen))
                await trio.sleep(2)
                assert (await target.ask("views") == []) == patched
                deaf.hear()
            if patched:
                await unharmed(target, start)


async def test_b8_a_peer_that_answers_stays(tmp_path):
    numbers = {"liveness.PING_EVERY_S": 0.1, "liveness.PING_WITHIN_S": 0.5}
    with trio.fail_after(20):
        async with victim(tmp_path, numbers=numbers) as target, connected(target):
            await trio.sleep(1.5)
            assert len(await target.ask("views")) == 1


async def test_b35_half_handshakes_of_one_address_leave_room_for_others(patched, tmp_path):
    """The attacker opens connections and says nothing."""
    places = 24
    rules = {"max_connections": places, "max_inbound": places - 1, "upgrade_s": 20.0}
    if not patched:
        rules["max_handshakes_per_address"] = 1000
    with trio.fail_after(30):
        async with victim(tmp_path, **rules) as target:
            start = await at_rest(target)
            port = int(target.address.split("/")[4])
            async with AsyncExitStack() as stack:
                for _ in range(2 * places):
                    silent = await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2")
                    await stack.enter_async_context(silent)
                await trio.sleep(0.2)
                try:
                    served = await echoes(target)
                except PeerUnreachableError:
                    served = False
                assert served == patched
            if patched:
                await unharmed(target, start)


async def test_b34_what_a_peer_says_of_itself_is_bounded(tmp_path, monkeypatch):
    from libp2p.identity.identify import identify

    with trio.fail_after(30):
        async with victim(tmp_path) as target:
            start = await at_rest(target)
            async with peer() as talker:
                monkeypatch.setattr(identify, "AGENT_VERSION", "x" * 32_000)
                for number in range(1000):
                    talker.serve(f"/{number}", None)
                await talker.dial(target.address, target.peer_id, 5)
                await target.ask("identified", talker.peer_id)
                protocols, agent = await target.ask("said", talker.peer_id)
                assert len(protocols) == MOST_PROTOCOLS
                assert agent == ""
            async with peer() as talker:
                monkeypatch.setattr(identify, "AGENT_VERSION", "x" * MOST_SAID)
                await talker.dial(target.address, target.peer_id, 5)
                await trio.sleep(0.3)
                assert await target.ask("said", talker.peer_id) == ([], "")
            await unharmed(target, start)
