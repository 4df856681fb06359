# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is measured of a peer until it becomes a point of its history."""

from __future__ import annotations

import msgspec

from actors.p2p.peer_registry.peers import POINT_S
from actors.peer_messages import Point


class Gathering(msgspec.Struct):
    """Sums of what was measured since a moment."""

    since: float
    latency_s: float = 0.0
    pings: int = 0
    answered: int = 0
    bits: float = 0.0
    transfer_s: float = 0.0
    successes: int = 0
    failures: int = 0

    def is_due(self, now: float) -> bool:
        """Its time is over."""
        return now >= self.since + POINT_S

    def point(self, now: float) -> Point | None:
        """What it sums up to; None = nothing was measured."""
        if not (self.pings or self.transfer_s or self.successes or self.failures):
            return None
        return Point(
            at=min(now, self.since + POINT_S),
            latency_s=self.latency_s / self.answered if self.answered else None,
            bandwidth_bps=self.bits / self.transfer_s if self.transfer_s else None,
            pings=self.pings,
            answered=self.answered,
            successes=self.successes,
            failures=self.failures,
        )
