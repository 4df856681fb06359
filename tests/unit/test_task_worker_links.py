# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks whose payload names results of others: what their tool is called with, and where the worker has it from."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from worker_bench import NAME, WorkerBench

from actors.errors import from_info
from actors.messages import ErrorInfo
from actors.p2p.task_worker.links import Results
from actors.task_messages import Claim, Claimed, Complete, Ended, Fail, Lease, Release, TaskState
from actors.task_views import GetTask, TaskFact, TaskFacts
from actors.tool_messages import ToolResult
from actors.tool_tasks import result_of


@pytest.fixture
async def bench():
    async with trio.open_nursery() as nursery:
        yield WorkerBench(nursery)
        nursery.cancel_scope.cancel()


async def settled(bench, task_id):
    with trio.fail_after(5):
        return (await bench.queue.get(GetTask(id=task_id, wait_s=5))).task


async def done_elsewhere(bench, task_id, result, **more):
    """A task that another worker completed."""
    await bench.queue.submit("dig", id=task_id, **more)
    claim = Claim(worker="other", types=["dig"])
    [lease] = (await bench.queue.do(claim, Claimed)).tasks
    await bench.queue.do(Complete(id=task_id, token=lease.token, result=result), Ended)


def gives(value, shape="wrapped", **more):
    return ToolResult(value=json.dumps(value).encode(), shape=shape, runtime="general", duration_ms=1.0, **more)


def linked(task_id, path=""):
    return json.dumps({"x": {"$task": task_id, "path": path}})


def called_with(bench):
    return json.loads(bench.tools.calls[-1].arguments)


async def test_a_tool_is_called_with_what_an_earlier_task_gave(autojump_clock, bench):
    bench.tools.outcome = gives([{"a": 7}])
    bench.tools.let('{"first":1}')
    bench.tools.let('{"x":7}')
    first = await bench.queue.submit(payload='{"first":1}')
    second = await bench.queue.submit(payload=linked(first, "/0/a"), links=True, depends_on=[first])
    await bench.start()
    assert (await settled(bench, second)).state is TaskState.COMPLETED
    assert called_with(bench) == {"x": 7}
    assert bench.queue.read == [], "its own results are not asked for"


async def test_results_of_other_workers_are_asked_for(autojump_clock, bench):
    await done_elsewhere(bench, "t1", '{"a": [1, 2]}')
    await bench.queue.submit(payload=linked("t1", "/a/1"), links=True)
    await bench.start()
    assert called_with(bench) == {"x": 2}
    assert bench.queue.read == [["t1"]]


async def test_a_payload_without_links_is_left_as_it_is(autojump_clock, bench):
    await bench.queue.submit(payload=linked("nobody"))
    await bench.start()
    assert called_with(bench) == {"x": {"$task": "nobody", "path": ""}}


@pytest.mark.parametrize(
    ("result", "owner", "payload", "code"),
    [
        (None, "", linked("t1", "/a"), "REFERENCE_MISSING"),
        ("{}", "", linked("t1", "/a"), "REFERENCE_MISSING"),
        ("1", "bob", linked("t1"), "REFERENCE_MISSING"),
        (f'"{"x" * 90_000}"', "", json.dumps({"x": [{"$task": "t1"}] * 50}), "LIMIT_EXCEEDED"),
        ("1", "", '{"x": {"$task": 5}}', "INVALID_ARGUMENTS"),
    ],
)
async def test_a_payload_that_can_not_be_filled_fails_its_task_for_good(
    autojump_clock, bench, result, owner, payload, code
):
    if result is not None:
        await done_elsewhere(bench, "t1", result, owner=owner)
    task_id = await bench.queue.submit(payload=payload, links=True)
    await bench.start()
    task = await settled(bench, task_id)
    assert (task.state, task.attempt, task.error.code) == (TaskState.FAILED, 1, code)
    if code == "REFERENCE_MISSING":
        assert "'t1'" in task.error.message
    assert bench.tools.calls == []


async def test_what_a_tool_said_when_it_failed_is_no_value_for_others(autojump_clock, bench):
    bench.tools.outcome = gives("no", is_error=True)
    bench.tools.let('{"first":1}')
    first = await bench.queue.submit(payload='{"first":1}')
    second = await bench.queue.submit(payload=linked(first), links=True, depends_on=[first])
    await bench.start()
    assert (await settled(bench, second)).error.code == "REFERENCE_MISSING"
    assert result_of((await settled(bench, first)).result).is_error


