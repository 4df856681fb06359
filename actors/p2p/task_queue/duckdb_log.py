# SPDX-License-Identifier: AGPL-3.0-or-later
"""The log in a DuckDB file: rows are only ever added, no key, no index, and whole segments dropped.

DuckDB is imported at `open`, never before: it starts threads, which a process that is forked must not have.

Each commit is one write and one fsync of the WAL. Checkpoints are ours, from a second cursor in another thread; DuckDB
renames and removes the WAL meanwhile and never syncs the directory, so that is done here.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.p2p.files import fsync_directory
from actors.p2p.task_queue.evidence import in_duckdb_wal
from actors.p2p.task_queue.groups import GROUP_BYTES, Row
from actors.p2p.task_queue.segmented import CHECKPOINT_BYTES, SEGMENT_BYTES, Segment, SegmentedLog
from actors.p2p.task_queue.wal_repair import WalRepair

if TYPE_CHECKING:
    import duckdb

MEMORY_BYTES: Final = 512 << 20
_MEMORY_FACTOR: Final = 4
"""Of what one transaction writes, or one opening finds: DuckDB refuses when the memory that it was given is too small
for it. Then the queue would end each time that its living tasks are carried on."""
_STORAGE: Final = "v1.5.0"
"""Of the file. DuckDB 1.5 and 2.0 read each other's files and WALs of it."""
_SETTINGS: Final[dict[str, Any]] = {
    "threads": 1,
    "storage_compatibility_version": _STORAGE,
    "force_compression": "uncompressed",
    "wal_autocheckpoint": "1TB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_WAL_SLACK: Final = 64 << 10
"""What DuckDB adds to a group in its WAL, and what a file system may add to a torn one."""
_SMALL: Final = 8 << 10
"""Groups up to this size are written by a prepared statement, in two thirds of the time. DuckDB takes its values as
text only, which costs more than it saves where they are large."""
_READ_BYTES: Final = 8 << 20
"""About so much is read at once: DuckDB has the whole answer to a query in memory."""
_READ_GROUPS: Final = 256
_READ_MOST: Final = 1 << 14
_DDL_OPEN: Final = "other write transactions"
_CHECKPOINT_S: Final = 60.0
"""So long a checkpoint is tried while rotations are under way."""


class DuckDBLog(SegmentedLog):
    """See the module."""

    OVERHEAD = 256

    def __init__(
        self,
        path: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__(path, segment_bytes=segment_bytes, checkpoint_bytes=checkpoint_bytes)
        self._memory = memory_bytes
        self._con: duckdb.DuckDBPyConnection | None = None
        self._side: duckdb.DuckDBPyConnection | None = None
        """For checkpoints."""
        self._no_ddl = threading.Event()
        self._no_ddl.set()
        self._names = _Names(path.parent)
        self._prepared = ""
        """The table that the prepared statement is for."""

    @property
    def _db(self) -> duckdb.DuckDBPyConnection:
        assert self._con is not None, "open"
        return self._con

    def _errors(self) -> type[Exception]:
        import duckdb

        return duckdb.Error

    def _files(self) -> list[Path]:
        return [self.path, self._wal(), Path(f"{self._wal()}.checkpoint")]

    def _proven(self) -> int:
        return max(in_duckdb_wal(file.read_bytes()) if file.exists() else 0 for file in self._files()[1:])

    def _connect(self) -> list[str]:
        import duckdb

        repair = WalRepair(self.path, max(GROUP_BYTES, self._announced.expected) + _WAL_SLACK)
        there = sum(file.stat().st_size for file in self._files() if file.exists())
        self._memory = max(self._memory, _MEMORY_FACTOR * there)
        config = {**_SETTINGS, "memory_limit": f"{self._memory}B"}
        self._prepared = ""
        self._con = repair.open(lambda: duckdb.connect(str(self.path), config=config))
        # Until all of it was found right, the WAL stays as it is.
        self._con.execute("PRAGMA disable_checkpoint_on_shutdown")
        self._side = self._con.cursor()
        self._check_storage()
        return repair.repairs

    def _check_storage(self) -> None:
        row = self._db.execute("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchone()
        found = row[0].get("storage_version", "") if row else ""
        if not found.startswith(_STORAGE):
            raise self._refusal(f"its storage version is {found!r}, not {_STORAGE!r}; choose another file")

    def _admit(self) -> None:
        self._db.execute("PRAGMA enable_checkpoint_on_shutdown")

    def _tables(self) -> list[str]:
        rows = self._db.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
        return [name for (name,) in rows]

    def _last(self, table: str) -> tuple[int, int] | None:
        row = self._db.execute(f"SELECT seq, digest FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
        return (row[0], row[1]) if row else None

    def _rows(self, table: str) -> Iterator[Row]:
        query = f"SELECT seq, n, digest, data FROM {table} WHERE seq >= ? AND seq < ? ORDER BY seq"  # noqa: S608
        at, last = self._db.execute(f"SELECT min(seq), max(seq) FROM {table}").fetchall()[0]  # noqa: S608
        step = _READ_GROUPS
        while at is not None and at <= last:
            rows = self._db.execute(query, [at, at + step]).fetchall()
            at += step
            size = sum(len(row[3]) for row in rows)
            step = min(max(step * _READ_BYTES // max(size, 1), 1), _READ_MOST)
            yield from map(Row._make, rows)

    def _allow(self, size: int) -> None:
        """Have memory for a transaction of so many bytes."""
        if _MEMORY_FACTOR * size > self._memory:
            self._memory = _MEMORY_FACTOR * size
            self._db.execute(f"SET memory_limit = '{self._memory}B'")

    def _insert(self, table: str, row: Row) -> None:
        self._allow(len(row.data))
        before = self._names.look()
        if len(row.data) <= _SMALL:
            self._prepare(table)
            data = base64.b64encode(row.data).decode()
            self._db.execute(f"EXECUTE add_row({row.seq}, {row.n}, {row.digest}, '{data}')")
        else:
            self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", row)  # noqa: S608
        self._names.wrote(before)

    def _prepare(self, table: str) -> None:
        if self._prepared != table:
            # A statement of this name is replaced.
            self._db.execute(f"PREPARE add_row AS INSERT INTO {table} VALUES ($1, $2, $3, from_base64($4))")  # noqa: S608
            self._prepared = table

    def _switch(self, new: Segment, rows: Sequence[Row], old: Segment | None) -> None:
        self._allow(sum(len(row.data) for row in rows))
        before = self._names.look()
        self._no_ddl.clear()
        try:
            self._db.execute("BEGIN")
            self._db.execute(f"CREATE TABLE {new.table}(seq BIGINT, n INTEGER, digest BIGINT, data BLOB)")
            for row in rows:
                self._db.execute(f"INSERT INTO {new.table} VALUES (?, ?, ?, ?)", row)  # noqa: S608
            if old is not None:
                self._db.execute(f"DROP TABLE {old.table}")
            self._db.execute("COMMIT")
        finally:
            self._no_ddl.set()
        self._names.wrote(before)

    def _move(self) -> None:
        import duckdb

        assert self._side is not None, "open"
        until = time.monotonic() + _CHECKPOINT_S
        self._names.checkpoint_begins()
        try:
            while True:
                # DuckDB refuses a checkpoint while a table is being made or dropped.
                self._no_ddl.wait(_CHECKPOINT_S)
                try:
                    self._side.execute("CHECKPOINT")
                    return
                except duckdb.TransactionException as error:
                    if _DDL_OPEN not in str(error) or time.monotonic() > until:
                        raise
                time.sleep(0.001)
        finally:
            self._names.checkpoint_ended()

    def _disconnect(self, *, tidy: bool) -> None:
        if self._con is not None and not tidy:
            with suppress(self._errors()):
                self._con.execute("PRAGMA disable_checkpoint_on_shutdown")
        if self._side is not None:
            self._side.close()
            self._side = None
        if self._con is not None:
            self._con.close()
            self._con = None
            fsync_directory(self.path.parent)

    def _wal(self) -> Path:
        return Path(f"{self.path}.wal")


class _Names:
    """When the directory has to be synced for a commit to be durable: the file that it went to may be a new one.

    `turn` is odd while a checkpoint runs; commits then go to a file that is made at a moment nobody tells.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turn = 0
        self._synced = -1
        """The turn in which the latest commit began whose names are on disk."""

    def look(self) -> int:
        return self._turn

    def wrote(self, before: int) -> None:
        """A commit has returned that began in turn `before`."""
        if before == self._synced == self._turn and not before % 2:
            return
        fsync_directory(self._directory)
        self._synced = before

    def checkpoint_begins(self) -> None:
        self._turn += 1

    def checkpoint_ended(self) -> None:
        self._turn += 1
        fsync_directory(self._directory)
