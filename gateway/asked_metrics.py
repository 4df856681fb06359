# SPDX-License-Identifier: AGPL-3.0-or-later
"""Metrics that are another actor's numbers: it is asked before a scrape, never more often than it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from actors.errors import MCPServerError

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
ANSWER_S: Final = 0.5
"""Time for an actor to answer; a scrape waits no longer."""
_FRESH_S: Final = 1.0
"""Scrapes within this time share one answer, so that many of them cost the actor no more than one."""
T = TypeVar("T")


class Asked(Generic[T]):
    """What an actor says of itself."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        """`ask` raises `MCPServerError` when the actor is not there."""
        self.answer: T | None = None
        """The latest; None = it gave none."""
        self._ask = ask
        self._lock = trio.Lock()
        self._asked_at = float("-inf")

    async def refresh(self) -> None:
        """Ask, if that was not done just now."""
        async with self._lock:
            if trio.current_time() - self._asked_at < _FRESH_S:
                return
            self.answer = None
            with trio.move_on_after(ANSWER_S):
                with contextlib.suppress(MCPServerError):
                    self.answer = await self._ask()
            self._asked_at = trio.current_time()


def labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
