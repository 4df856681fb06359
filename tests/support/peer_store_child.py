# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process that stores peers through the keeper without end, says what is stored, and is killed.

python peer_store_child.py PATH

Each round gives all peers the same number of outcomes, and a ban with this number as its reason.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio
from peer_books import Clock, book_of, peer

from actors.p2p.peer_registry.peer_keeper import PeerKeeper
from actors.p2p.peer_registry.peer_store import PeerStore
from actors.p2p.peer_registry.reputation import Outcome

PEERS = 50


async def churn(path):
    """Go on where the last life ended."""
    clock = Clock()
    book, store = book_of(clock), PeerStore(Path(path))
    aside = store.open()
    assert aside is None, "a kill damages nothing"
    peers, offences = store.load()
    book.bans.restore(offences)
    book.restore(peers)
    keeper = PeerKeeper(book, store)
    known = book.get(peer(0))
    number = known.successes if known else 0
    while True:
        number += 1
        clock.now += 1e6
        for one in range(PEERS):
            book.seen(peer(one))
            book.outcome(peer(one), Outcome(ok=True))
        book.violated(peer(0), "", str(number))
        assert await keeper.flush()
        os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    trio.run(churn, sys.argv[1])
