# SPDX-License-Identifier: AGPL-3.0-or-later
"""A task queue in this process, behind the interface by which the gateway and the worker know it, and a worker's hands.

Its decisions are the queue's own; what is left out is the disk and the way there.
"""

from __future__ import annotations

import random
import time

import trio

from actors.errors import MCPServerError, RuntimeUnavailableError, from_info, to_info
from actors.p2p.task_queue.facts import FactSheet
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.p2p.task_queue.views import scan, view
from actors.p2p.task_worker.questions import TaskOwner
from actors.task_client import repeatable
from actors.task_messages import FINAL, Claim, Claimed, Complete, Ended, Fail, Refused
from actors.task_views import TaskPage
from actors.tool_tasks import result_text

WORKER = "worker-1"


class QueueHere:
    """`gateway.mcp.exchange.Tasks`, and all of `TaskClient` that a worker needs."""

    def __init__(self, limits: QueueLimits | None = None, now=time.time) -> None:
        self.now = now
        self.machine = Machine(limits or QueueLimits(), random.Random(1))
        self.machine.opened(now())
        self.there = True
        self.failing: MCPServerError | None = None
        self.watchers = []
        self.ops = []
        self.read = []
        """Ids of tasks whose results were asked for."""
        self._news = trio.Event()

    async def do(self, op, answer, *, timeout_s=30.0):
        await self._way()
        self.ops.append(op)
        # Times must differ, as they do where a disk is written in between.
        self.machine.begin(max(self.now(), self.machine.now + 1e-5))
        outcome = decide(self.machine, repeatable(op))
        self.machine.end()
        changed = list(self.machine.state.changed)
        self.machine.state.changed.clear()
        if changed:
            for tell in self.watchers:
                tell(changed)
            self.wake()
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        assert isinstance(outcome, answer)
        return outcome

    async def get(self, ask, *, timeout_s=30.0):
        await self._way()
        with trio.move_on_after(ask.wait_s) as waiting:
            while (found := self._view(ask)) is not None and not waiting.cancel_called:
                task = found.task
                if task.state in FINAL or (ask.newer_than is not None and task.updated_at > ask.newer_than):
                    break
                if not ask.wait_s:
                    break
                await self._news.wait()
                await self._way()
        return self._view(ask)

    async def read_results(self, ask, *, timeout_s=30.0):
        await self._way()
        self.read.append(ask.ids)
        sheet = FactSheet(ask.ids, self.machine.limits.max_facts_bytes)
        sheet.take_all(self.machine.state.tasks)
        return sheet.answer()

    async def scan(self, ask, *, timeout_s=30.0):
        await self._way()
        most = ask.offset + ask.limit
        found, total = scan(self.machine.state, ask, most, {})
        return TaskPage(tasks=sorted(found, key=lambda task: -task.created_at)[ask.offset : most], total=total)

    async def watch(self, on_changed):
        self.watchers.append(on_changed)
        try:
            on_changed([])
            await trio.sleep_forever()
        finally:
            self.watchers.remove(on_changed)

    def _view(self, ask):
        item = self.machine.state.tasks.get(ask.id)
        return None if item is None else view(self.machine.state, item, ask, self.machine.now)

    async def _way(self):
        await trio.lowlevel.checkpoint()
        if self.failing is not None:
            raise self.failing

    def wake(self):
        """Let all who wait for a change look again."""
        self._news.set()
        self._news = trio.Event()

    def go_away(self):
        self.failing = RuntimeUnavailableError("the task queue was not back before the deadline; try again")


class Worker:
    """Does tasks of the queue by hand, one after the other."""

    def __init__(self, queue, backend):
        self.queue = queue
        self.backend = backend

    async def claim(self):
        (lease,) = (await self.queue.do(Claim(worker=WORKER), Claimed)).tasks
        return lease

    def owner(self, lease, **more):
        return TaskOwner(self.queue, lease, **({"timeout_s": 60.0} | more))

    async def work(self, lease=None, **more):
        """Run the tool of the next task, or of this one, to its end."""
        lease = lease or await self.claim()
        owner = self.owner(lease, **more)
        try:
            result = await owner.call(lambda: self.backend.run_in_task(lease, owner))
        except MCPServerError as error:
            await self.queue.do(Fail(id=lease.id, token=lease.token, error=to_info(error)), Ended)
        else:
            await self.queue.do(Complete(id=lease.id, token=lease.token, result=result_text(result)), Ended)
