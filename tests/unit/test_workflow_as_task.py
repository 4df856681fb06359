# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow that is a task: the task ends as the workflow does, whatever becomes of the scheduler meanwhile."""

from __future__ import annotations

import json

import pytest
import trio
from workflow_calls import step
from workflow_desk import Desk, Operations
from workflow_world import World

from actors.errors import RuntimeUnavailableError
from actors.p2p.workflow_scheduler.as_task import NAME, Rules, WorkflowTasks
from actors.task_messages import FINAL, Cancel, Claim, Complete, Enqueue, Retry, Task, TaskState
from actors.task_views import GetTask
from actors.tool_tasks import result_of

WITHIN_S = 10.0
A, B = step("a"), step("b", after=["a"])


class Office:
    """The scheduler as a worker; `start` begins a life of it."""

    def __init__(self, nursery, world):
        self.world = world
        self.nursery = nursery
        self.rules = Rules(lease_s=300.0, wait_s=5.0, max_result_bytes=1 << 20)
        self.busy = 0
        """So many calls are refused first."""
        self.scope = trio.CancelScope()
        self.following = None

    def start(self):
        desk = Desk(self.world)

        async def call(one):
            if self.busy:
                self.busy -= 1
                raise RuntimeUnavailableError("the router has not told yet")
            return await desk.run(one)

        self.following = WorkflowTasks(Operations(self.world), self.world.service, call, self.rules)
        self.scope = trio.CancelScope()
        self.nursery.start_soon(self._life, self.following, self.scope)

    async def _life(self, following, scope):
        with scope:
            await following.run()

    async def submit(self, task_id="t", type_="workflow_submit", *, steps=(A, B), owner="", **payload):
        arguments = {"workflow_id": "w", "name": "W"} if type_ == "workflow_submit" else {"workflow_name": "W"}
        key = "steps" if type_ == "workflow_submit" else "tasks"
        text = json.dumps(arguments | {key: list(steps)} | payload)
        await self.world.queue.do(
            Enqueue(id=task_id, type=type_, payload=text, owner=owner, retry=Retry(max_attempts=3))
        )

    async def task(self, task_id="t") -> Task:
        return (await self.world.queue.get(GetTask(id=task_id))).task

    async def until(self, holds, task_id="t") -> Task:
        with trio.fail_after(WITHIN_S):
            view = await self.world.queue.get(GetTask(id=task_id))
            while not holds(view.task):
                view = await self.world.queue.get(GetTask(id=task_id, wait_s=0.02, newer_than=view.task.updated_at))
        return view.task

    async def ended(self, task_id="t") -> Task:
        return await self.until(lambda task: task.state in FINAL, task_id)

    async def taken(self, task_id="t") -> Task:
        """It is followed, and its workflow runs."""
        task = await self.until(lambda task: task.state == TaskState.LEASED, task_id)
        assert task.worker == NAME
        with trio.fail_after(WITHIN_S):
            while (await self.world.service.stats()).counts.get("running", 0) < 1:
                await trio.sleep(0.001)
        return task


@pytest.fixture
async def office(nursery, tmp_path):
    world = World(nursery, tmp_path)
    await world.open()
    office = Office(nursery, world)
    office.start()
    yield office
    office.scope.cancel()
    await world.close()


async def test_a_task_is_completed_with_the_tools_answer_and_the_end(office):
    await office.submit()
    await office.taken()
    await office.world.work(2)
    task = await office.ended()
    result = result_of(task.result)
    told = json.loads(result.value)
    assert (task.state, result.is_error, result.shape, result.runtime) == (TaskState.COMPLETED, False, "object", "p2p")
    assert (told["success"], told["workflow_id"], told["status"]) == (True, "w", "completed")
    assert [one["step_id"] for one in told["result"]["outputs"]] == ["a", "b"]
    assert told["result"]["outputs"][0]["output"]["of"] == "w:a"


async def test_what_it_is_completed_with_fits_the_schema_of_its_tool(office):
    import jsonschema

    schema = json.loads(Desk(office.world).tools["workflow_submit"].descriptor.output_schema)
    await office.submit()
    await office.taken()
    await office.world.work(2)
    jsonschema.validate(json.loads(result_of((await office.ended()).result).value), schema)


async def test_a_workflow_that_failed_is_an_error_and_tells_all(office):
    await office.submit(steps=[step("a", retry_policy={"max_retries": 0}), B])
    await office.taken()
    await office.world.work(1, fail=("a",))
    result = result_of((await office.ended()).result)
    told = json.loads(result.value)
    assert (result.is_error, told["success"], told["status"]) == (True, False, "failed")
    assert told["result"]["result"]["failed_steps"] == ["a"]


async def test_without_an_id_the_workflow_has_one_of_the_task(office):
    await office.submit("t1", "submit_workflow", steps=[{"task": "echo"}])
    await office.submit("t2", "submit_workflow", steps=[{"task": "echo"}])
    await office.taken("t1")
    await office.taken("t2")
    await office.world.work(2)
    told = [json.loads(result_of((await office.ended(name)).result).value) for name in ("t1", "t2")]
    assert [(one["status"], one["workflow_status"]) for one in told] == [("success", "completed")] * 2
    assert len({one["workflow_id"] for one in told}) == 2


