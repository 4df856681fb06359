# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every exit that nobody asked for, kept in the data directory over restarts of the root: who, how, what was decided,
and how long until it was back.

One JSON line per exit in `incidents.jsonl`, and one more when the actor is back. The file is rewritten with the newest
records when it has grown too large. Lines that can't be read (the root died in the middle of one) are skipped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from actors.flight import FlightRecord, short_id
from supervisor.events import ExitKind, ExitReason
from supervisor.lives import Life
from supervisor.spawn import ExitStatus

FILE = "incidents.jsonl"
KEPT = 1000
"""Records that are kept, the newest."""
_MAX_FILE_BYTES = 8 * 1024 * 1024
_SETTLE_S = 2.0
_MAX_TAIL = 4096
_MAX_STACKS = 16 * 1024
_MAX_CALLS = 20


class RunningThen(msgspec.Struct, kw_only=True):
    """A call that was running when the process died."""

    tool: str
    id: str
    """Of its tool and arguments together, as `greenroom quarantine` names them."""
    call_id: str
    running_ms: float
    waiting: bool = False
    """It only waited for its client's answer."""


class Exit(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One exit that nobody asked for."""

    number: int
    """Grows by one with each exit, over restarts of the root too."""
    at: str
    """UTC, ISO 8601."""
    actor: str
    incarnation: int
    pid: int | None = None
    cause: ExitKind
    reason: str
    """In words."""
    signal: int | None = None
    exit_code: int | None = None
    decision: str = ""
    """What the supervisor did about it."""
    uptime_s: float = 0.0
    """Since it was ready."""
    calls_in_flight: int = 0
    """Exact where the process kept a record of its calls, as pools do; else as its last beat told."""
    calls: list[RunningThen] = []
    """The longest running of them, at most 20."""
    stderr_tail: str = ""
    stacks: str = ""
    """Of all threads, where it hung."""
    back_ms: float | None = None
    """From the notice of its death until the actor was ready again; None while it is not."""


class _Back(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The second line of an exit."""

    number: int
    back_ms: float


_encode = msgspec.json.Encoder().encode
_decode_exit = msgspec.json.Decoder(Exit).decode
_decode_back = msgspec.json.Decoder(_Back).decode


def read_exits(data_dir: Path) -> list[Exit]:
    """What is known of earlier exits, oldest first."""
    found: dict[int, Exit] = {}
    try:
        lines = (data_dir / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            back = _decode_back(line)
        except msgspec.DecodeError:
            try:
                one = _decode_exit(line)
            except msgspec.DecodeError:
                continue
            found[one.number] = one
        else:
            if back.number in found:
                found[back.number].back_ms = back.back_ms
    return list(found.values())[-KEPT:]


def follow_exits(data_dir: Path, last: int, every_s: float = 0.25) -> Iterator[Exit]:
    """The last exits, then each new one once it is known whether the actor came back, or after two seconds. Endless."""
    told = max((one.number for one in read_exits(data_dir)[:-last]), default=0) if last else 0
    if not last:
        told = max((one.number for one in read_exits(data_dir)), default=0)
    seen: dict[int, float] = {}
    while True:
        for one in read_exits(data_dir):
            if one.number <= told:
                continue
            first = seen.setdefault(one.number, time.monotonic())
            if one.back_ms is None and time.monotonic() - first < _SETTLE_S:
                break
            told = one.number
            yield one
        time.sleep(every_s)


def _count(life: Life) -> int:
    if life.flight is not None and not life.flight.damaged:
        return life.flight.count
    return life.beat.open_calls if life.beat is not None else 0


def _running_then(flight: FlightRecord | None) -> list[RunningThen]:
    now = time.monotonic()
    return [
        RunningThen(
            tool=one.tool,
            id=short_id(one.digest),
            call_id=one.call_id,
            running_ms=round(max(0.0, now - one.started) * 1000, 1),
            waiting=one.waiting,
        )
        for one in (flight.calls[:_MAX_CALLS] if flight is not None else [])
    ]


class IncidentLog:
    """The root's side: it notes exits as they happen and writes them from a task of its own."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._known = deque(read_exits(data_dir), maxlen=KEPT)
        self._number = self._known[-1].number if self._known else 0
        self._waiting: list[bytes] = []
        self._wake = trio.Event()
        self._details: dict[int, Exit] = {}
        self._down: dict[str, tuple[Exit, float]] = {}

    def ended(self, life: Life, status: ExitStatus, reason: ExitReason) -> None:
        """A life has ended; whether it is an incident the core's report will tell."""
        ready_at = life.ready_at
        self._details[life.incarnation] = Exit(
            number=0,
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            actor=life.worked_as or life.name,
            incarnation=life.incarnation,
            pid=life.pid,
            cause=reason.kind,
            reason=reason.words,
            signal=reason.signal,
            exit_code=reason.exit_code,
            uptime_s=round(trio.current_time() - ready_at, 3) if ready_at is not None else 0.0,
            calls_in_flight=_count(life),
            calls=_running_then(life.flight),
            stderr_tail=status.stderr_tail[-_MAX_TAIL:],
            stacks=life.stacks[:_MAX_STACKS],
        )

    def observe(self, context: str, actor: str, incarnation: int, decision: str) -> None:
        """Take one report of the core."""
        now = trio.current_time()
        if context == "exited":
            one = self._details.pop(incarnation, None)
            if one is not None and (decision != "as asked" or one.cause == "limit"):
                self._number += 1
                replaced = decision == "as asked"
                one.number, one.decision = self._number, "replaced before" if replaced else decision
                one.actor = one.actor if replaced else actor
                self._known.append(one)
                if not replaced:
                    self._down[actor] = (one, now)
                self._write(_encode(one))
        elif context == "started" and actor in self._down:
            one, since = self._down.pop(actor)
            one.back_ms = round((now - since) * 1000, 1)
            self._write(_encode(_Back(number=one.number, back_ms=one.back_ms)))

    def _write(self, line: bytes) -> None:
        self._waiting.append(line + b"\n")
        self._wake.set()

    async def run(self) -> None:
        """Write what is noted until cancelled, then the rest."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                lines, self._waiting = self._waiting, []
                with trio.CancelScope(shield=True):  # bounded: a few lines to a local disk
                    await trio.to_thread.run_sync(self._append, b"".join(lines))
        finally:
            if self._waiting:
                self._append(b"".join(self._waiting))

    def _append(self, data: bytes) -> None:
        path = self._data_dir / FILE
        with path.open("ab") as file:
            file.write(data)
            size = file.tell()
        if size > _MAX_FILE_BYTES:
            draft = path.with_suffix(".new")
            draft.write_bytes(b"".join(_encode(one) + b"\n" for one in list(self._known)))
            draft.replace(path)
