# SPDX-License-Identifier: AGPL-3.0-or-later
"""The time of what is stored while its process lives."""

from __future__ import annotations

import time
from collections.abc import Callable


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Unix seconds that never go back and never stand still, so that a lease is as long as it was said to be and each
    change of a task has a time of its own. When the system's clock is put forward they follow; when it is put back they
    go on as if it had not been. Time in which the machine slept counts.
    """

    def __init__(self, wall: Callable[[], float] = time.time, since_boot: Callable[[], float] = _since_boot) -> None:
        self._wall = wall
        self._since_boot = since_boot
        self._booted_at = wall() - since_boot()

    def __call__(self) -> float:
        """Now."""
        since_boot = self._since_boot()
        self._booted_at = max(self._booted_at, self._wall() - since_boot)
        return self._booted_at + since_boot
