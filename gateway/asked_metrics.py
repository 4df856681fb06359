# SPDX-License-Identifier: AGPL-3.0-or-later
"""Metrics that are another actor's numbers: it is asked before a scrape, never more often than it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
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


class AskedMetrics(Generic[T]):
    """Asks an actor before a scrape, and shows what it said."""

    def __init__(
        self, ask: Callable[[], Awaitable[T]], up: tuple[str, str], families: Callable[[T], Iterable[Family]]
    ) -> None:
        """`ask` raises `MCPServerError` when the actor is not there; `up`: name and text of the gauge that tells
        whether it was."""
        self._ask = ask
        self._up = up
        self._families = families
        self._answer: T | None = None
        self._lock = trio.Lock()
        self._asked_at = float("-inf")

    async def refresh(self) -> None:
        """Ask, if that was not done just now."""
        async with self._lock:
            if trio.current_time() - self._asked_at < _FRESH_S:
                return
            self._answer = None
            with trio.move_on_after(ANSWER_S):
                with contextlib.suppress(MCPServerError):
                    self._answer = await self._ask()
            self._asked_at = trio.current_time()

    def families(self) -> Iterable[Family]:
        """What it said last."""
        answer = self._answer
        yield GaugeMetricFamily(*self._up, value=0 if answer is None else 1)
        if answer is not None:
            yield from self._families(answer)


def labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
