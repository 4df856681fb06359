# SPDX-License-Identifier: AGPL-3.0-or-later
"""`Claim`: which tasks a worker is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from actors.p2p.task_queue.checks import check_name, lease_length
from actors.p2p.task_queue.crew import Worker
from actors.p2p.task_queue.decide_expire import end_what_is_due
from actors.p2p.task_queue.events import CLAIMED, LEASED
from actors.p2p.task_queue.log import Event
from actors.p2p.task_queue.machine import Machine, refuse
from actors.p2p.task_queue.ready import Lane
from actors.p2p.task_queue.state import State
from actors.task_messages import Claim, Claimed, Lease, Task

_DUE_BEFORE_CLAIM: Final = 100


def claim(m: Machine, op: Claim) -> Claimed:
    """See `Claim`."""
    lease_s = _checked(m, op)
    s, now = m.state, m.now
    worker = s.workers.get(op.worker)
    if worker is not None:
        worker.seen_at = max(worker.seen_at, now)
        if op.request and op.request == worker.request:
            return _again(m, worker)
        if worker.gone:
            return Claimed()
    elif len(s.workers) >= m.limits.max_workers:
        refuse("LIMIT_EXCEEDED", f"there are {len(s.workers)} workers already", retryable=True)
    end_what_is_due(m, _DUE_BEFORE_CLAIM)
    types = _types(op, worker)
    lanes = _open_lanes(s, op, types, now)
    if not lanes:
        return Claimed(paused=_all_paused(s, types))
    return _give(m, op, lanes, lease_s)


def may_claim(s: State, op: Claim, now: float) -> bool:
    """Whether a claim would be given a task now."""
    worker = s.workers.get(op.worker)
    if worker is not None and (worker.gone or _slots(worker, 1) < 1):
        return False
    return s.ready.first(_open_lanes(s, op, _types(op, worker), now), now) is not None


def next_openings(s: State, now: float) -> list[float]:
    """When ready tasks that nobody may have now can be had, if nothing happens until then."""
    found = []
    for lane in s.ready.all_lanes():
        if lane.bucket is not None:
            found.append(lane.bucket.full_at(now))
        if lane.sticky and not s.offline(lane.sticky, now):
            found.append(s.workers[lane.sticky].seen_at + s.limits.worker_timeout_s)
    return [at for at in found if at > now]


def _checked(m: Machine, op: Claim) -> float:
    check_name("worker", op.worker, m.limits)
    if not 1 <= op.n <= m.limits.max_claim:
        refuse("INVALID_PARAMS", f"n is {op.n}; it goes from 1 to {m.limits.max_claim}")
    if len(op.request) > m.limits.max_name_chars:
        refuse("LIMIT_EXCEEDED", f"request is longer than {m.limits.max_name_chars} characters")
    return lease_length(op.lease_s, m.limits)


def _types(op: Claim, worker: Worker | None) -> Sequence[str]:
    """Those that are asked for, else those that the worker registered with; none = all."""
    return op.types or (worker.types if worker is not None else ())


def _slots(worker: Worker, n: int) -> int:
    return min(n, worker.max_tasks - len(worker.running)) if worker.max_tasks else n


def _open_lanes(s: State, op: Claim, types: Sequence[str], now: float) -> list[Lane]:
    paused = s.paused
    if "" in paused:
        return []
    lanes = s.ready.lanes_for(op, types, lambda name: s.offline(name, now))
    return [lane for lane in lanes if lane.type not in paused] if paused else lanes


def _all_paused(s: State, types: Sequence[str]) -> bool:
    return "" in s.paused or (bool(types) and all(type_ in s.paused for type_ in types))


def _give(m: Machine, op: Claim, lanes: list[Lane], lease_s: float) -> Claimed:
    s, now = m.state, m.now
    event: Event = [CLAIMED, now, op.worker, op.request, lease_s]
    leases: list[Lease] = []
    worker: Worker | None = s.workers.get(op.worker)
    left = op.n if worker is None else _slots(worker, op.n)
    while left > 0:
        item = s.ready.first(lanes, now)
        if item is None:
            break
        if worker is None:
            worker = s.worker(op.worker, now)
        token = s.next_token()
        s.lease(item, now, token, worker, lease_s)
        event += (item.task.id, token)
        leases.append(_lease(item.task))
        left -= 1
        if op.same_type:
            lanes = [lane for lane in lanes if lane.type == item.task.type]
    if worker is not None and leases:
        worker.request = op.request
        worker.given = event[5:]
        m.events.append(event)
    return Claimed(tasks=leases)


def _again(m: Machine, worker: Worker) -> Claimed:
    m.replayed()
    given = worker.given
    leases = []
    for i in range(0, len(given), 2):
        item = m.state.tasks.get(given[i])
        if item is not None and item.where == LEASED and item.task.token == given[i + 1]:
            leases.append(_lease(item.task))
    return Claimed(tasks=leases)


def _lease(task: Task) -> Lease:
    return Lease(
        id=task.id,
        type=task.type,
        token=task.token,
        lease_until=task.lease_until,
        attempt=task.attempt,
        payload=task.payload,
        links=task.links,
        metadata=task.metadata,
        model_name=task.model_name,
        owner=task.owner,
        priority=task.priority,
        timeout_s=task.timeout_s,
        deadline=task.deadline,
        created_at=task.created_at,
        answers=task.answers,
    )
