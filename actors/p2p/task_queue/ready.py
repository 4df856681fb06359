# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which ready task is next: order, turns of the fairness keys, and limits.

Tasks that the same claims may have lie in one lane: they have the same type, needs and sticky worker. In a lane each
fairness key has a heap of its own, smallest `order` first. Keys take turns by virtual time: the key that was served
least goes first, and each start adds the inverse of its weight. A key that could not use its turns has lost them: its
next start counts from the present virtual time.

Heaps are cleaned lazily: an entry counts only while it is its task's `entry`. All of this follows from events, so that
a restart goes on in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final

from actors.p2p.task_queue.events import LEASED
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.limits import Rate as TypeRate
from actors.p2p.task_queue.records import Item
from actors.task_messages import Claim

Entry = tuple[float, int, str]
Head = tuple[float, Entry]
"""Virtual time of a fairness key, and its first entry: the smallest of all is next."""

Which = tuple[tuple[str, ...], str]
"""Needs and sticky worker of the tasks in a lane."""

_MANY_STALE: Final = 64
_MANY_KEYS: Final = 1024


class Key:
    """A fairness key."""

    __slots__ = ("leased", "name", "parked", "ready", "share", "time")

    def __init__(self, name: str, share: float) -> None:
        self.name = name
        self.time = 0.0
        self.share = share
        """What one start adds to `time`."""
        self.ready = 0
        self.leased = 0
        self.parked: list[Lane] = []
        """Lanes that have tasks of this key and no turn for it, since its limit was reached."""


class Bucket:
    """Starts of one type that are allowed now; see `limits.Rate`."""

    __slots__ = ("at", "level", "rate")

    def __init__(self, rate: TypeRate) -> None:
        self.rate = rate
        self.level = float(rate.burst)
        self.at = 0.0

    def level_at(self, now: float) -> float:
        """How many may start."""
        return min(float(self.rate.burst), self.level + max(0.0, now - self.at) * self.rate.per_s)

    def take(self, at: float) -> None:
        """One started."""
        self.level = self.level_at(at) - 1.0
        self.at = at

    def full_at(self, now: float) -> float:
        """When one may start."""
        missing = 1.0 - self.level_at(now)
        return now if missing <= 0 else now + missing / self.rate.per_s


class Lane:
    """See the module's text."""

    __slots__ = ("bucket", "counts", "heaps", "live", "most", "needs", "stale", "sticky", "turns", "type", "which")

    def __init__(self, type_: str, which: Which, counts: list[int], most: int, bucket: Bucket | None) -> None:
        self.type = type_
        self.which = which
        self.needs = frozenset(which[0])
        self.sticky = which[1]
        self.counts = counts
        self.most = most
        """Of its type that may run at once; 0 = any number."""
        self.bucket = bucket
        self.live = 0
        self.stale = 0
        self.heaps: dict[str, list[Entry]] = {}
        self.turns: list[tuple[float, str]] = []


