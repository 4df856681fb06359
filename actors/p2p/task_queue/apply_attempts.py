# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the events of submissions, leases and attempts change in the state; see `apply.py`."""

from __future__ import annotations

from actors.errors import UnavailableError
from actors.p2p.task_queue.events import COMPLETE, FAILURE, LEASED, READY, SKIP
from actors.p2p.task_queue.log import Event
from actors.p2p.task_queue.records import Item, new_task, unpack_error, unpack_fields
from actors.p2p.task_queue.state import State


def put_lines(s: State, item: Item, lines: list[str]) -> None:
    """Add lines to a task's log."""
    item.task.logs = (item.task.logs + lines)[-s.limits.max_log_lines :]


def known(s: State, task_id: str) -> Item | None:
    """A task that an event is about; None = its record was dropped."""
    item = s.tasks.get(task_id)
    if item is None and not s.partial:
        raise UnavailableError(
            f"the task queue's log speaks of task {task_id}, which it does not hold; restore a copy of the file",
            task=task_id,
        )
    return item


def enqueued(s: State, e: Event) -> None:
    """See `events.ENQUEUED`."""
    at, where, waits = e[1], e[4], e[5]
    task = new_task(e[2], e[3], where, at)
    unpack_fields(task, e, 6)
    s.seq += 1
    item = Item(task, where, s.seq, s.segment)
    item.ready_at = at
    if waits:
        item.waits = set(waits)
        task.blocked_by = len(item.waits)
    item.note(s.limits.max_task_events, at, "submitted", f"again {task.retry_of}" if task.retry_of else "")
    if where == SKIP:
        task.ended_at = at
        task.reason = "a task that it depends on did not complete"
    s.add(item)
    s.tallies.count("submitted", at)


def claimed(s: State, e: Event) -> None:
    """See `events.CLAIMED`."""
    _, at, name, request, lease_s = e[:5]
    worker = s.worker(name, at)
    worker.request = request
    worker.given = e[5:]
    worker.seen_at = max(worker.seen_at, at)
    for i in range(5, len(e), 2):
        item = known(s, e[i])
        if item is None:
            s.last_token = max(s.last_token, e[i + 1])
        else:
            s.lease(item, at, e[i + 1], worker, lease_s)


def beaten(s: State, e: Event) -> None:
    """See `events.BEATEN`."""
    _, at, task_id, _, until, progress, text, lines = e
    item = known(s, task_id)
    if item is None:
        return
    beat(s, item, at, until, progress, text)
    item.logged_until = until
    item.lease_s = max(item.lease_s, until - at)  # a beat may ask for a longer one
    if lines:
        put_lines(s, item, lines)


def beat(s: State, item: Item, at: float, until: float, progress: float | None, text: str) -> None:
    """The holder is alive."""
    task = item.task
    task.lease_until = until
    task.beat_at = at
    item.touch(at)
    if progress is not None:
        task.progress = progress
    if text:
        task.progress_text = text
    worker = s.workers.get(task.worker)
    if worker is not None:
        worker.seen_at = max(worker.seen_at, at)


def completed(s: State, e: Event) -> None:
    """See `events.COMPLETED`."""
    _, at, task_id, _, result, lines = e
    item = known(s, task_id)
    if item is not None:
        task = item.task
        late = item.where != LEASED
        s.move(item, COMPLETE, at)
        task.result = result
        s.chars += len(result)
        task.error = None
        task.lease_until = 0.0
        task.progress = 100.0
        if lines:
            put_lines(s, item, lines)
        ran_s = at - (task.started_at or at)
        s.tallies.ran(ran_s)
        worker = s.workers.get(task.worker)
        if worker is not None:
            worker.completed += 1
            worker.run_s += ran_s
            worker.seen_at = max(worker.seen_at, at)
        item.note(s.limits.max_task_events, at, "completed", "late" if late else "")
        s.tallies.count("completed", at)
    s.settle(task_id, at)


def failed(s: State, e: Event) -> None:
    """See `events.FAILED`."""
    _, at, task_id, token, to, run_at, error, lines = e
    item = known(s, task_id)
    if item is None:
        return
    task = item.task
    if lines:
        put_lines(s, item, lines)
    worker = s.workers.get(task.worker)
    if worker is not None:
        worker.failed += 1
    task.error = unpack_error(error)
    item.closed, item.closed_by = token, "failed"
    _after_attempt(s, item, to, at, run_at)
    item.note(s.limits.max_task_events, at, "failed", error[1])
    if to <= READY:
        task.worker = ""


def _after_attempt(s: State, item: Item, to: int, at: float, run_at: float) -> None:
    """An attempt ended without a result."""
    if to <= READY:
        item.task.run_at = run_at
        s.requeue(item, to, at)
        s.tallies.count("retried", at)
    else:
        item.task.lease_until = 0.0
        s.move(item, to, at)
        s.tallies.count("failed" if to == FAILURE else "cancelled", at)


def released(s: State, e: Event) -> None:
    """See `events.RELEASED`."""
    _, at, task_id, _, to, reason, counts, error = e
    item = known(s, task_id)
    if item is not None:
        give_back(s, item, at, to, reason, counts=counts)
        if error is not None:
            item.task.error = unpack_error(error)


def give_back(s: State, item: Item, at: float, to: int, reason: str, *, counts: bool) -> None:
    """A lease ended, by its holder's will or for its holder's sake."""
    task = item.task
    item.closed, item.closed_by = task.token, "released"
    if not counts:
        task.attempt -= 1
    task.reason = reason
    worker = s.workers.get(task.worker)
    if worker is not None:
        worker.released += 1
    s.tallies.count("released", at)
    if to == READY:
        s.requeue(item, to, at)
    else:
        task.lease_until = 0.0
        s.move(item, to, at)
        s.tallies.count("failed" if to == FAILURE else "cancelled", at)
    item.note(s.limits.max_task_events, at, "released", reason)
    if to <= READY:
        task.worker = ""


def expired(s: State, e: Event) -> None:
    """See `events.EXPIRED`."""
    _, at, task_id, _, to, error = e
    item = known(s, task_id)
    if item is None:
        return
    s.tallies.count("expired", at)
    item.task.error = unpack_error(error)
    _after_attempt(s, item, to, at, item.task.run_at)
    item.note(s.limits.max_task_events, at, "expired")
