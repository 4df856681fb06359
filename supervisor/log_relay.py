# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one place where the root writes logs: its children's lines and its own, to its stderr, never blocking.

Children's lines come in pieces and are put together per child. In `json` form whole lines are passed on as they are;
what is no JSON is wrapped into an event. In `text` form each line is rendered for people.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

import msgspec
import trio

from actors.logs import masked, timestamp

_MAX_LINE = 64 * 1024
_MAX_WAITING = 4 * 1024 * 1024
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m"}
_RESET = "\x1b[0m"
_QUIET = ("timestamp", "level", "event", "actor", "incarnation", "pid", "traceback")


class LogRelay:
    """See the module's text. `run` must be running for anything to be written."""

    def __init__(self, form: Literal["auto", "json", "text"], stream: BinaryIO, level: str = "INFO") -> None:
        self._fd = stream.fileno()
        terminal = os.isatty(self._fd)
        self._text = form == "text" or (form == "auto" and terminal)
        self._colour = terminal and not os.environ.get("NO_COLOR")
        self._levels = ("DEBUG", "INFO", "WARNING", "ERROR")[("DEBUG", "INFO", "WARNING", "ERROR").index(level) :]
        self._partial: dict[str, bytearray] = {}
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._wake = trio.Event()
        self.dropped = 0

    def feed(self, name: str, chunk: bytes) -> None:
        """Take a piece of what a child wrote."""
        partial = self._partial.get(name)
        if partial:
            chunk = bytes(partial) + chunk
            partial.clear()
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._take(name, whole)
        if len(rest) > _MAX_LINE:
            self._take(name, rest)
        elif rest:
            self._partial.setdefault(name, bytearray()).extend(rest)

    def _take(self, name: str, lines: bytes) -> None:
        """Whole lines of one child, without the last newline."""
        if not self._text and all(line.startswith(b"{") for line in lines.split(b"\n")):
            self._queue(lines + b"\n")
            return
        for line in lines.split(b"\n"):
            if line.strip():
                self._take_line(name, line[:_MAX_LINE])

    def _take_line(self, name: str, line: bytes) -> None:
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            text = line.decode(errors="replace")
            self.emit("WARNING", "stderr", actor=name, text=text)
            return
        self._queue(self._render(fields) if self._text else line + b"\n")

    def emit(self, level: str, event: str, **fields: object) -> None:
        """Write an event of the root's own."""
        if level in self._levels:
            line = {"timestamp": timestamp(), "level": level, "event": event, "actor": "root"} | masked(fields)
            self._queue(self._render(line) if self._text else msgspec.json.encode(line, enc_hook=str) + b"\n")

    def _render(self, fields: dict[str, object]) -> bytes:
        level = str(fields.get("level", "INFO"))
        rest = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if key not in _QUIET)
        clock = str(fields.get("timestamp", ""))[11:19]
        line = f"{clock} {fields.get('actor', '?')!s:<18} {fields.get('event', '')} {rest}"
        if "traceback" in fields:
            line += f"\n{fields['traceback']}"
        colour = _COLOURS.get(level, "") if self._colour else ""
        return f"{colour}{line.rstrip()}{_RESET if colour else ''}\n".encode()

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
            with trio.move_on_after(1, shield=True):
                await self._write()

    async def _write(self) -> None:
        """One write in a thread: whoever reads our stderr may be slow, and it may be a file or a terminal."""
        while self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self.dropped:
                data += msgspec.json.encode(
                    {"timestamp": timestamp(), "level": "WARNING", "event": "log lines dropped", "count": self.dropped}
                )
                data += b"\n"
                self.dropped = 0
            await trio.to_thread.run_sync(_write_all, self._fd, data, abandon_on_cancel=True)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError:
            return


def _short(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return text if text and " " not in text else f'"{text}"'
