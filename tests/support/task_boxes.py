# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stores of tasks for tests: each kind with files that outlive it, a clock turned by hand, and a way to crash."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import trio
from task_files import MemoryHistory, MemoryLog

from actors.p2p.task_queue.duckdb_log import DuckDBLog
from actors.p2p.task_queue.history import SQLiteHistory
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.log_store import LogStore
from actors.p2p.task_queue.sqlite_log import SQLiteLog
from actors.p2p.task_queue.store import Recovery, TaskStore
from actors.task_messages import Claim, Enqueue, Lease, Op, Outcome, Refused, Task
from actors.task_views import GetTask

START = 1_800_000_000.0
BIG = QueueLimits(lease_s=30.0, archive_after_s=0.0)


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Box:
    """A store and all that it needs. What every kind of store has to bring is `make_store` and `crash`."""

    def __init__(self, directory: Path, limits: QueueLimits = BIG) -> None:
        self.directory = directory
        """Empty at first; for those who need files."""
        self.limits = limits
        self.clock = Clock()
        self.rng = random.Random(1)
        self.store: TaskStore = self.make_store()

    def make_store(self) -> TaskStore:
        """A store on this box's files."""
        raise NotImplementedError

    async def crash(self) -> None:
        """End the store as a dying process would: without a word."""
        raise NotImplementedError

    async def open(self) -> Recovery:
        with trio.fail_after(10):
            return await self.store.open()

    async def reopen(self, limits: QueueLimits | None = None) -> Recovery:
        """Crash, and open again."""
        await self.crash()
        self.limits = limits or self.limits
        self.store = self.make_store()
        return await self.open()

    async def close(self) -> None:
        await self.store.close()

    async def do(self, op: Op) -> Any:
        """One operation in a group of its own."""
        [outcome] = await self.do_all(op)
        return outcome

    async def do_all(self, *ops: Op) -> list[Outcome]:
        """Operations in one group."""
        with trio.fail_after(10):
            return await self.store.apply(ops)

    async def put(self, id_: str, type_: str = "echo", **fields: Any) -> Any:
        return await self.do(Enqueue(type=type_, id=id_, **fields))

    async def claim(self, worker: str = "w", **fields: Any) -> list[Lease]:
        return (await self.do(Claim(worker=worker, **fields))).tasks

    async def take(self, worker: str = "w", **fields: Any) -> Lease:
        """Claim one task; there has to be one."""
        [lease] = await self.claim(worker, **fields)
        return lease

    async def task(self, id_: str) -> Task:
        view = await self.store.get(GetTask(id=id_))
        assert view is not None, id_
        return view.task

    async def state(self, id_: str) -> str:
        return (await self.task(id_)).state.value

    def later(self, seconds: float) -> None:
        self.clock.now += seconds

    def settled(self) -> bool:
        """Whether ended tasks are where they are kept."""
        store = self.store
        assert isinstance(store, LogStore)
        return not store._machine.state.ended and not store._stored

    async def settle(self) -> None:
        """Let the store do what it does beside, until all of it is done."""
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.store.run)
                await self.do_all()
                while not self.settled():
                    await trio.sleep(0.001)
                    await self.do_all()
                nursery.cancel_scope.cancel()


class MemoryBox(Box):
    """The embedded store on files in memory."""

    def __init__(self, directory: Path, limits: QueueLimits = BIG, *, rotate_at: int = 10**9) -> None:
        self.log = MemoryLog(rotate_at=rotate_at)
        self.kept = MemoryHistory()
        super().__init__(directory, limits)

    def make_store(self) -> TaskStore:
        return LogStore(self.log, self.kept, self.limits, clock=self.clock, rng=self.rng)

    async def crash(self) -> None:
        pass


class RotatingBox(MemoryBox):
    """Its log begins a new segment with almost every group: what is not carried on is lost at the next crash."""

    def __init__(self, directory: Path, limits: QueueLimits = BIG) -> None:
        super().__init__(directory, limits, rotate_at=2)


class FileBox(Box):
    """The embedded store on files of a real engine."""

    LOG: type[DuckDBLog | SQLiteLog]

    def __init__(self, directory: Path, limits: QueueLimits = BIG) -> None:
        self.directory = directory
        self._logs: list[DuckDBLog | SQLiteLog] = []
        super().__init__(directory, limits)

    def make_store(self) -> TaskStore:
        log = self.LOG(self.directory / "queue")
        self._logs.append(log)
        history = SQLiteHistory(self.directory / "history", now=self.clock)
        return LogStore(log, history, self.limits, clock=self.clock, rng=self.rng)

    async def crash(self) -> None:
        self._logs[-1]._failed = True  # its files stay as they are
        await self.store.close()


class DuckDBBox(FileBox):
    LOG = DuckDBLog


class SQLiteBox(FileBox):
    LOG = SQLiteLog


KINDS: dict[str, type[Box]] = {
    "memory": MemoryBox,
    "rotating": RotatingBox,
    "sqlite": SQLiteBox,
    "duckdb": DuckDBBox,
}
"""The stores that have to keep the contract. A new one is added here."""


def code(outcome: Outcome) -> str:
    """The code that an operation was refused with; '' = it was not."""
    return outcome.error.code if isinstance(outcome, Refused) else ""
