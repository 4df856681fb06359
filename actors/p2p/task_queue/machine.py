# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue's decisions: what each operation is answered with, and the events that make it count.

Pure: no I/O and no clock of its own. `do` decides one operation in the light of all before it, and changes the state by
applying the events of its decision; `replay` does so with events of the log. What was decided is not durable before
`events` are on disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NoReturn

from actors.messages import ErrorInfo
from actors.p2p.task_queue.apply import apply
from actors.p2p.task_queue.events import COUNTED, OPENED, SKIPPED
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.log import Event, Group
from actors.p2p.task_queue.records import Item
from actors.p2p.task_queue.state import State
from actors.task_messages import Refused, Task, made_id


class Refusal(Exception):  # noqa: N818
    """An operation is refused; nothing was changed. Never leaves the machine."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


def refuse(code: str, message: str, *, retryable: bool = False, **details: Any) -> NoReturn:  # noqa: ANN401
    """Refuse the operation."""
    raise Refusal(ErrorInfo(code=code, message=message, retryable=retryable, details=details))


class Past:
    """Ended tasks from the history that the operations of a group speak of."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self.tasks: dict[str, Task] = {}
        self.keys: dict[tuple[str, str], str] = {}
        for task in tasks:
            self.put(task)

    def put(self, task: Task) -> None:
        """Take in one more."""
        self.tasks[task.id] = task
        if task.key:
            self.keys[task.owner, task.key] = task.id


NOTHING_PAST = Past()


class Machine:
    """See the module's text."""

    def __init__(self, limits: QueueLimits, rng: random.Random) -> None:
        self.limits = limits
        self.rng = rng
        self.state = State(limits)
        self.now = 0.0
        self.past = NOTHING_PAST
        self.events: Group = []
        """Of the running group."""
        self._counted = [0, 0, 0]

    def begin(self, now: float, past: Past = NOTHING_PAST) -> None:
        """A group of operations begins; `past` = what the history knows of the tasks that it speaks of."""
        self.now = now
        self.past = past
        self.events = []

    def end(self) -> Group:
        """The group's events, to be stored together."""
        if self.events and any(self._counted):
            self.emit([COUNTED, *self._counted])
            self._counted = [0, 0, 0]
        return self.events

    def emit(self, event: Event) -> None:
        """Decide on an event."""
        self.events.append(event)
        apply(self.state, event)

    def opened(self, now: float) -> None:
        """A new life of the queue begins: the first decision in it."""
        self.begin(now)
        self.emit([OPENED, now, self.state.epoch + 1])
        self.state.changed.clear()

    def refused(self, refusal: Refusal) -> Refused:
        """The answer to a refused operation."""
        self._counted[0 if refusal.error.code == "STALE_FENCE" else 2] += 1
        return Refused(error=refusal.error)

    def replayed(self) -> None:
        """An operation was a repeat."""
        self._counted[1] += 1

    def uncounted(self) -> dict[str, int]:
        """What happened since the last group that was stored: counts that are not worth one."""
        return dict(zip(("stale_fence", "replayed", "refused"), self._counted, strict=True))

    def new_id(self) -> str:
        """An id that no task has."""
        return made_id(self.now, self.rng.randbytes(16))

    def find(self, task_id: str) -> tuple[Task, Item | None]:
        """A task, and its item unless only the history has it. Refuses with `NOT_FOUND`."""
        item = self.state.tasks.get(task_id)
        if item is not None:
            return item.task, item
        task = self.past.tasks.get(task_id)
        if task is None:
            refuse("NOT_FOUND", f"there is no task {task_id}; it may have been removed, or kept long enough")
        return task, None

    def skip_dependents(self, task_id: str, how: str) -> None:
        """A task ended without success: those that wait for it will never start."""
        if task_id in self.state.children:
            waiting = self.state.dependents(task_id)
            self.emit([SKIPPED, self.now, f"task {task_id} {how}", *waiting])
