# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that end their process, in a real tree: refused with a clear error, while everything else works on."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import threading
import time

import httpx
import pytest
from running import GREENROOM, McpClient, started, wait_until

pytestmark = pytest.mark.process

DEADLY = '''
import os

from actors.toolkit import tool


@tool()
async def divide(by: int, label: str = "") -> str:
    """End the process when dividing by zero."""
    if by == 0:
        os._exit(0)
    return f"{1 / by:g}"
'''
MOODY = '''
import os

from actors.toolkit import ToolContext, tool


@tool()
async def moody(ctx: ToolContext, number: int) -> str:
    """End the process while the file `bad` is there."""
    if (ctx.files.home / "bad").exists():
        os._exit(3)
    return f"fine {number}"
'''
LINGER = '''
import trio

from actors.toolkit import tool


@tool()
async def linger() -> str:
    """Stay for a while."""
    await trio.sleep(12)
    return "stayed"
'''
SPIN = '''
from actors.toolkit import tool


@tool()
async def spin() -> str:
    """Never let the loop turn again."""
    while True:
        pass
'''
POOL = "tools.general#0"


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    (folder / "divide.py").write_text(DEADLY)
    (folder / "moody.py").write_text(MOODY)
    (folder / "linger.py").write_text(LINGER)
    (folder / "spin.py").write_text(SPIN)
    return ["--tools", str(folder)]


def code(result):
    return result["_meta"].get("greenroom/code")


def dies(tree, client, name, **arguments):
    """A call that ends its process, and the wait until its spare or its next life works."""
    incarnation = tree.actors()[POOL]["incarnation"]
    assert code(client.call(name, **arguments)) == "OUTCOME_UNKNOWN"
    tree.wait_ready(POOL, incarnation)


def quarantine(tree):
    return json.loads(tree.run("quarantine", "list", "--json").stdout)


def test_a_call_that_ended_two_processes_is_refused_until_it_is_released(tmp_path, tools):
    with started(tmp_path / "data", *tools) as tree, McpClient(tree.url) as client:
        for _ in range(2):
            dies(tree, client, "divide", by=0)
        incarnation = tree.actors()[POOL]["incarnation"]
        (kept,) = quarantine(tree)["quarantined"]
        # Order, white space and defaults make no difference.
        for arguments in ('{"by": 0}', '{"label":"","by":0}', '{ "by" :0 , "label": "" }'):
            body = f'{{"tool": "divide", "args": {arguments}}}'
            refused = httpx.post(
                f"{tree.url}/tools/execute", content=body, headers={"content-type": "application/json"}
            )
            assert refused.status_code == 409
            error = refused.json()["error"]
            assert (error["code"], error["retryable"]) == ("QUARANTINED", False)
            assert error["details"] == {"tool": "divide", "id": kept["id"], "deaths": 2, "last_at": kept["last_at"]}
        result = client.call("divide", by=0)
        assert result["isError"] is True
        assert code(result) == "QUARANTINED"
        assert f"greenroom quarantine release {kept['id']}" in result["content"][0]["text"]
        assert client.text("divide", by=2) == "0.5"
        assert code(client.call("divide", by=0, label="another")) == "OUTCOME_UNKNOWN"
        tree.wait_ready(POOL, incarnation)

        status = tree.run("status", check=False)
        assert status.returncode == 4
        assert "degraded" in status.stdout
        assert "1 quarantined" in status.stdout
        assert "mcp_quarantined_calls 1.0" in httpx.get(f"{tree.url}/metrics").text
        assert kept["id"] in tree.run("quarantine", "list").stdout
        wrong = tree.run("quarantine", "release", kept["id"][:-1] + "x", check=False)
        assert wrong.returncode == 1
        assert f"did you mean {kept['id']}?" in wrong.stderr
        assert "NOT_QUARANTINED" in wrong.stderr

        assert tree.run("quarantine", "release", kept["id"]).stdout == f"released {kept['id']} (divide)\n"
        assert tree.run("status", check=False).returncode == 0
        dies(tree, client, "divide", by=0)


