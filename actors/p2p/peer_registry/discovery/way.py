# SPDX-License-Identifier: AGPL-3.0-or-later
"""A way of finding peers, as those see it who use it."""

from __future__ import annotations

from typing import Protocol


class Way(Protocol):
    """A further way of looking for peers, that is on."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def state(self) -> str:
        """`ok`, or what is wrong with it."""

    async def run(self) -> None:
        """Do what it does by itself, until cancelled."""

    async def look(self, timeout_s: float, /) -> int:
        """Look now, for so long at most. Returns how many peers it found that nobody knew."""
