# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes find each other, stay together, and part, as their users see it."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest
from peer_trees import CallError, peer_tree

pytestmark = pytest.mark.process


@pytest.fixture
def two(tmp_path):
    with peer_tree(tmp_path / "a") as a, peer_tree(tmp_path / "b") as b:
        yield a, b


def test_two_nodes_meet_measure_each_other_and_part(two):
    a, b = two
    done = a.call("peer_connect", peer_id=b.id, multiaddr=b.place)
    assert (done["success"], done["peer_id"], done["multiaddr"]) == (True, b.id, b.place)
    assert 0 < done["connection_time"] < 5
    assert a.status(b) == "connected"
    b.until(lambda: b.status(a) == "connected", "connection with a")
    again = a.call("peer_connect", peer_id=b.id, multiaddr=b.place)
    assert again["connection_time"] == 0
    a.until(lambda: a.peer(b)["metrics"]["latency_ms"], "ping", 40)
    measured = a.call("peer_metrics", peer_id=b.id, include_history=True)
    assert measured["current_metrics"]["latency_ms"] > 0
    assert measured["current_metrics"]["packet_loss_percent"] is None
    assert measured["connection_info"]["status"] == "connected"
    assert "hole_punching" in measured["not_provided"]
    gone = a.call("peer_disconnect", peer_id=b.id)
    assert (gone["was_connected"], gone["cleanup_performed"]) == (True, True)
    b.until(lambda: b.status(a) == "disconnected", "end")
    assert a.status(b) == "disconnected"
    assert a.call("peer_disconnect", peer_id=b.id)["was_connected"] is False


def test_who_is_not_who_it_should_be_is_told_so(two):
    a, b = two
    with pytest.raises(CallError, match="peer_list names"):
        a.call("peer_metrics", peer_id=b.id)
    with pytest.raises(CallError, match="another peer"):
        a.call("peer_connect", peer_id=a.id[:-4] + "abcd", multiaddr=b.place, timeout=5, retry_count=0)
    with pytest.raises(CallError, match="names"):
        a.call("peer_connect", peer_id=a.id, multiaddr=b.address)
    with pytest.raises(CallError, match=r"no answer|failed"):
        a.call("peer_connect", peer_id=b.id, multiaddr="/ip4/127.0.0.1/tcp/1", timeout=2, retry_count=0)


def test_a_peer_whose_process_was_killed_is_connected_to_again(two):
    a, b = two
    a.call("peer_connect", peer_id=b.id, multiaddr=b.place)
    pid = a.tree.actors()["peer_registry"]["pid"]
    os.kill(pid, signal.SIGKILL)
    b.until(lambda: b.status(a) == "disconnected", "end")
    # It remembers whom it wants.
    b.until(lambda: b.status(a) == "connected", "connection again", 30)
    assert a.tree.actors()["peer_registry"]["pid"] != pid


def test_a_network_begins_at_bootstrap_nodes(tmp_path):
    with peer_tree(tmp_path / "first") as first:
        other = f"/ip4/127.0.0.1/tcp/1/p2p/{first.id}"
        config = {"p2p": {"peer_registry": {"bootstrap_nodes": [first.address]}}}
        with peer_tree(tmp_path / "second", config=config) as second:
            second.until(lambda: second.status(first) == "connected", "first connection")
            came = second.call("bootstrap_network", bootstrap_nodes=[first.address, other], timeout=5)
            assert (came["connected_count"], came["network_ready"]) == (1, False)
            with pytest.raises(CallError, match="no bootstrap node"):
                first.call("bootstrap_network")
            found = second.call("peer_discover", include_metrics=True)
            assert [peer["peer_id"] for peer in found["peers"]] == [first.id]
            assert {one["name"]: one["outcome"] for one in found["methods"]}["bootstrap"] == "ok"


def test_operators_see_and_ban(two):
    a, b = two
    assert b.id in b.cli("id")
    assert "no peer is known" in a.cli("list")
    assert "connected" in a.cli("connect", b.address)
    assert b.id in a.cli("list", "--status", "connected")
    assert json.loads(a.cli("id", "--json"))["connected"] == 1
    assert "by the operator: noisy" in a.cli("ban", b.id, "--reason", "noisy", "--yes")
    b.until(lambda: b.status(a) == "disconnected", "end")
    with contextlib.suppress(CallError):  # it may be cut at once, or a moment later
        b.call("peer_connect", peer_id=a.id, multiaddr=a.place, timeout=2, retry_count=0, persist=False)
    b.until(lambda: b.status(a) == "disconnected", "end")
    assert b.id in a.cli("bans")
    assert "forgiven" in a.cli("forgive", b.id)
    assert "nobody is banned" in a.cli("bans")
    assert "connected" in a.cli("connect", b.address)
    assert "does not end with /p2p/" in a.cli("connect", b.place, code=1)


def test_a_peer_that_was_away_is_connected_to_when_it_comes_back_at_its_port(tmp_path):
    any_port = {"GREENROOM_P2P__CONNECTIVITY__LISTEN_PORT": "0"}
    with peer_tree(tmp_path / "b", env=any_port) as b:
        pass
    with peer_tree(tmp_path / "a") as a:
        with pytest.raises(CallError, match="tried again"):
            a.call("peer_connect", peer_id=b.id, multiaddr=b.place, timeout=2, retry_count=0)
        with peer_tree(tmp_path / "b", env=any_port) as again:
            assert (again.id, again.place) == (b.id, b.place)
            a.until(lambda: a.status(b) == "connected", "connection", 40)


def test_a_node_calls_what_a_peer_lets_it_call(tmp_path):
    """By MCP where there is no link, and over the link where there is one."""
    with peer_tree(tmp_path / "a") as a:
        granted = {"allow": {a.id: {"tools": ["echo"]}}}
        with peer_tree(tmp_path / "b", config={"p2p": {"peer_registry": granted}}) as b:
            with pytest.raises(CallError, match="peer_connect"):
                a.call("peer_tools", peer_id=b.id)
            a.call("peer_connect", peer_id=b.id, multiaddr=b.place)
            assert [tool["name"] for tool in a.call("peer_tools", peer_id=b.id)["tools"]] == ["echo"]
            a.until(lambda: a.call("peer_metrics", peer_id=b.id)["connection_info"]["protocol_version"], "link")
            done = a.call("peer_call_tool", peer_id=b.id, tool_name="echo", arguments={"text": "hello"})
            assert (done["result"], done["way"]) == ("hello", "link")
            with pytest.raises(CallError, match="no tool 'sleep'"):
                a.call("peer_call_tool", peer_id=b.id, tool_name="sleep", arguments={"seconds": 0})
            with pytest.raises(CallError, match="text"):
                a.call("peer_call_tool", peer_id=b.id, tool_name="echo")
            # Nobody granted anything in the other direction.
            assert b.call("peer_tools", peer_id=a.id)["tools"] == []
            with pytest.raises(CallError, match="no tool 'echo'"):
                b.call("peer_call_tool", peer_id=a.id, tool_name="echo", arguments={"text": "hello"})
