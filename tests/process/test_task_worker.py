# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks that are tools, in a real tree: done whatever is killed, given back without an attempt when the tree stops."""

from __future__ import annotations

import json
import signal
import time

import pytest
import trio
from running import started, wait_until

from actors.task_client import TaskClient
from actors.task_links import output_of
from actors.task_messages import Cancel, Ended, Enqueue, Retry, Submitted, Task, TaskState
from actors.task_views import GetTask, ScanTasks
from actors.tool_tasks import result_of
from supervisor.client_tasks import open_tasks

pytestmark = pytest.mark.process

TOOLS = '''
import os
import trio
from actors.toolkit import ToolContext, tool

@tool(timeout=60)
async def slow(ctx: ToolContext, number: int, seconds: float) -> int:
    """Write down that it began, take its time, answer."""
    with open(os.environ["BEGUN"], "a") as file:
        file.write(f"{number}\\n")
    ctx.progress(1, 4, "began")
    ctx.log("info", f"number {number}")
    await trio.sleep(seconds)
    return number
'''


@pytest.fixture
def tools(tmp_path, monkeypatch):
    (tmp_path / "slow_tools.py").write_text(TOOLS)
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    (tmp_path / "begun").touch()
    return ["--tools", str(tmp_path / "slow_tools.py")]


def begun(folder) -> int:
    return len((folder / "begun").read_text().split())


async def running(folder, count: int) -> None:
    """Until so many tasks have begun."""
    await trio.to_thread.run_sync(wait_until, lambda: begun(folder) >= count, 20, f"{count} tasks to begin")


async def submit(tasks: TaskClient, count: int, seconds: float, **more) -> list[str]:
    ops = [
        Enqueue(type="slow", payload=json.dumps({"number": number, "seconds": seconds}), **more)
        for number in range(count)
    ]
    outcomes = await tasks.do_all(ops)
    assert all(isinstance(one, Submitted) for one in outcomes), outcomes
    return [one.id for one in outcomes]


async def ended(tasks: TaskClient, ids: list[str], timeout_s: float = 60.0) -> list[Task]:
    with trio.fail_after(timeout_s):
        views = [await tasks.get(GetTask(id=task_id, wait_s=timeout_s), timeout_s=timeout_s) for task_id in ids]
    return [view.task for view in views]


