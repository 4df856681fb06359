# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two runtimes stand and fall alone: P2P services may be on, dying or given up while general tools work, and the
reverse."""

from __future__ import annotations

import os
import signal

import httpx
import pytest
from running import McpClient, started, wait_until

pytestmark = pytest.mark.process

P2P_ON = {"GREENROOM_P2P__ENABLED": "true"}
GIVES_UP_SOON = {"GREENROOM_SUPERVISOR__RESTARTS": "1", "GREENROOM_SUPERVISOR__WITHIN_S": "60"}


def kill_until_given_up(tree, name):
    """Kill an actor each time it is back, until its group leaves it."""

    def kill_again():
        actor = tree.actors()[name]
        if actor["state"] == "failed":
            return True
        if actor["pid"]:
            os.kill(actor["pid"], signal.SIGKILL)
        return False

    wait_until(kill_again, 30, f"the group of {name} to give up")


def execute(tree, tool, **args):
    return httpx.post(f"{tree.url}/tools/execute", json={"tool": tool, "args": args}, timeout=30).json()


def test_a_p2p_tool_runs_in_its_own_process_and_keeps_its_identity(tmp_path):
    with started(tmp_path / "data", env=P2P_ON) as tree, McpClient(tree.url) as client:
        result = client.call("peer_id")
        identity = result["structuredContent"]["peer_id"]
        assert identity.startswith("12D3KooW")
        assert result["_meta"]["greenroom/runtime"] == "p2p"
        incarnation = tree.kill("peer_registry")
        assert client.call("peer_id")["structuredContent"]["peer_id"] == identity, "held until it was back"
        tree.wait_ready("peer_registry", incarnation)
    assert (tmp_path / "data" / "peer.key").stat().st_mode & 0o077 == 0


def test_dead_p2p_services_leave_general_tools_alone(tmp_path):
    env = P2P_ON | GIVES_UP_SOON | {"GREENROOM_P2P__TASK_QUEUE__ENABLED": "false"}
    with started(tmp_path / "data", env=env) as tree:
        kill_until_given_up(tree, "peer_registry")
        error = execute(tree, "peer_id")["error"]
        assert error["code"] == "RUNTIME_UNAVAILABLE"
        assert "peer_registry" in error["message"]
        assert execute(tree, "echo", text="on")["result"] == "on"
        metrics = httpx.get(f"{tree.url}/metrics").text
        assert 'mcp_runtime_active{runtime="p2p"} 0.0' in metrics
        assert 'mcp_runtime_active{runtime="general"} 1.0' in metrics
        assert tree.run("status", check=False).returncode == 4


def test_dead_general_tools_leave_p2p_services_alone(tmp_path):
    with started(tmp_path / "data", env=P2P_ON | GIVES_UP_SOON) as tree:
        kill_until_given_up(tree, "tools.general#0")
        assert execute(tree, "echo", text="x")["error"]["code"] == "RUNTIME_UNAVAILABLE"
        assert execute(tree, "peer_id")["result"]["peer_id"].startswith("12D3KooW")


def test_a_part_that_gave_up_comes_back_when_an_operator_says_so(tmp_path):
    with started(tmp_path / "data", env=P2P_ON | GIVES_UP_SOON) as tree:
        kill_until_given_up(tree, "peer_registry")
        incarnation = tree.actors()["peer_registry"]["incarnation"]
        tree.run("restart", "peer_registry")
        tree.wait_ready("peer_registry", incarnation)
        assert execute(tree, "peer_id")["status"] == "success"
