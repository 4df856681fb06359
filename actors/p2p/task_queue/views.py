# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is shown of the live state. Tasks are copied: what was shown does not change later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator

import msgspec

from actors.p2p.task_queue.events import LEASED, NUMBERS, READY, STATES
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.places import estimated_start, position_of, why_waiting
from actors.p2p.task_queue.records import Item
from actors.p2p.task_queue.state import State
from actors.task_messages import Status, Task, TaskState, status_of
from actors.task_views import GetTask, QueueStats, ScanTasks, TaskView

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


def scan(s: State, ask: ScanTasks, most: int, without: Container[str]) -> tuple[list[Task], int]:
    """The first `most` tasks that match, in the order that is asked for, without payloads and results, and how many
    match. Tasks in `without` are left out."""
    fits = _matcher(ask)
    items = s.tasks.values() if ask.oldest_first else reversed(s.tasks.values())
    found: list[Task] = []
    total = 0
    for item in items:
        if fits(item) and item.task.id not in without:
            total += 1
            if total <= most:
                found.append(msgspec.structs.replace(item.task, payload="{}", result=None))
    return found, total


def _matcher(ask: ScanTasks) -> Callable[[Item], bool]:
    checks: list[Callable[[Item], bool]] = []
    if ask.status is not None:
        wanted = frozenset(number for number, status in _STATUS.items() if status == ask.status)
        checks.append(lambda item: item.where in wanted)
    if ask.owner is not None:
        checks.append(lambda item: item.task.owner == ask.owner)
    if ask.worker:
        checks.append(lambda item: item.task.worker == ask.worker)
    if ask.types:
        checks.append(lambda item: item.task.type in ask.types)
    if ask.tags:
        tags = frozenset(ask.tags)
        checks.append(lambda item: tags.issubset(item.task.tags))
    if ask.id_prefix:
        checks.append(lambda item: item.task.id.startswith(ask.id_prefix))
    least = ask.priority_min
    if least is not None:
        checks.append(lambda item: item.task.priority >= least)
    if not checks:
        return lambda _: True
    return lambda item: all(check(item) for check in checks)


def stats(m: Machine, past: dict[tuple[str, TaskState], int], without: Container[str], now: float) -> QueueStats:
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
        paused=sorted(s.paused),
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


def _live_counts(s: State, without: Container[str]) -> Iterator[tuple[str, int, int]]:
    for type_, counts in s.types.items():
        for number, n in enumerate(counts):
            yield type_, number, n
    for task_id in without if isinstance(without, dict) else ():
        item = s.tasks.get(task_id)
        if item is not None:
            yield item.task.type, item.where, -1