class Ready:
    """All ready tasks."""

    def __init__(self, limits: QueueLimits, tasks: dict[str, Item]) -> None:
        self._limits = limits
        self._tasks = tasks
        self._most_per_key = limits.max_running_per_key
        self.keys: dict[str, Key] = {}
        self._many_keys = _MANY_KEYS
        self._count = 0
        self.last: Entry | None = None
        """The entry that is or was the last of all by order; not exceeded since there was no ready task."""
        self.time = 0.0
        """Virtual time: of the key that was served last, before that."""
        self.lanes: dict[str, dict[Which, Lane]] = {}
        """By type. A lane is there while it holds something."""
        self.buckets = {type_: Bucket(rate) for type_, rate in limits.rates.items()}

    def key(self, name: str) -> Key:
        """A fairness key, made when it is new."""
        key = self.keys.get(name)
        if key is None:
            key = self.keys[name] = Key(name, 1.0 / self._limits.weights.get(name, 1.0))
        return key

    def add(self, item: Item) -> None:
        """It became ready."""
        task = item.task
        lane = self._lane(item)
        if len(self.keys) >= self._many_keys:
            self._forget_keys()
        key = self.keys.get(task.fairness_key) or self.key(task.fairness_key)
        key.ready += 1
        lane.live += 1
        entry = item.entry = (item.order, item.seq, task.id)
        if self.last is None or not self._count or entry >= self.last:
            self.last = entry
        self._count += 1
        heap = lane.heaps.get(key.name)
        if heap is None:
            lane.heaps[key.name] = [entry]
            heappush(lane.turns, (key.time, key.name))
        else:
            heappush(heap, entry)

    def remove(self, item: Item) -> None:
        """It is ready no longer."""
        item.entry = None
        self._count -= 1
        self.keys[item.task.fairness_key].ready -= 1
        lane: Lane = item.lane
        item.lane = None
        lane.live -= 1
        lane.stale += 1
        if not lane.live:
            lanes = self.lanes[lane.type]
            del lanes[lane.which]
            if not lanes:
                del self.lanes[lane.type]
        elif lane.stale > _MANY_STALE and lane.stale > lane.live:
            self._clean(lane)

    def started(self, item: Item, at: float) -> None:
        """It was claimed: its key has had a turn."""
        name = item.task.fairness_key
        key = self.keys.get(name) or self.key(name)
        if key.time > self.time:
            self.time = key.time
        key.time = self.time + key.share
        bucket = self.buckets.get(item.task.type)
        if bucket is not None:
            bucket.take(at)

    def stopped(self, item: Item) -> None:
        """It is leased no longer."""
        key = self.keys[item.task.fairness_key]
        key.leased -= 1
        if key.parked:
            for lane in key.parked:
                heappush(lane.turns, (key.time, key.name))
            key.parked.clear()

    def holds(self, item: Item) -> None:
        """It is leased."""
        self.key(item.task.fairness_key).leased += 1

    def lanes_for(self, claim: Claim, types: Iterable[str], offline: Callable[[str], bool]) -> list[Lane]:
        """Where a claim may look. `types` empty = all; `offline` tells whether a sticky worker is not there."""
        found: list[Lane] = []
        for type_ in types or self.lanes:
            if type_ in claim.without:
                continue
            for lane in self.lanes.get(type_, {}).values():
                if lane.needs and not lane.needs.issubset(claim.capabilities):
                    continue
                if lane.sticky and lane.sticky != claim.worker and not offline(lane.sticky):
                    continue
                found.append(lane)
        return found

    def first(self, lanes: list[Lane], now: float) -> Item | None:
        """The task that is next in these lanes; limits that are reached hold back what they are about."""
        best: Head | None = None
        for lane in lanes:
            if not lane.live or self.held(lane, now):
                continue
            head = self._head(lane)
            if head is not None and (best is None or head < best):
                best = head
        return None if best is None else self._tasks[best[1][2]]

    def held(self, lane: Lane, now: float) -> str:
        """Which limit of its type holds a lane back, in words; '' = none."""
        if lane.most and lane.counts[LEASED] >= lane.most:
            return "limit of its type reached"
        bucket = lane.bucket
        if bucket is not None and bucket.level_at(now) < 1.0:
            return "rate of its type reached"
        return ""

    def key_full(self, name: str) -> bool:
        """Whether as many tasks of a fairness key run as may."""
        key = self.keys.get(name)
        return key is not None and bool(self._most_per_key) and key.leased >= self._most_per_key

    def all_lanes(self) -> Iterator[Lane]:
        """Each lane, in no order."""
        for lanes in self.lanes.values():
            yield from lanes.values()

    def pack(self) -> dict[str, Any]:
        """For the log: what does not follow from the tasks that are there."""
        return {
            "time": self.time,
            "keys": sorted([key.name, key.time] for key in self.keys.values() if key.time > self.time),
            "buckets": [[type_, bucket.level, bucket.at] for type_, bucket in self.buckets.items()],
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take over what was packed."""
        self.time = packed["time"]
        for name, time in packed["keys"]:
            self.key(name).time = time
        for type_, level, at in packed["buckets"]:
            bucket = self.buckets.get(type_)
            if bucket is not None:
                bucket.level, bucket.at = level, at

    def _lane(self, item: Item) -> Lane:
        task = item.task
        lanes = self.lanes.get(task.type)
        if lanes is None:
            lanes = self.lanes[task.type] = {}
        which = (tuple(sorted(task.needs)) if task.needs else (), task.sticky_worker)
        lane = lanes.get(which)
        if lane is None:
            most = self._limits.concurrency.get(task.type, 0)
            lane = lanes[which] = Lane(task.type, which, item.counts, most, self.buckets.get(task.type))
        item.lane = lane
        return lane

    def _head(self, lane: Lane) -> Head | None:
        turns, tasks, most = lane.turns, self._tasks, self._most_per_key
        while turns:
            time, name = turns[0]
            heap = lane.heaps.get(name)
            while heap:
                item = tasks.get(heap[0][2])
                if item is not None and item.entry is heap[0]:
                    break
                heappop(heap)
                lane.stale -= 1
            if not heap:
                heappop(turns)
                lane.heaps.pop(name, None)
                continue
            key = self.keys[name]
            if most and key.leased >= most:
                heappop(turns)
                key.parked.append(lane)
            elif key.time > time:
                heapreplace(turns, (key.time, name))
            else:
                return max(time, self.time), heap[0]
        return None

    def _clean(self, lane: Lane) -> None:
        tasks = self._tasks
        for name, heap in list(lane.heaps.items()):
            kept = [entry for entry in heap if (item := tasks.get(entry[2])) is not None and item.entry is entry]
            if kept:
                heapify(kept)
                lane.heaps[name] = kept
            else:
                heap.clear()  # its turn takes it away
        lane.stale = 0

    def _forget_keys(self) -> None:
        """Forget keys that have nothing here. Those that would have to wait for their next turn are kept, unless there
        are too many."""
        unused = [key for key in self.keys.values() if not (key.ready or key.leased)]
        ahead = [key for key in unused if key.time > self.time]
        for key in unused if len(ahead) > _MANY_KEYS // 2 else set(unused).difference(ahead):
            del self.keys[key.name]
        self._many_keys = max(_MANY_KEYS, 2 * len(self.keys))
