# SPDX-License-Identifier: AGPL-3.0-or-later
"""The history: ended tasks with their results, in a SQLite file of its own, until their time has passed.

A task leaves the log only after `add` returned, so each batch is on disk by then (WAL, `synchronous=FULL`). What a list
shows is a column of its own in front of what only a look at one task needs, so that lists never read large results.

Writing, look-ups and lists have a connection each: a look-up, for which the queue waits, never waits for a long list.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.errors import UnavailableError
from actors.p2p.sqlite_file import Connection, Form, connect, prepare, transaction
from actors.p2p.task_queue.history_query import matching, tallied
from actors.p2p.task_queue.log import Ended
from actors.p2p.task_queue.records import NO_LIST
from actors.task_messages import Task, TaskState
from actors.task_views import ScanTasks, TaskEvent

CACHE_KIB: Final = 8 << 10
_APPLICATION: Final = 0x47524854
_VERSION: Final = 1
_CHUNK: Final = 1000
"""Rows that one transaction removes: others may write in between."""
_VALUES: Final = 500
"""Of one list in a statement; older SQLite takes 999 in all."""
_CHECKPOINT_PAGES: Final = 16000
"""Ids are random, so that each batch touches pages everywhere: the more batches in one checkpoint, the fewer writes."""
_SCHEMA: Final = """
CREATE TABLE task(
    n INTEGER PRIMARY KEY, id TEXT NOT NULL, owner TEXT NOT NULL, key TEXT, type TEXT NOT NULL, state TEXT NOT NULL,
    worker TEXT NOT NULL, priority REAL NOT NULL, created_at REAL NOT NULL, ended_at REAL NOT NULL,
    drop_at REAL NOT NULL, tags TEXT, head BLOB NOT NULL, payload TEXT, result TEXT, events BLOB NOT NULL
);
CREATE UNIQUE INDEX task_id ON task(id);
CREATE INDEX task_key ON task(key, owner) WHERE key IS NOT NULL;
CREATE INDEX task_list ON task(created_at, state, type, owner, worker, priority, drop_at, tags);
CREATE INDEX task_owner ON task(owner, created_at) WHERE owner <> '';
CREATE INDEX task_drop ON task(drop_at);
CREATE TABLE tally(type TEXT, state TEXT, tasks INTEGER NOT NULL, PRIMARY KEY(type, state)) WITHOUT ROWID;
"""
_INSERT: Final = f"INSERT INTO task VALUES (NULL{', ?' * 15})"  # noqa: S608
_TALLY: Final = """INSERT INTO tally VALUES (?, ?, ?)
    ON CONFLICT(type, state) DO UPDATE SET tasks = tasks + excluded.tasks"""
_WHOLE: Final = "SELECT head, payload, result FROM task WHERE"

_encode = msgspec.msgpack.Encoder().encode
_decode_task = msgspec.msgpack.Decoder(Task).decode
_decode_events = msgspec.msgpack.Decoder(list[TaskEvent]).decode


class SQLiteHistory:
    """A `History`. `now` is the clock, Unix seconds; `cache_kib` bounds the pages that each connection keeps."""

    def __init__(self, path: Path, *, cache_kib: int = CACHE_KIB, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._cache_kib = cache_kib
        self._now = now
        self._writer = Connection()
        self._finder = Connection()
        self._scanner = Connection()

    def open(self) -> None:
        """See `History`."""
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise self._refusal(f"SQLite says {error}") from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        con = self._writer.con = connect(self._path, cache_kib=self._cache_kib)
        con.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        prepare(con, self._path, Form(_APPLICATION, _VERSION, _SCHEMA), self._refusal)
        self._finder.con = connect(self._path, cache_kib=self._cache_kib)
        self._scanner.con = connect(self._path, cache_kib=self._cache_kib)

    def add(self, ended: Sequence[Ended]) -> None:
        """See `History`."""
        latest = {one.task.id: one for one in ended}
        rows = [_row(one) for one in latest.values()]
        tally = Counter((one.task.type, one.task.state.value) for one in latest.values())
        with self._writer.use() as con:
            try:
                _insert(con, rows, tally)
            except sqlite3.IntegrityError:  # some are there already: rarely, after a crash
                _insert(con, rows, tally, first_remove=list(latest))

    def get(self, task_id: str) -> Ended | None:
        """See `History`."""
        with self._finder.use() as con:
            row = con.execute(
                "SELECT head, payload, result, events, drop_at FROM task WHERE id = ? AND drop_at > ?",
                (task_id, self._now()),
            ).fetchone()
        if row is None:
            return None
        return Ended(task=_whole(*row[:3]), events=_decode_events(row[3]), drop_at=row[4])

    def find(self, ids: Sequence[str], keys: Sequence[tuple[str, str]]) -> list[Task]:
        """See `History`."""
        found: dict[str, Task] = {}
        now = self._now()
        with self._finder.use() as con:
            for some in _lists(ids):
                rows = con.execute(f"{_WHOLE} id IN ({_marks(some)}) AND drop_at > ?", (*some, now))
                found.update((task.id, task) for task in (_whole(*row) for row in rows))
            for owner, key in keys:
                if key:
                    rows = con.execute(f"{_WHOLE} key = ? AND owner = ? AND drop_at > ?", (key, owner, now))
                    found.update((task.id, task) for task in (_whole(*row) for row in rows))
        return list(found.values())

    def heads(self, ids: Sequence[str]) -> list[Task]:
        """See `History`."""
        now = self._now()
        found: list[Task] = []
        with self._finder.use() as con:
            for some in _lists(ids):
                rows = con.execute(f"SELECT head FROM task WHERE id IN ({_marks(some)}) AND drop_at > ?", (*some, now))  # noqa: S608
                found += [_decode_task(head) for (head,) in rows]
        return found

    def tell(self, ids: Sequence[str], take: Callable[[Task], bool]) -> None:
        """See `History`. Rows are read one by one: all results together may be larger than the memory."""
        now = self._now()
        with self._finder.use() as con:
            for some in _lists(ids):
                rows = con.execute(
                    f"SELECT head, result FROM task WHERE id IN ({_marks(some)}) AND drop_at > ?",  # noqa: S608
                    (*some, now),
                )
                with closing(rows):
                    if not all(take(_whole(head, "{}", result)) for head, result in rows):
                        return

    def scan(self, ask: ScanTasks, most: int) -> tuple[list[Task], int]:
        """See `History`."""
        now = self._now()
        where, values = matching(ask, now)
        way = "ASC" if ask.oldest_first else "DESC"
        with self._scanner.use() as con:
            con.execute("BEGIN")
            try:
                total = _total(con, ask, now)
                rows = con.execute(
                    f"SELECT head FROM task WHERE {where} ORDER BY created_at {way}, n {way} LIMIT ?",  # noqa: S608
                    (*values, min(most, total)),
                ).fetchall()
            finally:
                con.execute("COMMIT")
        return [_listed(_decode_task(head)) for (head,) in rows], total

    def counts(self) -> dict[tuple[str, TaskState], int]:
        """See `History`. Those whose time has passed count until `forget` took them."""
        with self._scanner.use() as con:
            rows = con.execute("SELECT type, state, tasks FROM tally WHERE tasks > 0").fetchall()
        return {(kind, TaskState(state)): tasks for kind, state, tasks in rows}

    def clear(self, states: Sequence[TaskState], until: float) -> int:
        """See `History`."""
        names = [state.value for state in states]
        where = f"n IN (SELECT n FROM task WHERE state IN ({_marks(names)}) AND ended_at <= ? LIMIT ?)"  # noqa: S608
        gone = 0
        while some := self._drop(where, [*names, until, _CHUNK]):
            gone += some
        return gone

    def forget(self, now: float, most: int) -> int:
        """See `History`."""
        gone = 0
        where = "n IN (SELECT n FROM task WHERE drop_at <= ? ORDER BY drop_at LIMIT ?)"
        while gone < most and (some := self._drop(where, [now, min(_CHUNK, most - gone)])):
            gone += some
        return gone

    def _drop(self, where: str, values: Sequence[Any]) -> int:
        with self._writer.use() as con, transaction(con):
            tally = _remove(con, where, values)
            con.executemany(_TALLY, [(*of, -tasks) for of, tasks in tally.items()])
        return tally.total()

    def sizes(self) -> dict[str, int]:
        """See `History`."""
        with self._scanner.use() as con:
            (tasks,) = con.execute("SELECT coalesce(sum(tasks), 0) FROM tally").fetchone()
        return {"history_bytes": self._path.stat().st_size, "history_tasks": tasks}

    def close(self) -> None:
        """See `History`."""
        for one in (self._finder, self._scanner, self._writer):
            one.close()

    def _refusal(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"the history of ended tasks {self._path} can't be used: {why}. Move it away to begin a new one (tasks "
            "that have not ended are not in it), or restore a back-up",
            path=str(self._path),
        )


def _insert(
    con: sqlite3.Connection, rows: Sequence[Any], tally: Counter[tuple[str, str]], first_remove: Sequence[str] = ()
) -> None:
    with transaction(con):
        for some in _lists(first_remove):
            tally.subtract(_remove(con, f"id IN ({_marks(some)})", some))
        con.executemany(_INSERT, rows)
        con.executemany(_TALLY, [(*of, tasks) for of, tasks in tally.items()])


def _remove(con: sqlite3.Connection, where: str, values: Sequence[Any]) -> Counter[tuple[str, str]]:
    """Type and state of those that were there."""
    gone = con.execute(f"DELETE FROM task WHERE {where} RETURNING type, state", values)  # noqa: S608
    return Counter((kind, state) for kind, state in gone)


def _total(con: sqlite3.Connection, ask: ScanTasks, now: float) -> int:
    """How many match. Most lists ask by type and state only, which is counted already."""
    where, values = matching(ask, now)
    if not tallied(ask):
        total: int = con.execute(f"SELECT count(*) FROM task WHERE {where}", values).fetchone()[0]  # noqa: S608
        return total
    where, values = matching(ask, None)
    (all_,) = con.execute(f"SELECT coalesce(sum(tasks), 0) FROM tally WHERE {where}", values).fetchone()  # noqa: S608
    (passed,) = con.execute(
        f"SELECT count(*) FROM task WHERE drop_at <= ? AND {where}",  # noqa: S608
        (now, *values),
    ).fetchone()
    return int(all_ - passed)


def _row(one: Ended) -> tuple[Any, ...]:
    task = one.task
    return (
        task.id,
        task.owner,
        task.key or None,
        task.type,
        task.state.value,
        task.worker,
        task.priority,
        task.created_at,
        task.ended_at if task.ended_at is not None else task.updated_at,
        one.drop_at,
        msgspec.json.encode(task.tags).decode() if task.tags else None,
        _encode(msgspec.structs.replace(task, payload="{}", result=None)),
        task.payload,
        task.result,
        _encode(one.events),
    )


def _whole(head: bytes, payload: str, result: str | None) -> Task:
    task = _decode_task(head)
    task.payload = payload
    task.result = result
    return task


def _listed(task: Task) -> Task:
    task.depends_on = NO_LIST
    return task


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _lists(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _VALUES):
        yield values[start : start + _VALUES]
