# SPDX-License-Identifier: AGPL-3.0-or-later
"""SQLite files of our own, in WAL mode with `synchronous=FULL`: a transaction is on disk when it returns.

Everything here blocks; call it in threads.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from actors.p2p.files import fsync_directory

_BUSY_S: Final = 30.0


class Form(NamedTuple):
    """What a file of ours is known by, and what is in it."""

    application: int
    version: int
    schema: str
    """Statements, each ended by `;`."""


class Connection:
    """One thread at a time."""

    def __init__(self) -> None:
        self.con: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Nobody else has it meanwhile."""
        with self._lock:
            assert self.con is not None, "open"
            yield self.con

    def close(self) -> None:
        """Once nobody uses it; a second time does nothing."""
        with self._lock:
            if self.con is not None:
                self.con.close()
                self.con = None


def connect(path: Path, *, cache_kib: int) -> sqlite3.Connection:
    """A connection that keeps so much of the file in memory."""
    con = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        con.execute("PRAGMA synchronous=FULL")
        con.execute("PRAGMA secure_delete=OFF")
        con.execute(f"PRAGMA cache_size=-{cache_kib}")
    except BaseException:
        con.close()
        raise
    return con


def prepare(con: sqlite3.Connection, path: Path, form: Form, refusal: Callable[[str], Exception]) -> None:
    """Make a new file's tables, or see that an old one is of this form. Raises what `refusal` makes of the reason."""
    (application,) = con.execute("PRAGMA application_id").fetchone()
    (version,) = con.execute("PRAGMA user_version").fetchone()
    (tables,) = con.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        con.execute("PRAGMA journal_mode=WAL")
        with transaction(con):
            for statement in form.schema.split(";"):
                con.execute(statement)
            con.execute(f"PRAGMA application_id={form.application}")
            con.execute(f"PRAGMA user_version={form.version}")
        fsync_directory(path.parent)
    elif application != form.application:
        raise refusal("it is another program's SQLite file")
    elif version != form.version:
        raise refusal(f"it has version {version} and this Greenroom reads version {form.version}")


@contextmanager
def transaction(con: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    con.execute("BEGIN IMMEDIATE")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
