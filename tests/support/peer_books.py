# SPDX-License-Identifier: AGPL-3.0-or-later
"""A clock that the test turns, and books of peers by it."""

from __future__ import annotations

from actors.p2p.peer_registry.bans import BanRules, Bans
from actors.p2p.peer_registry.peer_book import PeerBook

RULES = BanRules(ban_s=60.0, ban_max_s=960.0, forgive_s=100.0)


class Clock:
    """Unix seconds."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def peer(number):
    """A peer id; others sort as their numbers do."""
    return f"12D3KooW{number:044d}"


def book_of(clock, *, max_peers=100, keep_s=86400.0, most_bans=100):
    """An empty book."""
    return PeerBook(Bans(RULES, clock, most=most_bans), max_peers=max_peers, keep_s=keep_s, now=clock)
