# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a task stands in the queue, when it may start, and why it does not run."""

from __future__ import annotations

from actors.p2p.task_queue.events import BLOCKED, READY, SCHEDULED
from actors.p2p.task_queue.records import Item
from actors.p2p.task_queue.state import State


def position_of(s: State, item: Item) -> int:
    """A ready task's place among all ready ones by order, 1 = next. Turns of fairness keys and limits may change it.
    Looks at all that wait, unless it is the last."""
    if item.entry is s.ready.last:
        return s.totals[READY]
    mine = (item.order, item.seq)
    return 1 + sum(1 for other in s.tasks.values() if other.where == READY and (other.order, other.seq) < mine)


def estimated_start(s: State, position: int, now: float) -> float | None:
    """By the starts of the last five minutes; None = there were none."""
    rate = s.tallies.starts.per_s(now)
    return now + position / rate if rate else None


def why_waiting(s: State, item: Item, now: float) -> str:
    """Why a task does not run; '' when it does, or has ended."""
    task = item.task
    if item.where == BLOCKED:
        n = len(item.waits or ())
        return f"blocked by {n} task{'s' if n > 1 else ''}"
    if item.where == SCHEDULED:
        return "scheduled" if task.attempt == 0 else "waits for its next attempt"
    if item.where != READY:
        return ""
    if "" in s.paused or task.type in s.paused:
        return "paused"
    if task.fairness_key in s.ready.paused:
        return "its fairness key is paused"
    lane = item.lane
    if held := s.ready.held(lane, now):
        return held
    if s.ready.key_full(task.fairness_key):
        return "limit of its fairness key reached"
    if task.sticky_worker and not s.offline(task.sticky_worker, now):
        return f"kept for worker {task.sticky_worker}"
    if task.needs:
        return f"waits for a worker that has {', '.join(task.needs)}"
    return "waits for a worker"
