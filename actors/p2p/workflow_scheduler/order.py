# SPDX-License-Identifier: AGPL-3.0-or-later
"""The order that dependencies give to steps."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from typing import Final

MAX_CYCLES: Final = 10
"""That are looked for."""


class Order:
    """Steps, each after those that it depends on. Where there are cycles, as if one dependency of each were not there:
    what follows from those is not known, and in doubt `comes_after` is true."""

    def __init__(self, depends: Mapping[str, Iterable[str]]) -> None:
        """`depends`: step -> those that it depends on, all of them known."""
        self.cycles: list[list[str]] = []
        """Each as a path along which work would flow, with its first step again at the end; at most `MAX_CYCLES`."""
        self._depends = {step: dict.fromkeys(before) for step, before in depends.items()}
        self._cut: set[str] = set()
        self.steps = self._sorted()
        """All, in order; empty when there were too many cycles."""
        self._bits: dict[str, int] = {}
        self._before: dict[str, int] | None = None

    def _sorted(self) -> list[str]:
        while True:
            try:
                return list(graphlib.TopologicalSorter(self._depends).static_order())
            except graphlib.CycleError as error:
                cycle: list[str] = error.args[1]
            if len(self.cycles) == MAX_CYCLES:
                return []
            self.cycles.append(cycle)
            before, after = cycle[-2], cycle[-1]
            del self._depends[after][before]
            self._cut.add(after)

    def comes_after(self, step: str, other: str) -> bool:
        """Whether a step depends on another one, directly or through others."""
        if other in self._depends[step]:
            return True
        if not self.steps:
            return True
        if self._before is None:
            self._before = self._ancestors()
        return bool(self._before[step] & (self._bits[other] | 1))

    def _ancestors(self) -> dict[str, int]:
        """Step -> set of those before it, as bits; bit 0 = not all are known."""
        self._bits = {step: 1 << number for number, step in enumerate(self.steps, 1)}
        before: dict[str, int] = {}
        for step in self.steps:
            bits = 1 if step in self._cut else 0
            for other in self._depends[step]:
                bits |= before[other] | self._bits[other]
            before[step] = bits
        return before
