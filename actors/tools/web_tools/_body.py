# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bodies of answers: unpacked no further than the caller allows, then read as text if they say that they are."""

from __future__ import annotations

import codecs
import re
import zlib

from actors.toolkit import InvalidArgumentsError

_GZIP_OR_ZLIB = 47
_TEXT_TYPES = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|yaml|javascript|ecmascript|x-ndjson|x-www-form-urlencoded|toml|graphql)|"
    r"image/svg\+xml"
)
_NOT_FOR_STRANGERS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
"""Text encodings of Python's that no server means, some of them with quadratic decoders."""
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)


class Collector:
    """Takes a body's chunks until it holds `max_bytes` of the unpacked body, or can't unpack them."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        """`encoding` is the Content-Encoding. Raises `InvalidArgumentsError` for one that was not asked for."""
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise InvalidArgumentsError(f"the server packed its answer with {name}, which was not asked for")
        # A server may pack although it was asked not to; zlib unpacks no more than it is told, so bombs stay packed.
        self._unpack = None if name in ("", "identity") else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._max = max_bytes
        self._kept = bytearray()
        self._fault: zlib.error | None = None
        self.truncated = False

    @property
    def full(self) -> bool:
        """More chunks would change nothing."""
        return self.truncated or self._fault is not None

    def body(self) -> bytes:
        """What was kept. Raises `InvalidArgumentsError` for a body that is not packed as it says."""
        if self._fault is not None:
            raise InvalidArgumentsError(f"the server's answer is not packed as it says: {self._fault}")
        return bytes(self._kept)

    def add(self, chunk: bytes) -> None:
        """Take a chunk. Raises nothing, so that the connection can be closed in order."""
        if self.full:
            return
        room = self._max - len(self._kept)
        try:
            data = self._unpack.decompress(chunk, room + 1) if self._unpack is not None else chunk
        except zlib.error as error:
            self._fault = error
            return
        self._kept += data[:room]
        self.truncated = len(data) > room


def as_text(body: bytes, content_type: str, *, truncated: bool) -> tuple[str, str] | None:
    """The body as text, and its encoding; None if it is not text. Bytes that fit no character become U+FFFD."""
    if not _TEXT_TYPES.fullmatch(content_type.partition(";")[0].strip().lower()):
        return None
    encoding = _encoding(content_type)
    # The first half of a character at the cut is not an error.
    return codecs.getincrementaldecoder(encoding)("replace").decode(body, not truncated), encoding


def _encoding(content_type: str) -> str:
    """The encoding that a server names, if it is one of text; else UTF-8."""
    named = _CHARSET.search(content_type)
    if named is None:
        return "utf-8"
    try:
        # `decode` refuses what is no encoding of text, such as zlib, which would unpack without bounds.
        b"?".decode(named[1], "replace")
        name = codecs.lookup(named[1]).name
    except (LookupError, ValueError):
        return "utf-8"
    return "utf-8" if name in _NOT_FOR_STRANGERS else name
