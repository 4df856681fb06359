# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom work is offered to, and what is remembered of how that went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from actors.p2p.cids import cid_of_text
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.reputation import Outcome
from actors.p2p.peer_registry.selection import Candidate, Need, choose
from actors.p2p.peer_registry.sharing.assignment import Capacity


class BookJudge:
    """Ranks peers by what the book knows of them, and tells it what they did."""

    def __init__(self, book: PeerBook, lied: Callable[[str, str], None]) -> None:
        """`lied` does what has to be done with a peer whose result proved wrong."""
        self._book = book
        self._lied = lied

    def rank(self, input_cid: str, peers: Sequence[Capacity]) -> list[str]:
        """Their ids: whom to offer work on this input, one after the other."""
        now = trio.current_time()
        choice = choose([self._candidate(peer, now) for peer in peers], cid_of_text(input_cid), Need())
        return choice.offers

    def _candidate(self, peer: Capacity, now: float) -> Candidate:
        known = self._book.get(peer.peer_id)
        reputation = self._book.reputation(peer.peer_id)
        return Candidate(
            peer_id=peer.peer_id,
            capabilities=frozenset(),
            silent_s=max(0.0, now - peer.at),
            speed=None if known is None else known.speed,
            success=reputation,
            reputation=reputation,
            queue=0,
            in_flight=peer.running,
            banned=known is not None and known.banned_until is not None,
        )

    def outcome(self, peer_id: str, *, success: bool, seconds: float) -> None:
        """A task ended there."""
        self._book.outcome(peer_id, Outcome(ok=success, seconds=seconds))

    def lied(self, peer_id: str, what: str) -> None:
        """A result of it proved wrong."""
        self._lied(peer_id, what)
