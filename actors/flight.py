# SPDX-License-Identifier: AGPL-3.0-or-later
"""The record of the calls that a process runs now, readable after its death.

It is a small file in the runtime directory, named by incarnation and mapped into the memory of the process: what was
written there stays when the process dies, however it dies. Each running call has a slot with the tool's name, a keyed
digest of the arguments (never the arguments), the call's id, the time of its start, and whether nothing of it runs
because it waits for its client's answer; calls beyond the slots are counted only. The process that runs the calls
writes (`FlightRecorder`), the root reads it once the process is dead (`read_flight`). Tools run in that process and may
have written anything there, so the reader trusts nothing: it never raises, reads a bounded number of bytes, and tells
`damaged` where something can't be right.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
import struct
import threading
from pathlib import Path
from time import monotonic

import msgspec

MAX_SLOTS = 1024
DIGEST_BYTES = 16
_MAGIC = b"GRFLIGHT"
_HEADER = struct.Struct("<8sII")
"""Magic, slots, running calls that have no slot."""
_MORE_AT = 12
_SLOT = struct.Struct("<d16sBB128s64sB")
"""Start (CLOCK_MONOTONIC, seconds), digest, lengths of both texts, tool, call id, state. The last is written last."""
_SLOT_BYTES = 256
_STATE = _SLOT.size - 1
_FREE, _RUNS, _WAITS = 0, 1, 2
_MAX_CALL_ID = 64
_MAX_MORE = 1_000_000
_TOOL = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_CALL_ID = re.compile(rb"[\x20-\x7e]{1,64}")


class Flying(msgspec.Struct, frozen=True):
    """One call that was running."""

    tool: str
    digest: str
    """Of its arguments, in hex."""
    call_id: str
    started: float
    """`time.monotonic()`, the same clock in all processes of this boot."""
    waiting: bool = False
    """It only waited for its client's answer."""


class FlightRecord(msgspec.Struct, frozen=True):
    """What a process was doing when it died."""

    calls: list[Flying]
    """The longest running first."""
    more: int = 0
    """Calls beyond the slots, of which only the number is known."""
    damaged: bool = False
    """Something in the file can't be right."""

    @property
    def count(self) -> int:
        """All calls that were running."""
        return len(self.calls) + self.more


def flight_path(runtime_dir: str | Path, incarnation: int) -> Path:
    """Where a life keeps its record."""
    return Path(runtime_dir) / f"{incarnation}.flight"


def short_id(digest: str) -> str:
    """The part of a digest that people see and type."""
    return digest[:12]


class FlightRecorder:
    """The writing side. Costs about a microsecond for each call."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        self._memory = memory
        self._free = [_SLOT_BYTES * number for number in range(slots, 0, -1)]
        self._more = 0
        self._lock = threading.Lock()
        _HEADER.pack_into(memory, 0, _MAGIC, slots, 0)

    @classmethod
    def create(cls, path: Path, slots: int) -> FlightRecorder:
        """A recorder with a new file. Raises OSError: no space, or a limit of file size that is below its need."""
        slots = min(slots, MAX_SLOTS)
        size = _SLOT_BYTES * (slots + 1)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Space that is only promised could be missing later, and writing to the memory would then be SIGBUS.
            os.posix_fallocate(file, 0, size)
            return cls(mmap.mmap(file, size), slots)
        finally:
            os.close(file)

    @classmethod
    def without_file(cls, slots: int) -> FlightRecorder:
        """A recorder that nobody can read, where there can be no file."""
        slots = min(slots, MAX_SLOTS)
        return cls(mmap.mmap(-1, _SLOT_BYTES * (slots + 1)), slots)

    def begin(self, tool: bytes, digest: bytes, call_id: str) -> int:
        """A call starts; returns what `end` wants. `tool` is an ASCII name of at most 128 bytes."""
        if not self._free:
            self._count_more(1)
            return 0
        at = self._free.pop()
        shown = call_id.encode()[:_MAX_CALL_ID]
        _SLOT.pack_into(self._memory, at, monotonic(), digest, len(tool), len(shown), tool, shown, _RUNS)
        return at

    def waits(self, at: int, waiting: bool) -> None:
        """The call only waits for its client now, or runs again."""
        if at:
            self._memory[at + _STATE] = _WAITS if waiting else _RUNS

    def end(self, at: int) -> None:
        """The call runs no more. May be called from any thread."""
        if at:
            self._memory[at + _STATE] = _FREE
            self._free.append(at)
        else:
            self._count_more(-1)

    def _count_more(self, change: int) -> None:
        with self._lock:
            self._more += change
            struct.pack_into("<I", self._memory, _MORE_AT, self._more)


def read_flight(path: Path) -> FlightRecord | None:
    """The record of a process that is dead; None when there is none."""
    data = _read_bounded(path)
    if data is None:
        return None
    if len(data) < _SLOT_BYTES:
        return FlightRecord([], damaged=True)
    magic, slots, more = _HEADER.unpack_from(data)
    there = len(data) // _SLOT_BYTES - 1
    damaged = magic != _MAGIC or slots != there or more > _MAX_MORE
    calls = []
    for at in range(_SLOT_BYTES, _SLOT_BYTES * (there + 1), _SLOT_BYTES):
        if data[at + _STATE] != _FREE:
            one = _read_slot(data, at)
            damaged = damaged or one is None
            calls += [one] if one is not None else []
    calls.sort(key=lambda one: one.started)
    return FlightRecord(calls, more=more if more <= _MAX_MORE else 0, damaged=damaged)


def _read_bounded(path: Path) -> bytes | None:
    try:
        # Not blocking, for it may have become anything: a pipe without a writer, a link to a device.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        return os.read(file, _SLOT_BYTES * (MAX_SLOTS + 1))
    except OSError:
        return b""
    finally:
        os.close(file)


def _read_slot(data: bytes, at: int) -> Flying | None:
    started, digest, tool_length, id_length, tool, call_id, state = _SLOT.unpack_from(data, at)
    tool, call_id = tool[:tool_length], call_id[:id_length]
    if state not in {_RUNS, _WAITS} or not math.isfinite(started) or _TOOL.fullmatch(tool) is None:
        return None
    shown = call_id.decode() if _CALL_ID.fullmatch(call_id) is not None else "?"
    return Flying(tool=tool.decode(), digest=digest.hex(), call_id=shown, started=started, waiting=state == _WAITS)
