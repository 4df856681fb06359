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
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)


class Collector:
    """Takes a body's chunks until it holds `max_bytes` of the unpacked body."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        """`encoding` is the Content-Encoding. Raises `InvalidArgumentsError` for one that was not asked for."""
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise InvalidArgumentsError(f"the server packed its answer with {name}, which was not asked for")
        # A server may pack although it was asked not to; zlib unpacks no more than it is told, so bombs stay packed.
        self._unpack = None if name in ("", "identity") else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._max = max_bytes
        self._kept = bytearray()
        self.truncated = False

    @property
    def body(self) -> bytes:
        """What was kept."""
        return bytes(self._kept)

    def add(self, chunk: bytes) -> bool:
        """Take a chunk. False when there is enough."""
        room = self._max - len(self._kept)
        try:
            data = self._unpack.decompress(chunk, room + 1) if self._unpack is not None else chunk
        except zlib.error as error:
            raise InvalidArgumentsError(f"the server's answer is not packed as it says: {error}") from error
        self._kept += data[:room]
        self.truncated = self.truncated or len(data) > room
        return not self.truncated


def as_text(body: bytes, content_type: str, *, truncated: bool) -> tuple[str, str] | None:
    """The body as text, and its encoding; None if it is not text. Bytes that fit no character become U+FFFD."""
    if not _TEXT_TYPES.fullmatch(content_type.partition(";")[0].strip().lower()):
        return None
    named = _CHARSET.search(content_type)
    try:
        encoding = codecs.lookup(named[1] if named else "utf-8").name
        # The first half of a character at the cut is not an error.
        text = codecs.getincrementaldecoder(encoding)("replace").decode(body, not truncated)
    except LookupError:
        encoding, text = "utf-8", body.decode("utf-8", "replace")
    return text, encoding
