# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is shown of the live state. Tasks are copied: what was shown does not change later."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import msgspec

from actors.p2p.task_queue.events import LEASED, NUMBERS, READY, STATES
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.places import estimated_start, position_of, why_waiting
from actors.p2p.task_queue.records import NO_LIST, Item
from actors.p2p.task_queue.state import State
from actors.task_messages import Status, Task, TaskState, status_of
from actors.task_views import PAUSED_KEY, GetTask, QueueStats, ScanTasks, TaskView

_STATUS: dict[int, Status] = {NUMBERS[state]: status_of(state) for state in TaskState}


def view(s: State, item: Item, ask: GetTask, now: float) -> TaskView:
    """One task and its place."""
    position = start = None
    if ask.position and item.where == READY:
        position = position_of(s, item)
        start = estimated_start(s, position, now)
    return TaskView(
        task=copy.copy(item.task),
        position=position,
        estimated_start=start,
        why_waiting=why_waiting(s, item, now),
    )


def scan(s: State, ask: ScanTasks, most: int, without: Collection[str]) -> tuple[list[Task], int]:
    """The first `most` tasks that match, in the order that is asked for and without `payload`, `result` and
    `depends_on`, and how many match. Tasks in `without` are left out."""
    items = _matching(list(s.tasks.values()), ask)
    if without:
        items = [item for item in items if item.task.id not in without]
    shown = items[:most] if ask.oldest_first else items[: -most - 1 : -1]
    tasks = [msgspec.structs.replace(item.task, payload="{}", result=None, depends_on=NO_LIST) for item in shown]
    return tasks, len(items)


def _matching(items: list[Item], ask: ScanTasks) -> list[Item]:
    # One pass for each wish: 100,000 tasks take a few milliseconds so, during which nothing else happens here.
    if ask.status is not None:
        wanted = frozenset(number for number, status in _STATUS.items() if status == ask.status)
        items = [item for item in items if item.where in wanted]
    if ask.owner is not None:
        items = [item for item in items if item.task.owner == ask.owner]
    if ask.worker:
        items = [item for item in items if item.task.worker == ask.worker]
    if ask.types:
        types = frozenset(ask.types)
        items = [item for item in items if item.task.type in types]
    if ask.tags:
        tags = frozenset(ask.tags)
        items = [item for item in items if tags.issubset(item.task.tags)]
    if ask.id_prefix:
        items = [item for item in items if item.task.id.startswith(ask.id_prefix)]
    if ask.priority_min is not None:
        least = ask.priority_min
        items = [item for item in items if item.task.priority >= least]
    return items


def stats(m: Machine, past: dict[tuple[str, TaskState], int], without: Collection[str], now: float) -> QueueStats:
    """The queue in numbers; `past` = what the history holds, `without` = tasks that are in it and still here."""
    s = m.state
    counts: dict[str, int] = {}
    by_type: dict[str, dict[str, int]] = {}
    for type_, number, n in (
        *_live_counts(s, without),
        *((type_, NUMBERS[state], n) for (type_, state), n in past.items()),
    ):
        if n:
            status = _STATUS[number]
            counts[status] = counts.get(status, 0) + n
            of_type = by_type.setdefault(type_, {})
            of_type[status] = of_type.get(status, 0) + n
    oldest = min((item.ready_at for item in s.tasks.values() if item.where == READY), default=None)
    tallies = s.tallies
    uncounted = m.uncounted()
    return QueueStats(
        counts=counts,
        by_type=by_type,
        by_state={STATES[number].value: n for number, n in enumerate(s.totals[: LEASED + 1]) if n},
        paused=[*sorted(s.paused), *sorted(f"{PAUSED_KEY}{name}" for name in s.ready.paused)],
        oldest_ready_s=None if oldest is None else max(0.0, now - oldest),
        average_wait_s=tallies.wait_s,
        average_run_s=tallies.run_s,
        throughput_per_s=tallies.ends.per_s(now),
        workers=[worker.info(now, s.limits.worker_timeout_s) for worker in s.workers.values()],
        hours=tallies.last_hours(now),
        counters={name: n + uncounted.get(name, 0) for name, n in tallies.counters.items()},
        run_times=tallies.run_times(),
        store={},
    )


def _live_counts(s: State, without: Collection[str]) -> Iterator[tuple[str, int, int]]:
    for type_, counts in s.types.items():
        for number, n in enumerate(counts):
            yield type_, number, n
    for task_id in without:
        item = s.tasks.get(task_id)
        if item is not None:
            yield item.task.type, item.where, -1
