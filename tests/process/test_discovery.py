# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes that nobody named to each other meet."""

from __future__ import annotations

import json
from contextlib import contextmanager

import networks
import pytest
from peer_trees import peer_tree
from running import started, wait_until

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
