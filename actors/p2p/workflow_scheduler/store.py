# SPDX-License-Identifier: AGPL-3.0-or-later
"""The scheduler's file: workflows, their events, what the events name, and results of steps that may be taken again.

SQLite in WAL mode with `synchronous=FULL`: a batch is on disk when `write` returns, wholly or not at all. What is
large is in tables of its own, so that lists never read it.

Everything here blocks; call it in threads. Writing and reading have a connection each, so that nobody who reads waits
for a commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.errors import UnavailableError
from actors.p2p.files import FileLock
from actors.p2p.sqlite_file import Connection, Form, connect, prepare, transaction
from actors.p2p.workflow_scheduler.records import Batch, Change, EventRow, Known, Submission
from actors.p2p.workflow_scheduler.store_query import matching
from actors.workflow_messages import ListWorkflows, WorkflowStatus, WorkflowView

_APPLICATION: Final = 0x47525746
_VERSION: Final = 1
_CACHE_KIB: Final = 16 << 10
_CHECKPOINT_PAGES: Final = 4000
_VALUES: Final = 500
"""Of one list in a statement."""
_SCHEMA: Final = """
CREATE TABLE workflow(
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL, open INTEGER NOT NULL,
    created_at REAL NOT NULL, drop_at REAL, tags TEXT, digest BLOB NOT NULL, cid BLOB NOT NULL, view BLOB NOT NULL,
    submission BLOB NOT NULL, whole BLOB
);
CREATE INDEX workflow_list ON workflow(created_at, status, owner);
CREATE INDEX workflow_open ON workflow(open) WHERE open = 1;
CREATE INDEX workflow_drop ON workflow(drop_at) WHERE drop_at IS NOT NULL;
CREATE TABLE event(n INTEGER PRIMARY KEY, workflow INTEGER NOT NULL, cid BLOB NOT NULL, node BLOB NOT NULL,
    payload BLOB NOT NULL);