def test_why_names_the_calls_that_were_running(tmp_path, tools):
    with started(tmp_path / "data", *tools) as tree, McpClient(tree.url) as client, McpClient(tree.url) as slow:
        running = threading.Thread(target=slow.call, args=("linger",))
        running.start()
        wait_until(lambda: tree.actors()[POOL]["open_calls"] >= 1, 10, "the slow call to run")
        dies(tree, client, "divide", by=0, label="a secret")
        running.join(30)
        known = json.loads(tree.run("why", POOL, "--json").stdout)["exits"][-1]
        assert known["calls_in_flight"] == 2
        assert [call["tool"] for call in known["calls"]] == ["linger", "divide"]
        assert known["calls"][0]["running_ms"] > known["calls"][1]["running_ms"] >= 0
        shown = tree.run("why", POOL).stdout
        assert f"divide  {known['calls'][1]['id']}  call " in shown
        for file in tree.data_dir.rglob("*"):
            assert not file.is_file() or b"a secret" not in file.read_bytes()


def test_a_quarantine_outlives_the_root_and_a_spare_refuses_at_once(tmp_path, tools):
    with started(tmp_path / "data", *tools) as tree, McpClient(tree.url) as client:
        for _ in range(2):
            dies(tree, client, "divide", by=0)
        before = quarantine(tree)["quarantined"]
        os.kill(tree.root_pid, signal.SIGKILL)
        tree.process.wait(10)
    assert (tmp_path / "data" / "digest.key").stat().st_mode & 0o777 == 0o600
    with started(tmp_path / "data", *tools) as tree, McpClient(tree.url) as client:
        assert quarantine(tree)["quarantined"] == before
        assert code(client.call("divide", by=0)) == "QUARANTINED"
        for _ in range(3):
            wait_until(lambda: tree.actors()["tools.general#spare0"]["state"] == "spare", 10, "a spare")
            tree.wait_ready(POOL, tree.kill(POOL))
            assert code(client.call("divide", by=0)) == "QUARANTINED"
        assert tree.run("quarantine", "release", "--all", "--yes").stdout.startswith("released ")
    with started(tmp_path / "data", *tools) as tree:
        assert quarantine(tree)["quarantined"] == []


