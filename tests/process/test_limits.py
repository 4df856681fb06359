# SPDX-License-Identifier: AGPL-3.0-or-later
"""Limits of pool processes, in a real tree: what reaches one is replaced in order, or ended and named for it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from running import GREENROOM, McpClient, started, wait_until

from supervisor.pids_cap import PidsCap

pytestmark = pytest.mark.process

TOOLS = '''
import os, subprocess
from actors.toolkit import tool

kept = []

@tool(read_only=True)
async def pid() -> int:
    """The process that runs this."""
    return os.getpid()

@tool()
async def grow(mib: int) -> int:
    """Keep so much memory."""
    kept.append(b"x" * (mib << 20))
    return os.getpid()

@tool()
async def burn() -> str:
    """Use up the processor."""
    while True:
        pass

@tool()
def start(count: int) -> str:
    """Start so many processes."""
    running = []
    try:
        for _ in range(count):
            running.append(subprocess.Popen(["sleep", "30"]))
    finally:
        for process in running:
            process.kill()
            process.wait()
    return f"{len(running)} ran"
'''


def exits(data_dir) -> list[dict]:
    done = subprocess.run(
        [GREENROOM, "events", "--last", "50", "--json", "--data-dir", data_dir],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def limited(tmp_path):
    """Starts a tree whose pool `small` has these limits."""

    def start(**limits):
        folder = tmp_path / "mytools"
        folder.mkdir()
        (folder / "mine.py").write_text(TOOLS)
        pool = {"categories": ["mytools"], "spares": 0} | limits
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps({"tools": {"pools": {"small": pool}}, "supervisor": {"heartbeat_s": 0.2}}))
        return started(tmp_path / "data", "--config", str(config), "--tools", str(folder))

    return start


def test_a_process_that_answered_its_calls_is_replaced_and_none_is_lost(limited, tmp_path):
    with limited(max_calls=100) as tree, McpClient(tree.url) as client:
        seen = {client.text("pid") for _ in range(100)}
        wait_until(lambda: seen.add(client.text("pid")) or len(seen) >= 3, 30, "the third process")
        records = [one for one in exits(tmp_path / "data") if one["actor"] == "tools.small#0"]
        assert {one["cause"] for one in records} == {"limit"}
        assert "max_calls" in records[0]["reason"]
        assert {one["decision"] for one in records} == {"replaced before"}


def test_a_process_that_grows_over_its_mark_is_replaced_in_order(limited, tmp_path):
    with limited(memory_high_bytes=150 << 20) as tree, McpClient(tree.url) as client:
        old = client.text("grow", mib=200)
        wait_until(lambda: client.text("pid") != old, 20, "another process")
        record = wait_until(lambda: exits(tmp_path / "data"), 10, "the record of its end")[-1]
        assert (record["actor"], record["cause"]) == ("tools.small#0", "limit")
        assert "memory_high_bytes (150 MiB)" in record["reason"]
        assert tree.actors()["tools.small#0"]["restarts"] == 1


def test_a_process_that_used_up_its_cpu_time_is_named_for_it(limited, tmp_path):
    with limited(cpu_s=2) as tree, McpClient(tree.url) as client:
        answer = client.call("burn")
        assert answer["isError"]
        tree.wait_ready("tools.small#0", after=0)
        record = wait_until(lambda: exits(tmp_path / "data"), 10, "the record of its end")[-1]
        assert (record["actor"], record["cause"]) == ("tools.small#0", "limit")
        assert "2 s of CPU time" in record["reason"]


def test_a_pool_can_not_start_more_processes_than_it_may(limited):
    problem = PidsCap().problem
    if problem:
        pytest.skip(problem)
    with limited(max_processes=20) as tree, McpClient(tree.url) as client:
        assert client.text("start", count=3) == "3 ran"
        answer = client.call("start", count=40)
        assert answer["isError"]
        assert "Resource temporarily unavailable" in answer["content"][0]["text"]
        assert client.text("start", count=3) == "3 ran", "it works on"


def test_a_limit_of_processes_that_can_not_be_enforced_is_reported(tmp_path):
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")
    cap = PidsCap(tmp_path)
    assert cap.limit(os.getpid(), "me", 5) == "no control group with pids.max can be written by this user"


@pytest.mark.parametrize("version", [1, 2])
def test_both_layouts_of_control_groups_are_found(tmp_path, version):
    groups = tmp_path / "groups"
    home = groups / "user" / "me"
    home.mkdir(parents=True)
    for folder in (groups, home.parent, home):
        (folder / ("tasks" if version == 1 else "cgroup.controllers")).write_text("cpu pids\n")
        if version == 2:
            (folder / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup").write_text("8:pids:/user/me\n0::/\n" if version == 1 else "0::/user/me\n")
    kind = "cgroup cgroup rw,pids" if version == 1 else "cgroup2 none rw"
    (tmp_path / "mountinfo").write_text(f"30 23 0:26 / {groups} rw - {kind}\n")
    cap = PidsCap(tmp_path)
    assert cap.problem == ""
    assert cap.limit(os.getpid(), "7", 5) == ""
    group = home / f"greenroom-{os.getpid()}" / "7"
    assert ((group / "pids.max").read_text(), (group / "cgroup.procs").read_text()) == ("5", str(os.getpid()))
    if version == 2:
        assert (home / "cgroup.subtree_control").read_text() == "+pids"