CREATE INDEX event_workflow ON event(workflow);
CREATE TABLE block(n INTEGER PRIMARY KEY, workflow INTEGER NOT NULL, cid BLOB NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX block_cid ON block(workflow, cid);
CREATE TABLE step_worker(workflow INTEGER, worker TEXT, PRIMARY KEY(workflow, worker)) WITHOUT ROWID;
CREATE INDEX step_worker_worker ON step_worker(worker);
CREATE TABLE memo(key BLOB PRIMARY KEY, made_at REAL NOT NULL, result TEXT NOT NULL);
CREATE INDEX memo_age ON memo(made_at);
CREATE TABLE tally(name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
_KNOWN: Final = "SELECT id, owner, digest, view, open FROM workflow"
_NUMBER: Final = "(SELECT n FROM workflow WHERE id = ?)"
_OF_WORKFLOW: Final = ("event", "block", "step_worker")

_encode = msgspec.msgpack.Encoder().encode
_decode_view = msgspec.msgpack.Decoder(WorkflowView).decode


class WorkflowStore:
    """See the module's text. `now` is the clock."""

    def __init__(self, path: Path, *, now: Callable[[], float]) -> None:
        self.path = path
        self._now = now
        self._lock = FileLock(Path(f"{path}.lock"), path)
        self._writer = Connection()
        self._reader = Connection()

    def open(self) -> None:
        """Raises `UnavailableError` that names the process which has the file, or says why it can't be used."""
        self._lock.take()
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise self._refusal(f"SQLite says {error}") from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        con = self._writer.con = connect(self.path, cache_kib=_CACHE_KIB)
        con.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        prepare(con, self.path, Form(_APPLICATION, _VERSION, _SCHEMA), self._refusal)
        self._reader.con = connect(self.path, cache_kib=_CACHE_KIB)

    def _refusal(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"the file of workflows {self.path} can't be used: {why}. Move it away to begin a new one, or restore a "
            "back-up",
            path=str(self.path),
        )

    def close(self) -> None:
        """Let the file go."""
        self._reader.close()
        self._writer.close()
        self._lock.drop()

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Make a batch durable. After any exception the store is of no use: its process ends, and the next one reads
        what was stored."""
        with self._writer.use() as con, transaction(con):
            for change in batch.changes:
                _write(con, change)
            now = self._now()
            con.executemany(
                "INSERT OR REPLACE INTO memo VALUES (?, ?, ?)",
                ((key, now, result) for key, result in batch.memos.items()),
            )
            con.executemany(
                "INSERT INTO tally VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n",
                batch.tally.items(),
            )

    def forget(self, memos_before: float, keep: Iterable[str] = ()) -> int:
        """Drop one workflow whose time has passed, but none of `keep`, and memos that are older than that; how many
        workflows were dropped."""
        kept = list(keep)
        with self._writer.use() as con, transaction(con):
            con.execute(
                "DELETE FROM memo WHERE key IN (SELECT key FROM memo WHERE made_at < ? LIMIT 1000)", (memos_before,)
            )
            rows = con.execute(
                "SELECT n, id FROM workflow WHERE drop_at <= ? ORDER BY drop_at LIMIT ?", (self._now(), len(kept) + 1)
            ).fetchall()
            n = next((n for n, name in rows if name not in kept), None)
            if n is None:
                return 0
            for table in _OF_WORKFLOW:
                con.execute(f"DELETE FROM {table} WHERE workflow = ?", (n,))  # noqa: S608
            con.execute("DELETE FROM workflow WHERE n = ?", (n,))
        return 1

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self, workflow_id: str) -> Known | None:
        """A workflow, whatever its status."""
        with self._reader.use() as con:
            row = con.execute(f"{_KNOWN} WHERE id = ?", (workflow_id,)).fetchone()
        return None if row is None else _known(row)

    def open_ones(self) -> list[Known]:
        """Those that something is left to do for, oldest first."""
        with self._reader.use() as con:
            rows = con.execute(f"{_KNOWN} WHERE open = 1 ORDER BY n").fetchall()
        return [_known(row) for row in rows]

    def submission(self, workflow_id: str) -> Submission | None:
        """What was submitted."""
        with self._reader.use() as con:
            row = con.execute(
                "SELECT id, owner, submission, digest, cid, created_at FROM workflow WHERE id = ?", (workflow_id,)
            ).fetchone()
        if row is None:
            return None
        return Submission(id=row[0], owner=row[1], workflow=row[2], digest=row[3], cid=row[4], created_at=row[5])

    def whole(self, workflow_id: str) -> WorkflowView | None:
        """All of one that has ended, but for outputs; None = there is no such workflow, or it goes on."""
        with self._reader.use() as con:
            row = con.execute("SELECT whole FROM workflow WHERE id = ?", (workflow_id,)).fetchone()
        return None if row is None or row[0] is None else _decode_view(row[0])

    def events(self, workflow_id: str) -> list[EventRow]:
        """In the order in which they were written: parents first."""
        with self._reader.use() as con:
            rows = con.execute(
                f"SELECT cid, node, payload FROM event WHERE workflow = {_NUMBER} ORDER BY n",  # noqa: S608
                (workflow_id,),
            ).fetchall()
        return [EventRow(*row) for row in rows]

    def blocks(self, workflow_id: str, cids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Those of these that are there."""
        wanted = list(dict.fromkeys(cids))
        found: dict[bytes, bytes] = {}
        with self._reader.use() as con:
            for start in range(0, len(wanted), _VALUES):
                some = wanted[start : start + _VALUES]
                found.update(
                    con.execute(
                        f"SELECT cid, data FROM block WHERE workflow = {_NUMBER} "  # noqa: S608
                        f"AND cid IN ({', '.join('?' * len(some))})",
                        (workflow_id, *some),
                    ).fetchall()
                )
        return found

    def block_sizes(self, workflow_id: str) -> list[tuple[bytes, int]]:
        """All blocks of a workflow and their bytes."""
        with self._reader.use() as con:
            return con.execute(
                f"SELECT cid, length(data) FROM block WHERE workflow = {_NUMBER} ORDER BY n",  # noqa: S608
                (workflow_id,),
            ).fetchall()

    def memos(self, keys: Sequence[bytes], since: float) -> dict[bytes, str]:
        """Results of equal work that was done after that."""
        found: dict[bytes, str] = {}
        with self._reader.use() as con:
            for key in keys:
                row = con.execute("SELECT result FROM memo WHERE key = ? AND made_at >= ?", (key, since)).fetchone()
                if row is not None:
                    found[key] = row[0]
        return found

    def page(self, ask: ListWorkflows) -> tuple[list[Known], int]:
        """Those that match, newest first, and how many there are."""
        where, values = matching(ask, self._now())
        with self._reader.use() as con:
            con.execute("BEGIN")
            try:
                (total,) = con.execute(f"SELECT count(*) FROM workflow WHERE {where}", values).fetchone()  # noqa: S608
                rows = con.execute(
                    f"{_KNOWN} WHERE {where} ORDER BY created_at DESC, n DESC LIMIT ? OFFSET ?",
                    (*values, ask.limit, ask.offset),
                ).fetchall()
            finally:
                con.execute("COMMIT")
        return [_known(row) for row in rows], total

    def counts(self) -> dict[WorkflowStatus, int]:
        """Workflows by status, while they are kept."""
        with self._reader.use() as con:
            return dict(con.execute("SELECT status, count(*) FROM workflow GROUP BY status").fetchall())

    def tally(self) -> dict[str, int]:
        """The counters."""
        with self._reader.use() as con:
            return dict(con.execute("SELECT name, n FROM tally").fetchall())

    def sizes(self) -> dict[str, Any]:
        """Of the files, in bytes."""
        wal = Path(f"{self.path}-wal")
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "wal_bytes": wal.stat().st_size if wal.exists() else 0,
        }


def _write(con: sqlite3.Connection, change: Change) -> None:
    n = _row_of(con, change)
    head = change.head
    if head is not None and change.new is None:
        con.execute(
            "UPDATE workflow SET status = ?, open = ?, drop_at = ?, view = ?, whole = coalesce(?, whole) WHERE n = ?",
            (
                head.view.status,
                head.open,
                head.drop_at,
                _encode(head.view),
                _packed(head.whole),
                n,
            ),
        )
    con.executemany(
        "INSERT INTO event VALUES (NULL, ?, ?, ?, ?)", ((n, row.cid, row.node, row.payload) for row in change.events)
    )
    con.executemany(
        "INSERT OR IGNORE INTO block VALUES (NULL, ?, ?, ?)", ((n, cid, data) for cid, data in change.blocks.items())
    )
    con.executemany("INSERT OR IGNORE INTO step_worker VALUES (?, ?)", ((n, worker) for worker in change.workers))


def _row_of(con: sqlite3.Connection, change: Change) -> int:
    new, head = change.new, change.head
    if new is None:
        return int(con.execute("SELECT n FROM workflow WHERE id = ?", (change.id,)).fetchone()[0])
    assert head is not None, "what is new has a head"
    tags = head.view.tags
    cursor = con.execute(
        f"INSERT INTO workflow VALUES (NULL{', ?' * 12})",  # noqa: S608
        (
            new.id,
            new.owner,
            head.view.status,
            head.open,
            new.created_at,
            head.drop_at,
            msgspec.json.encode(tags).decode() if tags else None,
            new.digest,
            new.cid,
            _encode(head.view),
            new.workflow,
            _packed(head.whole),
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _packed(whole: WorkflowView | None) -> bytes | None:
    return None if whole is None else _encode(whole)


def _known(row: tuple[Any, ...]) -> Known:
    return Known(id=row[0], owner=row[1], digest=row[2], view=_decode_view(row[3]), open=bool(row[4]))
