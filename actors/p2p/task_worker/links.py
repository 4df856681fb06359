# SPDX-License-Identifier: AGPL-3.0-or-later
"""The results that payloads name (`actors/task_links.py`): of tasks that this worker completed lately they are kept
here, those of others are asked for. In a chain of tasks, most are what this worker did just before."""

from __future__ import annotations

from typing import Final

import trio

from actors.p2p.asking_queue import End, end_task, persist
from actors.task_client import TaskClient
from actors.task_filling import fill
from actors.task_links import Filling
from actors.task_messages import Complete, Lease, TaskState
from actors.task_views import ReadResults, TaskFact, TaskFacts

MOST_KEPT_BYTES: Final = 32 << 20
"""Of results that are kept; those that were not named for longest go first."""


class Results:
    """See the module's text."""

    def __init__(self, queue: TaskClient, *, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._queue = queue
        self._most = most_bytes
        self._kept: dict[str, TaskFact] = {}
        """In the order in which they were named."""
        self._bytes = 0
        self._telling: dict[str, trio.Event] = {}
        """Tasks whose completion is on its way to the queue; set when that is over."""

    async def end(self, lease: Lease, end: End) -> None:
        """Tell the queue how a task ended. What it gave is kept once it counts."""
        if not isinstance(end, Complete):
            await end_task(self._queue, end)
            return
        told = self._telling[lease.id] = trio.Event()
        try:
            if await end_task(self._queue, end):
                self._keep(TaskFact(id=lease.id, state=TaskState.COMPLETED, owner=lease.owner, result=end.result))
        finally:
            told.set()
            if self._telling.get(lease.id) is told:
                del self._telling[lease.id]

    async def filled(self, lease: Lease) -> str:
        """The payload of a task with the results that it names. Waits for as long as the queue is busy or away. Raises
        what `Filling` raises: no other attempt would help."""
        if not lease.links:
            return lease.payload
        filling = Filling(lease.payload)
        await fill(filling, lease.owner, self._read)
        return filling.text()

    async def _read(self, ask: ReadResults) -> TaskFacts:
        here: list[TaskFact] = []
        for task_id in ask.ids:
            if (told := self._telling.get(task_id)) is not None:
                # Who waited for the task was told sooner than who did it.
                await told.wait()
            if (fact := self._kept.pop(task_id, None)) is not None:
                self._kept[task_id] = fact
                here.append(fact)
        if here:
            found = {fact.id for fact in here}
            return TaskFacts(facts=here, left=[task_id for task_id in ask.ids if task_id not in found])
        return await persist(lambda: self._queue.read_results(ask))

    def _keep(self, fact: TaskFact) -> None:
        self._drop(fact.id)
        self._kept[fact.id] = fact
        self._bytes += _size(fact)
        while self._bytes > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, task_id: str) -> None:
        old = self._kept.pop(task_id, None)
        if old is not None:
            self._bytes -= _size(old)


def _size(fact: TaskFact) -> int:
    """Bytes of its texts in memory, about."""
    text = fact.result or ""
    return len(fact.id) + len(fact.owner) + (len(text) if text.isascii() else 4 * len(text))
