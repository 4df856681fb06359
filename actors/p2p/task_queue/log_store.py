# SPDX-License-Identifier: AGPL-3.0-or-later
"""The embedded store: decisions in memory (`machine.py`), a log and a history on disk (`log.py`).

Operations are decided when they come, in order; their events are appended to the log in a thread, and then they are
answered. The state in memory is ahead of the disk meanwhile; what is read from it is told when all of that is on disk
(`writer.py` has the rules), so nobody sees what is not. After a failed append the store is of no use any more.

`run` does what can be done beside that: it puts ended tasks into the history and moves the log into its main file. A
task leaves the memory by an `ARCHIVED` event in the first group after the history has it.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeVar

import msgspec
import trio

from actors.p2p.task_queue.apply import replay
from actors.p2p.task_queue.carry import carried
from actors.p2p.task_queue.collector import collector_asleep
from actors.p2p.task_queue.decide_claim import may_claim, next_openings
from actors.p2p.task_queue.decide_control import clearable
from actors.p2p.task_queue.decide_expire import next_due
from actors.p2p.task_queue.events import ARCHIVED, LEASED, STATES
from actors.p2p.task_queue.facts import FactSheet
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.log import Ended, Group, History, Log
from actors.p2p.task_queue.lookups import Unknown, unknown
from actors.p2p.task_queue.machine import NOTHING_PAST, Machine, Past
from actors.p2p.task_queue.operations import decide
from actors.p2p.task_queue.records import Item
from actors.p2p.task_queue.store import Recovery
from actors.p2p.task_queue.views import scan, stats, view
from actors.p2p.task_queue.waits import Waits
from actors.p2p.task_queue.writer import Pending, Writer, unusable
from actors.task_messages import FINAL, Claim, Clear, Cleared, Expire, Expired, Op, Outcome, RetryTask, Task, WorkerInfo
from actors.task_views import GetTask, QueueStats, ScanTasks, TaskEvent, TaskFacts, TaskPage, TaskView

T = TypeVar("T")

_COMMITS_KEPT: Final = 512
_CHAIN_LOOKUPS: Final = 100
_LOOKED_UP_TOGETHER: Final = 1000
_ALSO_IN_HISTORY: Final = frozenset({Clear, Expire})
"""Operations that change the history too."""


class LogStore:
    """See the module's text, and `store.TaskStore` for the methods. `clock` tells Unix seconds; when it is put
    back, time stands still here."""

    def __init__(
        self, log: Log, history: History, limits: QueueLimits, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._log = log
        self._history = history
        self._limits = limits
        self._clock = clock
        self._machine = Machine(limits, rng)
        self._time = 0.0
        self._log_calls = trio.CapacityLimiter(1)
        self._checkpoints = trio.CapacityLimiter(1)
        self._history_writes = trio.CapacityLimiter(1)
        self._lookups = trio.CapacityLimiter(1)
        self._lists = trio.CapacityLimiter(1)
        self._archiving = trio.Lock()
        """Held while the history and what is known of it here may differ."""
        self._deciding = trio.Lock()
        """Held from the first look at what operations need to their last decision."""
        self._writer = Writer(self._append, self._on_disk)
        self._waits = Waits()
        self._stored: dict[str, None] = {}
        """Ids of tasks that the history has and that are still in the state."""
        self._stored_at = 0.0
        self._changed: dict[str, None] = {}
        self._keeps = False
        """Whether the history holds anything."""
        self._next_forget = 0.0
        self._work = trio.Event()
        """Set when `run` may have something to do."""
        self._commits: deque[float] = deque(maxlen=_COMMITS_KEPT)
        self._recovery: Recovery | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    async def open(self) -> Recovery:
        """Take the files and rebuild the state."""
        began = time.perf_counter()
        await trio.to_thread.run_sync(self._history.open, limiter=self._history_writes)
        repairs = await trio.to_thread.run_sync(self._rebuild, limiter=self._log_calls)
        self._keeps = bool(await trio.to_thread.run_sync(self._history.counts, limiter=self._lists))
        await self._find_stored()
        m = self._machine
        m.opened(self._now())
        await self._writer.write(self._decided())
        totals = m.state.totals
        self._recovery = Recovery(
            tasks=sum(totals[: LEASED + 1]),
            leased=totals[LEASED],
            epoch=m.state.epoch,
            took_s=time.perf_counter() - began,
            repairs=repairs,
        )
        return self._recovery

    def _rebuild(self) -> list[str]:
        with collector_asleep():
            opened = self._log.open()
            replay(self._machine.state, opened.groups, self._log.segment())
        return opened.repairs

    async def _find_stored(self) -> None:
        """A life may have ended after the history had a task and before the log knew that."""
        ended = self._machine.state.ended
        ids = list(ended)
        for start in range(0, len(ids), _LOOKED_UP_TOGETHER):
            for task in await self._heads(ids[start : start + _LOOKED_UP_TOGETHER]):
                if task.ended_at == self._machine.state.tasks[task.id].task.ended_at:
                    del ended[task.id]
                    self._stored[task.id] = None

    async def run(self) -> None:
        """Keep house beside `apply`, from `open` on, until it is cancelled."""
        while True:
            await self._work.wait()
            self._check_usable()
            self._work = trio.Event()
            if self._log.checkpoint_due():
                await trio.to_thread.run_sync(self._log.checkpoint, limiter=self._checkpoints)
            if 0 < len(self._machine.state.ended) < self._limits.archive_batch:
                await trio.sleep(self._limits.archive_after_s)
            while self._machine.state.ended:
                await self.archive()

    async def close(self) -> None:
        """Put everything away."""
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._log.close, limiter=self._log_calls)
            finally:
                await trio.to_thread.run_sync(self._history.close, limiter=self._history_writes)

    # --- operations ------------------------------------------------------------------------------------------------

    async def apply(self, ops: Sequence[Op]) -> list[Outcome]:
        """Do these operations in one durable group."""
        outcomes: list[Outcome] = []
        with trio.CancelScope(shield=True):
            try:
                kinds = {type(op) for op in ops}
                async with self._archiving if Clear in kinds else nullcontext():
                    outcomes = await self._apply(ops)
                    if not kinds.isdisjoint(_ALSO_IN_HISTORY):
                        outcomes = [await self._finish(*both) for both in zip(ops, outcomes, strict=True)]
            except BaseException:
                self._give_up()
                raise
        return outcomes

    def _give_up(self) -> None:
        self._writer.fail()
        self._waits.give_up()
        self._work.set()

    async def _apply(self, ops: Sequence[Op]) -> list[Outcome]:
        async with self._deciding:
            self._check_usable()
            if self._log.rotation_due():
                await self._writer.write(self._writer.newest())
                await self._rotate()
            m = self._machine
            m.begin(self._now())
            if self._stored:
                m.emit([ARCHIVED, *self._stored])
                self._stored.clear()
            m.past = await self._past(ops)
            self._check_usable()
            outcomes = [decide(m, op) for op in ops]
            group = self._decided()
        await self._writer.write(group)
        return outcomes

    def _decided(self) -> Pending | None:
        """All that was begun is decided: the group that it will be on disk with."""
        m = self._machine
        given = self._waits.give(m)
        self._writer.add(m.end(), m.state.changed, given)
        m.state.changed = {}
        return self._writer.newest()

    async def _append(self, events: Group) -> None:
        began = time.perf_counter()
        await trio.to_thread.run_sync(self._log.append, events, limiter=self._log_calls)
        self._commits.append(time.perf_counter() - began)

    async def _finish(self, op: Op, outcome: Outcome) -> Outcome:
        """What an operation does to the history, once the rest of it is on disk."""
        if isinstance(op, Expire) and isinstance(outcome, Expired):
            dropped = await self._forget(op.most)
            return msgspec.structs.replace(outcome, dropped=dropped, next_at=self.next_due())
        if isinstance(op, Clear) and isinstance(outcome, Cleared):
            states = [STATES[number] for number in clearable(op) if STATES[number] in FINAL]
            if states:
                n = await trio.to_thread.run_sync(self._history.clear, states, outcome.at, limiter=self._history_writes)
                return msgspec.structs.replace(outcome, cleared=outcome.cleared + n)
        return outcome

    async def _forget(self, most: int) -> int:
        now = self._time
        if now < self._next_forget:
            return 0
        n = await trio.to_thread.run_sync(self._history.forget, now, most, limiter=self._history_writes)
        if n < most:
            self._next_forget = now + self._limits.forget_every_s
        return n

    async def _past(self, ops: Sequence[Op]) -> Past:
        named = unknown(self._machine.state, ops)
        if not any(named):
            return NOTHING_PAST
        past = Past(await trio.to_thread.run_sync(self._look_up, named, limiter=self._lookups))
        again = {op.id for op in ops if isinstance(op, RetryTask)}
        if again:
            for _ in range(_CHAIN_LOOKUPS):
                before = {task.retry_of for task in past.tasks.values() if task.retry_of}
                before.update(id_ for task in past.tasks.values() if task.id in again for id_ in task.depends_on)
                found = await self._heads(sorted(before - past.tasks.keys() - self._machine.state.tasks.keys()))
                if not found:
                    break
                for task in found:
                    past.put(task)
        return past

    def _look_up(self, named: Unknown) -> list[Task]:
        # Those that are known whole come last: they count.
        heads = self._history.heads(named.heads) if named.heads else []
        return heads + (self._history.find(named.ids, named.keys) if named.ids or named.keys else [])

    async def _heads(self, ids: list[str]) -> list[Task]:
        return await trio.to_thread.run_sync(self._history.heads, ids, limiter=self._lookups) if ids else []

    async def _rotate(self) -> None:
        s, log = self._machine.state, self._log
        oldest = log.oldest_segment()
        leaving = [item for item in s.tasks.values() if item.segment <= oldest] if log.segment() > oldest else []
        with collector_asleep():
            await trio.to_thread.run_sync(log.rotate, carried(s, leaving), limiter=self._log_calls)
        s.segment = log.segment()
        for item in leaving:
            item.segment = s.segment

    def _on_disk(self, group: Pending) -> None:
        self._changed |= group.changed
        self._waits.changed(group.changed)
        if self._machine.state.ended or self._log.checkpoint_due():
            self._work.set()

    # --- waiting ---------------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When `Expire` will have something to do."""
        due = [next_due(self._machine)]
        if self._waits.any_claim():
            due += next_openings(self._machine.state, self._now())
            if self._waits.more_claims:
                due.append(self._time)
        if self._keeps:
            due.append(self._next_forget)
        if self._stored:
            due.append(self._stored_at + self._limits.archive_after_s)
        return min((at for at in due if at is not None), default=None)

    async def claim_later(self, claim: Claim) -> Outcome:
        """Wait until this claim is given tasks."""
        self._check_usable()
        with self._waits.claiming(claim) as waiting:
            if may_claim(self._machine.state, claim, self._now()):
                # Somebody made a task ready since it was decided.
                await self.apply(())
            outcome = await waiting.told()
        if outcome is None:
            self._check_usable()
        assert outcome is not None
        return outcome

    async def wait_change(self, task_id: str, since: float) -> None:
        """Return when this task has changed, or is not there."""
        self._check_usable()
        item = self._machine.state.tasks.get(task_id)
        if item is None or item.where > LEASED or item.task.updated_at > since:
            await trio.lowlevel.checkpoint()
            return
        await self._waits.for_change(task_id)
        self._check_usable()

    def take_changed(self) -> list[str]:
        """Ids of the tasks whose state or questions changed."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    # --- reading ---------------------------------------------------------------------------------------------------

    async def get(self, ask: GetTask) -> TaskView | None:
        """One task."""
        item = self._machine.state.tasks.get(ask.id)
        found = None if item is None else view(self._machine.state, item, ask, self._now())
        await self._durable(ask.id)
        if found is not None:
            return found
        ended = await self._ended(ask.id)
        return None if ended is None else TaskView(task=ended.task)

    async def history(self, task_id: str) -> list[TaskEvent]:
        """What happened to a task."""
        item = self._machine.state.tasks.get(task_id)
        found = None if item is None else item.history()
        await self._durable(task_id)
        if found is not None:
            return found
        ended = await self._ended(task_id)
        return [] if ended is None else ended.events

    async def results(self, ids: Sequence[str]) -> TaskFacts:
        """Many tasks at once."""
        sheet = FactSheet(ids, self._limits.max_facts_bytes)
        sheet.take_all(self._machine.state.tasks)
        await self._shown(sheet)
        if not sheet.full and (elsewhere := sheet.missing()):
            await trio.to_thread.run_sync(self._history.tell, elsewhere, sheet.take, limiter=self._lookups)
        return sheet.answer()

    async def scan(self, ask: ScanTasks) -> TaskPage:
        """Those that match."""
        most = ask.offset + ask.limit
        async with self._archiving:
            past, in_past = await trio.to_thread.run_sync(self._history.scan, ask, most, limiter=self._lists)
            here, in_state = await self._shown(scan(self._machine.state, ask, most, self._stored))
        tasks = sorted([*here, *past], key=lambda task: task.created_at, reverse=not ask.oldest_first)
        return TaskPage(tasks=tasks[ask.offset : most], total=in_state + in_past)

    async def worker(self, name: str) -> WorkerInfo | None:
        """A worker that registered or claimed."""
        worker = self._machine.state.workers.get(name)
        info = None if worker is None else worker.info(self._now(), self._limits.worker_timeout_s)
        return await self._shown(info)

    async def stats(self) -> QueueStats:
        """The whole queue in numbers."""
        async with self._archiving:
            past = await trio.to_thread.run_sync(self._history.counts, limiter=self._lists)
            found = await self._shown(stats(self._machine, past, self._stored, self._now()))
            sizes = await trio.to_thread.run_sync(self._history.sizes, limiter=self._lists)
        sizes = sizes | await trio.to_thread.run_sync(self._log.sizes, limiter=self._log_calls)
        commits = sorted(self._commits)
        store: dict[str, Any] = {**sizes, "commits": len(commits)}
        if commits:
            store["commit_p50_ms"] = commits[len(commits) // 2] * 1000
            store["commit_p99_ms"] = commits[len(commits) * 99 // 100] * 1000
        if self._recovery is not None:
            store |= {
                "recovered_tasks": self._recovery.tasks,
                "recovery_s": self._recovery.took_s,
                "repairs": self._recovery.repairs,
            }
        return msgspec.structs.replace(found, store=store)

    async def _ended(self, task_id: str) -> Ended | None:
        return await trio.to_thread.run_sync(self._history.get, task_id, limiter=self._lookups)

    async def _durable(self, task_id: str) -> None:
        """Return when what was just read of a task is on disk."""
        self._check_usable()
        await self._writer.until(self._writer.newest_of(task_id))

    async def _shown(self, found: T) -> T:
        """What was just read of the state, when all of that is on disk."""
        self._check_usable()
        await self._writer.until(self._writer.newest())
        return found

    # --- history ---------------------------------------------------------------------------------------------------

    async def archive(self) -> int:
        """Put ended tasks into the history, up to a batch; how many there were."""
        async with self._archiving:
            ended = await self._shown(self._batch())
            if ended:
                await trio.to_thread.run_sync(self._history.add, ended, limiter=self._history_writes)
            for one in ended:
                self._machine.state.ended.pop(one.task.id, None)
                self._stored[one.task.id] = None
                self._keeps = True
            self._stored_at = self._now()
        return len(ended)

    def _batch(self) -> list[Ended]:
        s, batch, chars = self._machine.state, [], 0
        for task_id in s.ended:
            item = s.tasks[task_id]
            batch.append(self._as_ended(item))
            chars += item.chars()
            if len(batch) >= self._limits.archive_batch or chars >= self._limits.archive_chars:
                break
        return batch

    def _as_ended(self, item: Item) -> Ended:
        task = msgspec.structs.replace(item.task)
        keep_s = self._limits.keep_s if task.keep_s is None else task.keep_s
        return Ended(task=task, events=item.history(), drop_at=(task.ended_at or self._time) + keep_s)

    # --- small things ----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        self._time = max(self._time, self._clock())
        return self._time

    def _check_usable(self) -> None:
        if self._writer.failed:
            raise unusable()
