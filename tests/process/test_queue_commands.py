# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom queue` and `greenroom task` against a real tree: for people, for programs, and when things go wrong."""

from __future__ import annotations

import json
import subprocess

import httpx
import pytest
import trio
from running import GREENROOM, started

from actors.messages import ErrorInfo
from actors.task_messages import Claim, Claimed, Ended, Enqueue, Fail, Retry, Submitted
from supervisor.client_tasks import open_tasks

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One tree with a queue in which a bit of everything is: ids by what became of the task."""
    with started(tmp_path_factory.mktemp("queue") / "data") as running:
        running.ids = trio.run(fill, running.data_dir)
        yield running


async def fill(data_dir) -> dict[str, str]:
    async def submit(type_: str, **more) -> str:
        return (await tasks.do(Enqueue(type=type_, **more), Submitted)).id

    async with open_tasks(data_dir) as tasks:
        ids = {"done": await submit("echo", payload='{"text":"hello"}', owner="ann")}
        ids["low"] = await submit("elsewhere", priority=2.0)
        ids["high"] = await submit("elsewhere", priority=9.0)
        ids["later"] = await submit("elsewhere", run_at=4_000_000_000.0)
        ids["blocked"] = await submit("elsewhere", depends_on=[ids["low"]])
        for name in ("dead", "dead2"):
            ids[name] = await submit("fails", retry=Retry(max_attempts=1))
            (lease,) = (await tasks.do(Claim(worker="w", types=["fails"]), Claimed)).tasks
            error = ErrorInfo(code="TOOL_FAILED", message="the disk\nis full")
            await tasks.do(Fail(id=lease.id, token=lease.token, error=error), Ended)
        return ids


def shown(tree, *arguments):
    return json.loads(tree.run(*arguments, "--json").stdout)


def test_stats_counts_by_type_and_names_the_workers(tree):
    stats = shown(tree, "queue", "stats")
    assert stats["counts"]["failed"] >= 2
    assert stats["by_type"]["elsewhere"]["queued"] == 4
    assert {"task_worker", "w"} <= {one["worker"] for one in stats["workers"]}
    text = tree.run("queue", "stats").stdout
    assert "of the queued: 1 scheduled, 1 blocked" in text
    assert "files: the log " in text
    assert "a commit takes " in text


def test_metrics_of_the_gateway_count_what_the_queue_has(tree):
    text = httpx.get(f"{tree.url}/metrics").text
    assert "mcp_p2p_task_queue_up 1.0" in text
    queued = shown(tree, "queue", "stats")["counts"]["queued"]
    assert f"mcp_p2p_tasks_queued {queued}.0" in text
    assert "mcp_p2p_task_execution_duration_ms_count 1.0" in text


def test_peek_has_the_order_of_the_queue_and_the_reasons(tree):
    peek = shown(tree, "queue", "peek", "--type", "elsewhere")
    ids = [view["task"]["id"] for view in peek["tasks"]]
    assert ids[:2] == [tree.ids["high"], tree.ids["low"]]
    assert peek["total"] == 4
    lines = tree.run("queue", "peek", "--type", "elsewhere", "-n", "3").stdout.splitlines()
    assert lines[0].split() == ["place", "id", "type", "priority", "waits", "for", "why"]
    assert lines[-1] == "... and 1 more (-n)"
    assert "blocked by 1 task" in tree.run("queue", "peek", "--type", "elsewhere").stdout


def test_dead_letters_are_listed_and_put_back_once(tree):
    lines = tree.run("queue", "dead", "--type", "fails").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("TOOL_FAILED: the disk is full")
    first = tree.run("queue", "requeue", tree.ids["dead"]).stdout
    assert first.startswith(f"requeued {tree.ids['dead']} as ")
    again = shown(tree, "queue", "requeue", "--all", "--yes", "--type", "fails")["requeued"]
    by_id = {one["id"]: one for one in again}
    assert by_id[tree.ids["dead"]]["before"] is True
    assert by_id[tree.ids["dead2"]]["before"] is False
    new = shown(tree, "task", "show", by_id[tree.ids["dead"]]["new_id"])["task"]
    assert (new["retry_of"], new["type"], new["state"]) == (tree.ids["dead"], "fails", "ready")


def test_a_task_is_shown_with_all_that_happened_to_it(tree):
    task_id = tree.ids["done"]
    told = shown(tree, "task", "show", task_id)
    assert told["task"]["state"] == "completed"
    assert [event["what"] for event in told["events"]][:2] == ["submitted", "claimed"]
    text = tree.run("task", "show", task_id[:12]).stdout
    assert f"task        {task_id}" in text
    assert "owner       ann" in text
    assert '  {"text":"hello"}' in text
    waiting = tree.run("task", "show", tree.ids["blocked"]).stdout
    assert "status      queued (blocked)" in waiting


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("task", "show", "0" * 32), 1, "there is no task"),
        (("task", "show", ""), 1, "begin with ''; give more of it"),
        (("queue", "requeue"), 2, "give one or more IDs"),
        (("queue", "requeue", "x", "--all"), 2, "give one or more IDs"),
        (("queue", "requeue", "x", "--type", "y"), 2, "--type goes with --all"),
        (("queue", "requeue", "0" * 32), 1, "[NOT_FOUND]"),
        (("queue", "peek", "-n", "0"), 2, "1<=x<=1000"),
        (("queue", "ded"), 2, "Did you mean 'dead'?"),
    ],
)
def test_what_can_not_be_done_says_why(tree, arguments, code, words):
    ended = tree.run(*arguments, check=False)
    assert ended.returncode == code
    assert words in ended.stderr + ended.stdout


def test_without_a_queue_the_reason_is_its_switch(tmp_path):
    with started(tmp_path / "data", env={"GREENROOM_P2P__TASK_QUEUE__ENABLED": "false"}) as tree:
        ended = tree.run("queue", "stats", check=False)
        assert ended.returncode == 1
        assert "p2p.task_queue.enabled is false" in ended.stderr
        assert "[RUNTIME_UNAVAILABLE]" in ended.stderr
        states = {name: actor["state"] for name, actor in tree.actors().items()}
        assert states["task_worker"] == "off"


def test_without_a_tree_the_exit_code_says_so(tmp_path):
    ended = subprocess.run([GREENROOM, "queue", "stats", "--data-dir", tmp_path], capture_output=True, timeout=30)
    assert ended.returncode == 3
