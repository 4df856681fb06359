# SPDX-License-Identifier: AGPL-3.0-or-later
"""The live state of the queue: all tasks that have not ended, those that wait for the history, and their indexes.

It changes by events only (`apply.py`), but for what is not worth a place on disk: the latest beats. No I/O, no clock.
"""

from __future__ import annotations

from heapq import heapify, heappush
from typing import Final

from actors.p2p.task_queue.crew import Worker
from actors.p2p.task_queue.events import BLOCKED, LEASED, READY, SCHEDULED, STATES
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.ready import Ready
from actors.p2p.task_queue.records import NO_MAP, Item
from actors.p2p.task_queue.tallies import Tallies

LEASE_ENDS: Final = 0
STARTS: Final = 1
DEADLINE: Final = 2
QUEUE_TIMEOUT: Final = 3

Timer = tuple[float, int, str, int]
"""When, what (one of the above), a task's id, and the token of the lease that ends."""

_MANY_TYPES: Final = 4096
_MANY_TIMERS: Final = 4096


class State:
    """See the module's text."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.tasks: dict[str, Item] = {}
        self.keys: dict[tuple[str, str], str] = {}
        """Owner and idempotency key -> id."""
        self.children: dict[str, dict[str, None]] = {}
        """Id -> tasks that wait for it."""
        self.ready = Ready(limits, self.tasks)
        self.timers: list[Timer] = []
        """A heap; entries that their task has outlived are void."""
        self._many_timers = _MANY_TIMERS
        self.totals = [0] * len(STATES)
        self.types: dict[str, list[int]] = {}
        """Type -> tasks by state's number."""
        self.workers: dict[str, Worker] = {}
        self.paused: dict[str, str] = {}
        """Type ('' = all) -> why its claims are stopped."""
        self.tallies = Tallies()
        self.ended: dict[str, None] = {}
        """Ids of tasks that have ended and are not in the history, as far as is known; in order."""
        self.changed: dict[str, None] = {}
        """Ids of tasks whose state or questions changed since somebody took them away from here."""
        self.chars = 0
        """Of payloads, metadata, results and ids in `depends_on` of all tasks here."""
        self.epoch = 0
        self.last_token = 0
        self.seq = 0
        self.segment = 0
        """Of the log, that is written to."""
        self.indexed = True
        """Whether ready tasks, timers and leases by key are kept up; not while a log is read (`index`)."""
        self.partial = False
        """Events of tasks that are not known are no fault."""

    def index(self) -> None:
        """Catch up on all that was not kept up while `indexed` was false, and bring the tasks into the order of
        submission, in which they are listed."""
        items = sorted(self.tasks.values(), key=lambda item: item.seq)
        self.tasks.clear()
        self.tasks.update((item.task.id, item) for item in items)
        self.changed.clear()
        self.indexed = True
        for item in items:
            self._index(item)

    def waiting(self) -> int:
        """Tasks that wait for anything."""
        totals = self.totals
        return totals[BLOCKED] + totals[SCHEDULED] + totals[READY]

    def next_token(self) -> int:
        """Larger than all that were given, in this life and in earlier ones."""
        return max(self.epoch << 32, self.last_token) + 1

    def worker(self, name: str, at: float) -> Worker:
        """A worker, made known when it is not."""
        worker = self.workers.get(name)
        if worker is None:
            worker = self.workers[name] = Worker(name, at, at)
        return worker

    def offline(self, name: str, now: float) -> bool:
        """Whether a worker is not there to do what is kept for it."""
        worker = self.workers.get(name)
        return worker is None or worker.gone or now - worker.seen_at >= self.limits.worker_timeout_s

    def add(self, item: Item) -> None:
        """Take in a task that is new here, in the state that it says."""
        task = item.task
        self.tasks[task.id] = item
        self.chars += item.chars()
        if task.key:
            self.keys[task.owner, task.key] = task.id
        counts = self.types.get(task.type)
        if counts is None:
            counts = self._new_type(task.type)
        item.counts = counts
        item.order = task.created_at - task.priority * self.limits.ageing_s
        where = item.where
        counts[where] += 1
        self.totals[where] += 1
        if where == LEASED:
            self.worker(task.worker, task.beat_at or task.created_at).running[task.id] = None
        elif where == BLOCKED:
            for parent in item.waits or ():
                self.children.setdefault(parent, {})[task.id] = None
        elif where == READY:
            self.ready.enter(item)
        elif where > LEASED:
            self.ended[task.id] = None
        self.changed[task.id] = None
        if self.indexed:
            self._index(item)

    def move(self, item: Item, to: int, at: float) -> None:
        """Bring a task into another state, with all that follows for the indexes."""
        where = item.where
        task = item.task
        if where == READY:
            self._leave_ready(item)
        elif where == LEASED:
            self._leave_lease(item)
        elif where == BLOCKED:
            self._leave_blocked(item)
        counts, totals = item.counts, self.totals
        counts[where] -= 1
        totals[where] -= 1
        counts[to] += 1
        totals[to] += 1
        item.where = to
        task.state = STATES[to]
        item.touch(at)
        self.changed[task.id] = None
        if to == READY:
            item.ready_at = at
            self.ready.enter(item)
            if self.indexed:
                self._place(item)
        elif to == SCHEDULED:
            if self.indexed:
                self.set_timer((task.run_at, STARTS, task.id, 0))
        elif to > LEASED:
            task.ended_at = at
            task.asked = NO_MAP
            self.ended[task.id] = None
            self.tallies.ends.hit(at)

    def drop(self, item: Item) -> None:
        """Forget a task that is not leased."""
        task = item.task
        if item.where == READY:
            self._leave_ready(item)
        elif item.where == BLOCKED:
            self._leave_blocked(item)
        item.counts[item.where] -= 1
        self.totals[item.where] -= 1
        del self.tasks[task.id]
        self.chars -= item.chars()
        if task.key and self.keys.get((task.owner, task.key)) == task.id:
            del self.keys[task.owner, task.key]
        self.ended.pop(task.id, None)
        self.changed[task.id] = None

    def lease(self, item: Item, at: float, token: int, worker: Worker, lease_s: float) -> None:
        """Give a ready task to a worker."""
        self.move(item, LEASED, at)
        task = item.task
        self.last_token = max(self.last_token, token)
        task.token = token
        task.worker = worker.name
        task.attempt += 1
        task.started_at = task.beat_at = at
        task.lease_until = item.logged_until = at + lease_s
        task.progress = None
        task.progress_text = ""
        item.lease_s = lease_s
        worker.running[task.id] = None
        self.ready.started(item, at)
        if self.indexed:
            self.ready.holds(item)
            self.set_timer((task.lease_until, LEASE_ENDS, task.id, token))
        self.tallies.starts.hit(at)
        self.tallies.waited(at - item.ready_at)
        item.note(self.limits.max_task_events, at, "claimed")

    def requeue(self, item: Item, to: int, at: float) -> None:
        """Let a task wait for its next attempt."""
        task = item.task
        task.lease_until = 0.0
        if task.next_priority is not None:
            self.reorder(item, task.next_priority)
        self.move(item, to, at)

    def reorder(self, item: Item, priority: float) -> None:
        """Give a task another priority, now."""
        ready = item.where == READY and self.indexed
        if ready:
            self.ready.displace(item)
        task = item.task
        task.priority, task.next_priority = priority, None
        item.order = task.created_at - priority * self.limits.ageing_s
        if ready:
            self.ready.place(item)

    def renew(self, item: Item) -> None:
        """The end of a task's lease is another one now."""
        if self.indexed:
            task = item.task
            self.set_timer((task.lease_until, LEASE_ENDS, task.id, task.token))

    def settle(self, task_id: str, at: float) -> None:
        """A task is completed: those that waited for nothing else may start."""
        for child_id in self.children.pop(task_id, ()):
            child = self.tasks.get(child_id)
            if child is None or child.waits is None:
                continue
            child.waits.discard(task_id)
            child.task.blocked_by = len(child.waits)
            if not child.waits:
                self.move(child, SCHEDULED if child.task.run_at > at else READY, at)
                child.note(self.limits.max_task_events, at, "unblocked")

    def dependents(self, task_id: str) -> list[str]:
        """All that wait for a task, for those that wait for it, and so on; each once."""
        found: dict[str, None] = {}
        open_ = [task_id]
        while open_:
            for child in self.children.get(open_.pop(), ()):
                if child not in found:
                    found[child] = None
                    open_.append(child)
        return list(found)

    def set_timer(self, timer: Timer) -> None:
        """Have `Expire` look at a task at that time."""
        if len(self.timers) >= self._many_timers:
            self.timers = [one for one in self.timers if self.timer_counts(one)]
            heapify(self.timers)
            self._many_timers = max(_MANY_TIMERS, 2 * len(self.timers))
        heappush(self.timers, timer)

    def timer_counts(self, timer: Timer) -> bool:
        """Whether a timer is about its task as that is now."""
        at, what, task_id, token = timer
        item = self.tasks.get(task_id)
        if item is None or item.where > LEASED:
            return False
        task = item.task
        if what == LEASE_ENDS:
            return item.where == LEASED and task.token == token
        if what == STARTS:
            return item.where == SCHEDULED and task.run_at == at
        if what == DEADLINE:
            return task.deadline == at
        return item.where == READY and task.started_at is None

    def _index(self, item: Item) -> None:
        task, where = item.task, item.where
        if task.deadline is not None and where <= LEASED:
            self.set_timer((task.deadline, DEADLINE, task.id, 0))
        if where == READY:
            self._place(item)
        elif where == SCHEDULED:
            self.set_timer((task.run_at, STARTS, task.id, 0))
        elif where == LEASED:
            self.ready.holds(item)
            self.set_timer((task.lease_until, LEASE_ENDS, task.id, task.token))

    def _place(self, item: Item) -> None:
        task = item.task
        self.ready.place(item)
        if task.queue_timeout_s is not None and task.started_at is None:
            self.set_timer((item.ready_at + task.queue_timeout_s, QUEUE_TIMEOUT, task.id, 0))

    def _leave_ready(self, item: Item) -> None:
        self.ready.leave(item)
        if self.indexed:
            self.ready.displace(item)

    def _leave_lease(self, item: Item) -> None:
        worker = self.workers.get(item.task.worker)
        if worker is not None:
            worker.running.pop(item.task.id, None)
        if self.indexed:
            self.ready.stopped(item)

    def _leave_blocked(self, item: Item) -> None:
        task_id = item.task.id
        for parent in item.waits or ():
            children = self.children.get(parent)
            if children is not None:
                children.pop(task_id, None)
                if not children:
                    del self.children[parent]
        item.waits = None
        item.task.blocked_by = 0

    def _new_type(self, type_: str) -> list[int]:
        if len(self.types) >= _MANY_TYPES:
            for unused in [one for one, counts in self.types.items() if not any(counts)]:
                del self.types[unused]
        counts = self.types[type_] = [0] * len(STATES)
        return counts
