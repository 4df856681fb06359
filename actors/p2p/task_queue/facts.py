# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is told of many tasks at once: as many as fit into one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from actors.p2p.task_queue.records import Item
from actors.task_messages import Task
from actors.task_views import TaskFact, TaskFacts

_size_of: Final = msgspec.msgpack.Encoder().encode


def fact_of(task: Task) -> TaskFact:
    """What matters of a task to whoever waits for it."""
    return TaskFact(
        id=task.id,
        state=task.state,
        owner=task.owner,
        attempt=task.attempt,
        token=task.token,
        worker=task.worker,
        run_at=task.run_at,
        started_at=task.started_at,
        ended_at=task.ended_at,
        progress=task.progress,
        result=task.result,
        error=task.error,
        reason=task.reason,
    )


class FactSheet:
    """The answer to a question for these tasks, of at most so many bytes, but for a single fact that is larger."""

    def __init__(self, ids: Iterable[str], most_bytes: int) -> None:
        self.full = False
        """There was one more, and no room for it."""
        self._wanted = list(dict.fromkeys(ids))
        self._facts: dict[str, TaskFact] = {}
        self._room = most_bytes

    def take(self, task: Task) -> bool:
        """Write down one of these tasks; false = there is no room for it."""
        fact = fact_of(task)
        self._room -= len(_size_of(fact))
        if self._room < 0 and self._facts:
            self.full = True
            return False
        self._facts[fact.id] = fact
        return True

    def take_all(self, tasks: Mapping[str, Item]) -> None:
        """Write down all that are among these, or as many as there is room for."""
        for task_id in self._wanted:
            item = tasks.get(task_id)
            if item is not None and not self.take(item.task):
                return

    def missing(self) -> list[str]:
        """Ids of those that were not written down."""
        return [task_id for task_id in self._wanted if task_id not in self._facts]

    def answer(self) -> TaskFacts:
        """All of it, when everybody has been asked for as long as there was room."""
        facts = [self._facts[task_id] for task_id in self._wanted if task_id in self._facts]
        missing = self.missing()
        if self.full:
            return TaskFacts(facts=facts, left=missing)
        return TaskFacts(facts=facts, unknown=missing)
