# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every exit that nobody asked for can be explained afterwards, also after a new start and where a process hung."""

from __future__ import annotations

import json
import subprocess

import httpx
import pytest
from running import GREENROOM, McpClient, started, wait_until

pytestmark = pytest.mark.process

SPIN = '''
from actors.toolkit import tool


@tool(timeout=20)
async def spin() -> str:
    """Never let the loop turn again."""
    while True:
        pass
'''


def why(data_dir, actor):
    command = [GREENROOM, "why", actor, "--data-dir", data_dir, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)["exits"]


def test_a_hang_is_seen_explained_and_ended(tmp_path):
    (tmp_path / "spin.py").write_text(SPIN)
    with started(tmp_path / "data", "--tools", str(tmp_path / "spin.py")) as tree, McpClient(tree.url) as client:
        incarnation = tree.actors()["tools.general#0"]["incarnation"]
        result = client.call("spin")
        assert result["_meta"]["greenroom/code"] == "OUTCOME_UNKNOWN"
        tree.wait_ready("tools.general#0", incarnation)
        (exit_,) = wait_until(lambda: why(tree.data_dir, "tools.general"), 5, "the exit to be written")
        assert exit_["cause"] == "hung"
        assert 5 <= float(exit_["reason"].split()[4]) < 6, "noticed within a second of the limit"
        assert "spin.py" in exit_["stacks"], "the stack names the tool's file"
        assert "in spin" in exit_["stacks"]
        shown = tree.run("why", "tools.general").stdout
        assert "where its threads were" in shown
        metrics = httpx.get(f"{tree.url}/metrics").text
        assert 'mcp_actor_restarts_total{actor="tools.general#0"} 1.0' in metrics
        assert 'mcp_actor_exits_total{actor="tools.general#0",cause="hung"} 1.0' in metrics


def test_exits_are_kept_over_a_new_start_and_in_order(tmp_path):
    for count in (1, 2):
        with started(tmp_path / "data") as tree:
            tree.wait_ready("router", tree.kill("router"))
            wait_until(
                lambda count=count: (
                    [one.get("back_ms") is not None for one in why(tree.data_dir, "router")] == [True] * count
                ),
                5,
                "the exits to be written",
            )
    exits = why(tmp_path / "data", "router")
    assert [one["number"] for one in exits] == [1, 2]
    assert {one["signal"] for one in exits} == {9}
    listed = subprocess.run(
        [GREENROOM, "events", "--data-dir", tmp_path / "data"], check=True, capture_output=True, text=True, timeout=30
    ).stdout.splitlines()
    assert len(listed) == 2
    assert all("router  signal 9  restart" in line for line in listed)


def test_what_was_asked_for_is_no_incident(tmp_path):
    with started(tmp_path / "data") as tree:
        tree.run("restart", "router")
    assert why(tmp_path / "data", "router") == []


def test_events_are_followed_as_they_come(tmp_path):
    with started(tmp_path / "data") as tree:
        follower = subprocess.Popen(
            [GREENROOM, "events", "-f", "--last", "0", "--json", "--data-dir", tree.data_dir],
            stdout=subprocess.PIPE,
            text=True,
        )
        with follower:
            try:
                pid = tree.pid("router")
                tree.kill("router")
                told = json.loads(follower.stdout.readline())
            finally:
                follower.kill()
        assert (told["actor"], told["pid"], told["signal"]) == ("router", pid, 9)
