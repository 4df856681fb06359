# SPDX-License-Identifier: AGPL-3.0-or-later
"""A task in memory (`Item`), and the way of its fields into events and back."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from actors.messages import ErrorInfo
from actors.p2p.task_queue.events import CARRIED, FIELDS, NUMBERS, STATES
from actors.p2p.task_queue.log import Event
from actors.task_messages import Enqueue, Retry, Task
from actors.task_views import TaskEvent

NO_LIST: Final[list[Any]] = []
NO_MAP: Final[dict[str, Any]] = {}
DEFAULT_RETRY: Final = Enqueue(type="any").retry
"""Shared by all tasks that have nothing of their own: what a task holds is replaced, never changed in place."""

_NUMBER: Final = {name: number for number, name in enumerate(FIELDS)}
_RETRY: Final = _NUMBER["retry"]
_ERROR: Final = _NUMBER["error"]
_SUBMITTED: Final = [
    (_NUMBER[field.name], field.name, field.default_factory() if callable(field.default_factory) else field.default)
    for field in msgspec.structs.fields(Enqueue)
    if field.name in _NUMBER and field.name not in ("payload", "retry", "run_at")
]
_PAYLOAD: Final = _NUMBER["payload"]
_RUN_AT: Final = _NUMBER["run_at"]
_RETRY_OF: Final = _NUMBER["retry_of"]


class Item(msgspec.Struct, eq=False, gc=False):
    """A task with what the queue alone needs to know of it."""

    task: Task
    where: int
    """Its state's number."""
    seq: int
    """Larger than that of every task that was submitted before."""
    segment: int
    """Of the log: where its whole record was written last."""
    order: float = 0.0
    """Smallest first: `created_at - priority * ageing_s`."""
    entry: tuple[float, int, str] | None = None
    """Its entry in a heap of ready tasks, while it is ready; all other entries of it are void."""
    lane: Any = None
    """`ready.Lane`."""
    counts: list[int] = NO_LIST
    """Tasks of its type by state's number; shared by all of the type."""
    ready_at: float = 0.0
    lease_s: float = 0.0
    logged_until: float = 0.0
    """End of its lease as the log knows it."""
    closed: int = 0
    """Token of the latest lease that its holder gave back; nothing counts with it any more."""
    closed_by: str = ""
    """How: `failed` or `released`."""
    waits: set[str] | None = None
    """Ids of tasks that it still waits for."""
    log: tuple[tuple[Any, ...], ...] = ()
    """What happened to it, each as the fields of a `TaskEvent`; at most so many as the limits say. Tuples, since the
    garbage collector would visit lists of all tasks again and again."""

    def chars(self) -> int:
        """Of all that may be large."""
        task = self.task
        texts = len(task.payload) + len(task.metadata) + (0 if task.result is None else len(task.result))
        return texts + sum(map(len, task.depends_on)) if task.depends_on else texts

    def touch(self, at: float) -> None:
        """It changes. Each change has a later time than the one before, even when the clock stood still or was put
        back between two lives: who watches a task compares them."""
        task = self.task
        task.updated_at = at if at > task.updated_at else math.nextafter(task.updated_at, math.inf)

    def note(self, most: int, at: float, what: str, note: str = "") -> None:
        """Remember what happened to it."""
        task = self.task
        log = (*self.log, (at, what, task.worker, task.token, task.attempt, note))
        # The first says when it was submitted.
        self.log = log if len(log) <= most else (log[0], *log[2:])

    def history(self) -> list[TaskEvent]:
        """What happened to it, oldest first."""
        return [
            TaskEvent(at=at, what=what, worker=worker, token=token, attempt=attempt, note=note)
            for at, what, worker, token, attempt, note in self.log
        ]


def pack_error(error: ErrorInfo | None) -> list[Any] | None:
    """An error as an event holds it. Its details become JSON text, since they may hold what DAG-CBOR does not."""
    if error is None:
        return None
    details = msgspec.json.encode(error.details).decode() if error.details else ""
    return [error.code, error.message, error.retryable, details]


