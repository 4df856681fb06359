# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which further ways of finding peers there are, and what switches each on."""

from __future__ import annotations

from typing import Final, Protocol

SWITCHES: Final = {
    "peer_file": "p2p.peer_registry.discovery.peer_file",
    "mdns": "p2p.peer_registry.discovery.mdns",
}
"""Settings, by the way's name."""


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
