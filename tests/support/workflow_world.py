# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workflow scheduler in one process for tests: the real service on a real file, with the real queue on files in
memory, a clock turned by hand, a worker that does what it is told, and a way to crash."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio
from task_boxes import BIG, MemoryBox

from actors.catalogue_view import CatalogueView
from actors.errors import RuntimeUnavailableError
from actors.messages import ErrorInfo
from actors.p2p.identity import NodeSigner, load_or_create_key
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.service import TaskQueue
from actors.p2p.workflow_scheduler.building import Builder
from actors.p2p.workflow_scheduler.definition import DefinitionLimits
from actors.p2p.workflow_scheduler.engine import Engine
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.submitting import Limits
from actors.p2p.workflow_scheduler.tool_table import ToolTable
from actors.task_messages import Claim, Complete, Fail, Op, Outcome
from actors.task_views import ReadResults, TaskChanged, TaskFacts
from actors.tool_messages import Catalogue, ToolAnnotations, ToolDescriptor
from actors.workflow_messages import GetWorkflow, SubmitWorkflow, Workflow, WorkflowSubmitted, WorkflowView

SCHEMA = b'{"type":"object"}'
WITHIN_S = 10.0


def tool(name: str) -> ToolDescriptor:
    """A tool that takes anything and only reads."""
    return ToolDescriptor(
        name=name,
        title=name,
        description=name,
        input_schema=SCHEMA,
        runtime="general",
        pool="general",
        category="tests",
        annotations=ToolAnnotations(read_only_hint=True),
        retry_safe=True,
    )


CATALOGUE = CatalogueView(Catalogue(tools=[tool("echo"), tool("other")], version=1))


class FakeCall:
    """One call of a channel, without the channel: what a service reads of it."""

    def __init__(self, method: str, value: object) -> None:
        self.method = method
        self.body = msgspec.Raw(msgspec.msgpack.encode(value))
        self.items: list[object] = []

    def item(self, value: object) -> bool:
        self.items.append(value)
        return True


class WatchCall(FakeCall):
    """The queue's news, as they come."""

    def __init__(self, on_changed: Callable[[list[str]], None]) -> None:
        super().__init__("tasks/watch", None)
        self._on_changed = on_changed

    def item(self, value: object) -> bool:
        assert isinstance(value, TaskChanged)
        self._on_changed(value.ids)
        return True


class QueueSide:
    """The queue as the scheduler's client sees it. `away`: it can't be reached."""

    def __init__(self, queue: TaskQueue) -> None:
        self.queue = queue
        self.away = False
        self.operations: list[Op] = []
        """All that was asked."""
        self.reads = 0

    async def do_all(self, ops: list[Op]) -> list[Outcome]:
        self._check()
        self.operations += ops
        return await self.queue.do_all(ops, 0)

    async def read_results(self, ask: ReadResults) -> TaskFacts:
        self._check()
        self.reads += 1
        return await self.queue.results(ask)

    async def watch(self, on_changed: Callable[[list[str]], None]) -> None:
        self._check()
        on_changed([])
        await self.queue.methods()["tasks/watch"](WatchCall(on_changed))

    def _check(self) -> None:
        if self.away:
            raise RuntimeUnavailableError("the queue is away")


class Scheduler:
    """One life of it."""

    def __init__(self, world: World) -> None:
        self.store = WorkflowStore(world.folder / "workflows.sqlite", now=world.clock)
        tools = ToolTable()
        self.tools = tools
        signer = NodeSigner(load_or_create_key(world.folder))
        self.builder = Builder(self.store, tools, signer, world.rules, DefinitionLimits(max_steps=1000))
        self.engine = Engine(
            self.store,
            world.side,
            self.builder.stored,
            self.builder.unwritten,
            most_running=world.most_running,
            keep_s=1000.0,
            tasks_keep_s=world.rules.keep_s,
            memo_s=100.0,
            now=world.clock,
        )
        self.service = WorkflowService(self.store, self.engine, self.builder, world.limits)
        self.scope = trio.CancelScope()
        self.over = trio.Event()

        self.died: BaseException | None = None

    async def run(self) -> None:
        try:
            with self.scope:
                await self.service.run()
        except* sqlite3.Error as error:
            self.died = error
        finally:
            self.over.set()

    async def end(self) -> None:
        """As a dying process would: in the middle of whatever it does."""
        self.scope.cancel()
        await self.over.wait()
        self.store.close()


