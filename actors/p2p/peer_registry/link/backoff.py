# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a peer that could not be reached is tried again. No clock of its own: moments are given, in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable

from actors.p2p.peer_registry.link.rules import LinkRules

_MOST_DOUBLINGS = 30


class Backoff:
    """The pauses between attempts at one peer: each is drawn between half a bound and the bound, so that many nodes do
    not come at once, and the bound doubles with each failure up to `retry_cap_s`."""

    __slots__ = ("_draw", "_rules", "failures", "next_at")

    def __init__(self, rules: LinkRules, draw: Callable[[], float]) -> None:
        """`draw` gives numbers from 0 to below 1."""
        self.failures = 0
        """In a row."""
        self.next_at = -math.inf
        """No attempt before that."""
        self._rules = rules
        self._draw = draw

    def failed(self, now: float) -> None:
        """An attempt came to nothing, or its link soon ended."""
        self.failures += 1
        self._pause(now)

    def ended(self, now: float, lived_s: float) -> None:
        """A link has ended that lived for so long."""
        if lived_s >= self._rules.steady_after_s:
            self.failures = 0
        self.failed(now)

    def discourage(self) -> None:
        """It will go on failing: the next pause is as long as any."""
        self.failures = _MOST_DOUBLINGS

    def forget(self) -> None:
        """Try again at once."""
        self.failures = 0
        self.next_at = -math.inf

    def _pause(self, now: float) -> None:
        bound = min(self._rules.retry_cap_s, self._rules.retry_base_s * 2 ** min(self.failures - 1, _MOST_DOUBLINGS))
        self.next_at = now + bound * (1 + self._draw()) / 2
