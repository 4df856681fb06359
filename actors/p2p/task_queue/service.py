# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the task queue answers: operations in groups, readings, waits, and its own clockwork."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec
import trio

from actors.base import Method
from actors.calls import IncomingCall, Message, decoded
from actors.errors import InvalidArgumentsError, NotFoundError
from actors.messages import ErrorInfo
from actors.p2p.changes import Watcher
from actors.p2p.task_queue.group_commit import GroupCommit
from actors.p2p.task_queue.store import TaskStore
from actors.task_messages import (
    ASK_ALONE,
    FINAL,
    MOST_OPS,
    Claim,
    Claimed,
    Expire,
    Op,
    Ops,
    Outcome,
    Outcomes,
    Refused,
    TaskState,
    WorkerInfo,
)
from actors.task_views import (
    MOST_RESULTS,
    GetTask,
    QueueStats,
    ReadResults,
    ScanTasks,
    TaskChanged,
    TaskEvent,
    TaskFacts,
    TaskPage,
    TaskView,
)

MOST_WAIT_S: Final = 60.0
"""The longest that a claim or a reading waits; a longer wish is shortened."""
_CLAIMED_BYTES: Final = 4 << 20
"""Payload of the claimed tasks in one common answer."""
_EARLIEST_S: Final = 0.01
"""Between two looks at the clock."""

_encode = msgspec.msgpack.Encoder().encode
_decode_op = msgspec.msgpack.Decoder(Op).decode
_decode_ops = msgspec.msgpack.Decoder(Ops).decode
_decode_get = msgspec.msgpack.Decoder(GetTask).decode
_decode_results = msgspec.msgpack.Decoder(ReadResults).decode
_decode_scan = msgspec.msgpack.Decoder(ScanTasks).decode

T = TypeVar("T")


