# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one place where the root writes logs: its children's lines and its own, to its stderr, never blocking.

Children's lines come in pieces and are put together per child. In `json` form lines of ours are passed on as they are;
what is not one of them (a library's print, a traceback) is wrapped into the event `stderr` with the actor's name. In
`text` form each event is rendered for people. A line is at most 64 KiB long; of a longer one the rest is left out.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import BinaryIO, Literal

import msgspec
import trio

from actors.logs import masked, timestamp

_MAX_LINE = 64 * 1024
_MAX_WAITING = 4 * 1024 * 1024
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_OURS = b'{"timestamp":"'
"""How each line of `actors.logs` begins: cheaper than decoding thousands of them in a second."""
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m"}
_RESET = "\x1b[0m"
_QUIET = ("timestamp", "level", "event", "actor", "incarnation", "pid", "traceback")


class _Source:
    """What came from one child and is no whole line yet."""

    def __init__(self) -> None:
        self.partial = bytearray()
        self.skipping = False
        """The rest of a line that was too long is left out."""


class LogRelay:
    """See the module's text. `run` must be running for anything to be written.

    `auto` is `text` on a terminal, with nothing of INFO unless the level is DEBUG; elsewhere it is `json`.
    """

    def __init__(
        self,
        form: Literal["auto", "json", "text"],
        stream: BinaryIO,
        level: str = "INFO",
        *,
        terminal: bool | None = None,
    ) -> None:
        self._fd = stream.fileno()
        terminal = os.isatty(self._fd) if terminal is None else terminal
        self.text = form == "text" or (form == "auto" and terminal)
        self.brief = form == "auto" and terminal and level != "DEBUG"
        """Only what people must know."""
        self._colour = terminal and not os.environ.get("NO_COLOR")
        self._shown = _LEVELS[max(_LEVELS.index(level), _LEVELS.index("WARNING") if self.brief else 0) :]
        self._sources: dict[str, _Source] = {}
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._wake = trio.Event()
        self._writing = threading.Lock()
        self.dropped = 0
        """Lines that are lost because whoever reads our stderr is too slow, and not yet told."""

    def feed(self, name: str, chunk: bytes) -> None:
        """Take a piece of what a child wrote."""
        source = self._sources.setdefault(name, _Source())
        if source.skipping:
            _, newline, chunk = chunk.partition(b"\n")
            if not newline:
                return
            source.skipping = False
        if source.partial:
            chunk = bytes(source.partial) + chunk
            source.partial.clear()
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._take(name, whole)
        if len(rest) > _MAX_LINE:
            source.skipping = True
            self._take_line(name, rest)
        else:
            source.partial += rest

    def finish(self, name: str) -> None:
        """A child has ended: what it wrote last is a line, with or without its end."""
        source = self._sources.pop(name, None)
        if source is not None and source.partial:
            self._take(name, bytes(source.partial))

    def _take(self, name: str, lines: bytes) -> None:
        """Whole lines of one child, without the last newline."""
        split = lines.split(b"\n")
        if not self.text and all(map(_is_ours, split)):
            self._queue(lines + b"\n")
            return
        for line in split:
            if line.strip():
                self._take_line(name, line)

    def _take_line(self, name: str, line: bytes) -> None:
        fields = None
        if len(line) <= _MAX_LINE:
            try:
                fields = msgspec.json.decode(line, type=dict[str, object])
            except msgspec.DecodeError:
                fields = None
        if fields is None or not {"timestamp", "level", "event"} <= fields.keys():
            cut = {"cut_from_bytes": len(line)} if len(line) > _MAX_LINE else {}
            self.emit("WARNING", "stderr", actor=name, text=line[:_MAX_LINE].decode(errors="replace"), **cut)
        elif not self.text:
            self._queue(line + b"\n")
        elif fields["level"] in self._shown:
            self._queue(self._render(fields))

    def emit(self, level: str, event: str, **fields: object) -> None:
        """Write an event of the root's own."""
        if level in self._shown:
            line = {"timestamp": timestamp(), "level": level, "event": event, "actor": "root"} | masked(fields)
            self._queue(self._render(line) if self.text else msgspec.json.encode(line, enc_hook=str) + b"\n")

    def say(self, level: str, sentence: str, event: str, **fields: object) -> None:
        """Write an event of the root's own that has a sentence for people: in text form that alone is shown."""
        if not self.text:
            self.emit(level, event, **fields, text=sentence)
        elif level in self._shown:
            self._queue(self._painted(level, f"{_clock(timestamp())} {_printable(sentence)}"))

    def _render(self, fields: dict[str, object]) -> bytes:
        level = str(fields.get("level", "INFO"))
        rest = " ".join(f"{_printable(key)}={_short(value)}" for key, value in fields.items() if key not in _QUIET)
        actor, event = _printable(str(fields.get("actor", "?"))), _printable(str(fields.get("event", "")))
        line = f"{_clock(str(fields.get('timestamp')))} {actor:<18} {event} {rest}".rstrip()
        if "traceback" in fields and not self.brief:
            line += "\n" + "\n".join(map(_printable, str(fields["traceback"]).splitlines()))
        return self._painted(level, line)

    def _painted(self, level: str, line: str) -> bytes:
        colour = _COLOURS.get(level, "") if self._colour else ""
        return f"{colour}{line}{_RESET if colour else ''}\n".encode(errors="replace")

    def _queue(self, data: bytes) -> None:
        if self._waiting_bytes + len(data) > _MAX_WAITING:
            self.dropped += data.count(b"\n")
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then write what is left, for at most a second."""
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await self._write()
        finally:
            for name in list(self._sources):
                self.finish(name)
            with trio.move_on_after(1, shield=True):
                await self._write()

    async def _write(self) -> None:
        """One write in a thread: whoever reads our stderr may be slow, and it may be a file or a terminal."""
        while self._waiting:
            # The thread starts without another chance to be cancelled: nothing is lost between here and there.
            await trio.lowlevel.checkpoint_if_cancelled()
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self.dropped:
                count, self.dropped = self.dropped, 0
                self.emit("WARNING", "log lines dropped", count=count)
            await trio.to_thread.run_sync(_write_all, self._fd, data, self._writing, abandon_on_cancel=True)


def _write_all(fd: int, data: bytes, writing: threading.Lock) -> None:
    """In a thread; one that was abandoned may still be at it, so they take turns."""
    view = memoryview(data)
    with writing:
        while view:
            try:
                view = view[os.write(fd, view) :]
            except OSError:
                return


def _is_ours(line: bytes) -> bool:
    return line.startswith(_OURS) and line.endswith(b"}") and len(line) <= _MAX_LINE


def _clock(stamp: str) -> str:
    """The local time of day of a timestamp."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        return "??:??:??"


def _printable(text: str) -> str:
    """The text with control characters shown as escapes, so that no line can forge another or steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _short(value: object) -> str:
    text = _printable(value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode())
    return text if text and " " not in text else f'"{text}"'
