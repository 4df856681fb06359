# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs workflows: begins them when there is room, tells each run what becomes of its tasks and when its time is over,
makes durable what runs decide, and has it carried out.

Whoever tells a run something calls `settle` before anybody else may run. A run that raises what it should not is set
aside: its workflow fails, and the others go on.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from actors.errors import NotFoundError
from actors.logs import get_logger
from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler.carrier import Carrier, Queue
from actors.p2p.workflow_scheduler.journal import Journal
from actors.p2p.workflow_scheduler.line import Line, Waiting
from actors.p2p.workflow_scheduler.live import Live
from actors.p2p.workflow_scheduler.machine import WorkflowRun
from actors.p2p.workflow_scheduler.news import News
from actors.p2p.workflow_scheduler.records import Known, Submission
from actors.p2p.workflow_scheduler.run_values import Commands
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.unwritten import Unwritten
from actors.task_views import TaskFact
from actors.workflow_messages import WORKFLOW_ENDED

_FULL_S: Final = 0.25
"""After the queue refused a task for want of room."""
_LONGEST_SLEEP_S: Final = 60.0
"""Because the clock of the engine may be set."""
_FORGET_S: Final = 60.0
_FEW: Final = 32
"""Steps that are left: the end of a workflow is near, and somebody may wait for it."""
_LOOK_S: Final = 300.0
"""Between two looks at all tasks that are waited for, beside the queue's news."""

Build = Callable[[Submission, float], WorkflowRun]
"""A run from what is stored, at that time. Blocks."""


