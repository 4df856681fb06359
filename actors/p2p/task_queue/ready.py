# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which ready task is next: order, turns of the fairness keys, and limits.

Tasks that the same claims may have lie in one lane: they have the same type, needs and sticky worker. In a lane each
fairness key has a heap of its own, smallest `order` first. Keys take turns by virtual time: the key that was served
least goes first, among equals the one whose task is first by order; each start adds the inverse of the key's weight. A
key that had nothing to do comes back as if it had just been served: it cannot claim turns that it did not use, and keys
that were never seen cannot overtake those that wait. Keys that are paused, and those that reached their limit, have no
turns meanwhile.

Heaps are cleaned lazily: an entry counts only while it is its task's `entry`. All of this follows from events, so that
a restart goes on in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Final

from actors.p2p.task_queue.events import LEASED
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.limits import Rate as TypeRate
from actors.p2p.task_queue.records import Item
from actors.task_messages import Claim

Entry = tuple[float, int, str]
Head = tuple[float, Entry]
"""Virtual time of a fairness key, and its first entry: the smallest of all is next."""
Turn = tuple[float, Entry, str]
"""That of a key in a lane, with the key's name."""

Which = tuple[tuple[str, ...], str]
"""Needs and sticky worker of the tasks in a lane."""

_MANY_STALE: Final = 64
_MANY_KEYS: Final = 1024
_MANY_PARKED: Final = 64


class Key:
    """A fairness key."""

    __slots__ = ("leased", "name", "parked", "paused", "ready", "share", "time")

    def __init__(self, name: str, share: float, *, paused: bool) -> None:
        self.name = name
        self.paused = paused
        self.time = 0.0
        self.share = share
        """What one start adds to `time`."""
        self.ready = 0
        self.leased = 0
        self.parked: list[Lane] = []
        """Lanes that have tasks of this key and no turn for it, since it may have none."""


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

    __slots__ = (
        "bucket",
        "counts",
        "heaps",
        "live",
        "most",
        "needs",
        "stale",
        "sticky",
        "turn",
        "turns",
        "type",
        "which",
    )

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
        self.turn: dict[str, Turn] = {}
        """Of each key; none while the key is parked."""
        self.turns: list[Turn] = []
        """A heap of them; those that are not their key's `turn` are void, others may come too early."""


