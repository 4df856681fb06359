# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which peers gave a sign of life here. Bounded, and for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST_PEERS: Final = 1000
KEPT_S: Final = 300.0


class SeenPeers:
    """Latest last."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: dict[str, float] = {}

    def add(self, peer_id: str) -> None:
        """It was here now."""
        self._seen.pop(peer_id, None)
        self._seen[peer_id] = self._now()
        if len(self._seen) > MOST_PEERS:
            del self._seen[next(iter(self._seen))]

    def shown(self) -> list[dict[str, object]]:
        """As replies have it; times in Unix seconds."""
        since = self._now() - KEPT_S
        for peer_id in [peer_id for peer_id, at in self._seen.items() if at < since]:
            del self._seen[peer_id]
        return [{"peer_id": peer_id, "last_seen": at} for peer_id, at in self._seen.items()]
