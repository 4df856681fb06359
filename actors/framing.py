# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two directions of a channel's byte stream: frames cut out of what comes, and bytes queued for what leaves.

On the wire each frame is a length (4 bytes, big endian) and one msgpack value of `actors.messages.Frame`.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from actors.messages import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.socket import SocketType

_LENGTH = struct.Struct(">I")
_RECEIVE_BYTES = 65536
_EAGER_PIECES = 2 * 8
"""Length and body of eight frames: so many are written at once, without waiting for the end of the loop's turn, so that
the other side works on them in the meantime. Fewer cost more system calls than they gain."""
_decode: Callable[[memoryview], Frame] = msgspec.msgpack.Decoder(Frame).decode


class EndError(Exception):
    """The connection has to end, for the reason in its text."""


class Outbox:
    """Bytes on their way out. Frames that are put in the same turn of the loop leave together; `put` never waits."""

    __slots__ = (
        "_blocked",
        "_closed",
        "_fd",
        "_max_queued",
        "_pieces",
        "_room",
        "_sock",
        "_timeout_s",
        "_writer",
        "queued_bytes",
        "queued_total",
        "written_total",
    )

    def __init__(self, sock: SocketType, *, max_queued_bytes: int, write_timeout_s: float) -> None:
        """`max_queued_bytes`: above it `room` waits. A peer that takes nothing for `write_timeout_s` is given up."""
        self.queued_bytes = 0
        self.queued_total = 0
        self.written_total = 0
        """Bytes given to the kernel: a frame whose end lies below it may have been read by the other side."""
        self._sock = sock
        self._fd = sock.fileno()
        self._max_queued = max_queued_bytes
        self._timeout_s = write_timeout_s
        self._pieces: list[bytes] = []
        self._writer: trio.lowlevel.Task | None = None
        self._blocked = False
        """The writer holds bytes, or must take some first: nobody else may write."""
        self._closed = False
        self._room = trio.lowlevel.ParkingLot()

    def put(self, data: bytes) -> None:
        """Queue one frame's value."""
        size = len(data) + 4
        self._pieces.append(_LENGTH.pack(size - 4))
        self._pieces.append(data)
        self.queued_bytes += size
        self.queued_total += size
        if len(self._pieces) >= _EAGER_PIECES and not self._blocked:
            self._write_some()
        elif self._writer is not None:
            self._wake_writer()

    async def room(self) -> None:
        """Wait until few enough bytes are queued, or until the connection ended."""
        while self.queued_bytes > self._max_queued and not self._closed:
            await self._room.park()

    def close(self) -> None:
        """Write nothing more. The socket is the caller's to close."""
        self._closed = True
        self._room.unpark_all()

    async def run(self) -> None:
        """Write what is queued until cancelled. Raises `OSError`, `trio.ClosedResourceError` when the connection is
        lost, `trio.TooSlowError` when the other side takes nothing."""

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            while not self._pieces:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._blocked = True
            await self._write_all(data)
            self._blocked = False

    def _wake_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            trio.lowlevel.reschedule(writer)

    def _write_some(self) -> None:
        """Write what is queued as far as it goes without waiting; the writer takes the rest, and any error."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        try:
            sent = self._write_now(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._pieces.append(data[sent:])
            self._blocked = True
            self._wake_writer()

    async def _write_all(self, data: bytes) -> None:
        sent = self._write_now(data)
        view = memoryview(data)
        while sent < len(data):
            with trio.fail_after(self._timeout_s):
                count = await self._sock.send(view[sent:])
            sent += count
            self._wrote(count)

    def _write_now(self, data: bytes) -> int:
        """Write as much as the other side has room for."""
        if self._closed:  # the number of the descriptor may be another file's by now
            raise OSError("closed here")
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        self._wrote(sent)
        return sent

    def _wrote(self, count: int) -> None:
        self.queued_bytes -= count
        self.written_total += count
        if self._room and self.queued_bytes <= self._max_queued:
            self._room.unpark_all()


class FrameReader:
    """Cuts the byte stream into frames. A frame's memory is taken as its bytes come, never by its announced length."""

    def __init__(self, sock: SocketType, max_frame_bytes: int) -> None:
        self._sock = sock
        self._max = max_frame_bytes
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._need = 4

    def next_frame(self) -> Frame | None:
        """The next whole frame that has come, or None."""
        start = self._at + 4
        if len(self._buffer) < start:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer, self._at)
        if size > self._max:
            raise EndError(f"a frame of {size} bytes was announced; the limit is {self._max}")
        end = start + size
        if len(self._buffer) < end:
            self._need = end - len(self._buffer)
            return None
        self._at = end
        try:
            return _decode(memoryview(self._buffer)[start:end])
        except (msgspec.DecodeError, RecursionError) as error:
            raise EndError(f"a bad frame ({error})") from None

    async def fill(self) -> None:
        """Wait for more bytes."""
        chunk = await self._sock.recv(max(_RECEIVE_BYTES, min(self._need, 1 << 20)))
        if not chunk:
            raise EndError("the other side closed the connection" + (" in mid-frame" if self._rest() else ""))
        rest = self._rest()
        # Frames hold views into the buffer: a new one is made each time, so no view can pin memory that grows.
        self._buffer = chunk if not rest else self._joined(rest, chunk)
        self._at = 0

    def _rest(self) -> int:
        return len(self._buffer) - self._at

    def _joined(self, rest: int, chunk: bytes) -> bytes | bytearray:
        if isinstance(self._buffer, bytearray) and self._at == 0:
            self._buffer += chunk
            return self._buffer
        joined = bytearray(memoryview(self._buffer)[len(self._buffer) - rest :])
        joined += chunk
        return joined
