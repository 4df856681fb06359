# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes that nobody named to each other meet."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import networks
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_trees import peer_tree
from running import started, wait_until

from actors.p2p.peer_registry import hardening
from actors.p2p.peer_registry.discovery.candidates import candidate
from actors.p2p.peer_registry.discovery.rendezvous import Rendezvous
from actors.p2p.peer_registry.discovery.rendezvous_messages import PROTOCOL
from actors.p2p.peer_registry.discovery.rendezvous_point import RendezvousPoint
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.host_rules import HostRules

pytestmark = pytest.mark.process

FEW = {"GREENROOM_P2P__ENABLED": "true", "GREENROOM_RUNTIMES__GENERAL__ENABLED": "false"}
MDNS = {"GREENROOM_P2P__PEER_REGISTRY__DISCOVERY__MDNS": "true"}


@contextmanager
def node(data_dir, network, host, **env):
    listen = {"GREENROOM_P2P__CONNECTIVITY__LISTEN_HOST": host}
    with started(data_dir, env=FEW | listen | env, inside=network.inside) as tree:
        yield tree


def peers(tree):
    return json.loads(tree.run("peers", "list", "--json").stdout)["peers"]


def peer_id(tree):
    return json.loads(tree.run("peers", "id", "--json").stdout)["peer_id"]


def connected(tree):
    return {one["peer_id"]: one for one in peers(tree) if one["status"] == "connected"}


@pytest.mark.skipif(not networks.possible(), reason=networks.IMPOSSIBLE)
@pytest.mark.parametrize("hosts", [("10.77.0.1", "10.77.0.2"), ("0.0.0.0", "0.0.0.0")])
def test_nodes_in_a_local_network_find_each_other(tmp_path, hosts):
    with (
        networks.cable("10.77.0.1", "10.77.0.2") as (here, there),
        node(tmp_path / "a", here, hosts[0], **MDNS) as a,
        node(tmp_path / "b", there, hosts[1], **MDNS) as b,
    ):
        wait_until(lambda: peer_id(b) in connected(a), 30, "b at a")
        wait_until(lambda: peer_id(a) in connected(b), 5, "a at b")
        (found,) = peers(a)
        assert not found["persistent"]
        assert "/ip4/10.77.0.2/tcp/4001" in found["addresses"]


@pytest.mark.skipif(not networks.possible(), reason=networks.IMPOSSIBLE)
def test_a_node_that_was_not_told_to_finds_nobody_and_is_not_found(tmp_path):
    other_port = {"GREENROOM_P2P__CONNECTIVITY__LISTEN_PORT": "4002"}
    with (
        networks.cable("10.77.0.1", "10.77.0.2") as (here, there),
        node(tmp_path / "silent", there, "10.77.0.2") as silent,
        node(tmp_path / "a", here, "10.77.0.1", **MDNS) as a,
        node(tmp_path / "b", there, "10.77.0.2", **MDNS, **other_port) as b,
    ):
        wait_until(lambda: peer_id(b) in connected(a), 30, "b at a")
        assert [one["peer_id"] for one in peers(a)] == [peer_id(b)]
        assert peers(silent) == []


def test_nodes_find_each_other_at_a_meeting_point(tmp_path):
    serving = {"GREENROOM_P2P__PEER_REGISTRY__DISCOVERY__RENDEZVOUS_POINT": "true"}
    with peer_tree(tmp_path / "point", env=serving) as point:
        going = {"p2p": {"peer_registry": {"discovery": {"rendezvous": [point.address]}}}}
        with peer_tree(tmp_path / "a", config=going) as a, peer_tree(tmp_path / "b", config=going) as b:
            b.until(lambda: b.peer(point), "the point at b")
            methods = {one["name"]: one["outcome"] for one in a.call("peer_discover", timeout=5)["methods"]}
            assert methods["rendezvous"] == "ok"
            a.until(lambda: a.status(b) == "connected", "b at a")
            assert b.until(lambda: b.status(a) == "connected", "a at b")


async def test_a_meeting_point_and_a_visitor_of_libp2p_itself_are_understood():
    hardening.apply()
    from libp2p.discovery.rendezvous.client import RendezvousClient
    from libp2p.discovery.rendezvous.service import RendezvousService
    from libp2p.peer.id import ID

    with trio.fail_after(30):
        async with hosts(3) as (ours, theirs, other):
            point = RendezvousPoint(lambda *_: pytest.fail("it broke the protocol"))
            ours.serve(PROTOCOL, point.serve)
            await theirs.dial(place(ours), ours.peer_id, 5)
            client = RendezvousClient(theirs._host, ID.from_string(ours.peer_id))
            assert await client.register("greenroom", 7200) == 7200
            found, _ = await client.discover("greenroom")
            assert [str(one.peer_id) for one in found] == [theirs.peer_id]
            await client.unregister("greenroom")

            RendezvousService(other._host)
            await theirs.dial(place(other), other.peer_id, 5)
            await RendezvousClient(theirs._host, ID.from_string(other.peer_id)).register("greenroom", 7200)
            told = {}
            way = Rendezvous(
                Visiting(ours),
                [candidate(other.addresses[0])],
                lambda _, found: told.update({one.peer_id: one.place for one in found}) or len(told),
                namespace="greenroom",
                every_s=60,
            )
            assert await way.look() == 2
            assert (way.state, told[theirs.peer_id], told[ours.peer_id]) == ("ok", place(theirs), place(ours))


@asynccontextmanager
async def hosts(count):
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_host(HostRules(), Ed25519PrivateKey.generate())) for _ in range(count)
        ]


def place(host):
    return host.addresses[0].rpartition("/p2p/")[0]


class Visiting:
    """A host, as a visitor of meeting points sees it."""

    def __init__(self, host):
        self.peer_id, self.host = host.peer_id, host

    async def announced(self):
        return [place(self.host)]

    async def reach(self, peer_id, places, timeout_s):
        await self.host.dial(places[0], peer_id, timeout_s)
        return places[0]

    async def open_stream(self, peer_id, protocol, timeout_s):
        return await self.host.open_stream(peer_id, protocol, timeout_s)


def test_peers_of_a_file_are_connected_when_they_are_written_there(tmp_path):
    path = tmp_path / "peers.txt"
    config = {"p2p": {"peer_registry": {"discovery": {"peer_file": str(path)}}}}
    with peer_tree(tmp_path / "b") as b, peer_tree(tmp_path / "a", config=config) as a:
        methods = {one["name"]: one["outcome"] for one in a.call("peer_discover", timeout=2)["methods"]}
        assert methods["peer_file"] == "there is no such file"
        assert methods["mdns"].startswith("off")
        path.write_text(f"# ours\nnobody\n{b.address}\n")
        a.until(lambda: a.status(b) == "connected", "connection")
        methods = {one["name"]: one["outcome"] for one in a.call("peer_discover", timeout=2)["methods"]}
        assert "1 wrong line" in methods["peer_file"]
    assert "nobody" in (tmp_path / "a.log").read_text()
