# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow as a task of the queue: `workflow_submit` and `submit_workflow`, called as MCP tasks.

The scheduler is the worker for tasks of these types. It calls the tool, as the task's owner would, and follows the
workflow to its end: the task tells how far it is, wants it cancelled when it is cancelled itself, and is completed with
what the tool answered, to which `result` is added: what `workflow_result` would tell now. Of a workflow that did not
complete the result is an error (`isError`), so that nobody takes it for success.

The task's lease outlives this process: the next life goes on with it. The workflow's id follows from the task's, where
the call names none, so nothing is submitted twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, code_of, to_info
from actors.logs import get_logger
from actors.messages import ErrorInfo
from actors.p2p.asking_queue import AGAIN_S, End, end_task, held_by, may_ask_again, persist
from actors.p2p.lease_keeper import LeaseKeeper
from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.p2p.workflow_scheduler.tools_access import steps_ended
from actors.p2p.workflow_scheduler.tools_results import result_of
from actors.p2p.workflow_scheduler.tools_submit import id_for, with_end
from actors.task_client import TaskClient, new_task_id
from actors.task_messages import (
    AckCancel,
    Claim,
    Claimed,
    Complete,
    Fail,
    RegisterWorker,
    Release,
    Task,
    TaskState,
    WorkerInfo,
)
from actors.task_views import GetTask, ScanTasks
from actors.tool_messages import ToolCall, ToolResult
from actors.tool_tasks import result_text
from actors.workflow_messages import WORKFLOW_ENDED, ControlWorkflow, GetWorkflow, WorkflowView

NAME: Final = "workflow_scheduler"
"""By which the queue knows it, in all its lives."""
TYPES: Final = ("workflow_submit", "submit_workflow")
MOST_FOLLOWED: Final = 500
"""Tasks that are followed at once; the others wait in the queue."""
_MOST_CLAIMED: Final = 100
_MOST_LOOKED_AT: Final = 500
"""Cancelled tasks, the latest ones, whose workflows a new life looks for."""
_NEWS_EVERY_S: Final = 0.5
_WAIT_S: Final = 60.0

Call = Callable[[ToolCall], Awaitable[ToolResult]]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What it goes by, from the settings."""

    lease_s: float
    """The queue's own."""
    wait_s: float
    """One question for tasks waits so long."""
    max_result_bytes: int
    """Of a task."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A task that this worker has."""

    id: str
    token: int
    type: str
    payload: str
    owner: str


