# SPDX-License-Identifier: AGPL-3.0-or-later
"""HTTP/1.1 responses, read so strictly that nothing which two clients could read differently passes."""

from __future__ import annotations

import re

import msgspec

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [\x20-\x7e]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\x20-\x7e]*)")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_ONCE = {"content-length", "content-type", "transfer-encoding", "connection", "date"}


class UnparsableError(Exception):
    """What came is no HTTP response."""


class Answer(msgspec.Struct):
    """One response. `whole` = its end came; an endless stream is judged by what came of it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False


class Reader:
    """Takes bytes as they come."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.bodiless = False
        """Answers are to HEAD: whatever their length says, no body follows."""
        self.answers: list[Answer] = []
        """Whole ones, without 1xx."""
        self.open: Answer | None = None
        """The one whose body is being read."""

    def feed(self, data: bytes) -> None:
        """Read on. Raises `UnparsableError`."""
        self.buffer += data
        while self._one():
            pass

    def end(self) -> None:
        """Nothing more comes: a body without a length is whole now. Raises when something is cut off."""
        if self.open is not None and self._by_end(self.open):
            self.open.whole = True
            self.answers.append(self.open)
            self.open = None
        if self.open is not None or self.buffer:
            raise UnparsableError(f"an answer was cut off; {bytes(self.buffer[:80])!r} is left of it")

    def _one(self) -> bool:
        if self.open is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if self.buffer and not b"HTTP/1.".startswith(self.buffer[:7]):
                    raise UnparsableError(f"no status line: {bytes(self.buffer[:80])!r}")
                return False
            head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            self.open = self._head(head)
        answer = self.open
        if not self._body(answer):
            return False
        answer.whole = True
        self.open = None
        if answer.status >= 200:
            self.answers.append(answer)
        return True

    def _head(self, data: bytes) -> Answer:
        first, *lines = data.split(b"\r\n")
        found = _STATUS.fullmatch(first)
        if found is None:
            raise UnparsableError(f"no status line: {first[:80]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise UnparsableError(f"no header: {line[:80]!r}")
            name = header[1].decode().lower()
            if name in headers and name in _ONCE:
                raise UnparsableError(f"{name} came twice")
            headers[name] = header[2].decode().strip()
        if "content-length" in headers and "transfer-encoding" in headers:
            raise UnparsableError("both content-length and transfer-encoding")
        if "content-length" in headers and not headers["content-length"].isdecimal():
            raise UnparsableError("content-length is no number")
        return Answer(int(found[1]), headers)

    def _empty(self, answer: Answer) -> bool:
        return self.bodiless or answer.status < 200 or answer.status in {204, 304}

    def _by_end(self, answer: Answer) -> bool:
        return not self._empty(answer) and not {"content-length", "transfer-encoding"} & answer.headers.keys()

    def _body(self, answer: Answer) -> bool:
        """Take what is there of a body; whether it is whole."""
        if self._empty(answer):
            return True
        if "content-length" in answer.headers:
            size = int(answer.headers["content-length"])
            if len(self.buffer) < size:
                return False
            answer.body = bytes(self.buffer[:size])
            del self.buffer[:size]
            return True
        if answer.headers.get("transfer-encoding") == "chunked":
            return self._chunks(answer)
        answer.body += bytes(self.buffer)
        self.buffer.clear()
        return False

    def _chunks(self, answer: Answer) -> bool:
        while (line := self.buffer.find(b"\r\n")) >= 0:
            if _SIZE.fullmatch(self.buffer, 0, line) is None:
                raise UnparsableError(f"no chunk size: {bytes(self.buffer[:40])!r}")
            size = int(self.buffer[:line], 16)
            end = line + 2 + size + 2
            if len(self.buffer) < end:
                return False
            if self.buffer[end - 2 : end] != b"\r\n":
                raise UnparsableError("a chunk is longer than it said")
            answer.body += bytes(self.buffer[line + 2 : end - 2])
            del self.buffer[:end]
            if size == 0:
                return True
        return False