async def test_the_owner_of_the_task_is_the_owner_of_the_workflow(office):
    await office.submit(owner="ann")
    await office.taken()
    assert (await office.world.get()).owner == "ann"


async def test_faults_of_the_definition_are_the_end_of_the_task(office):
    await office.submit(steps=[step("a", after=["z"])])
    task = await office.ended()
    assert (task.state, task.error.code, task.attempt) == (TaskState.FAILED, "INVALID_ARGUMENTS", 1)
    assert "`z`" in task.error.message


async def test_the_task_tells_how_far_the_workflow_is(office, monkeypatch):
    monkeypatch.setattr("actors.p2p.lease_keeper.NEWS_EVERY_S", 0.001)
    monkeypatch.setattr("actors.p2p.workflow_scheduler.as_task._NEWS_EVERY_S", 0.001)
    await office.submit()
    await office.taken()
    await office.world.work()
    task = await office.until(lambda task: task.progress == 50.0)
    assert task.progress_text == "workflow w: 1 of 2 steps have ended"


async def test_what_may_pass_is_tried_again(office, monkeypatch):
    monkeypatch.setattr("actors.p2p.workflow_scheduler.as_task.AGAIN_S", 0.001)
    office.busy = 1
    await office.submit()
    await office.taken()
    await office.world.work(2)
    task = await office.ended()
    assert (task.state, task.attempt) == (TaskState.COMPLETED, 1)


# --- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
async def test_a_cancelled_task_cancels_its_workflow(office, force):
    await office.submit()
    await office.taken()
    await office.world.queue.do(Cancel(id="t", force=force))
    assert (await office.ended()).state == TaskState.CANCELLED
    view = await office.world.ended()
    assert (view.status, view.reason) == ("cancelled", "its task was cancelled")


async def test_a_workflow_that_somebody_else_cancelled_is_an_error_of_the_task(office):
    await office.submit()
    await office.taken()
    await Desk(office.world)("workflow_cancel", workflow_id="w")
    task = await office.ended()
    assert (task.state, result_of(task.result).is_error) == (TaskState.COMPLETED, True)


async def test_a_task_cancelled_while_nobody_followed_it_cancels_its_workflow_later(office):
    await office.submit()
    await office.taken()
    office.scope.cancel()
    await office.world.queue.do(Cancel(id="t", force=True))
    assert (await office.world.get()).status == "running"
    office.start()
    assert (await office.world.ended()).status == "cancelled"


async def test_a_workflow_of_somebody_else_is_not_cancelled(office):
    await office.world.submit(A, workflow_id="w", owner="bob")
    await office.submit(owner="ann")
    assert (await office.ended()).error.code == "ID_CONFLICT"
    office.scope.cancel()
    await office.submit("t2", owner="ann")
    (lease,) = (await office.world.queue.do(Claim(worker="x", types=["workflow_submit"]))).tasks
    await office.world.queue.do(Cancel(id=lease.id, force=True))
    office.start()
    await office.submit("t3", workflow_id="mine")
    await office.taken("t3")
    assert (await office.world.get()).status == "running"


# --- lives -----------------------------------------------------------------------------------------------------------


async def test_the_next_life_goes_on_with_the_same_lease(office):
    await office.submit()
    token = (await office.taken()).token
    office.scope.cancel()
    await office.world.restart()
    office.start()
    await office.world.work(2)
    task = await office.ended()
    assert (task.state, task.token, task.attempt) == (TaskState.COMPLETED, token, 1)
    assert (await office.world.service.stats()).counts == {"completed": 1}


async def test_the_end_of_a_workflow_while_nobody_followed_it_is_told_later(office):
    await office.submit()
    await office.taken()
    office.scope.cancel()
    await office.world.work(2)
    assert (await office.world.ended()).status == "completed"
    office.start()
    assert (await office.ended()).state == TaskState.COMPLETED


async def test_what_is_given_back_has_used_no_attempt(office):
    await office.submit()
    await office.taken()
    office.following._leaving = lambda: True
    office.following.leave()
    await office.following.give_back()
    office.scope.cancel()
    task = await office.until(lambda task: task.state == TaskState.READY)
    assert task.attempt == 0
    assert (await office.world.get()).status == "running"
    office.start()
    await office.taken()
    await office.world.work(2)
    assert (await office.ended()).state == TaskState.COMPLETED


# --- sizes -----------------------------------------------------------------------------------------------------------


async def test_outputs_that_are_too_large_for_a_task_are_left_out(office):
    office.scope.cancel()
    office.rules = Rules(lease_s=300.0, wait_s=5.0, max_result_bytes=4000)
    office.start()
    await office.submit(steps=[A])
    await office.taken()
    (lease,) = (await office.world.queue.do(Claim(worker="w", wait_s=5.0))).tasks
    await office.world.queue.do(Complete(id=lease.id, token=lease.token, result=json.dumps("x" * 5000)))
    told = json.loads(result_of((await office.ended()).result).value)
    assert (told["status"], told["result"]["outputs"]) == ("completed", None)
