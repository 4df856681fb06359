# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the bytes of a write-ahead log (WAL) prove by themselves, whatever a database makes of them.

One writer stores one transaction after the other and begins none before the one before it is on disk. So where anything
of a later transaction is in the file, the earlier ones were acknowledged: a database that opens without them has lost
something, and a repair that would drop them is none.

The patterns hold bytes that no text has, so no task can imitate them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_GROUP: Final = re.compile(
    rb"\xa3cseq([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})dprev\xd8\x2a\x58\x25\x00\x01\x71\x12\x20", re.DOTALL
)
"""How a group begins that is not the first one."""
_DUCKDB_COMMIT: Final = re.compile(rb"\x05\0{7}.{8}d\0d\xff\xff", re.DOTALL)
"""Entry of a DuckDB WAL: its length, its check sum, and that a transaction ends here."""
_SQLITE_HEAD: Final = 32
_SQLITE_FRAME: Final = 24
_SQLITE_PAGE: Final = 512
"""The smallest."""


def duckdb_commits(wal: bytes) -> list[int]:
    """Where transactions end in a part of a DuckDB WAL."""
    return [found.end() for found in _DUCKDB_COMMIT.finditer(wal)]


def in_duckdb_wal(wal: bytes) -> int:
    """The highest number of a group that must have been acknowledged; 0 = the WAL proves nothing."""
    return _acknowledged(wal, duckdb_commits(wal))


def in_sqlite_wal(wal: bytes) -> int:
    """The same of a SQLite WAL. What is left there of its former rounds does not count."""
    page = int.from_bytes(wal[8:12], "big")
    if page < _SQLITE_PAGE:
        return 0
    salts = wal[16:24]
    frame = _SQLITE_FRAME + page
    starts = range(_SQLITE_HEAD, len(wal), frame)
    ours = [start for start in starts if wal[start + 8 : start + 16] == salts]
    commits = [start + frame for start in ours if any(wal[start + 4 : start + 8])]
    return _acknowledged(wal[: ours[-1] + frame] if ours else b"", commits)


def _acknowledged(wal: bytes, commits: list[int]) -> int:
    groups = list(_groups(wal))
    ends = [0, 0, *commits]
    safe = ends[-1] if groups and groups[-1][0] >= ends[-1] else ends[-2]
    return max((seq for at, seq in groups if at < safe), default=0)


def _groups(wal: bytes) -> Iterator[tuple[int, int]]:
    for found in _GROUP.finditer(wal):
        number = found[1]
        yield found.start(), number[0] if len(number) == 1 else int.from_bytes(number[1:], "big")
