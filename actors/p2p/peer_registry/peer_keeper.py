# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keeps the book of peers and the bans on disk: what changed is gathered for a moment and written in a thread, one
batch after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio

from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.peer_store import PeerBatch, PeerStore

GATHER_S: Final = 2.0
"""What changes is stored after so long at most: a kill costs no more than that."""
SWEEP_S: Final = 60.0
MOST_AT_ONCE: Final = 500
"""Peers in one batch, and as many bans."""
RETRY_S: Final = 10.0
"""After a write that failed."""

log = structlog.get_logger()


class PeerKeeper:
    """See the module's text."""

    def __init__(self, book: PeerBook, store: PeerStore) -> None:
        self._book = book
        self._store = store
        self._some = trio.Event()
        self._writing = trio.Lock()
        book.unsaved.on_change = self._on_change
        book.bans.unsaved.on_change = self._on_change

    def _on_change(self) -> None:
        self._some.set()

    async def run(self) -> None:
        """Store what changes, and forget what is too old, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                await self._some.wait()
                await trio.sleep(GATHER_S)
                while self._unsaved():
                    if not await self.flush():
                        await trio.sleep(RETRY_S)
                self._some = trio.Event()

    async def _sweep(self) -> None:
        while True:
            self._book.sweep()
            await trio.sleep(SWEEP_S)

    def _unsaved(self) -> bool:
        return bool(self._book.unsaved or self._book.bans.unsaved)

    async def flush(self) -> bool:
        """Write one batch now; False = it could not be written, and is kept for later. A write is never cut off."""
        async with self._writing:
            batch = self._take()
            try:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._store.write, batch)
            except sqlite3.Error as error:
                self._give_back(batch)
                log.warning("peers_not_stored", error=str(error), retry_after_s=RETRY_S)
                return False
        return True

    async def finish(self) -> None:
        """Write all that is left, unless that fails."""
        while self._unsaved() and await self.flush():
            pass

    def _take(self) -> PeerBatch:
        book, bans = self._book, self._book.bans
        batch = PeerBatch()
        peers, batch.peers_gone, batch.only_peers = book.unsaved.take(MOST_AT_ONCE, book)
        for peer_id in peers:
            batch.put(book.stored(peer_id))
        subjects, batch.offences_gone, batch.only_offences = bans.unsaved.take(
            MOST_AT_ONCE, (one.subject for one in bans.all())
        )
        for subject in subjects:
            offence = bans.get(subject)
            if offence is not None:
                batch.put_offence(offence)
        return batch

    def _give_back(self, batch: PeerBatch) -> None:
        book, bans = self._book, self._book.bans
        book.unsaved.give_back(
            [one for one, _, _ in batch.peers if book.not_stored(one)],
            [one for one in batch.peers_gone if one not in book],
            many_gone=batch.only_peers is not None,
        )
        bans.unsaved.give_back(
            [one for one, _ in batch.offences if bans.get(one) is not None],
            [one for one in batch.offences_gone if bans.get(one) is None],
            many_gone=batch.only_offences is not None,
        )


@asynccontextmanager
async def open_keeper(book: PeerBook, store: PeerStore) -> AsyncGenerator[PeerKeeper]:
    """Open the file and know again what is stored there; at the end write what is left. `run` has to be started by the
    caller, and to have ended before. Raises as `PeerStore.open` does."""
    try:
        aside = await trio.to_thread.run_sync(store.open)
        if aside is not None:
            log.warning("damaged_file_of_peers_put_aside", path=str(store.path), now_at=str(aside))
        peers, offences = await trio.to_thread.run_sync(store.load)
        book.bans.restore(offences)
        book.restore(peers)
        keeper = PeerKeeper(book, store)
        try:
            yield keeper
        finally:
            with trio.CancelScope(shield=True):
                await keeper.finish()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
