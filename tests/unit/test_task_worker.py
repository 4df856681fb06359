# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a worker does with the tasks it is given, by trio's clock."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from worker_bench import LEASE_S, NAME, WorkerBench, tool

from actors.catalogue_view import CatalogueView
from actors.errors import RuntimeUnavailableError
from actors.messages import ErrorInfo, State
from actors.p2p.task_worker.left import FILE, settle_left, write_left
from actors.task_messages import (
    AnswerOwner,
    Asked,
    Beat,
    Cancel,
    Claim,
    Claimed,
    Complete,
    Ended,
    Fail,
    Pause,
    Paused,
    Release,
    Resume,
    Retry,
    TaskState,
)
from actors.task_views import GetTask
from actors.tool_messages import Catalogue, LogItem, Progress, ToolResult
from actors.tool_tasks import Caller, answer_text, fingerprint, metadata_text, question_of, result_of

ONCE = Retry(max_attempts=1)
AGAIN = Retry(max_attempts=3, base_s=1.0)


@pytest.fixture
async def bench():
    async with trio.open_nursery() as nursery:
        yield WorkerBench(nursery)
        nursery.cancel_scope.cancel()


async def begun(bench, count=1):
    await bench.start()
    await wait_all_tasks_blocked()
    assert len(bench.tools.calls) == count


async def settled(bench, task_id):
    with trio.fail_after(5):
        return (await bench.queue.get(GetTask(id=task_id, wait_s=5))).task


# --- what is done -----------------------------------------------------------------------------------------------------


async def test_a_task_is_a_call_of_its_tool_for_its_owner(autojump_clock, bench):
    task_id = await bench.queue.submit(payload='{"text":"x"}', owner="ann", timeout_s=7.0)
    bench.tools.let('{"text":"x"}')
    await begun(bench)
    task = await settled(bench, task_id)
    assert task.state is TaskState.COMPLETED
    assert result_of(task.result).value == b'"ok"'
    (call,) = bench.tools.calls
    assert (call.name, call.arguments, call.principal) == ("echo", b'{"text":"x"}', "ann")
    assert bench.tools.timeouts == [7.0]


async def test_without_a_time_of_its_own_a_task_has_its_tools(autojump_clock, bench):
    bench.offer(tool("echo", timeout_s=12.0))
    await bench.queue.submit()
    await begun(bench)
    assert bench.tools.timeouts == [12.0]


async def test_every_call_has_an_id_of_its_own(autojump_clock, bench):
    for _ in range(3):
        await bench.queue.submit()
    await begun(bench, 3)
    assert len({call.call_id for call in bench.tools.calls}) == 3


async def test_no_more_tasks_are_held_than_there_is_room_for(autojump_clock, bench):
    ids = [await bench.queue.submit(payload=f'{{"n":{n}}}') for n in range(6)]
    await begun(bench, 4)
    assert bench.worker.running == 4
    bench.tools.let('{"n":0}')
    await settled(bench, ids[0])
    await wait_all_tasks_blocked()
    assert len(bench.tools.calls) == 5


async def test_only_tasks_of_tools_that_can_be_called_are_taken(autojump_clock, bench):
    bench.offer(tool("echo"), tool("broken", broken="no"), tool("task_submit", runtime="p2p", pool="task_queue"))
    for type_ in ("broken", "task_submit", "elsewhere", "echo"):
        await bench.queue.submit(type_)
    await begun(bench, 1)
    assert bench.queue.asked(Claim)[0].types == ["echo"]


async def test_without_tools_nothing_is_claimed(autojump_clock, bench):
    bench.offer()
    await bench.queue.submit()
    await begun(bench, 0)
    assert not bench.queue.asked(Claim)


async def test_a_tool_that_appears_is_worked_for_at_once(autojump_clock, bench):
    await begun(bench, 0)
    await bench.queue.submit("late")
    bench.offer(tool("echo"), tool("late"))
    await wait_all_tasks_blocked()
    assert [call.name for call in bench.tools.calls] == ["late"]


