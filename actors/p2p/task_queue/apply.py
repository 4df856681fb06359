# SPDX-License-Identifier: AGPL-3.0-or-later
"""What each event changes in the state: the one way of changing it, both when an operation is decided and when a log is
read.

A log that begins after segments were dropped holds events of tasks whose record was dropped with them; they count for
nothing, since the newest segment begins with the records of all such tasks that are still there (`State.partial`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from actors.errors import UnavailableError
from actors.p2p.task_queue import events as ev
from actors.p2p.task_queue.carry import take_globals
from actors.p2p.task_queue.events import CANCEL, COMPLETE, FAILURE, LEASED, READY, SCHEDULED, SKIP
from actors.p2p.task_queue.log import Event
from actors.p2p.task_queue.records import Item, new_task, unpack_error, unpack_fields, unpack_item
from actors.p2p.task_queue.state import State


def apply(s: State, e: Event) -> None:
    """Make one event count."""
    _HOW[e[0]](s, e)


def put_lines(s: State, item: Item, lines: list[str]) -> None:
    """Add lines to a task's log."""
    item.task.logs = (item.task.logs + lines)[-s.limits.max_log_lines :]


def _known(s: State, task_id: str) -> Item | None:
    item = s.tasks.get(task_id)
    if item is None and not s.partial:
        raise UnavailableError(
            f"the task queue's log speaks of task {task_id}, which it does not hold; restore a copy of the file",
            task=task_id,
        )
    return item


def _opened(s: State, e: Event) -> None:
    _, at, epoch = e
    s.epoch = epoch
    for item in s.tasks.values():
        if item.where == LEASED:
            until = min(max(item.logged_until, at), at + item.lease_s) + item.lease_s / 3
            item.logged_until = item.task.lease_until = until
            s.renew(item)
    for worker in s.workers.values():
        if not worker.gone:
            worker.seen_at = at


def _enqueued(s: State, e: Event) -> None:
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


def _claimed(s: State, e: Event) -> None:
    _, at, name, request, lease_s = e[:5]
    worker = s.worker(name, at)
    worker.request = request
    worker.given = e[5:]
    worker.seen_at = max(worker.seen_at, at)
    for i in range(5, len(e), 2):
        item = _known(s, e[i])
        if item is None:
            s.last_token = max(s.last_token, e[i + 1])
        else:
            s.lease(item, at, e[i + 1], worker, lease_s)


def _beaten(s: State, e: Event) -> None:
    _, at, task_id, _, until, progress, text, lines = e
    item = _known(s, task_id)
    if item is None:
        return
    beat(s, item, at, until, progress, text)
    item.logged_until = until
    if lines:
        put_lines(s, item, lines)


def beat(s: State, item: Item, at: float, until: float, progress: float | None, text: str) -> None:
    """The holder is alive."""
    task = item.task
    task.lease_until = until
    task.beat_at = task.updated_at = at
    if progress is not None:
        task.progress = progress
    if text:
        task.progress_text = text
    worker = s.workers.get(task.worker)
    if worker is not None:
        worker.seen_at = max(worker.seen_at, at)


def _completed(s: State, e: Event) -> None:
    _, at, task_id, _, result, lines = e
    item = _known(s, task_id)
    if item is not None:
        task = item.task
        late = item.where != LEASED
        s.move(item, COMPLETE, at)
        task.result = result
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


def _failed(s: State, e: Event) -> None:
    _, at, task_id, token, to, run_at, error, lines = e
    item = _known(s, task_id)
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


def _released(s: State, e: Event) -> None:
    _, at, task_id, _, to, reason, counts, error = e
    item = _known(s, task_id)
    if item is not None:
        _give_back(s, item, at, to, reason, counts=counts)
        if error is not None:
            item.task.error = unpack_error(error)


def _give_back(s: State, item: Item, at: float, to: int, reason: str, *, counts: bool) -> None:
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


def _expired(s: State, e: Event) -> None:
    _, at, task_id, _, to, error = e
    item = _known(s, task_id)
    if item is None:
        return
    s.tallies.count("expired", at)
    item.task.error = unpack_error(error)
    _after_attempt(s, item, to, at, item.task.run_at)
    item.note(s.limits.max_task_events, at, "expired")


def _cancel_asked(s: State, e: Event) -> None:
    _, at, task_id, reason = e
    item = _known(s, task_id)
    if item is not None:
        item.task.cancel_requested = True
        item.task.reason = reason
        item.task.updated_at = at
        item.note(s.limits.max_task_events, at, "cancel requested", reason)
        s.changed[task_id] = None


def _cancelled(s: State, e: Event) -> None:
    _, at, task_id, token, reason = e
    s.last_token = max(s.last_token, token)
    item = _known(s, task_id)
    if item is None:
        return
    s.move(item, CANCEL, at)
    task = item.task
    task.token = token
    task.cancel_requested = True
    task.lease_until = 0.0
    task.reason = reason or task.reason
    item.note(s.limits.max_task_events, at, "cancelled", reason)
    s.tallies.count("cancelled", at)


def _asked(s: State, e: Event) -> None:
    _, at, task_id, _, questions = e
    item = _known(s, task_id)
    if item is not None:
        item.task.asked = item.task.asked | questions
        item.task.updated_at = at
        item.note(s.limits.max_task_events, at, "asked", ", ".join(questions))
        s.changed[task_id] = None


