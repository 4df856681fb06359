# SPDX-License-Identifier: AGPL-3.0-or-later
"""Messages on a stream: a length (4 bytes, big endian), then so many bytes."""

from __future__ import annotations

import struct
from typing import Final

import trio

from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

_LENGTH: Final = struct.Struct(">I")
_READ_BYTES: Final = 65536
_MOST_QUEUED_BYTES: Final = 1 << 20
"""Above it, whoever sends has to wait."""
_WRITE_TIMEOUT_S: Final = 30.0
"""A peer that takes nothing for so long has lost the stream."""
_TURNS: Final = 3
"""So often the writer lets others run before it writes, so that what is due together leaves together."""


class FrameError(Exception):
    """The other side does not keep to the form; nothing more can be read."""


class FrameReader:
    """Cuts a stream into messages. Memory is taken as bytes come, never by the announced length."""

    def __init__(self, stream: PeerStream, most_bytes: int) -> None:
        self._stream = stream
        self._most = most_bytes
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next message; None when the other side has ended it. Raises `FrameError` (too large, or an end within a
        message) and `StreamBrokenError`."""
        while True:
            if len(self._buffer) >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(self._buffer)
                if size > self._most:
                    raise FrameError(f"a message of {size} bytes was announced; at most {self._most} are taken")
                end = _LENGTH.size + size
                if len(self._buffer) >= end:
                    message = bytes(self._buffer[_LENGTH.size : end])
                    del self._buffer[:end]
                    return message
            piece = await self._stream.read(_READ_BYTES)
            if not piece:
                if self._buffer:
                    raise FrameError("the stream ended within a message")
                return None
            self._buffer += piece


class FrameWriter:
    """Messages on their way out: one task writes them all (`run`)."""

    def __init__(self, stream: PeerStream) -> None:
        self._stream = stream
        self._pieces: list[bytes] = []
        self._queued = 0
        self._ending = False
        self._broken = ""
        self._wake = trio.Event()
        self._room = trio.Event()

    async def send(self, message: bytes) -> None:
        """Queue a message, when there is room. Raises `StreamBrokenError` when nothing is written any more."""
        while self._queued > _MOST_QUEUED_BYTES and not self._over:
            await self._room.wait()
        if self._over:
            raise StreamBrokenError(self._broken or "no more messages leave on this stream")
        self._put(message)

    def send_now(self, message: bytes) -> None:
        """The same without waiting: it is dropped when there is no room."""
        if self._queued <= _MOST_QUEUED_BYTES and not self._over:
            self._put(message)

    def _put(self, message: bytes) -> None:
        self._pieces += (_LENGTH.pack(len(message)), message)
        self._queued += _LENGTH.size + len(message)
        self._wake.set()

    def finish(self) -> None:
        """`run` is to return once all that is queued has left."""
        self._ending = True
        self._wake.set()
        self._room.set()

    @property
    def _over(self) -> bool:
        return self._ending or bool(self._broken)

    async def run(self) -> None:
        """Write until `finish`. Raises `StreamBrokenError`."""
        try:
            while True:
                while not self._pieces:
                    if self._ending:
                        return
                    await self._wake.wait()
                    self._wake = trio.Event()
                for _ in range(_TURNS):
                    await trio.lowlevel.checkpoint()
                data = b"".join(self._pieces)
                self._pieces.clear()
                with trio.move_on_after(_WRITE_TIMEOUT_S) as too_slow:
                    await self._stream.write(data)
                if too_slow.cancelled_caught:
                    raise StreamBrokenError(f"the peer took nothing for {_WRITE_TIMEOUT_S:g} seconds")
                self._queued -= len(data)
                self._room.set()
                self._room = trio.Event()
        except BaseException as error:
            self._broken = str(error) if isinstance(error, StreamBrokenError) else "the stream was given up"
            self._room.set()
            raise
