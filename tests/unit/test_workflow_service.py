# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the workflow scheduler answers and does: the real service, engine and file, with the real queue on files in
memory."""

from __future__ import annotations

import json
import sqlite3
import threading
from functools import partial

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from task_boxes import BIG
from trio.testing import wait_all_tasks_blocked
from workflow_calls import step
from workflow_world import FakeCall, World

from actors.errors import (
    BusyError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    RuntimeUnavailableError,
    code_of,
)
from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler import submitting
from actors.p2p.workflow_scheduler.car import read
from actors.p2p.workflow_scheduler.machine import WorkflowRun
from actors.p2p.workflow_scheduler.methods import WorkflowMethods
from actors.p2p.workflow_scheduler.run_values import Commands
from actors.p2p.workflow_scheduler.submitting import Limits
from actors.p2p.workflow_scheduler.tool_table import ToolTable
from actors.p2p.workflow_scheduler.verify import verified
from actors.task_messages import Clear, Enqueue, Expire, Pause, Resume
from actors.task_views import GetTask
from actors.workflow_messages import (
    ControlWorkflow,
    ExportWorkflow,
    GetWorkflow,
    ListWorkflows,
    SubmitWorkflow,
    WorkflowSubmitted,
)

CHAIN = (step("a"), step("b", after=["a"]), step("c", after=["b"]))


@pytest.fixture
async def world(nursery, tmp_path):
    made = World(nursery, tmp_path)
    with capture_logs() as made.logs:
        await made.open()
        yield made
        await made.close()


async def called(world, method, value):
    return await WorkflowMethods(world.service).all()[method](FakeCall(method, value))


def statuses(view):
    return {one.step_id: one.status for one in view.steps}


def refused(code):
    return pytest.raises(MCPServerError, check=lambda error: code_of(error) == code)


# --- running -------------------------------------------------------------------------------------------------------


async def test_a_chain_is_done_in_its_order_and_tells_its_outputs(world):
    submitted = await world.submit(*CHAIN)
    assert (submitted.workflow_id, submitted.status, submitted.replayed) == ("w", "running", False)
    assert await world.work(3) == ["w:a", "w:b", "w:c"]
    view = await world.ended()
    assert view.status == "completed"
    assert statuses(view) == {"a": "completed", "b": "completed", "c": "completed"}
    assert [json.loads(one.output)["of"] for one in view.steps] == ["w:a", "w:b", "w:c"]
    assert [(one.attempt, one.worker) for one in view.steps] == [(1, "w")] * 3


async def test_all_of_a_chain_is_in_the_queue_before_its_first_step_is_done(world):
    await world.submit(*CHAIN)
    with trio.fail_after(5):
        while (last := await world.queue.get(GetTask(id="w:c"))) is None:
            await trio.sleep(0.001)
    assert [op.id for op in world.side.operations] == ["w:a", "w:b", "w:c"]
    assert last.task.depends_on == ["w:b"]


async def test_one_step_for_each_item_and_then_the_list(world):
    await world.submit(
        step("many", for_each=[1, 2, 3], x={"$item": ""}), step("all", after=["many"], y={"$from": "many"})
    )
    assert sorted(await world.work(3)) == ["w:many[0]", "w:many[1]", "w:many[2]"]
    assert await world.work() == ["w:all"]
    view = await world.ended()
    assert [one["given"]["x"] for one in json.loads(view.steps[0].output)] == [1, 2, 3]
    assert json.loads(view.steps[1].output)["given"]["y"] == json.loads(view.steps[0].output)


async def test_a_failed_branch_does_not_stop_the_others(world):
    await world.submit(
        step("a", retry_policy={"max_retries": 0}),
        step("b", after=["a"]),
        step("other"),
        step("mend", after=["a"], when="on_failure"),
    )
    await world.work(3, fail=("a",))
    view = await world.ended()
    assert statuses(view) == {"a": "failed", "b": "skipped", "other": "completed", "mend": "completed"}
    assert (view.status, view.error.code) == ("failed", "STEP_FAILED")


async def test_equal_work_is_done_once_while_its_result_is_kept(world):
    await world.submit(step("a", memo=True, x=1))
    await world.work()
    await world.ended()
    await world.submit(step("again", memo=True, x=1), workflow_id="w2")
    view = await world.ended("w2")
    assert (view.status, view.steps[0].memo) == ("completed", True)
    assert json.loads(view.steps[0].output)["of"] == "w:a"
    world.clock.now += 101.0
    await world.submit(step("again", memo=True, x=1), workflow_id="w3")
    assert await world.work() == ["w3:again"]


# --- submitting ----------------------------------------------------------------------------------------------------


async def test_the_same_again_is_replayed_and_other_content_is_a_conflict(world):
    first = await world.submit(*CHAIN)
    again = await world.submit(*CHAIN)
    assert (again.replayed, again.cid, again.created_at) == (True, first.cid, first.created_at)
    with refused("ID_CONFLICT"):
        await world.submit(step("a"))
    with refused("ID_CONFLICT"):
        await world.submit(*CHAIN, owner="somebody else")
    await world.work(3)
    await world.ended()
    assert (await world.submit(*CHAIN)).status == "completed", "also after its end"


async def test_two_who_submit_the_same_at_once_get_one_workflow(world):
    answers = []

    async def submit():
        answers.append(await world.submit(*CHAIN))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        nursery.start_soon(submit)
    assert sorted(answer.replayed for answer in answers) == [False, True]


async def test_a_workflow_without_an_id_is_given_one(world):
    submitted = await world.submit(*CHAIN, workflow_id="")
    assert submitted.workflow_id.startswith("wf-")
    assert (await world.get(submitted.workflow_id)).status == "running"


async def test_what_has_faults_is_refused_whole_and_nothing_is_stored(world):
    with pytest.raises(InvalidArgumentsError) as caught:
        await world.submit(step("a", "no such tool"), step("b", after=["nothing"]))
    assert {fault["code"] for fault in caught.value.details["faults"]} >= {"UNKNOWN_TOOL"}
    with pytest.raises(NotFoundError):
        await world.get()
    assert world.side.operations == []


async def test_a_large_definition_is_looked_at_beside_the_others_and_one_that_is_too_large_is_refused(world):
    await world.submit(*[step(f"s{number}") for number in range(200)], size=submitting._SMALL_BYTES + 1)
    with pytest.raises(InvalidArgumentsError, match="at most"):
        await world.submit(*CHAIN, workflow_id="big", size=world.limits.max_definition_bytes + 1)


async def test_the_tools_have_to_be_known_first(world, monkeypatch):
    monkeypatch.setattr(submitting, "_TOOLS_WITHIN_S", 0.01)
    world.scheduler.builder.tools = ToolTable()
    with pytest.raises(RuntimeUnavailableError, match="try again"):
        await world.submit(*CHAIN)


async def test_more_than_is_allowed_at_once_is_refused(world):
    world.service.submitting.limits = Limits(max_open=1)
    await world.submit(*CHAIN)
    with pytest.raises(BusyError, match="max_waiting_workflows"):
        await world.submit(*CHAIN, workflow_id="w2")


# --- one after the other ---------------------------------------------------------------------------------------------


async def test_so_many_run_at_once_and_the_next_by_priority(world):
    world.scheduler.engine.line.most = 1
    await world.submit(step("a"), workflow_id="first")
    await world.submit(step("a"), workflow_id="low", priority=2)
    await world.submit(step("a"), workflow_id="high", priority=8)
    waiting = await world.get("low")
    assert (waiting.status, waiting.reason) == ("submitted", "1 others run, at most 1 do")
    assert waiting.steps[0].status == "pending"
    assert set(world.scheduler.engine.lives) == {"first"}, "those that wait are not held in memory"
    assert await world.work(3) == ["first:a", "high:a", "low:a"]
    assert (await world.ended("low")).status == "completed"


async def test_a_workflow_waits_for_those_that_it_depends_on(world):
    await world.submit(step("a"), workflow_id="before")
    await world.submit(step("a"), workflow_id="after", dependencies=["before"])
    assert (await world.get("after")).reason == "waits for before"
    assert await world.work(2) == ["before:a", "after:a"]
    assert (await world.ended("after")).status == "completed"
    assert (await world.submit(step("a"), workflow_id="later", dependencies=["before"])).status == "running"


@pytest.mark.parametrize("when", ["before its end", "after its end", "over a restart"])
async def test_a_workflow_fails_when_one_that_it_depends_on_did_not_complete(world, when):
    await world.submit(step("a"), workflow_id="before")
    if when != "after its end":
        await world.submit(step("a"), workflow_id="after", dependencies=["before"])
        await world.submit(step("a"), workflow_id="last", dependencies=["after"])
    if when == "over a restart":
        await world.restart()
    await world.service.control(ControlWorkflow(workflow_id="before", what="cancel"))
    assert (await world.ended("before")).status == "cancelled"
    if when == "after its end":
        await world.submit(step("a"), workflow_id="after", dependencies=["before"])
    view = await world.ended("after")
    assert (view.status, view.error.code) == ("failed", "DEPENDENCY_FAILED")
    if when != "after its end":
        assert (await world.ended("last")).error.code == "DEPENDENCY_FAILED"


async def test_an_unknown_dependency_and_one_of_somebody_else_are_refused_alike(world):
    await world.submit(step("a"), workflow_id="theirs", owner="them")
    for need in ("nothing", "theirs"):
        with pytest.raises(InvalidArgumentsError, match=f"no workflow '{need}'"):
            await world.submit(step("a"), owner="me", dependencies=[need])


async def test_a_deadline_passes_also_while_it_waits(world):
    world.scheduler.engine.line.most = 1
    await world.submit(step("a"), workflow_id="first")
    await world.submit(step("a"), workflow_id="late", deadline=world.clock.now + 10.0)
    world.clock.now += 11.0
    world.scheduler.engine._alarm.cancel()
    view = await world.ended("late")
    assert (view.status, view.error.code) == ("failed", "TIMEOUT")
    assert (await world.get("first")).status == "running"


async def test_the_time_of_the_whole_runs_out(world):
    await world.submit(*CHAIN)
    await world.work()
    world.clock.now += 61.0
    world.scheduler.engine._alarm.cancel()
    view = await world.ended()
    assert (view.status, view.error.code) == ("failed", "TIMEOUT")
    assert statuses(view) == {"a": "completed", "b": "cancelled", "c": "cancelled"}


# --- asking ----------------------------------------------------------------------------------------------------------


async def test_a_reading_waits_for_a_newer_version_or_the_end(world):
    await world.submit(*CHAIN)
    now = await world.get()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.work, 3)
        newer = await world.get(wait_s=5.0, newer_than=now.version)
        assert newer.version > now.version
        assert (await world.get(wait_s=5.0)).status == "completed"


async def test_who_waits_in_vain_is_told_what_there_is(world):
    await world.submit(*CHAIN)
    assert (await world.get(wait_s=0.01)).status == "running"


async def test_nobody_waits_while_the_process_leaves(world):
    await world.submit(*CHAIN)
    views = []

    async def wait():
        views.append(await world.get(wait_s=30.0))

    world.nursery.start_soon(wait)
    await wait_all_tasks_blocked(0.01)
    world.service._leaving = lambda: True
    world.service.leave()
    with trio.fail_after(2):
        while not views:
            await trio.sleep(0.001)
        await world.get(wait_s=30.0)


async def test_an_owner_sees_and_controls_what_is_his(world):
    await world.submit(*CHAIN, owner="me")
    assert (await world.get(owner="me")).owner == "me"
    with refused("NOT_OWNER"):
        await world.get(owner="you")
    with refused("NOT_OWNER"):
        await world.service.control(ControlWorkflow(workflow_id="w", what="cancel", owner="you"))
    with refused("NOT_OWNER"):
        async for _ in world.service.export(ExportWorkflow(workflow_id="w", owner="you")):
            pass
    assert (await world.service.list(ListWorkflows(owner="you"))).total == 0


async def test_unknown_ones_are_not_found(world):
    for ask in (
        world.service.get(GetWorkflow(workflow_id="x")),
        world.service.control(ControlWorkflow(workflow_id="x", what="pause")),
    ):
        with pytest.raises(NotFoundError):
            await ask


async def test_lists_are_newest_first_and_filtered(world):
    for number in range(5):
        await world.submit(step("a"), workflow_id=f"w{number}", tags=["even"] if number % 2 == 0 else [])
        world.clock.now += 1.0
    await world.work()
    await world.ended("w0")
    page = await world.service.list(ListWorkflows(limit=2))
    assert ([one.workflow_id for one in page.workflows], page.total) == (["w4", "w3"], 5)
    assert page.workflows[0].steps == []
    page = await world.service.list(ListWorkflows(tags=["even"], status="running"))
    assert [one.workflow_id for one in page.workflows] == ["w4", "w2"]
    page = await world.service.list(ListWorkflows(worker="w"))
    assert [one.workflow_id for one in page.workflows] == ["w0"]


@pytest.mark.parametrize(
    "ask",
    [
        ListWorkflows(limit=0),
        ListWorkflows(limit=1001),
        ListWorkflows(offset=-1),
        ListWorkflows(offset=2**63),
        GetWorkflow(workflow_id="w", wait_s=-1.0),
        GetWorkflow(workflow_id="w", wait_s=float("nan")),
    ],
)
async def test_a_question_out_of_bounds_is_refused(world, ask):
    with pytest.raises(InvalidArgumentsError, match=r"limit goes|length of time"):
        await (world.service.list(ask) if isinstance(ask, ListWorkflows) else world.service.get(ask))


async def test_metadata_is_told_of_one_and_not_in_lists(world):
    world.scheduler.engine.line.most = 1
    for workflow_id in ("done", "runs", "waits"):
        await world.submit(step("a"), workflow_id=workflow_id, metadata={"why": workflow_id})
        if workflow_id == "done":
            await world.work()
            await world.ended("done")
    for workflow_id in ("done", "runs", "waits"):
        assert (await world.get(workflow_id, steps=False)).metadata == {"why": workflow_id}
    assert [one.metadata for one in (await world.service.list(ListWorkflows())).workflows] == [{}] * 3


async def test_outputs_that_are_too_large_for_one_answer_are_refused(world):
    world.service._limits = Limits(max_answer_bytes=10)
    await world.submit(step("a"))
    await world.work()
    with refused("LIMIT_EXCEEDED"):
        await world.ended()
    assert (await world.get()).steps[0].result


async def test_an_export_holds_all_events_the_definition_and_the_outputs(world):
    submitted = await world.submit(*CHAIN)
    await world.work(3)
    view = await world.ended()
    call = FakeCall("workflows/export", ExportWorkflow(workflow_id="w"))
    await WorkflowMethods(world.service).all()["workflows/export"](call)
    data = b"".join(msgspec.msgpack.decode(item) for item in call.items)
    car = read(data)
    assert [cid_text(root) for root in car.roots] == view.heads
    names = {cid_text(cid) for cid in car.blocks}
    assert {submitted.cid, *(one.result for one in view.steps)} <= names
    assert verified(data).sound


async def test_the_numbers_say_what_there_is(world):
    await world.submit(*CHAIN)
    await world.work(3)
    await world.ended()
    await world.submit(step("a"), workflow_id="w2")
    stats = await world.service.stats()
    assert stats.counts == {"completed": 1, "running": 1}
    assert stats.steps["completed"] == 3
    assert stats.store["bytes"] > 0


async def test_who_watches_hears_of_each_workflow_that_changes(world):
    call = FakeCall("workflows/watch", None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(WorkflowMethods(world.service).all()["workflows/watch"], call)
        await wait_all_tasks_blocked(0.001)
        await world.submit(*CHAIN)
        with trio.fail_after(5):
            while not call.items:
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert call.items[0].ids == ["w"]


@pytest.mark.parametrize("method", ["submit", "get", "list", "control", "export"])
async def test_what_a_method_does_not_take_is_refused_in_words(world, method):
    with pytest.raises(InvalidArgumentsError, match="does not take"):
        await WorkflowMethods(world.service).all()[f"workflows/{method}"](
            FakeCall(f"workflows/{method}", {"workflow_id": 5})
        )


async def test_a_method_takes_what_crosses_processes(world):
    workflow = SubmitWorkflow(workflow={"name": "w", "workflow_id": "w", "steps": list(CHAIN)})
    answer = await called(world, "workflows/submit", workflow)
    assert isinstance(answer, WorkflowSubmitted)


# --- controlling -----------------------------------------------------------------------------------------------------


async def control(world, what, workflow_id="w", **more):
    return await world.service.control(ControlWorkflow(workflow_id=workflow_id, what=what, **more))


async def test_what_is_cancelled_is_not_done(world):
    await world.submit(*CHAIN)
    await world.work()
    answer = await control(world, "cancel", reason="enough")
    assert answer.steps[-2:] == ["b", "c"]
    view = await world.ended()
    assert (view.status, view.reason) == ("cancelled", "enough")
    assert statuses(view)["c"] == "cancelled"
    for what in ("cancel", "pause", "resume"):
        with refused("INVALID_STATE"):
            await control(world, what)


async def test_what_waits_can_be_cancelled(world):
    world.scheduler.engine.line.most = 1
    await world.submit(step("a"), workflow_id="first")
    await world.submit(step("a"), workflow_id="next")
    await world.submit(step("a"), workflow_id="last")
    assert (await control(world, "cancel", "next")).status == "cancelled"
    assert (await world.ended("next")).status == "cancelled"
    assert await world.work(2) == ["first:a", "last:a"]


async def test_a_paused_workflow_is_held_in_the_queue_and_others_go_on(world):
    await world.submit(*CHAIN)
    await control(world, "pause")
    assert (await world.get()).paused
    with trio.fail_after(5):
        while not any(isinstance(op, Pause) for op in world.side.operations):
            await trio.sleep(0.001)
    await world.submit(step("a"), workflow_id="w2")
    assert await world.work() == ["w2:a"]
    await control(world, "resume")
    assert await world.work(3) == ["w:a", "w:b", "w:c"]
    assert [op.fairness_key for op in world.side.operations if isinstance(op, Pause | Resume)] == ["workflow:w"] * 2


# --- nothing before it is on disk ------------------------------------------------------------------------------------


async def test_nothing_is_answered_or_done_before_it_is_on_disk(world, monkeypatch):
    store, disk, answers = world.scheduler.store, threading.Event(), []
    write = store.write
    monkeypatch.setattr(store, "write", lambda batch: disk.wait(5) and write(batch))

    async def submit():
        answers.append(await world.submit(*CHAIN))
        answers.append(await world.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        await trio.sleep(0.02)
        assert (answers, world.side.operations, store.find("w")) == ([], [], None)
        disk.set()
    assert [one.status for one in answers] == ["running", "running"]


async def test_what_is_decided_while_one_batch_is_written_is_one_batch(world, monkeypatch):
    store, disk, batches = world.scheduler.store, threading.Event(), []
    write = store.write

    def slowly(batch):
        batches.append([change.id for change in batch.changes if change.new is not None])
        disk.wait(5)
        write(batch)

    monkeypatch.setattr(store, "write", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.submit, step("a"), workflow_id="w0"))
        while not batches:
            await trio.sleep(0.001)
        for number in range(1, 5):
            nursery.start_soon(partial(world.submit, step("a"), workflow_id=f"w{number}"))
        while len(world.scheduler.engine.lives) < 5:
            await trio.sleep(0.001)
        disk.set()
    assert [sorted(some) for some in batches if some] == [["w0"], ["w1", "w2", "w3", "w4"]]


async def test_an_end_that_is_decided_while_an_earlier_batch_is_written_is_not_written_with_it(world, monkeypatch):
    store, engine, batches, views = world.scheduler.store, world.scheduler.engine, [], []
    write = store.write

    def one_by_one(batch):
        gate = threading.Event()
        batches.append(gate)
        gate.wait(5)
        write(batch)

    async def until(holds):
        with trio.fail_after(5):
            while not holds():
                await trio.sleep(0.001)

    async def get():
        views.append(await world.get(wait_s=5.0))

    await world.submit(step("a"))
    await until(lambda: engine.lives["w"].idle and world.side.operations)
    monkeypatch.setattr(store, "write", one_by_one)
    live = engine.lives["w"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        nursery.start_soon(world.service.control, ControlWorkflow(workflow_id="w", what="pause"))
        await until(lambda: len(batches) == 1)
        await world.work()
        await until(lambda: live.over)
        batches[0].set()
        await until(lambda: len(batches) == 2)
        assert (live.ended, engine.lives["w"], views) == (False, live, [])
        assert store.find("w").view.status == "running"
        monkeypatch.setattr(store, "write", write)
        batches[1].set()
    assert views[0].status == "completed"
    assert len({row.cid for row in store.events("w")}) == len(store.events("w"))


async def test_a_failed_write_ends_the_process_and_is_no_answer(world, monkeypatch):
    def fail(_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(world.scheduler.store, "write", fail)
    with trio.move_on_after(0.1) as scope:
        await world.submit(*CHAIN)
    assert scope.cancelled_caught
    assert world.scheduler.died is not None
    assert world.side.operations == []


# --- whatever dies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 1, 2, 3])
async def test_a_new_life_goes_on_where_the_old_one_ended(world, done):
    await world.submit(*CHAIN)
    await world.work(done)
    await world.restart()
    await world.work(3 - done)
    view = await world.ended()
    assert (view.status, world.done) == ("completed", ["w:a", "w:b", "w:c"])
    assert [json.loads(one.output)["of"] for one in view.steps] == world.done


async def test_a_life_that_ends_at_once_again_and_again_loses_nothing(world):
    await world.submit(*CHAIN)
    await world.submit(step("many", for_each=[1, 2, 3], x={"$item": ""}), workflow_id="w2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.work_on)
        for _ in range(10):
            await world.restart()
            await trio.sleep(0.003)
        assert {(await world.ended(one)).status for one in ("w", "w2")} == {"completed"}
        nursery.cancel_scope.cancel()
    assert len(world.done) == len(set(world.done)) == 6


async def test_those_that_wait_and_their_order_outlive_a_life(world):
    world.most_running = 1
    await world.restart()
    await world.submit(step("a"), workflow_id="first")
    await world.submit(step("a"), workflow_id="low", priority=2)
    await world.submit(step("a"), workflow_id="after", dependencies=["low"], priority=9)
    await world.submit(step("a"), workflow_id="high", priority=8)
    await world.restart()
    assert await world.work(4) == ["first:a", "high:a", "low:a", "after:a"]


async def test_a_workflow_that_completed_while_another_waited_for_it_counts_after_a_restart(world):
    world.most_running = 1
    await world.restart()
    await world.submit(step("a"), workflow_id="before")
    await world.submit(step("a"), workflow_id="other", priority=9)
    await world.submit(step("a"), workflow_id="after", dependencies=["before"])
    await world.work()
    await world.ended("before")
    await world.restart()
    assert await world.work(2) == ["other:a", "after:a"]
    assert (await world.ended("after")).status == "completed"


async def test_a_workflow_that_cannot_be_read_fails_and_others_go_on(world):
    await world.submit(*CHAIN)
    await world.submit(step("a"), workflow_id="w2")
    with world.scheduler.store._writer.use() as con:
        con.execute("UPDATE event SET node = x'00' WHERE workflow = (SELECT n FROM workflow WHERE id = 'w')")
    await world.restart()
    assert (await world.get("w2")).status == "running"
    view = await world.ended()
    assert (view.status, view.error.code) == ("failed", "INTERNAL")


@pytest.mark.parametrize("method", ["observe", "take", "accepted"])
async def test_a_run_that_raises_fails_alone_and_its_tasks_are_taken_back(world, monkeypatch, method):
    await world.submit(*CHAIN)
    await world.submit(step("a"), workflow_id="after", dependencies=["w"])
    await world.submit(step("a"), workflow_id="other")
    run = world.scheduler.engine.lives["w"].run

    def broken(*_):
        raise LookupError("a defect")

    with trio.fail_after(5):
        while len(world.side.operations) < 4:
            await trio.sleep(0.001)
    monkeypatch.setattr(run, method, broken)
    if method == "accepted":
        again = next(op for op in world.side.operations if op.id == "w:a")
        world.scheduler.engine.carry(world.scheduler.engine.lives["w"], Commands(enqueue=[again]))
    else:
        await world.work()
    view = await world.ended()
    assert (view.status, view.error.code) == ("failed", "INTERNAL")
    assert [line["workflow"] for line in world.logs if line["log_level"] == "error"] == ["w"]
    assert (await world.ended("after")).error.code == "DEPENDENCY_FAILED"
    await world.work()
    assert (await world.ended("other")).status == "completed"
    assert {(await world.queue.get(GetTask(id=f"w:{one}"))).task.state for one in "bc"} <= {"cancelled", "skipped"}


async def test_a_workflow_whose_run_raises_at_once_is_not_stored(world, monkeypatch):
    monkeypatch.setattr(WorkflowRun, "begin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await world.submit(*CHAIN)
    monkeypatch.undo()
    with pytest.raises(NotFoundError):
        await world.get()
    assert (await world.submit(*CHAIN)).status == "running"


async def test_the_queue_is_asked_again_until_it_is_there(world, monkeypatch):
    world.side.away = True
    await world.submit(*CHAIN)
    await trio.sleep(0.01)
    world.side.away = False
    assert await world.work(3) == ["w:a", "w:b", "w:c"]
    assert (await world.ended()).status == "completed"


async def test_a_full_queue_is_tried_again(nursery, tmp_path):
    world = World(nursery, tmp_path, msgspec.structs.replace(BIG, max_queue_size=2))
    await world.open()
    await world.queue.do(Enqueue(type="other", id="x"))
    await world.submit(step("many", for_each=list(range(5)), x={"$item": ""}))
    async with trio.open_nursery() as inner:
        inner.start_soon(world.work_on)
        inner.start_soon(turn, world)
        assert (await world.ended()).status == "completed"
        inner.cancel_scope.cancel()
    await world.close()


async def turn(world):
    """Time passes."""
    while True:
        await trio.sleep(0.01)
        world.clock.now += 1.0
        world.scheduler.engine._alarm.cancel()


async def test_tasks_that_somebody_removed_are_cancelled_steps(world):
    await world.submit(*CHAIN)
    with trio.fail_after(5):
        while len(world.side.operations) < 3:
            await trio.sleep(0.001)
        await world.until(lambda view: view.counts.get("ready", 0) >= 1)
    await world.queue.do(Clear(statuses=["queued"]))
    view = await world.ended()
    assert view.status == "failed"
    assert "completed" not in statuses(view).values()


async def test_an_id_is_not_free_before_the_queue_has_forgotten_the_tasks(world):
    world.rules = msgspec.structs.replace(world.rules, timeout_s=2000.0)
    await world.restart()
    await world.submit(step("a"))
    world.clock.now += 10.0
    await world.work()
    await world.ended()
    store = world.scheduler.store
    while not store.forget(0.0):
        assert (await world.submit(step("a"))).replayed
        world.clock.now += 100.0
    await world.queue.do(Expire())
    assert await world.queue.get(GetTask(id="w:a")) is None
    assert not (await world.submit(step("a"))).replayed
    assert await world.work() == ["w:a"]


async def test_nothing_is_left_to_do_for_what_has_ended(world):
    await world.submit(*CHAIN, step("late", after=["c"], when="always"))
    await world.service.control(ControlWorkflow(workflow_id="w", what="pause"))
    await world.service.control(ControlWorkflow(workflow_id="w", what="resume"))
    await world.submit(step("a"), workflow_id="w2")
    await world.service.control(ControlWorkflow(workflow_id="w2", what="pause"))
    await world.service.control(ControlWorkflow(workflow_id="w2", what="cancel"))
    await world.work(4)
    await world.ended("w")
    await world.ended("w2")
    with trio.fail_after(5):
        while world.scheduler.engine.lives or world.scheduler.store.open_ones():
            await trio.sleep(0.001)
    assert len(world.scheduler.engine.line) == 0
    lanes = [(type(op), op.fairness_key) for op in world.side.operations if isinstance(op, Pause | Resume)]
    assert lanes[-1] == (Resume, "workflow:w2"), "the lane of one that has ended is not stopped for ever"


async def test_what_has_ended_is_dropped_when_its_time_has_passed(world):
    await world.submit(step("a"))
    await world.work()
    await world.ended()
    world.clock.now += 999.0
    store = world.scheduler.store
    assert store.forget(0.0) == 0
    world.clock.now += 2.0
    assert store.forget(0.0, keep=["w"]) == 0
    assert store.forget(0.0) == 1
    with pytest.raises(NotFoundError):
        await world.get()
    assert (await world.submit(step("a"))).replayed is False