def test_fifty_tasks_are_done_whatever_is_killed_in_the_middle(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            ids = await submit(tasks, 50, 1.0)
            for victim in ("task_worker", "task_queue", "tools.general#0", "router"):
                await running(tmp_path, min(50, begun(tmp_path) + 4))
                incarnation = await trio.to_thread.run_sync(tree.kill, victim)
                await trio.to_thread.run_sync(tree.wait_ready, victim, incarnation)
            done = await ended(tasks, ids)
            stats = await tasks.stats()
        assert [task.state for task in done] == [TaskState.COMPLETED] * 50, [task.error for task in done]
        results = [json.loads(result_of(task.result).value) for task in done]
        assert results == list(range(50))
        assert max(task.attempt for task in done) <= 3
        assert stats.counters["completed"] == 50
        assert stats.by_state == {} or not any(stats.by_state.values())

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_tasks_are_called_with_what_others_gave_also_by_a_new_life_of_the_worker(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:

            async def after(task_id: str, seconds: float) -> str:
                payload = json.dumps({"number": {"$task": task_id}, "seconds": seconds})
                op = Enqueue(type="slow", payload=payload, links=True, depends_on=[task_id], needs=["local"])
                return (await tasks.do(op, Submitted)).id

            [first] = await submit(tasks, 1, 0.0)
            second = await after(first, 0.1)
            third = await after(second, 0.1)
            await ended(tasks, [third])
            incarnation = await trio.to_thread.run_sync(tree.kill, "task_worker")
            await trio.to_thread.run_sync(tree.wait_ready, "task_worker", incarnation)
            fourth = await after(third, 0.0)
            again = await after(first, 0.0)
            done = await ended(tasks, [first, second, third, fourth, again])
            told = await tasks.results([fourth, "nobody", first])
        assert [task.state for task in done] == [TaskState.COMPLETED] * 5, [task.error for task in done]
        assert [output_of(task.result) for task in done] == [0] * 5
        assert ([fact.id for fact in told.facts], told.unknown) == ([fourth, first], ["nobody"])

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_a_stop_of_the_tree_gives_tasks_back_without_an_attempt_used(tmp_path, tools):
    async def before(tree):
        async with open_tasks(tree.data_dir) as tasks:
            ids = await submit(tasks, 3, 20.0, retry=Retry(max_attempts=1))
            await running(tmp_path, 3)
            return ids

    async def after(tree):
        async with open_tasks(tree.data_dir) as tasks:
            page = await tasks.scan(ScanTasks(types=["slow"]))
            return {task.id: task for task in page.tasks}, {
                task.id: [event.what for event in await tasks.history(task.id)] for task in page.tasks
            }

    with started(tmp_path / "data", *tools) as tree:
        ids = trio.run(before, tree)
        assert tree.stop() == 0
    with started(tmp_path / "data", *tools, env={"GREENROOM_P2P__TASK_WORKER__ENABLED": "false"}) as tree:
        found, histories = trio.run(after, tree)
    assert sorted(found) == sorted(ids)
    for task in found.values():
        assert (task.state, task.attempt, task.error) == (TaskState.READY, 0, None)
    assert all("released" in history for history in histories.values()), histories


def test_a_running_task_is_cancelled_at_once(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            (task_id,) = await submit(tasks, 1, 50.0)
            await running(tmp_path, 1)
            told = trio.current_time()
            await tasks.do(Cancel(id=task_id, reason="enough"), Ended)
            (task,) = await ended(tasks, [task_id], 10)
            assert (task.state, task.reason) == (TaskState.CANCELLED, "enough")
            assert trio.current_time() - told < 5, "the lease is 300 s, so no beat was due"

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_progress_and_log_of_the_tool_are_those_of_the_task(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            (task_id,) = await submit(tasks, 1, 3.0)
            with trio.fail_after(20):
                while (task := (await tasks.get(GetTask(id=task_id))).task).progress is None:
                    await trio.sleep(0.05)
            assert (task.progress, task.progress_text) == (25.0, "began")
            assert task.logs == ['info: slow: "number 0"']

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_an_operator_takes_the_worker_out_of_service_and_back(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            (first,) = await submit(tasks, 1, 1.0)
            await running(tmp_path, 1)
            await trio.to_thread.run_sync(lambda: tree.run("drain", "task_worker", "--yes"))
            (second,) = await submit(tasks, 1, 0.0)
            (task,) = await ended(tasks, [first])
            assert task.state == TaskState.COMPLETED, "what runs is finished"
            assert (await tasks.get(GetTask(id=second, wait_s=0.5))).task.state == TaskState.READY
            await trio.to_thread.run_sync(lambda: tree.run("resume", "task_worker"))
            (task,) = await ended(tasks, [second])
            assert task.state == TaskState.COMPLETED

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_the_end_of_the_worker_is_short_when_nothing_runs(tmp_path, tools):
    with started(tmp_path / "data", *tools) as tree:
        began = time.monotonic()
        tree.process.send_signal(signal.SIGTERM)
        assert tree.process.wait(30) == 0
        assert time.monotonic() - began < 4


def test_a_restart_of_the_pool_uses_no_attempt(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            ids = await submit(tasks, 3, 4.0, retry=Retry(max_attempts=1))
            await running(tmp_path, 3)
            await trio.to_thread.run_sync(lambda: tree.run("restart", "tools.general#0", "--yes"))
            done = await ended(tasks, ids)
        assert [(task.state, task.attempt) for task in done] == [(TaskState.COMPLETED, 1)] * 3
        assert begun(tmp_path) == 6, "each of them ran twice: its process was ended in the middle"

    with started(tmp_path / "data", *tools, env={"GREENROOM_SUPERVISOR__SHUTDOWN_S": "1"}) as tree:
        trio.run(main, tree)


def test_the_death_of_the_queue_uses_no_attempt(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            ids = await submit(tasks, 4, 1.0, retry=Retry(max_attempts=1))
            await running(tmp_path, 4)
            incarnation = await trio.to_thread.run_sync(tree.kill, "task_queue")
            await trio.to_thread.run_sync(tree.wait_ready, "task_queue", incarnation)
            done = await ended(tasks, ids)
        assert [(task.state, task.attempt) for task in done] == [(TaskState.COMPLETED, 1)] * 4
        assert not (tree.data_dir / "task_worker.left").exists()

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)


def test_a_task_that_may_not_run_twice_does_not_when_its_worker_is_killed(tmp_path, tools):
    async def main(tree):
        async with open_tasks(tree.data_dir) as tasks:
            (task_id,) = await submit(tasks, 1, 30.0, retry=Retry(max_attempts=1))
            await running(tmp_path, 1)
            await trio.to_thread.run_sync(tree.kill, "task_worker")
            (task,) = await ended(tasks, [task_id], 15)
        assert (task.state, task.error.code) == (TaskState.FAILED, "OUTCOME_UNKNOWN")
        assert begun(tmp_path) == 1

    with started(tmp_path / "data", *tools) as tree:
        trio.run(main, tree)
