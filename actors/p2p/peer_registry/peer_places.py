# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which peer has to go when the book is full.

Whoever was useful stays longest, so that a flood of ids that cost nothing only drives out its own kind: hearsay drives
out hearsay, who comes here those who were never useful, and only an operator's wish one that was.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum


class Rank(IntEnum):
    """What a peer is worth remembering for."""

    HEARSAY = 0
    SEEN = 1
    USEFUL = 2
    """It did something for us."""
    PINNED = 3
    """It is here, or an operator wants it to be known."""


class Places:
    """Peer ids by rank, and within a rank by when they were put there."""

    def __init__(self) -> None:
        self._rows: dict[Rank, OrderedDict[str, None]] = {rank: OrderedDict() for rank in Rank}
        self._rank: dict[str, Rank] = {}

    def put(self, peer_id: str, rank: Rank) -> None:
        """It has this rank from now on, and is the last to go of it."""
        old = self._rank.get(peer_id)
        if old is not None and old is not rank:
            del self._rows[old][peer_id]
        self._rank[peer_id] = rank
        row = self._rows[rank]
        row[peer_id] = None
        row.move_to_end(peer_id)

    def drop(self, peer_id: str) -> None:
        """It is not in the book any more."""
        del self._rows[self._rank.pop(peer_id)][peer_id]

    def first(self, rank: Rank) -> str | None:
        """The one of this rank that was put there longest ago."""
        return next(iter(self._rows[rank]), None)

    def first_to_go(self, most: Rank) -> str | None:
        """The one that is missed least, of this rank or a lower one."""
        return next((one for rank in Rank if rank <= most and (one := self.first(rank)) is not None), None)
