# SPDX-License-Identifier: AGPL-3.0-or-later
"""Opens a DuckDB file whose write-ahead log (WAL) has a torn end.

A power cut can leave zeros or garbage where the last transaction was being written. DuckDB then refuses the whole file,
though what was torn was never acknowledged. The end is cut off, after a copy was made, if it is small enough to be one
unfinished transaction. Whether anything is missing that was acknowledged is for the caller to check (`announced.py`),
before anything is written.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.errors import UnavailableError
from actors.p2p.files import free_name, fsync_directory, in_use
from actors.p2p.task_queue.evidence import duckdb_commits

if TYPE_CHECKING:
    import duckdb

_ROUNDS: Final = 3
_ENTRY_HEAD: Final = 16
"""Size and check sum before each entry; DuckDB names the byte behind them."""
_AT: Final = re.compile(r"Corrupt WAL file: entry at byte position (\d+)")
_REPLAY: Final = "Failure while replaying WAL file"
_OTHER_PROCESS: Final = re.compile(r"Could not set lock on file.*?(?:PID (\d+))?\)", re.DOTALL)
_HEAD_ERRORS: Final = (_REPLAY, "Failed to decode LEB128", "WAL checkpoint iteration does not match")


class WalRepair:
    """One opening. `largest` is how many bytes of the WAL one transaction may have."""

    def __init__(self, path: Path, largest: int) -> None:
        self._path = path
        self._wal = Path(f"{path}.wal")
        self._largest = largest
        self.repairs: list[str] = []
        """What was mended, in words."""

    def open(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
        """Raises UnavailableError when this is no torn end, or DuckDB refuses the file for another reason."""
        import duckdb

        for _ in range(_ROUNDS):
            try:
                return connect()
            except duckdb.Error as error:
                self._mend(error)
        try:
            return connect()
        except duckdb.Error as error:
            raise self._refusal(error, f"it was mended {_ROUNDS} times in vain") from None

    def _mend(self, error: duckdb.Error) -> None:
        said = str(error)
        if held := _OTHER_PROCESS.search(said):
            raise in_use(self._path, held[1] or "")
        for strange in ("wal.checkpoint", "wal.recovery"):
            if Path(f"{self._path}.{strange}").exists():
                raise self._refusal(error, f"a checkpoint was interrupted ({self._path.name}.{strange} is there)")
        if not self._wal.exists():
            raise self._refusal(error, "its main file is damaged or is no DuckDB file")
        size = self._wal.stat().st_size
        if at := _AT.search(said):
            self._cut(error, max(0, int(at[1]) - _ENTRY_HEAD), size)
        elif any(text in said for text in _HEAD_ERRORS):
            whole = duckdb_commits(self._wal.read_bytes())
            if whole and whole[-1] < size:
                self._cut(error, whole[-1], size)
            else:
                self._put_aside(error, size)
        else:
            raise self._refusal(error, "DuckDB can't open it")

    def _cut(self, error: duckdb.Error, start: int, size: int) -> None:
        if size - start > self._largest:
            raise self._refusal(error, f"its WAL is damaged {size - start} bytes before the end: no torn last write")
        if len(duckdb_commits(self._wal.read_bytes()[start:])) > 1:
            raise self._refusal(error, f"its WAL is damaged at byte {start}, with more behind it: no torn last write")
        copy = self._copy()
        with self._wal.open("r+b") as wal:
            wal.truncate(start)
            os.fsync(wal.fileno())
        fsync_directory(self._path.parent)
        self.repairs.append(
            f"cut {size - start} bytes of an unfinished write off the end of {self._wal.name} (copy: {copy.name})"
        )

    def _put_aside(self, error: duckdb.Error, size: int) -> None:
        if size > self._largest or len(duckdb_commits(self._wal.read_bytes())) > 1:
            raise self._refusal(error, f"the beginning of its WAL of {size} bytes is damaged")
        copy = self._copy()
        self._wal.unlink()
        fsync_directory(self._path.parent)
        self.repairs.append(f"put the unreadable {self._wal.name} of {size} bytes aside ({copy.name})")

    def _copy(self) -> Path:
        copy = free_name(self._wal)
        shutil.copyfile(self._wal, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        fsync_directory(self._path.parent)
        return copy

    def _refusal(self, error: duckdb.Error, why: str) -> UnavailableError:
        return UnavailableError(
            f"the task queue's log {self._path} can't be used: {why}. Keep a copy of all its files and restore a "
            f"back-up. DuckDB says: {str(error).splitlines()[0]}",
            path=str(self._path),
        )