def unpack_error(packed: list[Any] | None) -> ErrorInfo | None:
    """The error that was packed."""
    if packed is None:
        return None
    code, message, retryable, details = packed
    return ErrorInfo(
        code=code, message=message, retryable=retryable, details=msgspec.json.decode(details) if details else {}
    )


def pack_retry(retry: Retry) -> list[Any]:
    """A retry policy as an event holds it."""
    return [retry.max_attempts, retry.base_s, retry.factor, retry.cap_s]


def unpack_retry(packed: list[Any]) -> Retry:
    """The policy that was packed."""
    most, base_s, factor, cap_s = packed
    return Retry(max_attempts=most, base_s=base_s, factor=factor, cap_s=cap_s)


def pack_enqueue(event: Event, op: Enqueue, run_at: float | None, retry_of: str = "") -> None:
    """Add the fields of a submission to its event, but for those that are as usual."""
    event += (_PAYLOAD, op.payload)
    for number, name, usual in _SUBMITTED:
        value = getattr(op, name)
        if value != usual:
            event += (number, value)
    if op.retry is not DEFAULT_RETRY and op.retry != DEFAULT_RETRY:
        event += (_RETRY, pack_retry(op.retry))
    if run_at is not None:
        event += (_RUN_AT, run_at)
    if retry_of:
        event += (_RETRY_OF, retry_of)


def new_task(task_id: str, type_: str, where: int, at: float) -> Task:
    """A task as it is without any further field."""
    return Task(
        id=task_id,
        type=type_,
        state=STATES[where],
        tags=NO_LIST,
        needs=NO_LIST,
        depends_on=NO_LIST,
        logs=NO_LIST,
        asked=NO_MAP,
        answers=NO_MAP,
        retry=DEFAULT_RETRY,
        created_at=at,
        updated_at=at,
        run_at=at,
    )


def unpack_fields(task: Task, event: Event, start: int) -> None:
    """Give a task the fields that an event holds from `start` on, as numbers and values in turn."""
    for at in range(start, len(event), 2):
        number = event[at]
        value = event[at + 1]
        if number == _RETRY:
            value = unpack_retry(value)
        elif number == _ERROR:
            value = unpack_error(value)
        setattr(task, FIELDS[number], value)


def pack_item(item: Item) -> Event:
    """All of a task, as a `CARRIED` event: id, type, state, seq, [ids it waits for], [ready_at, lease_s, logged_until,
    closed, closed_by], [what happened], then number and value of each field that is not as usual."""
    task = item.task
    waits = sorted(item.waits) if item.waits else []
    own = [item.ready_at, item.lease_s, item.logged_until, item.closed, item.closed_by]
    event: Event = [
        CARRIED,
        task.id,
        task.type,
        NUMBERS[task.state],
        item.seq,
        waits,
        own,
        [list(one) for one in item.log],
    ]
    for name, value in msgspec.to_builtins(task).items():
        number = _NUMBER.get(name)
        if number is not None and number != _RETRY and number != _ERROR:
            event += (number, value)
    if task.retry is not DEFAULT_RETRY:
        event += (_RETRY, pack_retry(task.retry))
    if task.error is not None:
        event += (_ERROR, pack_error(task.error))
    return event


def unpack_item(event: Event, segment: int) -> Item:
    """The task of a `CARRIED` event, known to no index yet."""
    _, task_id, type_, where, seq, waits, own, log = event[:8]
    task = new_task(task_id, type_, where, 0.0)
    task.updated_at = task.run_at = 0.0
    unpack_fields(task, event, 8)
    item = Item(task, where, seq, segment)
    item.ready_at, item.lease_s, item.logged_until, item.closed, item.closed_by = own
    item.waits = set(waits) if waits else None
    item.log = tuple(tuple(one) for one in log)
    return item