class World:
    """See the module's text."""

    def __init__(self, nursery: trio.Nursery, folder: Path, limits: QueueLimits = BIG) -> None:
        self.nursery = nursery
        self.folder = folder
        self.box = MemoryBox(folder, limits)
        self.clock = self.box.clock
        self.queue = TaskQueue(self.box.store, most_waiting=100_000, now=self.clock)
        self.side = QueueSide(self.queue)
        self.rules = Rules(timeout_s=60.0, keep_s=100.0)
        self.limits = Limits()
        self.most_running = 100
        self.scheduler: Scheduler
        self.logs: list[dict] = []
        self.done: list[str] = []
        """Ids of tasks, in the order in which they were done."""

    @property
    def service(self) -> WorkflowService:
        return self.scheduler.service

    async def open(self) -> None:
        await self.box.open()
        self.nursery.start_soon(self.queue.run)
        self.begin()

    def begin(self) -> None:
        """A new life of the scheduler."""
        self.scheduler = Scheduler(self)
        self.scheduler.store.open()
        self.scheduler.tools.take(CATALOGUE)
        self.nursery.start_soon(self.scheduler.run)

    async def restart(self) -> None:
        """The scheduler is killed and begins again."""
        await self.scheduler.end()
        self.begin()

    async def close(self) -> None:
        await self.scheduler.end()
        await self.box.close()

    # --- what clients do ---------------------------------------------------------------------------------------------

    async def submit(self, *steps: dict, owner: str = "", size: int | None = None, **more: object) -> WorkflowSubmitted:
        workflow = msgspec.convert({"name": "w", "workflow_id": "w", "steps": steps} | more, Workflow)
        with trio.fail_after(WITHIN_S):
            return await self.service.submit(SubmitWorkflow(workflow=workflow, owner=owner), size)

    async def get(self, workflow_id: str = "w", **more: object) -> WorkflowView:
        with trio.fail_after(WITHIN_S):
            return await self.service.get(GetWorkflow(workflow_id=workflow_id, **more))

    async def ended(self, workflow_id: str = "w") -> WorkflowView:
        view = await self.get(workflow_id, wait_s=WITHIN_S, outputs=True)
        assert view.ended_at is not None, view
        return view

    async def until(self, holds: Callable[[WorkflowView], bool], workflow_id: str = "w") -> WorkflowView:
        """Once it is so."""
        with trio.fail_after(WITHIN_S):
            view = await self.get(workflow_id)
            while not holds(view):
                view = await self.get(workflow_id, wait_s=1.0, newer_than=view.version)
        return view

    # --- what the worker does ----------------------------------------------------------------------------------------

    async def work(self, count: int = 1, *, fail: tuple[str, ...] = ()) -> list[str]:
        """Do so many tasks, whichever come; those of these steps fail."""
        return [await self._work(fail) for _ in range(count)]

    async def _work(self, fail: tuple[str, ...]) -> str:
        claim = Claim(worker="w", lease_s=1000.0, wait_s=WITHIN_S, request=f"{len(self.done)}")
        with trio.fail_after(WITHIN_S):
            (lease,) = (await self.queue.do(claim)).tasks
            self.done.append(lease.id)
            if lease.id.rpartition(":")[2] in fail:
                error = ErrorInfo(code="TOOL_FAILED", message="no")
                await self.queue.do(Fail(id=lease.id, token=lease.token, error=error))
            else:
                result = json.dumps({"of": lease.id, "given": json.loads(lease.payload)})
                await self.queue.do(Complete(id=lease.id, token=lease.token, result=result))
        return lease.id

    async def work_on(self) -> None:
        """Do whatever there is to do, until cancelled."""
        while True:
            await self._work(())
