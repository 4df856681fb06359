# SPDX-License-Identifier: AGPL-3.0-or-later
"""Group commit without a timer: what is asked in one turn of the loop goes to the store together, and goes on going
there while what was asked before is being stored; the store puts what has gathered into one transaction.

A caller alone waits for one commit; many callers share one, so that the cost of a commit, which hardly depends on the
size of its group, is divided among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from outcome import Value

from actors.errors import BusyError
from actors.p2p.task_queue.store import TaskStore
from actors.task_messages import MOST_OPS, Op, Outcome

GROUP_BYTES: Final = 1 << 20
"""Bytes that go to the store together, as they came; one caller's may be more. Like `MOST_OPS`, of which one caller's
are never divided."""
_AT_ONCE: Final = 2
"""So many times as much may be with the store: what it writes, and what it will write next."""


class _Waiter:
    __slots__ = ("ops", "size", "task")

    def __init__(self, ops: Sequence[Op], size: int, task: trio.lowlevel.Task) -> None:
        self.ops = ops
        self.size = size
        self.task: trio.lowlevel.Task | None = task


class GroupCommit:
    """Hands operations of many callers to the store."""

    def __init__(self, store: TaskStore, *, most_waiting: int, on_stored: Callable[[], None]) -> None:
        """`most_waiting` operations at once; more are refused as busy. `on_stored` is called whenever some were
        stored."""
        self._store = store
        self._most_waiting = most_waiting
        self._on_stored = on_stored
        self._waiters: deque[_Waiter] = deque()
        self._waiting_ops = 0
        self._some = trio.Event()
        self._open_ops = 0
        """With the store."""
        self._open_bytes = 0
        self._room = trio.Event()
        self._failed = False

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
        """Hand on what is asked, until cancelled; then all that was asked before is stored first."""
        async with trio.open_nursery() as nursery:
            while not self._failed:
                if not self._waiters:
                    self._some = trio.Event()
                    await self._some.wait()
                # One turn of the loop: all who are about to ask in this turn come into the same group.
                await trio.lowlevel.cancel_shielded_checkpoint()
                with trio.CancelScope(shield=True):
                    while self._open_ops >= _AT_ONCE * MOST_OPS or self._open_bytes >= _AT_ONCE * GROUP_BYTES:
                        self._room = trio.Event()
                        await self._room.wait()
                nursery.start_soon(self._apply, *self._take())

    async def _apply(self, waiters: list[_Waiter], count: int, size: int) -> None:
        ops = waiters[0].ops if len(waiters) == 1 else [op for waiter in waiters for op in waiter.ops]
        try:
            with trio.CancelScope(shield=True):
                outcomes = await self._store.apply(ops)
        except BaseException:
            self._failed = True
            raise
        finally:
            self._open_ops -= count
            self._open_bytes -= size
            self._room.set()
        start = 0
        for waiter in waiters:
            end = start + len(waiter.ops)
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task, Value(outcomes[start:end]))
            start = end
        self._on_stored()

    def _take(self) -> tuple[list[_Waiter], int, int]:
        taken: list[_Waiter] = []
        count = size = 0
        while self._waiters and (not taken or (count < MOST_OPS and size + self._waiters[0].size <= GROUP_BYTES)):
            waiter = self._waiters.popleft()
            taken.append(waiter)
            count += len(waiter.ops)
            size += waiter.size
        self._waiting_ops -= count
        self._open_ops += count
        self._open_bytes += size
        return taken, count, size
