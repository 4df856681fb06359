# SPDX-License-Identifier: AGPL-3.0-or-later
"""Server-sent events, read: bytes in pieces of any size in, events out. No I/O.

For who reads what this system's own gateway writes: lines end with LF or CRLF, not with a bare CR.
"""

from __future__ import annotations

import msgspec


class EventTooLongError(Exception):
    """An event is larger than the reader's limit; the stream can't be read on."""


class Event(msgspec.Struct, frozen=True):
    """One event. Comments and events without any field are not shown."""

    data: bytes
    """The data lines, joined by LF; b'' of a priming event, which only says an id."""
    kind: str = "message"


class EventReader:
    """Reads one stream."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of one event."""
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._size = 0
        self._kind = ""
        self._named = False
        self.last_id = ""
        """Of the last event that said one: what `Last-Event-ID` may name."""
        self.retry_s: float | None = None
        """Seconds to wait before the next try, when the other side said so."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with these bytes. Raises `EventTooLongError`."""
        self._buffer += data
        events: list[Event] = []
        start = 0
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[start:end]).removesuffix(b"\r")
            start = self._scanned = end + 1
            if line:
                self._field(line)
            elif (event := self._event()) is not None:
                events.append(event)
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        if len(self._buffer) + self._size > self._limit:
            raise EventTooLongError(f"an event is larger than {self._limit} bytes")
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._kind = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self.last_id = value.decode(errors="replace")
            self._named = True
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_s = int(value) / 1000

    def _event(self) -> Event | None:
        found = Event(b"\n".join(self._data), self._kind or "message") if self._data or self._named else None
        self._data, self._size, self._kind, self._named = [], 0, "", False
        return found
