# SPDX-License-Identifier: AGPL-3.0-or-later
"""How much somebody takes: calls per second, things in flight, bytes per second. Pure; times are seconds of any clock
that does not go back."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from actors.settings_p2p import PeerLimits

IN_FLIGHT_RETRY_S: Final = 1.0
"""Nobody knows when something in flight ends."""


class Over(msgspec.Struct, frozen=True):
    """A limit is reached."""

    limit: str
    """Its name in the settings."""
    most: float
    retry_after_s: float


class Bucket:
    """Holds `most` at first and gains `per_s` each second, up to `most` again. It can owe."""

    __slots__ = ("_at", "_level", "_most", "_per_s")

    def __init__(self, per_s: float, most: float, now: float) -> None:
        self._per_s = per_s
        self._most = most
        self._level = most
        self._at = now

    def wait_s(self, wanted: float, now: float) -> float:
        """How long until it holds so much; 0 = it does."""
        self._level = min(self._most, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = max(now, self._at)
        return max(0.0, wanted - self._level) / self._per_s

    def take(self, amount: float) -> None:
        """Also what it does not hold."""
        self._level -= amount


class Share:
    """What one side has taken lately."""

    __slots__ = ("_bytes", "_calls", "_limits", "in_flight", "key")

    def __init__(self, key: str, limits: PeerLimits, now: float) -> None:
        self.key = key
        self.in_flight = 0
        self._limits = limits
        self._calls = Bucket(limits.rate_per_s, float(limits.burst), now)
        self._bytes = Bucket(float(limits.max_bytes_per_s), float(limits.max_bytes_per_s), now)

    def over(self, now: float) -> Over | None:
        """The limit that a call would break which begins now."""
        if self.in_flight >= self._limits.max_in_flight:
            return Over("max_in_flight", self._limits.max_in_flight, IN_FLIGHT_RETRY_S)
        if wait_s := self._calls.wait_s(1.0, now):
            return Over("rate_per_s", self._limits.rate_per_s, wait_s)
        if wait_s := self.owes_s(now):
            return Over("max_bytes_per_s", self._limits.max_bytes_per_s, wait_s)
        return None

    def owes_s(self, now: float) -> float:
        """For how long it has to be silent, after what it sent and was sent."""
        return self._bytes.wait_s(0.0, now)

    def call(self, size: int) -> None:
        """A call of so many bytes begins."""
        self._calls.take(1.0)
        self._bytes.take(float(size))
        self.in_flight += 1

    def passed(self, size: int, now: float) -> None:
        """So many bytes more went either way."""
        self._bytes.wait_s(0.0, now)
        self._bytes.take(float(size))


class Shares:
    """Shares by key, at most so many. Of those that have nothing in flight the one that was not used for longest goes
    first: its buckets would have filled again before long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: OrderedDict[str, Share] = OrderedDict()
        self._busy: dict[str, Share] = {}

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def get(self, key: str, limits: PeerLimits, now: float) -> Share | None:
        """The share of `key`, new if need be; None = so many others have something in flight."""
        share = self._busy.get(key)
        if share is not None:
            return share
        share = self._idle.get(key)
        if share is not None:
            self._idle.move_to_end(key)
            return share
        if len(self) >= self._most:
            if not self._idle:
                return None
            self._idle.popitem(last=False)
        share = self._idle[key] = Share(key, limits, now)
        return share

    def began(self, share: Share) -> None:
        """It has something in flight."""
        if self._idle.pop(share.key, None) is not None:
            self._busy[share.key] = share

    def ended(self, share: Share) -> None:
        """Something of it is not in flight any more."""
        share.in_flight -= 1
        if not share.in_flight:
            del self._busy[share.key]
            self._idle[share.key] = share
