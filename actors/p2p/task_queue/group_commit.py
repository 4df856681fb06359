# SPDX-License-Identifier: AGPL-3.0-or-later
"""Group commit without a timer: what is asked while one group is being stored becomes the next group.

A caller alone waits for one commit; many callers share one, so that the cost of a commit, which hardly depends on the
size of its group, is divided among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import trio
from outcome import Value

from actors.errors import BusyError
from actors.p2p.task_queue.store import TaskStore
from actors.task_messages import Op, Outcome

GROUP_OPS = 512
"""Operations of one group; one caller's are never divided, so a group may have up to twice as many."""
GROUP_BYTES = 1 << 20
"""Bytes of one group, as they came; one caller's may be more."""


class _Waiter:
    __slots__ = ("ops", "size", "task")

    def __init__(self, ops: Sequence[Op], size: int, task: trio.lowlevel.Task) -> None:
        self.ops = ops
        self.size = size
        self.task: trio.lowlevel.Task | None = task


class GroupCommit:
    """Hands operations of many callers to the store, group by group."""

    def __init__(self, store: TaskStore, *, most_waiting: int, on_stored: Callable[[], None]) -> None:
        """`most_waiting` operations at once; more are refused as busy. `on_stored` is called after each group."""
        self._store = store
        self._most_waiting = most_waiting
        self._on_stored = on_stored
        self._waiters: deque[_Waiter] = deque()
        self._waiting_ops = 0
        self._some = trio.Event()

    async def do(self, ops: Sequence[Op], size: int) -> list[Outcome]:
        """Store these operations, which came in `size` bytes, in one group, and return an outcome for each.

        Raises `BusyError` when too many wait. A caller who is cancelled leaves; the operations are done all the same.
        """
        if self._waiting_ops + len(ops) > self._most_waiting:
            raise BusyError(f"{self._waiting_ops} operations wait to be stored already; try again in a moment")
        waiter = _Waiter(ops, size, trio.lowlevel.current_task())
        self._waiters.append(waiter)
        self._waiting_ops += len(ops)
        self._some.set()

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            waiter.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        outcomes: list[Outcome] = await trio.lowlevel.wait_task_rescheduled(abort)
        return outcomes

    async def run(self) -> None:
        """Store group after group, until cancelled; then all that was asked before is stored first."""
        while True:
            if not self._waiters:
                self._some = trio.Event()
                await self._some.wait()
            # One turn of the loop: all who are about to ask in this turn come into the same group.
            await trio.lowlevel.cancel_shielded_checkpoint()
            with trio.CancelScope(shield=True):
                await self._store_group()

    async def _store_group(self) -> None:
        waiters = self._take()
        ops = waiters[0].ops if len(waiters) == 1 else [op for waiter in waiters for op in waiter.ops]
        outcomes = await self._store.apply(ops)
        start = 0
        for waiter in waiters:
            end = start + len(waiter.ops)
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task, Value(outcomes[start:end]))
            start = end
        self._on_stored()

    def _take(self) -> list[_Waiter]:
        taken: list[_Waiter] = []
        count = size = 0
        while self._waiters and (not taken or (count < GROUP_OPS and size + self._waiters[0].size <= GROUP_BYTES)):
            waiter = self._waiters.popleft()
            taken.append(waiter)
            count += len(waiter.ops)
            size += waiter.size
        self._waiting_ops -= count
        return taken