async def test_a_queue_that_is_away_is_waited_for(autojump_clock, bench):
    await done_elsewhere(bench, "t1", "5")
    await bench.queue.submit(payload=linked("t1"), links=True)
    [task] = (await bench.queue.do(Claim(worker="w", types=["echo"]), Claimed)).tasks
    results = Results(bench.queue)
    bench.queue.go_away()
    found = []

    async def fill():
        found.append(await results.filled(task))

    bench.nursery.start_soon(fill)
    await trio.sleep(100)
    assert found == []
    bench.queue.failing = None
    await trio.sleep(1)
    assert found == ['{"x":5}']


async def test_tasks_that_are_for_this_node_are_taken_and_those_for_peers_are_not(autojump_clock, bench):
    here = await bench.queue.submit(payload='{"n":1}', needs=["local"])
    await bench.queue.submit(payload='{"n":2}', needs=["p2p"])
    await bench.start()
    assert [call.arguments for call in bench.tools.calls] == [b'{"n":1}']
    assert (await bench.queue.task(here)).worker == NAME


# --- what is kept -----------------------------------------------------------------------------------------------------


class Ends:
    """A queue that hears of ends, and lets some of them count; it knows the results of no task."""

    def __init__(self):
        self.counts = True
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.read = []

    async def do(self, end, answer):
        await self.may_answer.wait()
        if self.counts:
            return Ended(id=end.id, state=TaskState.COMPLETED, at=1.0)
        raise from_info(ErrorInfo(code="STALE_FENCE", message="it was given to another one"))

    async def read_results(self, ask):
        self.read.append(ask.ids)
        facts = [TaskFact(id=id_, state=TaskState.COMPLETED, result='"theirs"') for id_ in ask.ids]
        return TaskFacts(facts=facts)


def lease(task_id, payload="{}", **more):
    return Lease(id=task_id, type="echo", token=1, lease_until=9.0, attempt=1, payload=payload, **more)


async def completed(results, task_id, result="1"):
    await results.end(lease(task_id), Complete(id=task_id, token=1, result=result))


async def filled(results, task_id):
    return json.loads(await results.filled(lease("child", linked(task_id), links=True)))["x"]


async def test_of_its_own_results_a_worker_keeps_those_that_were_named_last(autojump_clock):
    queue = Ends()
    results = Results(queue, most_bytes=350)
    for task_id in ("a", "b", "c"):
        await completed(results, task_id, f'"{task_id * 97}"')
    assert await filled(results, "a") == "a" * 97
    await completed(results, "d", f'"{"d" * 97}"')
    assert [len(await filled(results, task_id)) for task_id in "abcd"] == [97, len("theirs"), 97, 97]
    assert queue.read == [["b"]]
    await completed(results, "large", f'"{"x" * 400}"')
    await completed(results, "e")
    assert await filled(results, "large") == "theirs"
    assert await filled(results, "e") == 1


async def test_a_result_that_did_not_count_is_not_kept(autojump_clock):
    queue = Ends()
    results = Results(queue)
    queue.counts = False
    await completed(results, "t")
    assert await filled(results, "t") == "theirs"


async def test_a_result_that_is_on_its_way_to_the_queue_is_waited_for(autojump_clock, nursery):
    queue = Ends()
    queue.may_answer = trio.Event()
    results = Results(queue)
    found = []

    async def fill():
        found.append(await filled(results, "t"))

    nursery.start_soon(completed, results, "t")
    await wait_all_tasks_blocked()
    nursery.start_soon(fill)
    await wait_all_tasks_blocked()
    assert (found, queue.read) == ([], [])
    queue.may_answer.set()
    await wait_all_tasks_blocked()
    assert (found, queue.read) == ([1], [])


@pytest.mark.parametrize("kind", [Fail, Release])
async def test_other_ends_are_told_and_nothing_is_kept(autojump_clock, kind):
    queue = Ends()
    results = Results(queue)
    more = {"error": ErrorInfo(code="X", message="x")} if kind is Fail else {}
    await results.end(lease("t"), kind(id="t", token=1, **more))
    assert await filled(results, "t") == "theirs"
