# SPDX-License-Identifier: AGPL-3.0-or-later
"""HTTP/1.1 heads as bytes: strict reading, and writing. No I/O.

Both ways into the gateway use it, so both refuse the same heads with the same bytes. Heads are read by llhttp with
every leniency off, which is stricter than h11 (h11 takes bare LF, folded lines and control characters); what h11
refuses and llhttp does not is refused here or handed to h11. RFC 9112 is the rule; non-ASCII heads are refused
although RFC 9110 tolerates them.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import httptools
import msgspec

from gateway.types import Answer

_HEAD_END = re.compile(rb"\n\r?\n")
_VERSION = re.compile(rb"[^\r\n]* HTTP/([0-9])\.([0-9])\r?\n")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class HeadError(Exception):
    """A request that is refused before anybody looks at what it asks; the connection ends. `status` is HTTP's."""

    def __init__(self, status: int, message: str, *, to_head: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.to_head = to_head
        """The method is HEAD: the refusal may have no body."""


class Head:
    """The headers of one request, filled by llhttp."""

    __slots__ = ("headers", "repeated")

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        """Lower-case name -> value; repeated ones joined by `, `."""
        self.repeated: frozenset[str] = frozenset()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for each header line."""
        key = name.decode("ascii").lower()
        text = value.decode("ascii").strip(" \t")
        if key in self.headers:
            self.repeated |= {key}
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text


def parse_head(head: bytes) -> Head:
    """Read one complete head, up to and with its empty line. Raises `HeadError`."""
    if not head.isascii():
        raise HeadError(400, "the request's head holds bytes outside ASCII")
    sink = Head()
    try:
        httptools.HttpRequestParser(sink).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the headers are complete; whether to upgrade is not decided here
    except httptools.HttpParserInvalidMethodError:
        raise HeadError(501, "no such method here") from None
    except httptools.HttpParserError as error:
        raise HeadError(400, f"malformed request: {error}") from None
    return sink


def check_head(data: bytes, limit: int) -> bool:
    """Whether `data` begins with a complete, acceptable head; False = more bytes are needed. Raises `HeadError`."""
    try:
        return _check_head(data, limit)
    except HeadError as error:
        error.to_head = is_head(data)
        raise


def is_head(data: bytes) -> bool:
    """Whether a request that begins so is a HEAD."""
    return data.startswith(b"HEAD ")


def _check_head(data: bytes, limit: int) -> bool:
    if data and data[0] < 0x21:
        raise HeadError(400, "this is not an HTTP request")
    end = _HEAD_END.search(data)
    if end is None:
        if len(data) > limit:
            raise HeadError(431, f"the request's head is larger than {limit} bytes")
        return False
    if end.end() > limit:
        raise HeadError(431, f"the request's head is larger than {limit} bytes")
    version = _VERSION.match(data)
    if version is not None and version.group(1) != b"1":
        raise HeadError(505, "only HTTP/1.1 is spoken here")
    parse_head(data[: end.end()])
    return True


def check_length(headers: dict[str, str], limit: int) -> int:
    """The announced size of a body in bytes, 0 when none is. Raises `HeadError` when it is over `limit`."""
    text = headers.get("content-length", "0")
    if not text.isdigit():
        raise HeadError(400, "Content-Length is not a number")
    if len(text) > 18 or int(text) > limit:  # int() of a very long text is slow
        raise HeadError(413, f"the body is larger than {limit} bytes")
    return int(text)


def check_headers(headers: list[tuple[str, str]]) -> None:
    """See that response headers can be sent: names are tokens, values printable ASCII. Raises ValueError."""
    _header_lines(tuple(headers))


@lru_cache(maxsize=256)
def _header_lines(headers: tuple[tuple[str, str], ...]) -> str:
    for name, value in headers:
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ValueError(f"the response header {name!r} holds characters that may not be sent")
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n{_header_lines(headers)}".encode("ascii")


_date: tuple[int, bytes] = (0, b"")


def date_line() -> bytes:
    """The `date` header line of this second."""
    global _date  # noqa: PLW0603 - a cache of one value
    now = int(time.time())
    if _date[0] != now:
        _date = (now, f"date: {formatdate(now, usegmt=True)}\r\n".encode("ascii"))
    return _date[1]


def encode_answer(answer: Answer, *, close: bool = False, to_head: bool = False) -> bytes:
    """A whole response, `to_head` without its body. Raises ValueError when a header can't be sent."""
    length = b"" if answer.status in {204, 304} else b"content-length: %d\r\n" % len(answer.body)
    return b"".join(
        (
            _head(answer.status, tuple(answer.headers)),
            date_line(),
            length,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            b"" if to_head else answer.body,
        )
    )


STREAM_HEADERS = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""Keep caches and proxies from holding a stream back."""


def stream_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A stream's headers, with those that every stream needs."""
    given = {name.lower() for name, _ in headers}
    return headers + [pair for pair in STREAM_HEADERS if pair[0] not in given]


def encode_stream_head(status: int, headers: list[tuple[str, str]], *, close: bool = False) -> bytes:
    """The head of a chunked response. Raises ValueError when a header can't be sent."""
    return b"".join(
        (
            _head(status, tuple(stream_headers(headers))),
            date_line(),
            b"transfer-encoding: chunked\r\n",
            b"connection: close\r\n\r\n" if close else b"\r\n",
        )
    )


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked response. `data` must not be empty: that would end the response."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_answer(status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> Answer:
    """An error outside of MCP, in the form that the REST interface uses."""
    body = msgspec.json.encode(
        {"status": "error", "error": {"code": code, "message": message, "retryable": False, "details": {}}}
    )
    return Answer(status, [("content-type", "application/json"), *(headers or [])], body)


_CODES = {
    400: "BAD_REQUEST",
    408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE",
    431: "HEAD_TOO_LARGE",
    501: "METHOD_NOT_IMPLEMENTED",
    505: "HTTP_VERSION_NOT_SUPPORTED",
}


def refusal(status: int, message: str) -> Answer:
    """What a refused connection is told before it ends."""
    return error_answer(status, _CODES.get(status, "BAD_REQUEST"), message)
