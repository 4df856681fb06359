# SPDX-License-Identifier: AGPL-3.0-or-later
"""What each event changes in the state: the one way of changing it, both when an operation is decided and when a log is
read.

A log that begins after segments were dropped holds events of tasks whose record was dropped with them; they count for
nothing, since the newest segment begins with the records of all such tasks that are still there (`State.partial`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from actors.p2p.task_queue import events as ev
from actors.p2p.task_queue.apply_attempts import (
    beaten,
    claimed,
    completed,
    enqueued,
    expired,
    failed,
    give_back,
    known,
    released,
)
from actors.p2p.task_queue.carry import take_globals
from actors.p2p.task_queue.events import CANCEL, FAILURE, LEASED, READY, SCHEDULED, SKIP
from actors.p2p.task_queue.log import Event, Group
from actors.p2p.task_queue.records import unpack_error, unpack_item
from actors.p2p.task_queue.state import State


def apply(s: State, e: Event) -> None:
    """Make one event count."""
    _HOW[e[0]](s, e)


def replay(s: State, groups: Iterable[tuple[int, Group]], newest: int) -> None:
    """Make all that a log holds count: groups with the numbers of their segments, of which `newest` is the last."""
    s.indexed = False
    how = _HOW
    for segment, group in groups:
        s.segment = segment
        s.partial = segment < newest
        for e in group:
            how[e[0]](s, e)
        s.changed.clear()
    s.segment, s.partial = newest, False
    s.index()


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


def _cancel_asked(s: State, e: Event) -> None:
    _, at, task_id, reason = e
    item = known(s, task_id)
    if item is not None:
        item.task.cancel_requested = True
        item.task.reason = reason
        item.touch(at)
        item.note(s.limits.max_task_events, at, "cancel requested", reason)
        s.changed[task_id] = None


def _cancelled(s: State, e: Event) -> None:
    _, at, task_id, token, reason = e
    s.last_token = max(s.last_token, token)
    item = known(s, task_id)
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
    item = known(s, task_id)
    if item is not None:
        item.task.asked = item.task.asked | questions
        item.touch(at)
        item.note(s.limits.max_task_events, at, "asked", ", ".join(questions))
        s.changed[task_id] = None


def _answered(s: State, e: Event) -> None:
    _, at, task_id, answers = e
    item = known(s, task_id)
    if item is not None:
        task = item.task
        task.answers = task.answers | answers
        task.asked = {key: text for key, text in task.asked.items() if key not in answers}
        item.touch(at)
        item.note(s.limits.max_task_events, at, "answered", ", ".join(answers))
        s.changed[task_id] = None


def _reprioritised(s: State, e: Event) -> None:
    _, at, task_id, priority, at_once = e
    item = known(s, task_id)
    if item is None:
        return
    task = item.task
    item.touch(at)
    if not at_once:
        task.next_priority = priority
        s.changed[task_id] = None
        return
    s.reorder(item, priority)
    item.note(s.limits.max_task_events, at, "priority", f"{priority:g}")
    s.changed[task_id] = None


def _timed_out(s: State, e: Event) -> None:
    _, at, task_id, token, error = e
    s.last_token = max(s.last_token, token)
    item = known(s, task_id)
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
        item = known(s, task_id)
        if item is not None and item.where == SCHEDULED:
            s.move(item, READY, e[1])


def _skipped(s: State, e: Event) -> None:
    _, at, reason = e[:3]
    for task_id in e[3:]:
        item = known(s, task_id)
        if item is not None:
            s.move(item, SKIP, at)
            item.task.reason = reason
            item.note(s.limits.max_task_events, at, "skipped", reason)


def _paused(s: State, e: Event) -> None:
    s.paused[e[2]] = e[3]


def _resumed(s: State, e: Event) -> None:
    s.paused.pop(e[2], None)


def _key_paused(s: State, e: Event) -> None:
    s.ready.pause(e[2], e[3])


def _key_resumed(s: State, e: Event) -> None:
    s.ready.resume(e[2])


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
        give_back(s, item, at, to, f"worker {name} went", counts=False)


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
    s.add(unpack_item(e, s.segment))


def _counted(s: State, e: Event) -> None:
    counters = s.tallies.counters
    for name, n in zip(("stale_fence", "replayed", "refused"), e[1:], strict=True):
        counters[name] += n


_HOW: Final[dict[int, Callable[[State, Event], None]]] = {
    ev.OPENED: _opened,
    ev.ENQUEUED: enqueued,
    ev.CLAIMED: claimed,
    ev.BEATEN: beaten,
    ev.COMPLETED: completed,
    ev.FAILED: failed,
    ev.RELEASED: released,
    ev.EXPIRED: expired,
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
    ev.KEY_PAUSED: _key_paused,
    ev.KEY_RESUMED: _key_resumed,
}