class TaskQueue:
    """The queue of this process. `run` has to run beside all that is asked of it."""

    def __init__(
        self,
        store: TaskStore,
        *,
        most_waiting: int,
        leaving: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`most_waiting` operations that wait to be stored; more are refused as busy. While `leaving()`, nobody waits
        for anything but a commit. `now` is the store's clock."""
        self._store = store
        self._now = now
        self._commits = GroupCommit(store, most_waiting=most_waiting, on_stored=self._stored)
        self._watchers: set[Watcher] = set()
        self._waits: set[trio.CancelScope] = set()
        self._leaving = leaving
        self._alarm = trio.CancelScope()
        self._set_alarm = trio.Event()

    # --- operations ------------------------------------------------------------------------------------------------

    async def do(self, op: Op) -> Outcome:
        """One operation; a claim waits for as long as it says. Raises `BusyError`."""
        return await self._do(op, len(_encode(op)))

    async def _do(self, op: Op, size: int) -> Outcome:
        outcome = (await self._commits.do([op], size))[0]
        if isinstance(op, Claim) and op.wait_s > 0 and isinstance(outcome, Claimed) and not outcome.tasks:
            with self._waiting(op.wait_s):
                self._set_alarm.set()  # a claim that waits makes more to look at
                try:
                    outcome = await self._store.claim_later(op)
                finally:
                    self._stored()  # the store may have made a group of its own for it
        return outcome

    async def do_all(self, ops: Sequence[Op], size: int) -> list[Outcome]:
        """Operations that came in `size` bytes, stored together; claims do not wait. Raises `InvalidArgumentsError`
        when they are too many, and `BusyError`."""
        if not ops:
            return []
        if len(ops) > MOST_OPS:
            raise InvalidArgumentsError(f"{len(ops)} operations at once; at most {MOST_OPS} are stored together")
        return await self._commits.do(ops, size)

    # --- readings --------------------------------------------------------------------------------------------------

    async def get(self, ask: GetTask) -> TaskView | None:
        """One task, after waiting as `ask` says; None = unknown."""
        view = await self._store.get(ask)
        if view is None or ask.wait_s <= 0 or _enough(view, ask):
            return view
        with self._waiting(ask.wait_s):
            while view is not None and not _enough(view, ask):
                await self._store.wait_change(ask.id, view.task.updated_at)
                view = await self._store.get(ask)
        return view

    async def results(self, ask: ReadResults) -> TaskFacts:
        """Many tasks, and what they gave. Raises `InvalidArgumentsError` when they are too many."""
        if len(ask.ids) > MOST_RESULTS:
            raise InvalidArgumentsError(f"{len(ask.ids)} tasks at once; at most {MOST_RESULTS} are told in one answer")
        return await self._store.results(ask.ids)

    async def scan(self, ask: ScanTasks) -> TaskPage:
        """Those that match."""
        return await self._store.scan(ask)

    async def history(self, task_id: str) -> list[TaskEvent]:
        """What happened to a task. Raises `NotFoundError`."""
        events = await self._store.history(task_id)
        if not events:  # each has at least the one of its beginning
            raise NotFoundError(f"there is no task {task_id[:200]!r}")
        return events

    async def worker(self, name: str, *, free_within_s: float = 0.0) -> WorkerInfo | None:
        """A worker, once it holds no task or that time has passed; None = unknown."""
        info = await self._store.worker(name)
        if free_within_s <= 0:
            return info
        with self._waiting(free_within_s, bounded=False):
            while info is not None and info.running:
                view = await self._store.get(GetTask(id=info.running[0]))
                if view is not None and view.task.state == TaskState.LEASED and view.task.worker == name:
                    await self._store.wait_change(view.task.id, view.task.updated_at)
                info = await self._store.worker(name)
        return info

    async def stats(self) -> QueueStats:
        """The whole queue in numbers."""
        return await self._store.stats()

    # --- its own life ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Store groups and keep the time, until cancelled; what was asked before is stored then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commits.run)
            nursery.start_soon(self._store.run)
            nursery.start_soon(self._keep_time)

    def leave(self) -> None:
        """Let all who wait go with what there is: `leaving()` has become true."""
        for scope in self._waits:
            scope.cancel()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._due()) as self._alarm:
                await self._set_alarm.wait()
                self._set_alarm = trio.Event()
                continue
            await trio.sleep(_EARLIEST_S)
            await self._commits.do([Expire()], 0)

    def _due(self) -> float:
        due = self._store.next_due()
        # A minute at most, because the clock of the store may be set.
        return trio.current_time() + (MOST_WAIT_S if due is None else min(MOST_WAIT_S, max(0.0, due - self._now())))

    def _stored(self) -> None:
        self._alarm.deadline = min(self._alarm.deadline, self._due())
        changed = self._store.take_changed()
        if changed:
            for watcher in self._watchers:
                watcher.add(changed)

    @contextmanager
    def _waiting(self, seconds: float, *, bounded: bool = True) -> Generator[trio.CancelScope, None, None]:
        with trio.move_on_after(min(seconds, MOST_WAIT_S) if bounded else seconds) as scope:
            self._waits.add(scope)
            if self._leaving():
                scope.cancel()
            try:
                yield scope
            finally:
                self._waits.discard(scope)

    # --- the channel's methods -------------------------------------------------------------------------------------

    def methods(self) -> dict[str, Method]:
        """All that is answered, for `Actor.serve`."""
        ops: dict[str, Method] = {f"tasks/{op.__struct_config__.tag}": self._one for op in Op.__args__}
        return ops | {
            "tasks/apply": self._apply,
            "tasks/get": self._get,
            "tasks/results": self._results,
            "tasks/scan": self._scan,
            "tasks/history": self._history,
            "tasks/stats": self._stats,
            "tasks/watch": self._watch,
        }

    async def _one(self, call: IncomingCall) -> Message:
        return await self._do(_op(call), len(call.body))

    async def _apply(self, call: IncomingCall) -> Outcomes:
        outcomes = await self.do_all(decoded(_decode_ops, call).ops, len(call.body))
        return Outcomes(outcomes=_within_one_message(outcomes))

    async def _get(self, call: IncomingCall) -> TaskView:
        ask = decoded(_decode_get, call)
        view = await self.get(ask)
        if view is None:
            raise NotFoundError(f"there is no task {ask.id[:200]!r}")
        return view

    async def _results(self, call: IncomingCall) -> TaskFacts:
        return await self.results(decoded(_decode_results, call))

    async def _scan(self, call: IncomingCall) -> TaskPage:
        return await self.scan(decoded(_decode_scan, call))

    async def _history(self, call: IncomingCall) -> Message:
        return msgspec.Raw(_encode(await self.history(decoded(_decode_get, call).id)))

    async def _stats(self, _: IncomingCall) -> QueueStats:
        return await self.stats()

    async def _watch(self, call: IncomingCall) -> None:
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            with self._waiting(math.inf, bounded=False):
                await watcher.tell(call, lambda ids: TaskChanged(ids=ids))
        finally:
            self._watchers.discard(watcher)


def _enough(view: TaskView, ask: GetTask) -> bool:
    task = view.task
    return (
        task.state in FINAL
        or (ask.until_asked and bool(task.asked))
        or (ask.newer_than is not None and task.updated_at > ask.newer_than)
    )


def _within_one_message(outcomes: list[Outcome]) -> list[Outcome]:
    """Refuse claims whose tasks would make the common answer too large: they are done, and asked again alone."""
    left = _CLAIMED_BYTES
    for at, outcome in enumerate(outcomes):
        if isinstance(outcome, Claimed) and outcome.tasks:
            for lease in outcome.tasks:
                left -= len(lease.payload)
            if left < 0:
                outcomes[at] = Refused(error=ErrorInfo(code=ASK_ALONE, message="ask again alone", retryable=True))
    return outcomes


def _op(call: IncomingCall) -> Op:
    op: Op = decoded(_decode_op, call)
    if call.method != f"tasks/{op.__struct_config__.tag}":
        raise InvalidArgumentsError(f"{call.method} was sent with an operation of another kind")
    return op