def test_equal_calls_under_random_kills_are_never_quarantined(tmp_path, tools):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    environment = {"GREENROOM_SUPERVISOR__RESTARTS": "1000", "GREENROOM_RUNTIMES__GENERAL__WORKERS": "2"}
    with started(tmp_path / "data", *tools, env=environment) as tree:
        done = threading.Event()
        codes: set = set()
        answered = []

        def load():
            with McpClient(tree.url) as client:
                while not done.is_set():
                    result = client.call("sleep", seconds=0.01)
                    codes.add(code(result))
                    answered.append(not result.get("isError"))

        callers = [threading.Thread(target=load) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            for _ in range(12):
                time.sleep(chance.uniform(0.2, 0.5))
                tree.kill(f"tools.general#{chance.randrange(2)}")
        finally:
            done.set()
            for caller in callers:
                caller.join(30)
        assert sum(answered) > 100
        assert codes <= {None, "OUTCOME_UNKNOWN"}
        exits = json.loads(tree.run("why", "tools.general", "--last", "100", "--json").stdout)["exits"]
        assert any(call["tool"] == "sleep" for one in exits for call in one.get("calls", []))
        assert quarantine(tree)["quarantined"] == []
        assert quarantine(tree)["breakers"] == []


def test_a_breaker_opens_half_opens_opens_longer_and_closes(tmp_path, tools):
    environment = {"GREENROOM_SUPERVISOR__BREAKER_OPEN_S": "3", "GREENROOM_SUPERVISOR__RESTARTS": "100"}
    with started(tmp_path / "data", *tools, env=environment) as tree, McpClient(tree.url) as client:
        bad = tree.data_dir / "files" / "bad"
        bad.parent.mkdir(exist_ok=True)
        bad.touch()
        for number in range(3):
            dies(tree, client, "moody", number=number)
        body = {"tool": "moody", "args": {"number": 4}}
        refused = httpx.post(f"{tree.url}/tools/execute", json=body)
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert (error["code"], error["retryable"]) == ("BREAKER_OPEN", True)
        wait = error["details"]["retry_after_s"]
        assert 0 < wait <= 3
        assert int(refused.headers["retry-after"]) == max(1, math.ceil(wait))
        assert tree.run("status", check=False).returncode == 4
        assert 'mcp_breakers_open{tool="moody"} 1.0' in httpx.get(f"{tree.url}/metrics").text
        assert client.text("divide", by=1) == "1"

        def half_open():
            return [one for one in quarantine(tree)["breakers"] if one["half_open"]]

        wait_until(half_open, 10, "the breaker to be half open")
        dies(tree, client, "moody", number=5)
        (breaker,) = quarantine(tree)["breakers"]
        assert 3 < breaker["retry_after_s"] <= 6
        assert breaker["deaths"] == 4
        bad.unlink()
        wait_until(half_open, 10, "the breaker to be half open again")
        assert client.text("moody", number=6) == "fine 6"
        wait_until(lambda: not quarantine(tree)["breakers"], 2, "the breaker to be closed")
        assert tree.run("status", check=False).returncode == 0
        assert client.text("moody", number=7) == "fine 7"


def test_a_hang_is_held_against_the_tool_that_the_loop_was_in(tmp_path, tools):
    environment = {"GREENROOM_SUPERVISOR__HEARTBEAT_S": "0.2", "GREENROOM_SUPERVISOR__HUNG_AFTER_S": "1.5"}
    with started(tmp_path / "data", *tools, env=environment) as tree, McpClient(tree.url) as client:
        for suspects in (1, 0):
            with McpClient(tree.url) as slow:
                running = threading.Thread(target=slow.call, args=("linger",))
                running.start()
                wait_until(lambda: tree.actors()[POOL]["open_calls"] >= 1, 10, "the slow call to run")
                dies(tree, client, "spin")
                running.join(30)
            assert quarantine(tree)["suspects"] == suspects
        assert [one["tool"] for one in quarantine(tree)["quarantined"]] == ["spin"]
        assert code(client.call("spin")) == "QUARANTINED"


def test_an_ordered_end_is_held_against_no_call(tmp_path, tools):
    """Killed at the end of its grace time, with the call still running."""
    environment = {"GREENROOM_SUPERVISOR__SHUTDOWN_S": "0.3"}
    with started(tmp_path / "data", *tools, env=environment) as tree:
        for _ in range(3):
            with McpClient(tree.url) as client:
                incarnation = tree.actors()[POOL]["incarnation"]
                answers = []
                running = threading.Thread(target=lambda c=client, a=answers: a.append(code(c.call("linger"))))
                running.start()
                wait_until(lambda: tree.actors()[POOL]["open_calls"] >= 1, 10, "the call to run")
                tree.run("restart", POOL)
                tree.wait_ready(POOL, incarnation)
                running.join(30)
                assert answers == ["OUTCOME_UNKNOWN"]
        listed = quarantine(tree)
    assert (listed["quarantined"], listed["breakers"], listed["suspects"]) == ([], [], 0)


@pytest.mark.parametrize("arguments", [["release"], ["release", "abc", "--all"]])
def test_a_release_needs_a_name_or_all(tmp_path, arguments):
    wrong = subprocess.run(
        [GREENROOM, "quarantine", *arguments, "--data-dir", tmp_path], capture_output=True, text=True, timeout=30
    )
    assert wrong.returncode == 2
    assert "IDs" in wrong.stderr
