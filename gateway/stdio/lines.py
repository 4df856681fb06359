# SPDX-License-Identifier: AGPL-3.0-or-later
"""Lines, read: one JSON-RPC message per line, in pieces of any size, each line bounded. No I/O.

A line over the limit is not kept, only its head and its end: there the id stands, so that its sender can be answered.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_KEPT: Final = 1024
"""Bytes of a line's head and end that are looked at for the id."""
_ID: Final = rb'(-?[0-9]{1,200}|"[^"\\\x00-\x1f]{0,256}")'
_HEAD: Final = re.compile(
    rb'\s*\{\s*(?:(?:"jsonrpc"\s*:\s*"2\.0"|"id"\s*:\s*' + _ID + rb')\s*,\s*)*"(?:method|params)"'
)
"""A request whose small members come first."""
_END: Final = re.compile(rb'(?<!\\)"id"\s*:\s*' + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
"""A member right before the brace that ends the message: it can't be inside of anything else."""


class TooLong(msgspec.Struct, frozen=True):
    """Stands for a line that was not kept."""

    size: int
    """Bytes."""
    id_json: bytes
    """The id of the request as JSON; b'' when it is none, or its id was not found."""


class LineReader:
    """Cuts a stream of bytes into lines."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of one line without its end."""
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._skipped = 0
        self._head = b""

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """The lines that are complete with these bytes; blank ones are left out."""
        self._buffer += data
        lines: list[bytes | TooLong] = []
        start = 0
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            self._take(bytes(self._buffer[start:end]), lines)
            start = self._scanned = end + 1
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        if len(self._buffer) > self._limit:
            self._skip()
        return lines

    def end(self) -> list[bytes | TooLong]:
        """What the stream ended with, if it was no line end."""
        lines: list[bytes | TooLong] = []
        self._take(bytes(self._buffer), lines)
        self._buffer.clear()
        self._scanned = 0
        return lines

    def _skip(self) -> None:
        if not self._skipped:
            self._head = bytes(self._buffer[:_KEPT])
        cut = len(self._buffer) - _KEPT
        self._skipped += cut
        del self._buffer[:cut]
        self._scanned = len(self._buffer)

    def _take(self, line: bytes, lines: list[bytes | TooLong]) -> None:
        if self._skipped or len(line) > self._limit:
            head = self._head if self._skipped else line[:_KEPT]
            lines.append(TooLong(self._skipped + len(line), _id_in(head, line[-_KEPT:])))
            self._skipped, self._head = 0, b""
        elif line := line.strip(b" \t\r"):
            lines.append(line)


def _id_in(head: bytes, end: bytes) -> bytes:
    first = _HEAD.match(head)
    if first is None:
        return b""  # a response, whose id is not its sender's: nobody could be answered
    last = _END.search(end)
    found = first[1] or (last[1] if last is not None else b"")
    return bytes(found or b"")
