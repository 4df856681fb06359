# SPDX-License-Identifier: AGPL-3.0-or-later
"""Lines on a stream."""

from __future__ import annotations

from typing import Final

import trio

from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

_READ_BYTES: Final = 65536
_WRITE_TIMEOUT_S: Final = 30.0
"""A peer that takes nothing for so long has lost the stream."""


class LineTooLongError(Exception):
    """It has more bytes than it may."""


async def read_line(stream: PeerStream, most_bytes: int) -> bytes | None:
    """The first line, without its end, which may be that of the stream; None when there is nothing. `most_bytes` with
    its end. What follows it is lost. Raises `LineTooLongError` and `StreamBrokenError`."""
    buffer = bytearray()
    while True:
        searched = len(buffer)
        piece = await stream.read(_READ_BYTES)
        buffer += piece
        end = buffer.find(b"\n", searched)
        if end < 0 and not piece:
            if not buffer:
                return None
            end = len(buffer)
        if end >= most_bytes or (end < 0 and len(buffer) >= most_bytes):
            raise LineTooLongError
        if end >= 0:
            return bytes(buffer[:end])


async def write_line(stream: PeerStream, line: bytes) -> None:
    """Send a line. Raises `StreamBrokenError`, also when the other side takes nothing for too long."""
    with trio.move_on_after(_WRITE_TIMEOUT_S) as too_slow:
        await stream.write(line)
    if too_slow.cancelled_caught:
        raise StreamBrokenError(f"the peer took nothing for {_WRITE_TIMEOUT_S:g} seconds")
