# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the embedded store (`log_store.py`) asks of its two files: a log of events, and the history of ended tasks.

All of it is synchronous: the store calls it in threads, one call at a time for each file unless a method says more.

An event is a list that begins with its kind, a small integer, and holds only what canonical DAG-CBOR keeps as it is:
texts, integers, floats, booleans, None, lists and dicts with text keys. No bytes: those that look like a CID would come
back as a link. Each reading of a clock, each random draw and each token is in the event, so that applying all events in
order always gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from actors.task_messages import Task, TaskState
from actors.task_views import ScanTasks, TaskEvent

Event = list[Any]
Group = list[Event]
"""Events that are stored together, or not at all."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a log found."""

    groups: Iterator[tuple[int, Group]]
    """All that is there, oldest first, each with the number of its segment. To be read to its end before the first
    `append`; reading it raises `actors.errors.UnavailableError` where a group is missing or is not what was written."""
    repairs: list[str]
    """What was mended, in words."""


class Log(Protocol):
    """Groups of events on disk, in numbered segments; old segments are dropped as whole. One process has it."""

    def open(self) -> Opened:
        """Take the file, or make it; mend a torn end. Raises `UnavailableError` that names the process which has it,
        or says what is wrong and what to do."""
        ...

    def append(self, events: Group) -> None:
        """Store one group. It is on disk when this returns. After any exception the log is of no use any more."""
        ...

    def segment(self) -> int:
        """Number of the segment that `append` writes to."""
        ...

    def oldest_segment(self) -> int:
        """Number of the oldest segment that is kept."""
        ...

    def rotation_due(self) -> bool:
        """Whether the newest segment is full."""
        ...

    def rotate(self, carried: Iterable[Group]) -> None:
        """In one transaction: begin a new segment, store these groups in it, and, when there are more than two, drop
        the oldest, whose state the groups carry on."""
        ...

    def checkpoint_due(self) -> bool:
        """Whether enough has gathered for a checkpoint."""
        ...

    def checkpoint(self) -> None:
        """Move what was written into the main file. May run in another thread beside `append`."""
        ...

    def sizes(self) -> dict[str, int]:
        """`bytes, wal_bytes, segments, groups`, for people."""
        ...

    def close(self) -> None:
        """Put everything away."""
        ...


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A task that has ended, for the history."""

    task: Task
    events: list[TaskEvent]
    drop_at: float
    """When it may be forgotten, Unix seconds."""


class History(Protocol):
    """Ended tasks with their results, until their time has passed. May be called from several threads."""

    def open(self) -> None:
        """Take the file, or make it. Raises `UnavailableError` when it is no history."""
        ...

    def add(self, ended: Sequence[Ended]) -> None:
        """Store these; on disk when this returns. One that is there already is replaced."""
        ...

    def get(self, task_id: str) -> Ended | None:
        """One task; None = unknown, or its time has passed."""
        ...

    def find(self, ids: Sequence[str], keys: Sequence[tuple[str, str]]) -> list[Task]:
        """Those with these ids or with these pairs of owner and idempotency key, whole."""
        ...

    def heads(self, ids: Sequence[str]) -> list[Task]:
        """Those with these ids, without payloads and results."""
        ...

    def tell(self, ids: Sequence[str], take: Callable[[Task], bool]) -> None:
        """Hand out those with these ids, without payloads, in any order, for as long as `take` wants more."""
        ...

    def scan(self, ask: ScanTasks, most: int) -> tuple[list[Task], int]:
        """The first `most` that match, in the order that was asked for and without `payload`, `result` and
        `depends_on`, and how many match in all. `ask.limit` and `ask.offset` are for the caller."""
        ...

    def counts(self) -> dict[tuple[str, TaskState], int]:
        """How many there are of each type and state."""
        ...

    def clear(self, states: Sequence[TaskState], until: float) -> int:
        """Forget those that are in one of these states and ended no later than `until`; how many there were."""
        ...

    def forget(self, now: float, most: int) -> int:
        """Forget up to `most` whose time has passed; how many there were."""
        ...

    def sizes(self) -> dict[str, int]:
        """`history_bytes, history_tasks`, for people."""
        ...

    def close(self) -> None:
        """Put everything away."""
        ...