async def test_a_task_whose_tool_went_away_waits_for_it(autojump_clock, bench):
    await bench.start()
    bench.offer()
    do = bench.queue.do

    async def no_more_after_one(op, *rest, **more):
        if isinstance(op, Release):
            bench.worker.pause(paused=True)
        return await do(op, *rest, **more)

    bench.queue.do = no_more_after_one
    bench.worker.catalogue_changed(CatalogueView(Catalogue(tools=[tool("echo")])))
    task_id = await bench.queue.submit(retry=ONCE)
    await wait_all_tasks_blocked()
    task = await bench.queue.task(task_id)
    assert (task.state, task.attempt, bench.tools.calls) == (TaskState.READY, 0, [])
    assert len(bench.queue.asked(Release)) == 1


async def test_a_paused_queue_gives_nothing_and_a_resumed_one_does(autojump_clock, bench):
    await bench.queue.do(Pause(), Paused)
    await bench.queue.submit()
    await begun(bench, 0)
    await bench.queue.do(Resume(), Paused)
    await bench.queue.submit()
    await wait_all_tasks_blocked()
    assert len(bench.tools.calls) == 2


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ErrorInfo(code="TOOL_FAILED", message="m"), False),
        (ErrorInfo(code="INVALID_ARGUMENTS", message="m"), False),
        (ErrorInfo(code="QUARANTINED", message="m"), False),
        (ErrorInfo(code="UNAVAILABLE", message="m", retryable=True), True),
        (ErrorInfo(code="BUSY", message="m", retryable=True), True),
        (ErrorInfo(code="OUTCOME_UNKNOWN", message="m"), True),
        (ErrorInfo(code="DEADLINE_EXCEEDED", message="m"), True),
    ],
)
async def test_what_the_tool_says_is_final_and_no_answer_is_not(autojump_clock, bench, error, again):
    bench.tools.outcome = error
    bench.tools.let()
    task_id = await bench.queue.submit(retry=AGAIN)
    await begun(bench)
    task = await bench.queue.task(task_id)
    assert task.error.code == error.code
    assert task.attempt == 1
    assert (task.state in (TaskState.SCHEDULED, TaskState.READY)) is again
    assert (task.state is TaskState.FAILED) is not again


async def test_a_task_of_one_attempt_is_not_made_again(autojump_clock, bench):
    bench.tools.outcome = ErrorInfo(code="OUTCOME_UNKNOWN", message="m")
    bench.tools.let()
    task_id = await bench.queue.submit(retry=ONCE)
    await begun(bench)
    assert (await bench.queue.task(task_id)).state is TaskState.FAILED


@pytest.mark.parametrize("state", [State.DRAINING, State.OFF])
async def test_a_process_that_was_told_to_end_costs_its_tasks_nothing(autojump_clock, bench, state):
    bench.tools.outcome = ErrorInfo(code="OUTCOME_UNKNOWN", message="m")
    task_id = await bench.queue.submit(retry=ONCE)
    await begun(bench)
    bench.show(general=state)
    bench.worker.pause(paused=True)
    bench.tools.let()
    await wait_all_tasks_blocked()
    task = await bench.queue.task(task_id)
    assert (task.state, task.attempt) == (TaskState.READY, 0)


async def test_a_life_whose_place_a_spare_took_costs_its_tasks_nothing(autojump_clock, bench):
    bench.tools.outcome = ErrorInfo(code="OUTCOME_UNKNOWN", message="m")
    task_id = await bench.queue.submit(retry=ONCE)
    await begun(bench)
    bench.show(**{"tools.general#spare0": State.DRAINING})
    await wait_all_tasks_blocked()
    bench.show(**{"tools.general#spare0": State.STARTING})
    bench.worker.pause(paused=True)
    bench.tools.let()
    await wait_all_tasks_blocked()
    assert (await bench.queue.task(task_id)).attempt == 0


