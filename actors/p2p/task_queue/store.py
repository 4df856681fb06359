# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a store of tasks does: the contract that every store keeps (`tests/task_store/` checks it).

The embedded store decides in memory and keeps a log on disk (`log_store.py`); one that is shared by several nodes
decides in its database. Callers cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from actors.task_messages import Claim, Op, Outcome, WorkerInfo
from actors.task_views import GetTask, QueueStats, ScanTasks, TaskEvent, TaskFacts, TaskPage, TaskView


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What `open` found."""

    tasks: int
    """That have not ended."""
    leased: int
    epoch: int
    """Grows with each opening; the upper part of fencing tokens."""
    took_s: float
    repairs: list[str] = []
    """What was mended in the files, in words."""


class TaskStore(Protocol):
    """All methods may be called at any time, also while others run, and show durable state only."""

    async def open(self) -> Recovery:
        """Take the file and rebuild the state. Raises `actors.errors.UnavailableError` that names the process which
        has the file, or says what is wrong with it and what to do."""
        ...

    async def run(self) -> None:
        """Keep house beside `apply` (move ended tasks to where they are kept, tidy the files), from `open` on, in one
        task, until it is cancelled. An exception from it is the end of the store, as one from `apply` is."""
        ...

    async def apply(self, ops: Sequence[Op]) -> list[Outcome]:
        """Do these operations in one durable transaction, which may hold those of other calls too: one outcome for
        each, in order; a refused one does not harm its neighbours. Returns when all of it is on disk. Who is
        cancelled waits for that all the same. After any exception the store is of no use any more: its process ends,
        and the next one reads what was stored."""
        ...

    def next_due(self) -> float | None:
        """When (Unix seconds) `Expire` will have something to do; None = never, as things are."""
        ...

    async def claim_later(self, claim: Claim) -> Outcome:
        """Wait until this claim, which `apply` found nothing for, is given tasks (or is refused), and return that, as
        `apply` would: who waited longest is first. It is registered before this first waits. Who is cancelled gives
        up the place; but once tasks were chosen for it, this returns them in spite of that."""
        ...

    async def wait_change(self, task_id: str, since: float) -> None:
        """Return when this task has changed since the one whose `updated_at` was `since` was read, or when it has ended
        or is not there. With each change `updated_at` grows; so it does with progress, which alone wakes nobody who
        waits."""
        ...

    async def get(self, ask: GetTask) -> TaskView | None:
        """One task, wherever it is kept; None = unknown. Does not wait."""
        ...

    async def results(self, ids: Sequence[str]) -> TaskFacts:
        """Many tasks at once, wherever they are kept, as far as they fit into one answer (`max_facts_bytes`): at least
        one of those that there are. Does not wait."""
        ...

    async def scan(self, ask: ScanTasks) -> TaskPage:
        """Those that match."""
        ...

    async def history(self, task_id: str) -> list[TaskEvent]:
        """What happened to a task, oldest first; of old events only the latest are kept."""
        ...

    async def worker(self, name: str) -> WorkerInfo | None:
        """A worker that registered or claimed; None = unknown. To look at it is no sign of life of it."""
        ...

    async def stats(self) -> QueueStats:
        """The whole queue in numbers."""
        ...

    def take_changed(self) -> list[str]:
        """Ids of the tasks whose state or questions changed since this was called last, for `TaskChanged`."""
        ...

    async def close(self) -> None:
        """Put everything away; the file can be opened by others afterwards."""
        ...
