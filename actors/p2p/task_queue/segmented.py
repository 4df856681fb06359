# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the logs have in common: segments, the chain, the lock, what is told at opening. The engine does the rest.

A segment is a table `ev_<number>_<seq of its first group>_<how many of its groups were carried>` with one row per
group, so that a missing first row is noticed like any other. The numbers have no gap either.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from actors.errors import UnavailableError
from actors.p2p.files import FileLock, fsync_directory
from actors.p2p.task_queue.announced import Announced
from actors.p2p.task_queue.groups import GROUP_BYTES, Chain, Row
from actors.p2p.task_queue.log import Group, Opened

SEGMENT_BYTES: Final = 8 << 20
"""A checkpoint after each rotation writes about as much, and commits wait for a part of it: so it is small."""
CHECKPOINT_BYTES: Final = 16 << 20
_KEEP: Final = 2
_TABLE: Final = re.compile(r"ev_(\d+)_(\d+)_(\d+)")


class Segment(NamedTuple):
    """One table."""

    number: int
    first: int
    """`seq` of its first group."""
    carried: int
    """How many groups it began with."""

    @property
    def table(self) -> str:
        """Its name."""
        return f"ev_{self.number}_{self.first}_{self.carried}"


class SegmentedLog(ABC):
    """A `Log`. Subclasses say how an engine does the single steps; they raise the engine's own errors."""

    def __init__(
        self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, checkpoint_bytes: int = CHECKPOINT_BYTES
    ) -> None:
        self.path = path
        self._segment_bytes = segment_bytes
        self._checkpoint_bytes = checkpoint_bytes
        self._lock = FileLock(Path(f"{path}.lock"), path)
        self._announced = Announced(Path(f"{path}.seq"))
        self._chain = Chain()
        self._segments: list[Segment] = []
        self._filled = 0
        """Bytes in the newest segment."""
        self._carried = 0
        """Of these, what was carried there. A segment is full when as much is new: else a state that is larger than a
        segment would be rewritten with each group."""
        self._grown = 0
        """Bytes of WAL since opening, about. Written by `append` and `rotate` only."""
        self._settled = 0
        """`_grown` at the latest checkpoint. Written by `checkpoint` only, which runs in another thread."""
        self._complete = False
        """All that was there was read and found right."""
        self._failed = False

    # --- the engine's part ---

    OVERHEAD: ClassVar[int]
    """What the WAL grows by, at most, with each group besides its own bytes."""

    @abstractmethod
    def _errors(self) -> type[Exception]:
        """What the engine raises."""

    @abstractmethod
    def _proven(self) -> int:
        """The number of a group that the WAL proves to be stored, before the database is opened."""

    @abstractmethod
    def _connect(self) -> list[str]:
        """Open the database, mend it if need be; what was mended. Nothing may be changed yet that mending needs."""

    @abstractmethod
    def _tables(self) -> list[str]:
        """Names of all tables."""

    @abstractmethod
    def _last(self, table: str) -> tuple[int, int] | None:
        """`seq` and digest of the newest row."""

    @abstractmethod
    def _rows(self, table: str) -> Iterator[Row]:
        """All rows in order."""

    @abstractmethod
    def _insert(self, table: str, row: Row) -> None:
        """Add a row; durable when no transaction is open."""

    @abstractmethod
    def _switch(self, new: Segment, rows: Sequence[Row], old: Segment | None) -> None:
        """One transaction: create a segment, fill it, drop another one."""

    @abstractmethod
    def _move(self) -> None:
        """The checkpoint itself."""

    @abstractmethod
    def _disconnect(self, *, tidy: bool) -> None:
        """Close the database; not `tidy` = leave its files as they are."""

    @abstractmethod
    def _wal(self) -> Path:
        """The file of what is not in the main file yet."""

    # --- Log ---

    def open(self) -> Opened:
        """See `Log`."""
        self._lock.take()
        try:
            with self._said_clearly():
                return self._open()
        except BaseException:
            self._failed = True
            self.close()
            raise

    def _open(self) -> Opened:
        try:
            self._announced.open()
        except OSError as error:
            raise self._refusal(f"{self._announced.path} can't be opened ({error.strerror})") from None
        proven = self._proven()
        repairs = self._connect()
        self._segments = self._find_segments()
        repairs += self._compare(proven)
        if not self._segments:
            self._switch(first := Segment(1, 1, 0), [], None)
            self._segments = [first]
        self._grown = _size(self._wal())
        fsync_directory(self.path.parent)
        self._chain.start(self._segments[0].first)
        return Opened(groups=self._read(), repairs=repairs)

    def _find_segments(self) -> list[Segment]:
        found = []
        for table in self._tables():
            if (name := _TABLE.fullmatch(table)) is None:
                raise self._refusal(f"it holds a table {table!r} and is no log of a task queue; choose another file")
            found.append(Segment(int(name[1]), int(name[2]), int(name[3])))
        found.sort()
        for before, after in pairwise(found):
            if after.number != before.number + 1:
                raise self._refusal(f"segment {before.number + 1} is missing. {_PERSON}")
        return found

    def _compare(self, proven: int) -> list[str]:
        """Whether all is there that was announced, and what the WAL proves."""
        newest = next(filter(None, (self._last(segment.table) for segment in reversed(self._segments))), None)
        seq = newest[0] if newest else self._segments[-1].first - 1 if self._segments else 0
        if seq < proven:
            raise self._refusal(
                f"it ends with group {seq}, but group {proven} was stored, as {self._wal().name} shows: what was "
                f"acknowledged is missing. {_PERSON} To go on without, move that file away and remove "
                f"{self._announced.path}"
            )
        if not self._announced.known:
            if newest:
                return [f"{self._announced.path} was missing or damaged: whether the last groups are there is unknown"]
            return []
        if seq < self._announced.seq:
            raise self._refusal(
                f"it ends with group {seq}, but group {self._announced.seq} was stored: what was acknowledged is "
                f"missing. {_PERSON} To go on without, remove {self._announced.path}"
            )
        return []

    @contextmanager
    def _said_clearly(self) -> Iterator[None]:
        """What the database says about damage, as this log's own error."""
        try:
            yield
        except self._errors() as error:
            raise self._refusal(f"the database says: {str(error).splitlines()[0]}. {_PERSON}") from None

    def _read(self) -> Iterator[tuple[int, Group]]:
        for segment in self._segments:
            if segment.first != self._chain.seq + 1:
                raise self._refusal(f"groups {self._chain.seq + 1} to {segment.first - 1} are missing. {_PERSON}")
            self._filled = self._carried = 0
            rows = self._rows(segment.table)
            while True:
                with self._said_clearly():
                    row = next(rows, None)
                if row is None:
                    break
                try:
                    events = self._chain.check(row)
                except UnavailableError as error:
                    raise self._refusal(f"{error.message}. {_PERSON}") from None
                if row.seq == self._announced.seq and self._announced.known:
                    self._same_as_announced(row)
                self._filled += len(row.data)
                self._carried += len(row.data) if row.seq < segment.first + segment.carried else 0
                yield segment.number, events
        self._complete = True
        # Of an empty log too: else a kill right after the first group would look like a lost file.
        self._announced.write(self._chain.seq, self._chain.digest)
        self._admit()

    def _same_as_announced(self, row: Row) -> None:
        if row.digest & 0xFFFF_FFFF_FFFF_FFFF != self._announced.digest:
            raise self._refusal(
                f"its group {row.seq} is not the one that was stored last: the file is another copy. {_PERSON} To "
                f"use it all the same, remove {self._announced.path}"
            )

    def _admit(self) -> None:  # noqa: B027 - not every engine has something to do
        """All is well: the engine may tidy up at its end."""

    def append(self, events: Group) -> None:
        """See `Log`."""
        self._begin()
        row = self._chain.next(events)
        if len(row.data) > GROUP_BYTES:
            self._announced.expect(len(row.data))
        self._insert(self._segments[-1].table, row)
        self._chain.wrote(row)
        self._filled += len(row.data)
        self._grown += len(row.data) + self.OVERHEAD
        self._announced.write(row.seq, row.digest)
        self._failed = False

    def segment(self) -> int:
        """See `Log`."""
        return self._segments[-1].number

    def oldest_segment(self) -> int:
        """See `Log`."""
        return self._segments[0].number

    def rotation_due(self) -> bool:
        """See `Log`."""
        return self._filled - self._carried >= max(self._segment_bytes, self._carried)

    def rotate(self, carried: Iterable[Group]) -> None:
        """See `Log`."""
        self._begin()
        first = self._chain.seq + 1
        old = self._segments[0] if len(self._segments) >= _KEEP else None
        rows, size = [], 0
        for events in carried:
            rows.append(row := self._chain.next(events))
            self._chain.wrote(row)
            size += len(row.data)
        if size > GROUP_BYTES:
            self._announced.expect(size)
        new = Segment(self._segments[-1].number + 1, first, len(rows))
        self._switch(new, rows, old)
        self._segments = [*self._segments[1 if old else 0 :], new]
        self._filled = self._carried = size
        # Only a checkpoint frees the old segment's place: it is due now.
        self._grown += max(size, self._checkpoint_bytes)
        self._announced.write(self._chain.seq, self._chain.digest)
        self._failed = False

    def checkpoint_due(self) -> bool:
        """See `Log`."""
        return self._grown - self._settled >= self._checkpoint_bytes

    def checkpoint(self) -> None:
        """See `Log`."""
        grown = self._grown
        self._move()
        self._settled = grown
        self._announced.sync()

    def sizes(self) -> dict[str, int]:
        """See `Log`."""
        return {
            "bytes": _size(self.path),
            "wal_bytes": _size(self._wal()),
            "segments": len(self._segments),
            "groups": self._chain.seq - self._segments[0].first + 1 if self._segments else 0,
        }

    def close(self) -> None:
        """See `Log`."""
        try:
            self._disconnect(tidy=self._complete and not self._failed)
        finally:
            self._announced.close()
            self._lock.drop()

    def _begin(self) -> None:
        """Failed until the step is done: an exception leaves it so."""
        if not self._complete:
            raise RuntimeError("the log has to be read to its end before anything is appended")
        if self._failed:
            raise self._refusal("a write failed before, so its end is unknown; start the process again")
        self._failed = True

    def _refusal(self, why: str) -> UnavailableError:
        return UnavailableError(f"the task queue's log {self.path} can't be used: {why}", path=str(self.path))


_PERSON: Final = "Keep a copy of all its files and restore a back-up."


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