class WorkflowTasks:
    """See the module's text. `run` does its work until it is cancelled."""

    def __init__(
        self,
        queue: TaskClient,
        service: WorkflowService,
        call: Call,
        rules: Rules,
        *,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """`call` runs a tool of the scheduler. While `leaving()`, no task is taken."""
        self._queue = queue
        self._service = service
        self._call = call
        self._rules = rules
        self._leaving = leaving
        self._following: dict[str, Following] = {}
        self._claiming = trio.CancelScope()
        self._room = trio.Event()

    async def run(self) -> None:
        """Go on with what former lives had, and follow more."""
        register = RegisterWorker(worker=NAME, owner=NAME, types=list(TYPES), max_tasks=MOST_FOLLOWED, internal=True)
        async with trio.open_nursery() as nursery:
            try:
                await persist(lambda: self._queue.do(register, WorkerInfo))
                await self._take_over(nursery)
            except MCPServerError as error:
                get_logger().error("the queue did not take this worker over", code=code_of(error), reason=error.message)
            nursery.start_soon(self._watch)
            await self._claim(nursery)

    def leave(self) -> None:
        """`leaving()` has become true."""
        self._claiming.cancel()

    async def give_back(self) -> None:
        """Nobody will follow them for a while: give them back, without an attempt that counts."""
        for one in list(self._following.values()):
            await end_task(self._queue, one.given_back())

    async def _take_over(self, nursery: trio.Nursery) -> None:
        for task in await held_by(self._queue, NAME):
            view = await persist(lambda task=task: self._queue.get(GetTask(id=task.id)))  # type: ignore[misc]
            if view is not None and view.task.token == task.token:
                self._begin(_held(view.task), nursery)
        # Those that were taken away while nobody was here: their workflows go on, and should not.
        ask = ScanTasks(status="cancelled", types=list(TYPES), limit=_MOST_LOOKED_AT)
        for task in (await persist(lambda: self._queue.scan(ask))).tasks:
            if task.attempt:
                nursery.start_soon(self._forsake, task.id)

    async def _forsake(self, task_id: str) -> None:
        view = await persist(lambda: self._queue.get(GetTask(id=task_id)))
        if view is not None:
            task = view.task
            await cancel(self._service, id_for(task.payload, _call_id(task.id)), task.owner, force=True)

    async def _watch(self) -> None:
        """Hear at once of tasks that are to be cancelled; without it their next beat would tell."""

        def on_changed(ids: list[str]) -> None:
            for task_id in ids or list(self._following):
                if task_id in self._following:
                    self._following[task_id].look()

        while True:
            try:
                await self._queue.watch(on_changed)
            except MCPServerError as error:
                get_logger().debug("the queue can't be watched", reason=error.message)
            await trio.sleep(AGAIN_S)

    async def _claim(self, nursery: trio.Nursery) -> None:
        request = new_task_id()
        while True:
            room = MOST_FOLLOWED - len(self._following)
            if room < 1:
                self._room = trio.Event()
                await self._room.wait()
                continue
            if self._leaving():
                await trio.sleep(AGAIN_S)
                continue
            claim = Claim(
                worker=NAME,
                types=list(TYPES),
                n=min(room, _MOST_CLAIMED),
                wait_s=self._rules.wait_s,
                # The same until its answer has come.
                request=request,
            )
            with trio.CancelScope() as self._claiming:
                try:
                    claimed = await self._queue.do(claim, Claimed)
                except MCPServerError as error:
                    if not may_ask_again(error):
                        get_logger().warning("the queue gives no tasks", code=code_of(error), reason=error.message)
                    await trio.sleep(AGAIN_S)
                    continue
                request = new_task_id()
                for lease in claimed.tasks:
                    self._begin(
                        Held(id=lease.id, token=lease.token, type=lease.type, payload=lease.payload, owner=lease.owner),
                        nursery,
                    )

    def _begin(self, held: Held, nursery: trio.Nursery) -> None:
        before = self._following.get(held.id)
        if before is not None:
            before.stop("lost")
        one = self._following[held.id] = Following(held, self._queue, self._service, self._call, self._rules)
        nursery.start_soon(self._follow, one)

    async def _follow(self, one: Following) -> None:
        end = await one.live()
        if end is not None:
            await end_task(self._queue, end)
        if self._following.get(one.held.id) is one:
            del self._following[one.held.id]
        self._room.set()


class Following:
    """One lease of a task, and the workflow that it stands for."""

    def __init__(self, held: Held, queue: TaskClient, service: WorkflowService, call: Call, rules: Rules) -> None:
        self.held = held
        self._queue = queue
        self._service = service
        self._call = call
        self._rules = rules
        self._keeper = LeaseKeeper(queue, held.id, held.token, rules.lease_s, self.stop)
        self._cancelled = trio.Event()
        self._lost = trio.CancelScope()

    def look(self) -> None:
        """The task has changed."""
        self._keeper.look()

    def stop(self, why: str) -> None:
        """`cancelled`: its owner wants that. `lost`: it is not ours any more."""
        if why == "lost":
            self._lost.cancel()
        else:
            self._cancelled.set()

    def given_back(self) -> Release:
        """It ends without an attempt that counts."""
        return Release(id=self.held.id, token=self.held.token, counts=False, reason="its worker stopped")

    async def live(self) -> End | None:
        """Submit, follow. Returns how to end the task; None when it is not ours to end."""
        end: End | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keeper.run)
            with self._lost:
                end = await self._work(nursery)
            nursery.cancel_scope.cancel()
        if end is None:
            await self._was_lost()
        return end

    async def _was_lost(self) -> None:
        view = await persist(lambda: self._queue.get(GetTask(id=self.held.id)))
        if view is None or view.task.state == TaskState.CANCELLED:
            await cancel(self._service, self._workflow_id(), self.held.owner, force=True)

    def _workflow_id(self) -> str:
        return id_for(self.held.payload, _call_id(self.held.id))

    async def _work(self, nursery: trio.Nursery) -> End:
        held = self.held
        try:
            answer = await self._submitted()
            if answer is None:
                return AckCancel(id=held.id, token=held.token)
            nursery.start_soon(self._pass_cancel_on)
            view = await self._ended()
            if view.status == "cancelled" and self._cancelled.is_set():
                return AckCancel(id=held.id, token=held.token)
            return await self._completed(answer, view)
        except MCPServerError as error:
            return self._failed(to_info(error))
        except Exception as error:  # noqa: BLE001 - one task never ends the scheduler, which has others
            get_logger().error("a task failed unexpectedly", task=held.id, tool=held.type, exc_info=error)
            return self._failed(to_info(error))

    def _failed(self, error: ErrorInfo) -> Fail:
        return Fail(id=self.held.id, token=self.held.token, error=error)

    async def _submitted(self) -> ToolResult | None:
        """What the tool answered; None when the task is to be cancelled before."""
        held = self.held
        call = ToolCall(
            name=held.type, arguments=held.payload.encode(), call_id=_call_id(held.id), principal=held.owner
        )
        while not self._cancelled.is_set():
            try:
                return await self._call(call)
            except MCPServerError as error:
                if not may_ask_again(error):
                    raise
                self._keeper.progress(None, error.message)
            with trio.move_on_after(AGAIN_S):
                await self._cancelled.wait()
        return None

    async def _pass_cancel_on(self) -> None:
        await self._cancelled.wait()
        await cancel(self._service, self._workflow_id(), self.held.owner)

    async def _ended(self) -> WorkflowView:
        """The workflow, at its end; the task hears of its news."""
        seen: int | None = None
        while True:
            began = trio.current_time()
            view = await self._view(wait_s=0.0 if seen is None else _WAIT_S, newer_than=seen)
            if view.status not in WORKFLOW_ENDED and seen is not None:
                # Its end is heard of at once, other news at a pace.
                view = await self._view(wait_s=_NEWS_EVERY_S)
            if view.status in WORKFLOW_ENDED:
                return await self._view(steps=True)
            if view.version != seen:
                seen = view.version
                ended, total = steps_ended(view), sum(view.counts.values())
                text = f"workflow {view.workflow_id}: {ended} of {total} steps have ended"
                self._keeper.progress(100.0 * ended / total if total else None, text)
            elif trio.current_time() - began < _NEWS_EVERY_S:
                # The scheduler is about to leave, and lets nobody wait.
                await trio.sleep(_NEWS_EVERY_S)

    async def _view(
        self, *, steps: bool = False, wait_s: float = 0.0, newer_than: int | None = None, outputs: bool = False
    ) -> WorkflowView:
        ask = GetWorkflow(
            workflow_id=self._workflow_id(), steps=steps, wait_s=wait_s, newer_than=newer_than, outputs=outputs
        )
        return await self._service.get(ask)

    async def _completed(self, answer: ToolResult, view: WorkflowView) -> End:
        held, most = self.held, self._rules.max_result_bytes
        try:
            whole = await self._view(steps=True, outputs=True)
        except MCPServerError as error:
            if code_of(error) != "LIMIT_EXCEEDED":
                raise
            text = None
        else:
            text = _text_of(answer, whole, outputs=True)
        if text is None or len(text.encode()) > most:
            text = _text_of(answer, view, outputs=False)
        if len(text.encode()) > most:
            reason = f"its result has {len(text.encode())} bytes; p2p.task_queue.max_result_bytes is {most}"
            return self._failed(ErrorInfo(code="LIMIT_EXCEEDED", message=reason))
        return Complete(id=held.id, token=held.token, result=text)


async def cancel(service: WorkflowService, workflow_id: str, owner: str, *, force: bool = False) -> None:
    """Cancel a workflow of this owner, if there is such a one that has not ended."""
    order = ControlWorkflow(
        workflow_id=workflow_id, what="cancel", owner=owner, reason="its task was cancelled", force=force
    )
    while True:
        try:
            await service.control(order)
            return
        except (NotFoundError, InvalidArgumentsError):
            return
        except MCPServerError as error:
            if not may_ask_again(error):
                return
        await trio.sleep(AGAIN_S)


def _held(task: Task) -> Held:
    return Held(id=task.id, token=task.token, type=task.type, payload=task.payload, owner=task.owner)


def _call_id(task_id: str) -> str:
    return f"task-{task_id}"


def _text_of(answer: ToolResult, view: WorkflowView, *, outputs: bool) -> str:
    took_s = max(0.0, (view.ended_at or view.created_at) - view.created_at)
    end = with_end(answer.value, result_of(view, outputs=outputs))
    return result_text(
        msgspec.structs.replace(answer, value=end, duration_ms=1000.0 * took_s, is_error=view.status != "completed")
    )
