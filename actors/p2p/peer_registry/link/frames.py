# SPDX-License-Identifier: AGPL-3.0-or-later
"""A link's frames as bytes: cut out of what comes, sealed and joined for what leaves.

A frame is a length (4 bytes, big endian) and so many bytes: msgpack of `(id, op, body)`, and behind it, when the two
sides share a secret, a code of 16 bytes (keyed BLAKE2b). The code covers also the frame's place in its direction: no
frame can be forged, changed, left out, repeated or moved.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from actors.p2p.peer_registry.link.reasons import LinkViolation, Violation

CODE_BYTES: Final = 16
HEAD_BYTES: Final = 4
READ_BYTES: Final = 65536
_length = struct.Struct(">I")
_place = struct.Struct(">Q")
_fits = hmac.compare_digest


class Op(IntEnum):
    """What a frame is. `id` is 0 where none is named."""

    HELLO = 0
    PROOF = 1
    READY = 2
    REQUEST = 3
    """Has an id above that of the one before."""
    ANSWER = 4
    """Has the id of its request, as the next two."""
    FAILURE = 5
    CANCEL = 6
    """Nobody waits for the answer any more. It comes all the same: it tells that the work has ended."""
    NOTE = 7
    END = 8


class Cutter:
    """Cuts a byte stream into frames. A frame's memory is taken as its bytes come, never by its announced length."""

    __slots__ = ("_at", "_buffer", "_end", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        """Bytes of a frame; may be changed between frames."""
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._end = HEAD_BYTES
        """Nothing can be cut before the buffer has so many bytes."""

    def feed(self, chunk: bytes) -> None:
        """These bytes have come. All that can be cut must have been cut before."""
        buffer, at = self._buffer, self._at
        rest = len(buffer) - at
        if not rest:
            self._buffer = chunk
        elif isinstance(buffer, bytearray):
            if at:
                del buffer[:at]
            buffer += chunk
        else:
            self._buffer = bytearray(memoryview(buffer)[at:])
            self._buffer += chunk
        self._at = 0
        self._end -= at

    def cut(self) -> bytes | bytearray | None:
        """The next whole frame without its length, or None. Raises `LinkViolation` as soon as a length is seen that no
        frame may have."""
        buffer = self._buffer
        if len(buffer) < self._end:
            return None
        at = self._at
        start = at + HEAD_BYTES
        (size,) = _length.unpack_from(buffer, at)
        if not 0 < size <= self.most:
            raise self._refusal(size)
        end: int = start + size
        if len(buffer) < end:
            self._end = end
            return None
        self._at = end
        self._end = end + HEAD_BYTES
        return buffer[start:end]

    @property
    def unfinished(self) -> bool:
        """A frame has begun that is not whole yet. True also when it is and was not cut."""
        return len(self._buffer) > self._at

    def _refusal(self, size: int) -> LinkViolation:
        if not size:
            return LinkViolation(Violation.FRAME, "an empty frame")
        return LinkViolation(Violation.TOO_LARGE, f"a frame of {size} bytes was announced; the limit is {self.most}")


class Seal:
    """Makes the codes of one direction, or checks them. Each frame of that direction passes through it once."""

    __slots__ = ("_keyed", "_next")

    def __init__(self, key: bytes) -> None:
        """`key` has 16 to 64 bytes."""
        self._keyed = hashlib.blake2b(key=key, digest_size=CODE_BYTES)
        self._next = 0

    def code(self, frame: bytes | bytearray) -> bytes:
        """The code of the direction's next frame."""
        made = self._keyed.copy()
        made.update(_place.pack(self._next) + frame)
        self._next += 1
        return made.digest()

    def opened(self, frame: bytes | bytearray) -> bytes | bytearray:
        """The direction's next frame without its code. Raises `LinkViolation`."""
        inner = frame[:-CODE_BYTES]
        if not _fits(self.code(inner), bytes(frame[-CODE_BYTES:])):
            raise LinkViolation(Violation.FORGED, "a frame whose code does not fit")
        return inner


def joined(frames: Iterable[bytes], seal: Seal | None) -> bytes:
    """Frames as they go over the stream, in this order."""
    pieces: list[bytes] = []
    pack = _length.pack
    if seal is None:
        for frame in frames:
            pieces += (pack(len(frame)), frame)
    else:
        for frame in frames:
            pieces += (pack(len(frame) + CODE_BYTES), frame, seal.code(frame))
    return b"".join(pieces)