class Ready:
    """All ready tasks."""

    def __init__(self, limits: QueueLimits, tasks: dict[str, Item]) -> None:
        self._limits = limits
        self._tasks = tasks
        self._most_per_key = limits.max_running_per_key
        self.keys: dict[str, Key] = {}
        self._many_keys = _MANY_KEYS
        self.paused: dict[str, str] = {}
        """Fairness key -> why claims pass its tasks by."""
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
            share = 1.0 / self._limits.weights.get(name, 1.0)
            key = self.keys[name] = Key(name, share, paused=name in self.paused)
        return key

    def enter(self, item: Item) -> None:
        """It became ready."""
        name = item.task.fairness_key
        key = self.keys.get(name) or self.key(name)
        if not key.ready and key.time < self.time + key.share:
            key.time = self.time + key.share
        key.ready += 1

    def leave(self, item: Item) -> None:
        """It is ready no longer."""
        self.keys[item.task.fairness_key].ready -= 1

    def place(self, item: Item) -> None:
        """Let claims find a ready task."""
        if len(self.keys) >= self._many_keys:
            self._forget_keys()
        task = item.task
        lane = self._lane(item)
        lane.live += 1
        entry = item.entry = (item.order, item.seq, task.id)
        if self.last is None or not self._count or entry >= self.last:
            self.last = entry
        self._count += 1
        name = task.fairness_key
        heap = lane.heaps.get(name)
        if heap is None:
            lane.heaps[name] = [entry]
            self._take_turn(lane, self.keys[name], entry)
        else:
            heappush(heap, entry)
            if heap[0] is entry and name in lane.turn:
                self._take_turn(lane, self.keys[name], entry)

    def displace(self, item: Item) -> None:
        """Let claims find it no longer."""
        item.entry = None
        self._count -= 1
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
        if key.parked and not key.paused:
            self._unpark(key)

    def holds(self, item: Item) -> None:
        """It is leased."""
        self.key(item.task.fairness_key).leased += 1

    def pause(self, name: str, reason: str) -> None:
        """Give this key no turns."""
        self.paused[name] = reason
        if name in self.keys:
            self.keys[name].paused = True

    def resume(self, name: str) -> None:
        """Give it turns again."""
        self.paused.pop(name, None)
        key = self.keys.get(name)
        if key is not None:
            key.paused = False
            self._unpark(key)

    def lanes_for(self, claim: Claim, types: Iterable[str], offline: Callable[[str], bool]) -> list[Lane]:
        """Where a claim may look. `types` empty = all; `offline` tells whether a sticky worker is not there."""
        found: list[Lane] = []
        for type_ in types or self.lanes:
            if type_ in claim.without:
                continue
            for lane in self.lanes.get(type_, {}).values():
                if lane.needs and not lane.needs.issubset(claim.capabilities):
                    continue
                if claim.needing and claim.needing not in lane.needs:
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
            "keys": sorted([key.name, key.time] for key in self.keys.values() if key.ready or key.time > self.time),
            "buckets": [[type_, bucket.level, bucket.at] for type_, bucket in self.buckets.items()],
            "paused": dict(self.paused),
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take over what was packed."""
        self.time = packed["time"]
        self.paused = packed.get("paused", {})
        for key in self.keys.values():
            key.paused = key.name in self.paused
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

    @staticmethod
    def _take_turn(lane: Lane, key: Key, entry: Entry) -> None:
        turn = lane.turn[key.name] = (key.time, entry, key.name)
        heappush(lane.turns, turn)

    def _may_start(self, key: Key) -> bool:
        most = self._most_per_key
        return not (key.paused or (most and key.leased >= most))

    @staticmethod
    def _park(lane: Lane, key: Key) -> None:
        if len(key.parked) >= _MANY_PARKED:
            key.parked = [one for one in key.parked if one.live]
        key.parked.append(lane)

    def _unpark(self, key: Key) -> None:
        for lane in key.parked:
            heap = lane.heaps.get(key.name)
            if heap:
                self._take_turn(lane, key, heap[0])
            else:
                lane.heaps.pop(key.name, None)
        key.parked.clear()

    def _head(self, lane: Lane) -> Head | None:
        turns = lane.turns
        while turns:
            turn = turns[0]
            time, entry, name = turn
            if lane.turn.get(name) is not turn:
                heappop(turns)
                continue
            key = self.keys.get(name)
            if key is None:
                heappop(turns)
                del lane.turn[name]
                self._empty(lane, name)
                continue
            first = self._first_of(lane, name)
            may = self._may_start(key)
            if first is entry and key.time == time and may:
                return time, entry
            heappop(turns)
            del lane.turn[name]
            if first is None:
                del lane.heaps[name]
            elif may:
                self._take_turn(lane, key, first)
            else:
                self._park(lane, key)
        return None

    @staticmethod
    def _empty(lane: Lane, name: str) -> None:
        """Take away what a lane has of a key that has no ready task."""
        lane.stale -= len(lane.heaps.pop(name, ()))

    def _first_of(self, lane: Lane, name: str) -> Entry | None:
        heap, tasks = lane.heaps[name], self._tasks
        while heap:
            item = tasks.get(heap[0][2])
            if item is not None and item.entry is heap[0]:
                return heap[0]
            heappop(heap)
            lane.stale -= 1
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
            for lane in key.parked:
                self._empty(lane, key.name)
            del self.keys[key.name]
        self._many_keys = max(_MANY_KEYS, 2 * len(self.keys))
