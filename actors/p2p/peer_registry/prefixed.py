# SPDX-License-Identifier: AGPL-3.0-or-later
"""Messages with their length before them, as libp2p's own protocols send them: a varint, then so many bytes."""

from __future__ import annotations

from typing import Final

from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

_MOST_DIGITS: Final = 4
"""Of a length: enough for 256 MiB."""


async def read_message(stream: PeerStream, most: int) -> bytes | None:
    """The next message; None = the other side has ended the stream between two. Raises `StreamBrokenError`, also for
    an empty message and for one of more than `most` bytes, of which nothing is read."""
    length = 0
    for place in range(_MOST_DIGITS):
        digit = await exactly(stream, 1)
        if not digit:
            if place:
                raise StreamBrokenError("the stream ended too early")
            return None
        length |= (digit[0] & 0x7F) << (7 * place)
        if digit[0] < 0x80:
            break
    else:
        raise StreamBrokenError("the length of a message is too long")
    if not 0 < length <= most:
        raise StreamBrokenError(f"a message has 1 to {most} bytes here")
    data = await exactly(stream, length)
    if not data:
        raise StreamBrokenError("the stream ended too early")
    return data


def with_length(data: bytes) -> bytes:
    """A message as it is sent."""
    length, head = len(data), bytearray()
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + data


async def exactly(stream: PeerStream, length: int) -> bytes:
    """So many bytes, or none when the stream ends before the first. Raises `StreamBrokenError`."""
    data = b""
    while len(data) < length:
        more = await stream.read(length - len(data))
        if not more and data:
            raise StreamBrokenError("the stream ended too early")
        if not more:
            return b""
        data += more
    return data