class Engine:
    """See the module's text. `run` has to run beside it."""

    def __init__(
        self,
        store: WorkflowStore,
        queue: Queue,
        build: Build,
        unwritten: Unwritten,
        *,
        most_running: int,
        keep_s: float,
        tasks_keep_s: float,
        memo_s: float,
        now: Callable[[], float],
    ) -> None:
        """`keep_s`, `memo_s`: how long ended workflows and results for equal work are kept; `tasks_keep_s` as in
        `Rules.keep_s`."""
        self.now = now
        self.line = Line(most_running)
        self.lives: dict[str, Live] = {}
        """Workflows in memory."""
        self.journal = Journal(store, unwritten, keep_s=keep_s, tasks_keep_s=tasks_keep_s, on_written=self._written)
        self.on_changed: Callable[[str], None] = lambda _: None
        """Hears of each workflow whose changes are on disk."""
        self._store = store
        self._build = build
        self._memo_s = memo_s
        self._carrier = Carrier(
            queue,
            lambda keys: store.memos(keys, now() - memo_s),
            settle=self.settle,
            now=now,
        )
        self._news = News(
            queue,
            is_ours=self._is_ours,
            tell=self._observe,
            look=self._look,
            look_all=self.look_at_all,
            calm=self._calm,
        )
        self._opening: dict[str, trio.Event] = {}
        self._aside: dict[str, trio.Event] = {}
        """Workflows whose runs raised what they should not, until their end is on disk."""
        self._room = trio.Event()
        self._alarm = trio.CancelScope()
        self._jobs: trio.MemorySendChannel[Callable[[], Awaitable[None]]]
        self._jobs, self._to_do = trio.open_memory_channel[Callable[[], Awaitable[None]]](math.inf)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            nursery.start_soon(self._work, nursery)
            nursery.start_soon(self._begin_all)
            nursery.start_soon(self._news.run)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._forget)
            nursery.start_soon(self._look_now_and_then)

    # --- what is there -----------------------------------------------------------------------------------------------

    def recover(self, open_ones: Iterable[Known], ended: Mapping[str, bool]) -> list[str]:
        """Put those that the lives before this one left into their places; `ended`: workflows that they depend on and
        that have ended, and whether they completed. Returns those that have to be opened."""
        begun = []
        for one in open_ones:
            view = one.view
            if view.status != "submitted":
                begun.append(one.id)
                if view.status == "running":
                    self.line.running.add(one.id)
                continue
            needs = frozenset(need for need in view.dependencies if need not in ended)
            self.line.add(
                Waiting(
                    id=one.id, priority=view.priority, created_at=view.created_at, needs=needs, deadline=view.deadline
                )
            )
            failed = next((need for need in view.dependencies if ended.get(need) is False), None)
            if failed is not None:
                self.later(lambda one=one, failed=failed: self._fail(one.id, failed))  # type: ignore[misc]
        self._room.set()
        return begun

    async def open(self, workflow_id: str) -> Live:
        """A workflow that has not ended, in memory; stays there while `users` says so, or while it runs. Raises
        `NotFoundError`."""
        while True:
            live = self.lives.get(workflow_id)
            if live is not None:
                return live
            opening = self._opening.get(workflow_id)
            if opening is None:
                return await self._open(workflow_id)
            await opening.wait()

    async def _open(self, workflow_id: str) -> Live:
        opened = self._opening[workflow_id] = trio.Event()
        try:
            submission = await trio.to_thread.run_sync(self._store.submission, workflow_id)
            if submission is None:
                raise NotFoundError(f"there is no workflow {workflow_id[:200]!r}")
            run = await trio.to_thread.run_sync(self._build, submission, self.now())
            live = self.add(run)
            live.ended = live.over
            self.settle(live)
            return live
        finally:
            del self._opening[workflow_id]
            opened.set()

    def add(self, run: WorkflowRun) -> Live:
        """A workflow that is in memory from now on."""
        live = self.lives[run.workflow_id] = Live(run)
        return live

    def release(self, live: Live) -> None:
        """Forget a run that only waits or has ended, once nobody needs it."""
        if live.idle and (live.ended or (live.id in self.line and not live.over)):
            self.lives.pop(live.id, None)

    def forget(self, live: Live) -> None:
        """It was never stored."""
        del self.lives[live.id]
        self.line.ended(live.id, completed=False)

    # --- deciding ----------------------------------------------------------------------------------------------------

    def settle(self, live: Live, new: Submission | None = None) -> None:
        """A run was told something: have what it decided written."""
        changes = live.run.take()
        if changes.full:
            live.retry_at = self.now() + _FULL_S
        self.journal.note(live, changes, new, live.run.plan.block)
        due = min(live.retry_at, math.inf if (at := live.run.next_due()) is None else at)
        self._alarm.deadline = min(self._alarm.deadline, self._at(due))

    def begin_soon(self) -> None:
        """There may be room, or somebody who wants it."""
        self._room.set()

    def later(self, do: Callable[[], Awaitable[None]]) -> None:
        """Have something done beside."""
        self._jobs.send_nowait(do)

    async def _work(self, nursery: trio.Nursery) -> None:
        async for do in self._to_do:
            nursery.start_soon(do)

    async def _begin_all(self) -> None:
        while True:
            await self._room.wait()
            self._room = trio.Event()
            while (workflow_id := self.line.take()) is not None:
                live = await self.open_or_give_up(workflow_id)
                if live is not None:
                    with self.telling(live):
                        live.run.begin(self.now())

    async def open_or_give_up(self, workflow_id: str) -> Live | None:
        """The same as `open`; a workflow that can't be run (its rows are damaged, or another version wrote them) ends
        as failed, so that it does not keep others from going on."""
        if workflow_id in self._aside:
            await self._aside[workflow_id].wait()
            return None
        try:
            return await self.open(workflow_id)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it
            get_logger().error("a workflow can't be continued", workflow=workflow_id, exc_info=error)
            await self._give_up(workflow_id)
            return None

    async def _give_up(self, workflow_id: str) -> None:
        known = await trio.to_thread.run_sync(self._store.find, workflow_id)
        if known is not None and known.view.status not in WORKFLOW_ENDED:
            why = ErrorInfo(code="INTERNAL", message="it can't be continued; the server's log has the details")
            view = msgspec.structs.replace(known.view, status="failed", error=why, ended_at=self.now())
            self.journal.give_up(workflow_id, view)
            await self.journal.written()
            self.on_changed(workflow_id)
        self._passed(workflow_id, completed=False)

    @contextmanager
    def telling(self, live: Live, *, settles: bool = True) -> Generator[None, None, None]:
        """A run is told something, and what it decides is written; if it raises, it is set aside."""
        try:
            yield
            if settles:
                self.settle(live)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it
            self._set_aside(live, error)

    def _set_aside(self, live: Live, error: Exception) -> None:
        get_logger().error("a workflow can't be continued", workflow=live.id, exc_info=error)
        if self.lives.get(live.id) is live:
            del self.lives[live.id]
            live.commands.clear()
            self._aside[live.id] = trio.Event()
            self.later(lambda: self._end_aside(live))

    async def _end_aside(self, live: Live) -> None:
        """Take back what it has in the queue; then it has failed."""
        ids = live.run.waits_for()
        await self._carrier.drop(ids)
        await self._give_up(live.id)
        self._aside.pop(live.id).set()

    def _written(self, live: Live, commands: Commands | None, ended: bool) -> None:
        if commands is not None:
            self.carry(live, commands)
        if ended:
            live.ended = True
            self._passed(live.id, completed=live.run.status == "completed")
        self._maybe_close(live)
        self.on_changed(live.id)
        self.release(live)

    def carry(self, live: Live, commands: Commands) -> None:
        """Have these carried out, after those that were there before."""
        live.commands.append(commands)
        if not live.carrying:
            live.carrying = True
            self.later(lambda: self._carry(live))

    async def _carry(self, live: Live) -> None:
        try:
            with self.telling(live, settles=False):
                while live.commands:
                    await self._carrier.carry_out(live, live.commands.popleft())
        finally:
            live.carrying = False
        self._maybe_close(live)
        self.release(live)

    def _maybe_close(self, live: Live) -> None:
        if live.ended and live.left and not live.busy:
            self.journal.close(live)

    def _passed(self, workflow_id: str, *, completed: bool) -> None:
        for after in self.line.ended(workflow_id, completed=completed):
            self.later(lambda after=after: self._fail(after, workflow_id))  # type: ignore[misc]
        self._room.set()

    async def _fail(self, workflow_id: str, because_of: str) -> None:
        live = await self.open_or_give_up(workflow_id)
        if live is not None:
            with self.telling(live):
                self.fail(live, because_of)

    def fail(self, live: Live, because_of: str) -> None:
        """Tell a run that it can't begin, because that workflow did not complete."""
        message = f"workflow {because_of} did not complete, and this one depends on it"
        live.run.fail(ErrorInfo(code="DEPENDENCY_FAILED", message=message), self.now())

    # --- the queue's news --------------------------------------------------------------------------------------------

    def _is_ours(self, task_id: str) -> bool:
        return task_id.partition(":")[0] in self.lives

    def _calm(self) -> bool:
        """Whether none of those that run needs the news to go on, or is about to end."""
        runs = [live.run for live in self.lives.values() if live.run.status == "running"]
        return bool(runs) and all(run.all_sent and run.state.open > _FEW for run in runs)

    def _observe(self, facts: list[TaskFact]) -> None:
        of: dict[str, list[TaskFact]] = {}
        for fact in facts:
            of.setdefault(fact.id.partition(":")[0], []).append(fact)
        now = self.now()
        for workflow_id, some in of.items():
            live = self.lives.get(workflow_id)
            if live is not None:
                with self.telling(live):
                    live.run.observe(some, now)

    def _look(self, task_ids: list[str]) -> None:
        """Have tasks looked at that the queue does not know: by whoever else asks the queue for that workflow, so that
        one that is just being sent is not taken for one that was removed."""
        of: dict[str, list[str]] = {}
        for task_id in task_ids:
            of.setdefault(task_id.partition(":")[0], []).append(task_id)
        for workflow_id, some in of.items():
            live = self.lives.get(workflow_id)
            if live is not None:
                self.carry(live, Commands(look=some))

    def look_at_all(self) -> None:
        """News may have been missed."""
        for live in list(self.lives.values()):
            ids = [] if live.over else live.run.waits_for()
            if ids:
                self.carry(live, Commands(look=ids))

    async def _look_now_and_then(self) -> None:
        while True:
            await trio.sleep(_LOOK_S)
            self.look_at_all()

    # --- time --------------------------------------------------------------------------------------------------------

    def _at(self, due: float) -> float:
        """That time by trio's clock."""
        return trio.current_time() + min(_LONGEST_SLEEP_S, max(0.0, due - self.now()))

    async def _keep_time(self) -> None:
        while True:
            dues = [self.line.next_due()]
            for live in self.lives.values():
                dues += [live.retry_at, math.inf if (at := live.run.next_due()) is None else at]
            with trio.CancelScope(deadline=self._at(min(dues))) as self._alarm:
                await trio.sleep_forever()
            self._tick()
            await trio.sleep(0.01)

    def _tick(self) -> None:
        now = self.now()
        for workflow_id in self.line.overdue(now):
            self.later(lambda workflow_id=workflow_id: self._expire(workflow_id))  # type: ignore[misc]
        for live in list(self.lives.values()):
            due = live.run.next_due()
            if due is not None and due <= now:
                with self.telling(live):
                    live.run.expire(now)
            if live.retry_at <= now:
                live.retry_at = math.inf
                with self.telling(live):
                    live.run.retry_refused()

    async def _expire(self, workflow_id: str) -> None:
        live = await self.open_or_give_up(workflow_id)
        if live is not None:
            with self.telling(live):
                live.run.expire(self.now())

    async def _forget(self) -> None:
        while True:
            before = self.now() - self._memo_s
            while await trio.to_thread.run_sync(self._store.forget, before, list(self.line.needed())):
                pass
            await trio.sleep(_FORGET_S)