async def test_a_process_that_died_a_while_after_another_was_stopped_counts(autojump_clock, bench):
    bench.tools.outcome = ErrorInfo(code="OUTCOME_UNKNOWN", message="m")
    task_id = await bench.queue.submit(retry=ONCE)
    await begun(bench)
    bench.show(**{"tools.general#spare0": State.DRAINING})
    await wait_all_tasks_blocked()
    bench.show(**{"tools.general#spare0": State.SPARE})
    await trio.sleep(6)
    bench.tools.let()
    await wait_all_tasks_blocked()
    assert (await bench.queue.task(task_id)).state is TaskState.FAILED


async def test_a_carried_call_ends_with_the_router(autojump_clock, bench):
    bench.offer(tool("echo", max_concurrent=1))
    bench.tools.outcome = ErrorInfo(code="OUTCOME_UNKNOWN", message="m")
    task_id = await bench.queue.submit(retry=ONCE)
    await begun(bench)
    bench.show(router=State.OFF)
    bench.worker.pause(paused=True)
    bench.tools.let()
    await wait_all_tasks_blocked()
    assert (await bench.queue.task(task_id)).attempt == 0


async def test_a_result_that_is_too_large_is_a_failure_with_the_sizes(autojump_clock, bench):
    text = b'"' + b"x" * 20_000 + b'"'
    bench.tools.outcome = ToolResult(value=text, shape="text", runtime="general", duration_ms=1.0)
    bench.tools.let()
    task_id = await bench.queue.submit()
    await begun(bench)
    task = await bench.queue.task(task_id)
    assert (task.state, task.error.code) == (TaskState.FAILED, "LIMIT_EXCEEDED")
    assert "max_result_bytes is 10000" in task.error.message


async def test_a_task_ends_by_its_deadline(autojump_clock, bench):
    now = bench.queue.now()
    task_id = await bench.queue.submit(deadline=now + 1000.0, timeout_s=5000.0)
    await begun(bench)
    (timeout_s,) = bench.tools.timeouts
    assert timeout_s < 5000.0
    assert task_id


