# SPDX-License-Identifier: AGPL-3.0-or-later
"""`Expire`: what the clock ends or begins."""

from __future__ import annotations

from heapq import heappop

from actors.messages import ErrorInfo
from actors.p2p.task_queue.attempts import attempts_left
from actors.p2p.task_queue.events import CANCEL, DUE, EXPIRED, FAILURE, READY, TIMED_OUT, WORKER_FORGOTTEN
from actors.p2p.task_queue.machine import Machine, refuse
from actors.p2p.task_queue.records import Item, pack_error
from actors.p2p.task_queue.state import DEADLINE, LEASE_ENDS, STARTS
from actors.task_messages import Expire, Expired


def expire(m: Machine, op: Expire) -> Expired:
    """See `Expire`. What was kept long enough is dropped by the store."""
    if op.most < 1:
        refuse("INVALID_PARAMS", f"most is {op.most}; it is at least 1")
    leases, timeouts = end_what_is_due(m, op.most)
    _forget_workers(m)
    return Expired(leases=leases, timeouts=timeouts)


def end_what_is_due(m: Machine, most: int) -> tuple[int, int]:
    """End leases, time-outs and deadlines that have passed, and let tasks start whose time has come: `most` of them.
    How many leases and how many time-outs and deadlines there were."""
    s, now = m.state, m.now
    leases = timeouts = 0
    starts: list[str] = []
    while s.timers and s.timers[0][0] <= now and leases + timeouts + len(starts) < most:
        timer = heappop(s.timers)
        if not s.timer_counts(timer):
            continue
        _, what, task_id, _ = timer
        item = s.tasks[task_id]
        if what == STARTS:
            starts.append(task_id)
        elif what != LEASE_ENDS:
            _time_out(m, item, what)
            timeouts += 1
        elif item.task.lease_until > now:
            s.renew(item)
        else:
            _end_lease(m, item)
            leases += 1
    if starts:
        m.emit([DUE, now, *starts])
    return leases, timeouts


def next_due(m: Machine) -> float | None:
    """When there will be something to do next."""
    s = m.state
    while s.timers:
        timer = s.timers[0]
        if s.timer_counts(timer):
            if timer[1] != LEASE_ENDS or s.tasks[timer[2]].task.lease_until <= timer[0]:
                return timer[0]
            s.renew(s.tasks[timer[2]])
        heappop(s.timers)
    return None


def _end_lease(m: Machine, item: Item) -> None:
    task = item.task
    error = ErrorInfo(
        code="LEASE_EXPIRED",
        message=f"worker {task.worker} was silent until the lease of attempt {task.attempt} ended",
        retryable=True,
    )
    to = READY if attempts_left(task) else FAILURE
    if task.cancel_requested:
        to = CANCEL
    m.emit([EXPIRED, m.now, task.id, task.token, to, pack_error(error)])
    if to != READY:
        m.skip_dependents(task.id, "failed" if to == FAILURE else "was cancelled")


def _time_out(m: Machine, item: Item, what: int) -> None:
    task = item.task
    if what == DEADLINE:
        error = ErrorInfo(code="DEADLINE_EXCEEDED", message="it had not ended by its deadline")
    else:
        error = ErrorInfo(code="QUEUE_TIMEOUT", message=f"nobody claimed it for {task.queue_timeout_s:g} s")
    token = m.state.next_token() if task.token else 0
    m.emit([TIMED_OUT, m.now, task.id, token, pack_error(error)])
    m.skip_dependents(task.id, "failed")


def _forget_workers(m: Machine) -> None:
    before = m.now - m.limits.worker_keep_s
    silent = [one.name for one in m.state.workers.values() if one.seen_at <= before and not one.running]
    if silent:
        m.emit([WORKER_FORGOTTEN, m.now, *silent])
