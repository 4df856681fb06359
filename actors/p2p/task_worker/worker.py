# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker: asks the queue for as many tasks as it has room for, and brings each to its end.

Whatever it says late, twice or never: the token of a lease decides what counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from actors.catalogue_view import CatalogueView
from actors.client import ToolClient
from actors.errors import MCPServerError, code_of
from actors.logs import get_logger
from actors.messages import State
from actors.p2p.asking_queue import AGAIN_S, End, end_task, held_by, may_ask_again
from actors.p2p.task_worker.links import Results
from actors.p2p.task_worker.run import Rules, Run
from actors.p2p.task_worker.stops import Stops
from actors.peers import Peers
from actors.task_client import TASK_QUEUE, TaskClient, new_task_id
from actors.task_messages import Claim, Claimed, Lease, Release
from actors.tool_tasks import LOCAL

_MOST_CLAIMED: Final = 100
"""Tasks in one claim; the queue allows a few more."""


def types_of(catalogue: CatalogueView) -> list[str]:
    """The tasks that a worker does: of tools that can be called, but for those of the P2P actors, which are not work
    but the way to order it."""
    return [tool.name for tool in catalogue.tools if tool.runtime == "general" and not tool.broken]


class TaskWorker:
    """See the module's text. `run` does its work until it is cancelled, `leave` ends it in order."""

    def __init__(
        self, queue: TaskClient, tools: ToolClient, peers: Peers, rules: Rules, *, new_call_id: Callable[[], str]
    ) -> None:
        self._queue = queue
        self._tools = tools
        self._peers = peers
        self._stops = Stops(peers)
        self._rules = rules
        self._results = Results(queue)
        self._new_call_id = new_call_id
        self._runs: dict[str, Run] = {}
        self._ends: dict[str, End] = {}
        """Ends of tasks that the queue has not confirmed."""
        self._types: list[str] = []
        self._paused = False
        self._claiming = trio.CancelScope()
        self._changed = trio.Event()
        self._leaving = False

    @property
    def running(self) -> int:
        """Tasks that it holds."""
        return len(self._runs)

    # --- what it hears ---------------------------------------------------------------------------------------------

    def catalogue_changed(self, catalogue: CatalogueView) -> None:
        """There are other tools."""
        types = types_of(catalogue)
        if types != self._types:
            self._types = types
            self._ask_anew()

    def pause(self, *, paused: bool) -> None:
        """Take no new tasks, or take some again."""
        if paused != self._paused:
            self._paused = paused
            self._ask_anew()

    def _ask_anew(self) -> None:
        self._claiming.cancel()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _tasks_changed(self, ids: list[str]) -> None:
        for task_id in ids or list(self._runs):
            run = self._runs.get(task_id)
            if run is not None:
                run.look()

    # --- work ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stops.run)
            nursery.start_soon(self._watch)
            await self._claim(nursery)

    async def _watch(self) -> None:
        """Hear at once of tasks that are to be cancelled; without it their next beat would tell."""
        while True:
            try:
                await self._queue.watch(self._tasks_changed)
            except MCPServerError as error:
                get_logger().debug("the queue can't be watched", reason=error.message)
            await trio.sleep(AGAIN_S)

    async def _claim(self, nursery: trio.Nursery) -> None:
        request = new_task_id()
        while True:
            changed = self._changed
            room = self._room()
            if room < 1 or not self._types or self._paused or self._leaving:
                await changed.wait()
                continue
            claim = Claim(
                worker=self._rules.worker,
                types=self._types,
                capabilities=[LOCAL],
                n=min(room, _MOST_CLAIMED),
                wait_s=self._rules.wait_s,
                # The same until its answer has come: what a claim that was left had been given comes with the next.
                request=request,
            )
            claimed: Claimed | None = None
            with trio.CancelScope() as self._claiming:
                claimed = await self._asked(claim)
            if claimed is not None:
                request = new_task_id()
                for lease in claimed.tasks:
                    self._begin(lease, nursery)

    async def _asked(self, claim: Claim) -> Claimed | None:
        try:
            return await self._queue.do(claim, Claimed)
        except MCPServerError as error:
            if not may_ask_again(error):
                get_logger().warning("the queue gives no tasks", code=code_of(error), reason=error.message)
        await trio.sleep(AGAIN_S)
        return None

    def _room(self) -> int:
        asking = sum(1 for run in self._runs.values() if run.questions)
        return self._rules.concurrency - len(self._runs) + min(asking, self._rules.max_waiting)

    def _begin(self, lease: Lease, nursery: trio.Nursery) -> None:
        before = self._runs.get(lease.id)
        if before is not None:
            before.stop("lost")
        run = self._runs[lease.id] = Run(
            lease,
            self._queue,
            self._tools,
            self._stops,
            self._rules,
            self._results,
            new_call_id=self._new_call_id,
            on_asking=self._wake,
        )
        nursery.start_soon(self._carry, run, before)

    async def _carry(self, run: Run, before: Run | None) -> None:
        task_id = run.lease.id
        if before is not None:
            await before.over.wait()
        end = await run.live()
        if end is not None:
            self._ends[task_id] = end
            await self._results.end(run.lease, end)
            del self._ends[task_id]
        run.over.set()
        if self._runs.get(task_id) is run:
            del self._runs[task_id]
        self._wake()

    # --- the end ---------------------------------------------------------------------------------------------------

    async def leave(self, finish_s: float, give_back_s: float) -> list[End]:
        """Take no more tasks, let those that run end for `finish_s`, and give the others back within `give_back_s`;
        none of their attempts is used. When the queue is not there, which may be why this ends, there is nothing to
        wait for. Returns what the queue could not be told."""
        self._leaving = True
        self._ask_anew()
        with trio.move_on_after(finish_s):
            await self._while_queue_is_there(self._nothing_left)
        for run in self._runs.values():
            run.stop("given back")
        with trio.move_on_after(give_back_s):
            await self._while_queue_is_there(self._nothing_left)
            await self._while_queue_is_there(self._give_back_unheard)
        untold = dict(self._ends)
        for task_id, run in self._runs.items():
            untold.setdefault(task_id, run.given_back())
        return list(untold.values())

    async def _nothing_left(self) -> None:
        while self._runs:
            await self._changed.wait()

    async def _give_back_unheard(self) -> None:
        """What a claim was given whose answer nobody waited for any more."""
        for task in await held_by(self._queue, self._rules.worker):
            if task.id not in self._runs:
                back = Release(id=task.id, token=task.token, counts=False, reason="its worker stopped")
                await end_task(self._queue, back)

    async def _while_queue_is_there(self, work: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                while any(entry.state is State.READY for entry in self._peers.processes(TASK_QUEUE)):
                    await self._peers.changed()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            await work()
            nursery.cancel_scope.cancel()
