# SPDX-License-Identifier: AGPL-3.0-or-later
"""Legacy subscriptions to resources, in a file of the data directory that all gateways share.

A session's id outlives the gateway (it is signed), so what its client subscribed to must outlive it, too. SQLite is
used because several processes write: each change is whole, also when its writer is killed, and leaves no lock behind. A
change is handed to the kernel, not to the disk: it survives every death of a process, and most of the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from gateway.mcp.keeping import NotKeptError

if TYPE_CHECKING:
    import sqlite3

FILE_NAME: Final = "subscriptions.sqlite"
_LOCK_WAIT_S: Final = 1.0
"""How long another gateway's change is waited for."""
_T = TypeVar("_T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS subscriptions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session BLOB NOT NULL, uri TEXT NOT NULL, ends_at REAL NOT NULL,
    UNIQUE (session, uri)
)"""
_ADD: Final = "INSERT INTO subscriptions (session, uri, ends_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_COUNT: Final = "SELECT count(*) FROM subscriptions"
_DROP_STALE: Final = "DELETE FROM subscriptions WHERE ends_at < ?"
_DROP_OLDEST: Final = (
    "DELETE FROM subscriptions WHERE number IN (SELECT number FROM subscriptions ORDER BY number LIMIT ?)"
)
_REMOVE: Final = "DELETE FROM subscriptions WHERE session = ? AND uri = ?"
_END: Final = "DELETE FROM subscriptions WHERE session = ?"
_READ: Final = "SELECT uri FROM subscriptions WHERE session = ?"


class SubscriptionFile:
    """`gateway.mcp.keeping.KeptSubscriptions` in a file, which the first subscription makes."""

    def __init__(self, path: Path, most: int, now: Callable[[], float] = time.time) -> None:
        """`most`: subscriptions kept of all sessions; the oldest go first. `now`: seconds since 1970."""
        self._path = path
        self._most = most
        self._now = now
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._opened: sqlite3.Connection | None = None

    async def add(self, session: bytes, uri: str, ends_at: float) -> None:
        """Keep one; beyond `most` those of stale sessions are forgotten, then the oldest."""

        def work(file: sqlite3.Connection) -> None:
            file.execute(_ADD, (session, uri, ends_at))
            if _count(file) > self._most:
                file.execute(_DROP_STALE, (self._now(),))
                file.execute(_DROP_OLDEST, (max(0, _count(file) - self._most),))

        await self._in_thread(work, None)

    async def remove(self, session: bytes, uri: str) -> None:
        """Forget one, if it is there."""

        def work(file: sqlite3.Connection) -> None:
            file.execute(_REMOVE, (session, uri))

        await self._in_thread(work, None, make=False)

    async def end(self, session: bytes) -> None:
        """Forget all of a session."""

        def work(file: sqlite3.Connection) -> None:
            file.execute(_END, (session,))

        await self._in_thread(work, None, make=False)

    async def read(self, session: bytes) -> set[str]:
        """The URIs of a session."""
        nothing: set[str] = set()
        return await self._in_thread(
            lambda file: {uri for (uri,) in file.execute(_READ, (session,))}, nothing, make=False
        )

    def close(self) -> None:
        """Let the file go."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def _in_thread(self, work: Callable[[sqlite3.Connection], _T], nothing: _T, *, make: bool = True) -> _T:
        """Do the work as one change. Without a file, which `make` denies to make, the answer is `nothing`."""

        def do() -> _T:
            import sqlite3  # not before somebody subscribes

            try:
                if self._opened is None:
                    if not make and not self._path.exists():
                        return nothing
                    self._opened = _open(self._path)
                with self._opened:
                    return work(self._opened)
            except (sqlite3.Error, OSError) as error:
                raise NotKeptError(f"{self._path}: {error}") from error

        return await trio.to_thread.run_sync(do, limiter=self._one_at_a_time)


def _open(path: Path) -> sqlite3.Connection:
    import sqlite3

    # Used by one thread at a time, but not always the same one.
    file = sqlite3.connect(path, timeout=_LOCK_WAIT_S, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute(_SCHEMA)
    except BaseException:
        file.close()
        raise
    return file


def _count(file: sqlite3.Connection) -> int:
    (count,) = file.execute(_COUNT).fetchone()
    return int(count)
