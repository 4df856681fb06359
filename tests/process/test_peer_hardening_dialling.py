# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a host dials, whom it believes, what it says to the log, and how it ends."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_victims import connected, echoes, peer, victim

from actors.errors import PeerUnreachableError
from actors.p2p.identity import peer_id
from actors.p2p.peer_registry import hardening, host_parts
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.host_rules import HostRules

pytestmark = pytest.mark.process

NOBODY = "/ip4/127.0.0.1/tcp/1"


@pytest.fixture(params=["patched", "unpatched"])
def patched(request):
    return request.param == "patched"


async def test_b9_a_dial_ends_when_it_has_succeeded(patched, tmp_path):
    with trio.fail_after(20):
        async with (
            victim(tmp_path, without=() if patched else ("B9",)) as target,
            open_host(HostRules(), Ed25519PrivateKey.generate()) as other,
        ):
            address = other.addresses[0].partition("/p2p/")[0]
            took = await target.ask("connect", address, other.peer_id)
            assert (took < 0.25) == patched


async def test_b10_a_peer_that_was_down_can_be_dialled_again(patched, tmp_path):
    with trio.fail_after(20):
        async with (
            victim(tmp_path, without=() if patched else ("B10",)) as target,
            open_host(HostRules(), Ed25519PrivateKey.generate()) as other,
        ):
            with pytest.raises(AssertionError):
                await target.ask("connect", NOBODY, other.peer_id)
            await trio.sleep(1.1)
            address = other.addresses[0].partition("/p2p/")[0]
            try:
                await target.ask("connect", address, other.peer_id)
                reached = True
            except AssertionError:
                reached = False
            assert reached == patched


async def test_b15_who_only_speaks_plaintext_is_refused(tmp_path, monkeypatch):
    """In both directions. With libp2p's own defaults it would be believed whoever it says it is."""
    hardening.apply()
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport

    new_host = host_parts.new_host

    def plain(**settings):
        return new_host(**{**settings, "sec_opt": {PLAINTEXT_PROTOCOL_ID: InsecureTransport(settings["key_pair"])}})

    with trio.fail_after(20):
        async with victim(tmp_path) as target:
            monkeypatch.setattr(host_parts, "new_host", plain)
            async with (
                open_host(HostRules(), Ed25519PrivateKey.generate()) as liar,
                open_host(HostRules(), Ed25519PrivateKey.generate()) as fool,
            ):
                await liar.dial(fool.addresses[0], fool.peer_id, 5)
                with pytest.raises(PeerUnreachableError):
                    await liar.dial(target.address, target.peer_id, 5)
                with pytest.raises(AssertionError, match="PeerUnreachableError"):
                    await target.ask("dial", liar.addresses[0], liar.peer_id)
                assert await target.ask("views") == []
            monkeypatch.setattr(host_parts, "new_host", new_host)
            assert await echoes(target)


async def test_b16_only_we_decide_whom_to_dial(tmp_path):
    """A peer that is known, but not connected, is left alone."""
    dialled = []

    async def count(stream):
        dialled.append(stream)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, count, [listener])
            port = listener.socket.getsockname()[1]
            async with victim(tmp_path) as target, peer() as host:
                from libp2p.peer.id import ID
                from multiaddr import Multiaddr

                stranger = ID.from_string(peer_id(Ed25519PrivateKey.generate()))
                host._network.peerstore.add_addr(stranger, Multiaddr(f"/ip4/127.0.0.1/tcp/{port}"), 3600)
                await host.dial(target.address, target.peer_id, 5)
                await host.disconnect(target.peer_id)
                connector = host._network.auto_connector
                await connector.maybe_connect()
                await trio.sleep(0.3)
                assert dialled == []
                with trio.move_on_after(1):
                    await type(connector).maybe_connect(connector)
                assert dialled != [], "what was replaced would not have dialled either"
            nursery.cancel_scope.cancel()


async def test_b17_b20_a_host_that_ends_tells_all_its_peers_at_once(tmp_path):
    """libp2p's own way leaves them without a word, or takes 0.2 seconds for each."""
    number = 20
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(peer()) for _ in range(number)]
            lost = []
            async with open_host(HostRules(), Ed25519PrivateKey.generate()) as server:
                for one in peers:
                    await one.dial(server.addresses[0], server.peer_id, 5)
                    one.on_disconnected = lost.append
                begin = trio.current_time()
            took = trio.current_time() - begin
            while len(lost) < number:
                await trio.sleep(0.01)
            assert took < 0.2 * number / 2


async def test_b30_nothing_of_libp2p_reaches_the_log(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B30",)) as target:
            async with connected(target):
                pass
            assert (await target.ask("log_handlers") == 0) == patched
