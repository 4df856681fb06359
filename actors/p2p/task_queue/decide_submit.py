# SPDX-License-Identifier: AGPL-3.0-or-later
"""New tasks: `Enqueue` and `RetryTask`.

A repeat is recognised by its id, or by its owner and key. It is the same when all that was submitted is the same, but
for priority and `run_at`: those change during a task's life.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actors.p2p.task_queue.checks import check_name, check_submission
from actors.p2p.task_queue.events import (
    BLOCKED,
    CANCEL,
    COMPLETE,
    ENQUEUED,
    FAILURE,
    LEASED,
    NUMBERS,
    READY,
    SCHEDULED,
    SKIP,
    STATES,
)
from actors.p2p.task_queue.log import Event
from actors.p2p.task_queue.machine import Machine, refuse
from actors.p2p.task_queue.places import estimated_start, position_of
from actors.p2p.task_queue.records import Item, pack_enqueue
from actors.task_messages import Enqueue, RetryTask, Submitted, Task

_CONTENT: Final = tuple(
    name for name in Enqueue.__struct_fields__ if name not in ("id", "priority", "run_at", "fresh", "position")
)
_COPIED: Final = (
    "type",
    "payload",
    "links",
    "model_name",
    "owner",
    "priority",
    "fairness_key",
    "tags",
    "metadata",
    "needs",
    "depends_on",
    "sticky_worker",
    "retry",
    "timeout_s",
    "queue_timeout_s",
    "keep_s",
)
_MAX_CHAIN: Final = 1000


def enqueue(m: Machine, op: Enqueue) -> Submitted:
    """See `Enqueue`."""
    check_submission(op, m.limits)
    if op.id or op.key:
        known = _same(m, op)
        if known is not None:
            return _again(m, known)
    return _store(m, op, op.id or m.new_id(), "")


def retry_task(m: Machine, op: RetryTask) -> Submitted:
    """See `RetryTask`."""
    task, _ = m.find(op.id)
    before = _chain(m, task)
    if op.new_id:
        check_name("new_id", op.new_id, m.limits)
        there = _lookup(m, op.new_id)
        if there is not None:
            if there.retry_of != op.id:
                refuse("ID_CONFLICT", f"there is another task {op.new_id}; take another new_id")
            return msgspec.structs.replace(_again(m, there), retry_count=before + 1)
    if NUMBERS[task.state] not in (FAILURE, CANCEL):
        refuse("INVALID_STATE", f"task {op.id} is {task.state.value}; failed and cancelled tasks can be done again")
    copied = {name: getattr(task, name) for name in _COPIED}
    if task.started_at is not None:
        copied["depends_on"] = []  # they had completed, and may be forgotten by now
    if op.max_attempts is not None:
        copied["retry"] = msgspec.structs.replace(task.retry, max_attempts=op.max_attempts)
    if op.timeout_s is not None:
        copied["timeout_s"] = op.timeout_s
    new = Enqueue(**copied)
    check_submission(new, m.limits)
    answer = _store(m, new, op.new_id or m.new_id(), op.id)
    return msgspec.structs.replace(answer, retry_count=before + 1)


def _store(m: Machine, op: Enqueue, task_id: str, retry_of: str) -> Submitted:
    s, now = m.state, m.now
    if s.waiting() >= m.limits.max_queue_size:
        refuse("QUEUE_FULL", f"{s.waiting()} tasks wait already; try again later", retryable=True)
    chars = len(op.payload) + len(op.metadata) + sum(map(len, op.depends_on))
    if s.chars + chars > m.limits.max_held_chars:
        refuse("QUEUE_FULL", f"tasks of {s.chars} characters are held already; try again later", retryable=True)
    run_at = op.run_at if op.run_at is not None and op.run_at > now else None
    where, waits = (READY, None) if run_at is None else (SCHEDULED, None)
    if op.depends_on:
        where, waits = _dependencies(m, op, where)
    event: Event = [ENQUEUED, now, task_id, op.type, where, waits]
    pack_enqueue(event, op, run_at, retry_of)
    m.emit(event)
    position = start = None
    if op.position and where == READY:
        position = position_of(s, s.tasks[task_id])
        start = estimated_start(s, position, now)
    return Submitted(id=task_id, state=STATES[where], created_at=now, position=position, estimated_start=start)


def _dependencies(m: Machine, op: Enqueue, otherwise: int) -> tuple[int, list[str] | None]:
    waits: list[str] = []
    lost = False
    for parent_id in dict.fromkeys(op.depends_on):
        parent = _lookup(m, parent_id)
        if parent is None:
            refuse(
                "INVALID_PARAMS",
                f"depends_on names task {parent_id}, which does not exist; submit that one first",
                parent=parent_id,
            )
        where = NUMBERS[parent.state]
        if where <= LEASED:
            waits.append(parent_id)
        elif where != COMPLETE:
            lost = True
    if lost:
        return SKIP, None
    return (BLOCKED, waits) if waits else (otherwise, None)


def _lookup(m: Machine, task_id: str) -> Task | None:
    item: Item | None = m.state.tasks.get(task_id)
    return m.past.tasks.get(task_id) if item is None else item.task


def _same(m: Machine, op: Enqueue) -> Task | None:
    """The task that this operation submitted before. Refuses when there is one with other content."""
    known = None
    if op.key:
        pair = (op.owner, op.key)
        known_id = m.state.keys.get(pair) or m.past.keys.get(pair)
        if known_id is not None:
            known = _lookup(m, known_id)
    if op.id:
        by_id = _lookup(m, op.id)
        if by_id is not None and known is not None and by_id is not known:
            refuse("ID_CONFLICT", f"id {op.id} and key {op.key} are those of two tasks")
        known = known or by_id
    if known is None:
        return None
    for name in _CONTENT:
        if getattr(known, name) != getattr(op, name):
            refuse(
                "ID_CONFLICT",
                f"task {known.id} was submitted with another {name}; take another id or key for another task",
                id=known.id,
                field=name,
            )
    return known


def _again(m: Machine, task: Task) -> Submitted:
    m.replayed()
    return Submitted(id=task.id, state=task.state, created_at=task.created_at, replayed=True)


def _chain(m: Machine, task: Task) -> int:
    """How many tasks this one follows, as far as they are still known."""
    n = 0
    while task.retry_of and n < _MAX_CHAIN:
        n += 1
        before = _lookup(m, task.retry_of)
        if before is None:
            break
        task = before
    return n