async def test_the_end_of_a_task_is_told_until_the_queue_is_back(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await begun(bench)
    bench.queue.go_away()
    bench.tools.let()
    await trio.sleep(10)
    bench.queue.failing = None
    assert (await settled(bench, task_id)).state is TaskState.COMPLETED
    assert len(bench.queue.asked(Complete)) == 1


# --- the lease --------------------------------------------------------------------------------------------------------


async def test_a_long_task_keeps_its_lease_with_three_beats_for_each(autojump_clock, bench):
    task_id = await bench.queue.submit(timeout_s=1000.0)
    await begun(bench)
    await bench.queue.pass_time(10 * LEASE_S)
    task = await bench.queue.task(task_id)
    assert (task.state, task.attempt) == (TaskState.LEASED, 1)
    assert 29 <= len(bench.queue.asked(Beat)) <= 31


async def test_a_beat_that_finds_no_queue_is_repeated_soon(autojump_clock, bench):
    task_id = await bench.queue.submit(timeout_s=1000.0)
    await begun(bench)
    await trio.sleep(LEASE_S / 3 - 1)
    bench.queue.ops.clear()
    bench.queue.go_away()
    await trio.sleep(4.5)
    bench.queue.failing = None
    await trio.sleep(1.1)
    assert len(bench.queue.asked(Beat)) == 1
    assert (await bench.queue.task(task_id)).beat_at == pytest.approx(bench.queue.now(), abs=1.2)


async def test_a_task_that_was_lost_is_stopped_and_nothing_is_said_of_it(autojump_clock, bench):
    task_id = await bench.queue.submit(timeout_s=1000.0, retry=AGAIN)
    await begun(bench)
    bench.worker.pause(paused=True)
    bench.queue.go_away()
    await trio.sleep(LEASE_S + 1)
    bench.queue.failing = None
    await bench.queue.pass_time(5)
    task = await bench.queue.task(task_id)
    assert task.error.code == "LEASE_EXPIRED"
    assert len(bench.tools.cancelled) == 1
    assert bench.worker.running == 0
    assert not bench.queue.asked(Fail)
    assert not bench.queue.asked(Release)


async def test_a_task_that_comes_again_while_it_runs_is_run_once_at_a_time(autojump_clock, bench):
    await bench.queue.submit(timeout_s=1000.0, retry=Retry(max_attempts=3, base_s=0.0))
    await begun(bench)
    bench.queue.go_away()
    await trio.sleep(LEASE_S + 1)
    bench.queue.failing = None
    await bench.queue.pass_time(0)
    await wait_all_tasks_blocked()
    await trio.sleep(2)
    assert len(bench.tools.calls) == 2
    assert len(bench.tools.cancelled) == 1
    assert bench.worker.running == 1


async def test_a_wish_to_cancel_is_heard_at_once(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await begun(bench)
    await trio.sleep(1)
    at = trio.current_time()
    await bench.queue.do(Cancel(id=task_id, reason="enough"), Ended)
    task = await settled(bench, task_id)
    assert (task.state, task.reason) == (TaskState.CANCELLED, "enough")
    assert trio.current_time() - at < 0.01
    assert len(bench.tools.cancelled) == 1


async def test_a_task_that_was_cancelled_by_force_is_let_go(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await begun(bench)
    await bench.queue.do(Cancel(id=task_id, force=True), Ended)
    await trio.sleep(1)
    assert len(bench.tools.cancelled) == 1
    assert bench.worker.running == 0


async def test_progress_becomes_a_share_and_lines_are_kept_in_order(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await begun(bench)
    bench.tools.report(Progress(progress=1, total=4, message="a quarter"))
    bench.tools.report(LogItem(level="info", data=b'"one"'))
    bench.tools.report(LogItem(level="warning", data=b'{"two":2}', logger="echo"))
    await trio.sleep(1.1)
    task = await bench.queue.task(task_id)
    assert (task.progress, task.progress_text) == (25.0, "a quarter")
    assert task.logs == ['info: "one"', 'warning: echo: {"two":2}']
    assert len(bench.queue.asked(Beat)) == 1


async def test_a_flood_of_progress_is_one_beat_a_second(autojump_clock, bench):
    await bench.queue.submit()
    await begun(bench)
    for number in range(50):
        bench.tools.report(Progress(progress=number))
        await trio.sleep(0.1)
    assert 4 <= len(bench.queue.asked(Beat)) <= 6


async def test_the_last_lines_come_with_the_end(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await begun(bench)
    bench.tools.report(LogItem(level="info", data=b'"last"'))
    bench.tools.let()
    assert (await settled(bench, task_id)).logs == ['info: "last"']


# --- questions --------------------------------------------------------------------------------------------------------


def asking():
    question = {"key": "name", "method": "elicitation/create", "params": b'{"message":"?"}'}
    return msgspec.Raw(msgspec.msgpack.encode({"questions": [question]}))


async def test_a_task_that_waits_for_its_owner_leaves_its_place_to_another(autojump_clock, bench):
    caller = metadata_text(Caller(can=("elicitation",)))
    ids = [await bench.queue.submit(payload=f'{{"n":{n}}}', metadata=caller) for n in range(6)]
    await begun(bench, 4)
    answers = []

    async def ask():
        answers.append(await bench.tools.on_ask("client/ask", asking()))

    bench.nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert len(bench.tools.calls) == 5
    tasks = [await bench.queue.task(one) for one in ids]
    (task,) = [one for one in tasks if one.asked]
    (key,) = task.asked
    question = question_of(key, task.asked[key])
    answer = answer_text(fingerprint(question), b'{"action":"decline"}')
    await bench.queue.do(AnswerOwner(id=task.id, answers={key: answer}), Asked)
    await wait_all_tasks_blocked()
    assert answers[0].answers == {"name": b'{"action":"decline"}'}
    assert len(bench.tools.calls) == 5, "it has its place again"


# --- its end, and the lives before it ---------------------------------------------------------------------------------


async def test_leaving_lets_tasks_end_for_a_while_and_gives_the_others_back(autojump_clock, bench):
    ids = [await bench.queue.submit(payload=f'{{"n":{n}}}', retry=ONCE) for n in range(3)]
    await begun(bench, 3)

    async def soon():
        await trio.sleep(2)
        bench.tools.let('{"n":1}')

    bench.nursery.start_soon(soon)
    at = trio.current_time()
    assert await bench.worker.leave(3.0, 1.0) == []
    assert trio.current_time() - at == pytest.approx(3.0, abs=0.01)
    states = [((task := await bench.queue.task(one)).state, task.attempt) for one in ids]
    assert states == [(TaskState.READY, 0), (TaskState.COMPLETED, 1), (TaskState.READY, 0)]
    assert bench.worker.running == 0


async def test_leaving_takes_nothing_new(autojump_clock, bench):
    await begun(bench, 0)
    await bench.worker.leave(3.0, 1.0)
    await bench.queue.submit()
    await wait_all_tasks_blocked()
    assert bench.tools.calls == []


async def test_leaving_gives_back_what_a_claim_was_given_that_nobody_heard(autojump_clock, bench):
    task_id = await bench.queue.submit()
    await bench.queue.do(Claim(worker=NAME), Claimed)
    await bench.start()
    assert await bench.worker.leave(3.0, 1.0) == []
    task = await bench.queue.task(task_id)
    assert (task.state, task.attempt) == (TaskState.READY, 0)


async def test_without_a_queue_leaving_waits_for_nothing_and_the_next_life_tells(autojump_clock, bench, tmp_path):
    running = await bench.queue.submit(retry=ONCE)
    done = await bench.queue.submit(payload='{"n":1}', retry=ONCE)
    await begun(bench, 2)
    bench.queue.go_away()
    bench.tools.let('{"n":1}')
    await wait_all_tasks_blocked()
    bench.show(task_queue=State.RESTARTING)
    at = trio.current_time()
    left = await bench.worker.leave(3.0, 1.0)
    assert trio.current_time() == pytest.approx(at, abs=0.01)
    assert sorted(type(one).__name__ for one in left) == ["Complete", "Release"]
    write_left(tmp_path, left)
    bench.queue.failing = None
    assert await settle_left(bench.queue, tmp_path, NAME) == 2
    assert (await bench.queue.task(done)).state is TaskState.COMPLETED
    task = await bench.queue.task(running)
    assert (task.state, task.attempt) == (TaskState.READY, 0)
    assert not (tmp_path / FILE).exists()


async def test_a_killed_worker_has_used_an_attempt_of_each_task_it_had(autojump_clock, bench, tmp_path):
    again = await bench.queue.submit(retry=AGAIN)
    once = await bench.queue.submit(retry=ONCE)
    await bench.queue.do(Claim(worker=NAME, n=2), Claimed)
    other = await bench.queue.submit()
    await bench.queue.do(Claim(worker="another"), Claimed)
    assert await settle_left(bench.queue, tmp_path, NAME) == 2
    task = await bench.queue.task(again)
    assert (task.attempt, task.error.code) == (1, "OUTCOME_UNKNOWN")
    assert task.state in (TaskState.SCHEDULED, TaskState.READY)
    assert (await bench.queue.task(once)).state is TaskState.FAILED
    assert (await bench.queue.task(other)).state is TaskState.LEASED, "it is another worker's"


async def test_a_file_that_can_not_be_read_is_put_aside(autojump_clock, bench, tmp_path):
    (tmp_path / FILE).write_bytes(b"\xc1 nonsense")
    assert await settle_left(bench.queue, tmp_path, NAME) == 0
    assert (tmp_path / FILE).with_suffix(".broken").exists()
    assert not (tmp_path / FILE).exists()


async def test_what_two_lives_left_is_told_together(autojump_clock, bench, tmp_path):
    write_left(tmp_path, [Release(id="a", token=1, counts=False)])
    write_left(tmp_path, [Release(id="b", token=1, counts=False)])
    assert await settle_left(bench.queue, tmp_path, NAME) == 2
    assert [op.id for op in bench.queue.asked(Release)] == ["a", "b"]


async def test_a_queue_that_is_away_is_asked_again(autojump_clock, bench):
    bench.queue.failing = RuntimeUnavailableError("away")
    await begun(bench, 0)
    await trio.sleep(10)
    bench.queue.failing = None
    await bench.queue.submit()
    await trio.sleep(1)
    assert len(bench.tools.calls) == 1