def _answered(s: State, e: Event) -> None:
    _, at, task_id, answers = e
    item = _known(s, task_id)
    if item is not None:
        task = item.task
        task.answers = task.answers | answers
        task.asked = {key: text for key, text in task.asked.items() if key not in answers}
        task.updated_at = at
        item.note(s.limits.max_task_events, at, "answered", ", ".join(answers))
        s.changed[task_id] = None


def _reprioritised(s: State, e: Event) -> None:
    _, at, task_id, priority, at_once = e
    item = _known(s, task_id)
    if item is None:
        return
    task = item.task
    task.updated_at = at
    if not at_once:
        task.next_priority = priority
        s.changed[task_id] = None
        return
    if item.where == READY:
        s.ready.remove(item)
    task.priority = priority
    task.next_priority = None
    item.order = task.created_at - priority * s.limits.ageing_s
    if item.where == READY:
        s.ready.add(item)
    item.note(s.limits.max_task_events, at, "priority", f"{priority:g}")
    s.changed[task_id] = None


def _timed_out(s: State, e: Event) -> None:
    _, at, task_id, token, error = e
    s.last_token = max(s.last_token, token)
    item = _known(s, task_id)
    if item is None:
        return
    item.task.error = unpack_error(error)
    item.task.lease_until = 0.0
    s.move(item, FAILURE, at)
    item.task.token = token
    item.note(s.limits.max_task_events, at, "failed", error[1])
    s.tallies.count("failed", at)


def _due(s: State, e: Event) -> None:
    for task_id in e[2:]:
        item = _known(s, task_id)
        if item is not None and item.where == SCHEDULED:
            s.move(item, READY, e[1])


def _skipped(s: State, e: Event) -> None:
    _, at, reason = e[:3]
    for task_id in e[3:]:
        item = _known(s, task_id)
        if item is not None:
            s.move(item, SKIP, at)
            item.task.reason = reason
            item.note(s.limits.max_task_events, at, "skipped", reason)
        s.children.pop(task_id, None)


def _paused(s: State, e: Event) -> None:
    s.paused[e[2]] = e[3]


def _resumed(s: State, e: Event) -> None:
    s.paused.pop(e[2], None)


def _cleared(s: State, e: Event) -> None:
    states = frozenset(e[2])
    for item in [one for one in s.tasks.values() if one.where in states]:
        s.drop(item)


def _worker(s: State, e: Event) -> None:
    _, at, name, owner, types, max_tasks, limits, metadata, internal = e
    worker = s.worker(name, at)
    worker.owner = owner
    worker.types = types
    worker.max_tasks = max_tasks
    worker.limits = limits
    worker.metadata = metadata
    worker.internal = internal
    worker.gone = False
    worker.seen_at = at


def _worker_gone(s: State, e: Event) -> None:
    _, at, name, release = e
    worker = s.workers.get(name)
    if worker is None:
        return
    worker.gone = True
    worker.request = ""
    for task_id in list(worker.running) if release else ():
        item = s.tasks[task_id]
        to = CANCEL if item.task.cancel_requested else READY
        _give_back(s, item, at, to, f"worker {name} went", counts=False)


def _workers_forgotten(s: State, e: Event) -> None:
    for name in e[2:]:
        s.workers.pop(name, None)


def _archived(s: State, e: Event) -> None:
    for task_id in e[1:]:
        item = s.tasks.get(task_id)
        if item is not None:
            s.drop(item)
            s.changed.pop(task_id, None)


def _carried(s: State, e: Event) -> None:
    item = unpack_item(e, s.segment)
    known = s.tasks.get(item.task.id)
    if known is not None:
        if known.where == LEASED:
            s.move(known, READY, 0.0)
        s.drop(known)
    s.add(item)


def _counted(s: State, e: Event) -> None:
    counters = s.tallies.counters
    for name, n in zip(("stale_fence", "replayed", "refused"), e[1:], strict=True):
        counters[name] += n


_HOW: Final[dict[int, Callable[[State, Event], None]]] = {
    ev.OPENED: _opened,
    ev.ENQUEUED: _enqueued,
    ev.CLAIMED: _claimed,
    ev.BEATEN: _beaten,
    ev.COMPLETED: _completed,
    ev.FAILED: _failed,
    ev.RELEASED: _released,
    ev.EXPIRED: _expired,
    ev.CANCEL_ASKED: _cancel_asked,
    ev.CANCELLED: _cancelled,
    ev.ASKED: _asked,
    ev.ANSWERED: _answered,
    ev.REPRIORITISED: _reprioritised,
    ev.TIMED_OUT: _timed_out,
    ev.DUE: _due,
    ev.SKIPPED: _skipped,
    ev.PAUSED: _paused,
    ev.RESUMED: _resumed,
    ev.CLEARED: _cleared,
    ev.WORKER: _worker,
    ev.WORKER_GONE: _worker_gone,
    ev.WORKER_FORGOTTEN: _workers_forgotten,
    ev.ARCHIVED: _archived,
    ev.CARRIED: _carried,
    ev.GLOBALS: take_globals,
    ev.COUNTED: _counted,
}
