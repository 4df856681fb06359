# SPDX-License-Identifier: AGPL-3.0-or-later
"""The log in a SQLite file: for those whose DuckDB file will not open, and faster where groups are small.

WAL with `synchronous=FULL`: each commit is one write and one fsync of the WAL, and SQLite syncs the directory when it
makes that file. SQLite takes a damaged WAL up to the damage without a word; `SegmentedLog` notices what is missing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from actors.p2p.files import free_name, fsync_directory
from actors.p2p.task_queue.evidence import in_sqlite_wal
from actors.p2p.task_queue.groups import Row
from actors.p2p.task_queue.segmented import CHECKPOINT_BYTES, SEGMENT_BYTES, Segment, SegmentedLog

_CACHE_KIB: Final = 16 << 10
_PAGE: Final = 8192
_BUSY_S: Final = 10.0


class SQLiteLog(SegmentedLog):
    """See the module."""

    OVERHEAD = 3 * _PAGE

    def __init__(
        self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, checkpoint_bytes: int = CHECKPOINT_BYTES
    ) -> None:
        super().__init__(path, segment_bytes=segment_bytes, checkpoint_bytes=checkpoint_bytes)
        self._con: sqlite3.Connection | None = None
        self._side: sqlite3.Connection | None = None
        """For checkpoints."""
        self._writing = threading.Lock()
        """Held for the last and short part of a checkpoint too: SQLite itself would wait by sleeping."""

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._con is not None, "open"
        return self._con

    def _errors(self) -> type[Exception]:
        return sqlite3.Error

    def _proven(self) -> int:
        return in_sqlite_wal(self._wal().read_bytes()) if self._wal().exists() else 0

    def _connect(self) -> list[str]:
        self._con = self._connection()
        self._con.execute("PRAGMA journal_mode=WAL")
        self._side = self._connection()
        return []

    def _connection(self) -> sqlite3.Connection:
        con = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            con.execute("PRAGMA synchronous=FULL")
            con.execute("PRAGMA wal_autocheckpoint=0")
            con.execute(f"PRAGMA page_size={_PAGE}")
            # Some builds write zeros over all that is dropped: a rotation took five times as long.
            con.execute("PRAGMA secure_delete=OFF")
            con.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        except BaseException:
            con.close()
            raise
        return con

    def _tables(self) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def _last(self, table: str) -> tuple[int, int] | None:
        row = self._db.execute(f"SELECT seq, digest FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
        return (row[0], row[1]) if row else None

    def _rows(self, table: str) -> Iterator[Row]:
        rows = self._db.execute(f"SELECT seq, n, digest, data FROM {table} ORDER BY seq")  # noqa: S608
        return map(Row._make, rows)

    def _insert(self, table: str, row: Row) -> None:
        with self._writing:
            self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", row)  # noqa: S608

    def _switch(self, new: Segment, rows: Sequence[Row], old: Segment | None) -> None:
        with self._writing:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(f"CREATE TABLE {new.table}(seq INTEGER PRIMARY KEY, n INTEGER, digest INTEGER, data BLOB)")
            self._db.executemany(f"INSERT INTO {new.table} VALUES (?, ?, ?, ?)", rows)  # noqa: S608
            if old is not None:
                self._db.execute(f"DROP TABLE {old.table}")
            self._db.execute("COMMIT")

    def _move(self) -> None:
        assert self._side is not None, "open"
        # Most of it beside the writer; then what came meanwhile, so that the WAL begins anew. It keeps its size:
        # writing over old bytes is faster than growing.
        self._side.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        with self._writing:
            self._side.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _disconnect(self, *, tidy: bool) -> None:
        wal = self._wal()
        if not tidy and self._con is not None and wal.exists() and wal.stat().st_size:
            # SQLite removes the WAL at the end; what a person may need of it stays.
            os.link(wal, free_name(wal))
        for con in (self._side, self._con):
            if con is not None:
                con.close()
        self._side = self._con = None
        fsync_directory(self.path.parent)

    def _wal(self) -> Path:
        return Path(f"{self.path}-wal")
