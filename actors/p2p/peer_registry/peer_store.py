# SPDX-License-Identifier: AGPL-3.0-or-later
"""The file of the peer registry: peers, their histories, and bans.

SQLite in WAL mode with `synchronous=FULL`: a batch is on disk when `write` returns, wholly or not at all. A file that
is damaged is put aside, and a new one begun: nothing in it is worth not being reachable.

Everything here blocks; call it in threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from actors.errors import UnavailableError
from actors.p2p.files import FileLock, free_name, fsync_directory
from actors.p2p.peer_registry.bans import Offence
from actors.p2p.peer_registry.peer_book import Stored
from actors.p2p.peer_registry.peers import PeerRecord
from actors.p2p.sqlite_file import Connection, Form, connect, prepare, transaction
from actors.peer_messages import Point

_APPLICATION: Final = 0x47525052
_VERSION: Final = 1
_CACHE_KIB: Final = 2 << 10
_SCHEMA: Final = """
CREATE TABLE peer(id TEXT PRIMARY KEY, data BLOB NOT NULL, history BLOB) WITHOUT ROWID;
CREATE TABLE offence(subject TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
"""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF
"""The part of an extended error code that says its kind."""

_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(PeerRecord).decode
_decode_history = msgspec.msgpack.Decoder(list[Point]).decode
_decode_offence = msgspec.msgpack.Decoder(Offence).decode

_Read = TypeVar("_Read")


class PeerBatch(msgspec.Struct, kw_only=True):
    """What is written at once, encoded already."""

    peers: list[tuple[str, bytes, bytes | None]] = []
    """Id, record, history; no history = as it was."""
    peers_gone: list[str] = []
    only_peers: list[str] | None = None
    """No others stay stored."""
    offences: list[tuple[str, bytes]] = []
    offences_gone: list[str] = []
    only_offences: list[str] | None = None

    def put(self, stored: Stored) -> None:
        """Write this peer."""
        history = None if stored.history is None else _encode(stored.history)
        self.peers.append((stored.record.peer_id, _encode(stored.record), history))

    def put_offence(self, offence: Offence) -> None:
        """Write this offence."""
        self.offences.append((offence.subject, _encode(offence)))


class PeerStore:
    """See the module's text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(Path(f"{path}.lock"), path)
        self._connection = Connection()

    def open(self) -> Path | None:
        """Returns where a damaged file was put, if there was one. Raises `UnavailableError` that names the process
        which has the file, or says why it can't be used."""
        self._lock.take()
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._connection.close()
                aside = self._put_aside()
                self._open()
                return aside
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._refusal(f"{type(error).__name__}: {error}") from None
        except BaseException:
            self.close()
            raise
        return None

    def _open(self) -> None:
        con = self._connection.con = connect(self.path, cache_kib=_CACHE_KIB)
        prepare(con, self.path, Form(_APPLICATION, _VERSION, _SCHEMA), self._refusal)
        (found,) = con.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    def _put_aside(self) -> Path:
        aside = free_name(self.path)
        for suffix in ("-wal", "-shm", ""):
            part = Path(f"{self.path}{suffix}")
            if part.exists():
                part.replace(f"{aside}{suffix}")
        fsync_directory(self.path.parent)
        return aside

    def _refusal(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"the file of peers {self.path} can't be used: {why}. Move it away to begin a new one", path=str(self.path)
        )

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
        self._lock.drop()

    def load(self) -> tuple[list[Stored], list[Offence]]:
        """All that is stored, but for what can't be read."""
        with self._connection.use() as con:
            peers = con.execute("SELECT data, history FROM peer").fetchall()
            offences = con.execute("SELECT data FROM offence").fetchall()
        return list(_readable(_stored, peers)), list(_readable(_decode_offence, offences))

    def write(self, batch: PeerBatch) -> None:
        """Make a batch durable. Raises `sqlite3.Error`: then nothing of it is stored, and it can be tried again."""
        with self._connection.use() as con, transaction(con):
            if batch.only_peers is not None:
                _keep_only(con, "peer", "id", batch.only_peers)
            if batch.only_offences is not None:
                _keep_only(con, "offence", "subject", batch.only_offences)
            con.executemany("DELETE FROM peer WHERE id = ?", ((one,) for one in batch.peers_gone))
            con.executemany("DELETE FROM offence WHERE subject = ?", ((one,) for one in batch.offences_gone))
            con.executemany(
                "INSERT INTO peer VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE "
                "SET data = excluded.data, history = coalesce(excluded.history, history)",
                batch.peers,
            )
            con.executemany("INSERT OR REPLACE INTO offence VALUES (?, ?)", batch.offences)


def _keep_only(con: sqlite3.Connection, table: str, key: str, keys: Iterable[str]) -> None:
    con.execute("CREATE TEMP TABLE IF NOT EXISTS kept(key TEXT PRIMARY KEY) WITHOUT ROWID")
    con.execute("DELETE FROM kept")
    con.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((one,) for one in keys))
    con.execute(f"DELETE FROM {table} WHERE {key} NOT IN (SELECT key FROM kept)")  # noqa: S608
    con.execute("DELETE FROM kept")


def _stored(data: bytes, history: bytes | None) -> Stored:
    return Stored(_decode_record(data), [] if history is None else _decode_history(history))


def _readable(read: Callable[..., _Read], rows: Iterable[tuple[Any, ...]]) -> Iterator[_Read]:
    for row in rows:
        with contextlib.suppress(msgspec.MsgspecError):
            yield read(*row)


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _DAMAGED
