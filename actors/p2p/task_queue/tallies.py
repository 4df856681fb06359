# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the queue counts: totals, the last hours, averages and rates. Everything follows from events, so that a restart
counts on."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

from actors.task_views import RUN_BUCKETS_MS, Hour, RunTimes

COUNTERS: Final = (
    "submitted",
    "completed",
    "failed",
    "cancelled",
    "retried",
    "expired",
    "released",
    "stale_fence",
    "replayed",
    "refused",
)
_HOURS: Final = 24
_HOUR_S: Final = 3600
_BY_HOUR: Final = {"submitted": 0, "completed": 1, "failed": 2, "cancelled": 3}
_NEW_COUNTS: Final = 0.05
"""Weight of the newest value in a moving average."""


class Rate:
    """How often something happened in the last five minutes."""

    SLOT_S: Final = 10
    SLOTS: Final = 30

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.since: float | None = None

    def hit(self, at: float, n: int = 1) -> None:
        """It happened `n` times."""
        slot = int(at) // self.SLOT_S
        slots = self.slots
        if slot in slots:
            slots[slot] += n
            return
        if self.since is None:
            self.since = at
        slots[slot] = n
        for old in [one for one in slots if one <= slot - self.SLOTS]:
            del slots[old]

    def per_s(self, now: float) -> float | None:
        """None = it never happened."""
        if self.since is None:
            return None
        first = int(now) // self.SLOT_S - self.SLOTS
        hits = sum(n for slot, n in self.slots.items() if slot > first)
        span = min(now - self.since, float(self.SLOT_S * self.SLOTS))
        return hits / max(span, float(self.SLOT_S))

    def pack(self) -> list[Any]:
        """For the log."""
        return [self.since, [[slot, n] for slot, n in self.slots.items()]]

    def unpack(self, packed: list[Any]) -> None:
        """Take the place of the one that was packed."""
        self.since, slots = packed
        self.slots = dict(slots)


class Tallies:
    """See the module's text."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.hours: dict[int, list[int]] = {}
        self._hour = -1
        self._row: list[int] = []
        """Of that hour."""
        self.wait_s: float | None = None
        self.run_s: float | None = None
        self.run_buckets = [0] * (len(RUN_BUCKETS_MS) + 1)
        self.run_sum_s = 0.0
        self.starts = Rate()
        self.ends = Rate()

    def count(self, what: str, at: float, n: int = 1) -> None:
        """It happened, one of `COUNTERS`."""
        self.counters[what] += n
        column = _BY_HOUR.get(what)
        if column is not None:
            hour = int(at) // _HOUR_S
            if hour != self._hour:
                self._turn_to(hour)
            self._row[column] += n

    def _turn_to(self, hour: int) -> None:
        self._hour = hour
        self._row = self.hours.setdefault(hour, [0, 0, 0, 0])
        for old in [one for one in self.hours if one <= hour - _HOURS]:
            del self.hours[old]

    def waited(self, seconds: float) -> None:
        """A task was ready for so long before it was claimed."""
        old = self.wait_s
        self.wait_s = seconds if old is None else old + (seconds - old) * _NEW_COUNTS

    def ran(self, seconds: float) -> None:
        """A task was completed after so long."""
        self.run_buckets[bisect_left(RUN_BUCKETS_MS, seconds * 1000)] += 1
        self.run_sum_s += seconds
        old = self.run_s
        self.run_s = seconds if old is None else old + (seconds - old) * _NEW_COUNTS

    def run_times(self) -> RunTimes:
        """Of all completed tasks."""
        return RunTimes(buckets=list(self.run_buckets), sum_ms=self.run_sum_s * 1000)

    def last_hours(self, now: float) -> list[Hour]:
        """The last 24, oldest first; hours in which nothing happened are left out."""
        first = int(now) // _HOUR_S - _HOURS
        return [
            Hour(at=float(hour * _HOUR_S), submitted=row[0], completed=row[1], failed=row[2], cancelled=row[3])
            for hour, row in sorted(self.hours.items())
            if hour > first
        ]

    def pack(self) -> dict[str, Any]:
        """For the log."""
        return {
            "counters": dict(self.counters),
            "hours": [[hour, *row] for hour, row in self.hours.items()],
            "wait_s": self.wait_s,
            "run_s": self.run_s,
            "run_times": [self.run_sum_s, *self.run_buckets],
            "starts": self.starts.pack(),
            "ends": self.ends.pack(),
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take the place of those that were packed."""
        self.counters = dict.fromkeys(COUNTERS, 0) | packed["counters"]
        self.hours = {hour: row for hour, *row in packed["hours"]}
        self._hour = -1
        self.wait_s = packed["wait_s"]
        self.run_s = packed["run_s"]
        self.run_sum_s, *self.run_buckets = packed.get("run_times", [0.0, *self.run_buckets])
        self.starts.unpack(packed["starts"])
        self.ends.unpack(packed["ends"])
