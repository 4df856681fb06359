# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which processes were told to end. A call that ended with one of these was ended by an order, and is no fault of its
task."""

from __future__ import annotations

from typing import Final

import trio

from actors.messages import State
from actors.peers import Peers, base_name

_LATELY_S: Final = 5.0
"""Between the moment that a process is no longer listed as ending and the one that its callers know of its end."""


class Stops:
    """Remembers for a while what the directory said. `run` has to run."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look at each directory, until cancelled."""
        while True:
            since = self._peers.changes
            for base in self._ending():
                self._seen[base] = trio.current_time()
            await self._peers.changed(since)

    def lately(self, base: str) -> bool:
        """Whether a process of this base name is ending, ended in order a moment ago, or is out of service."""
        return base in self._ending() or trio.current_time() - self._seen.get(base, float("-inf")) < _LATELY_S

    def _ending(self) -> set[str]:
        # Spares as well: a life whose place a spare took ends under the spare's name.
        entries = self._peers.entries.values()
        return {base_name(entry.name) for entry in entries if entry.state in {State.DRAINING, State.OFF}}
