# SPDX-License-Identifier: AGPL-3.0-or-later
"""Streams between two nodes that are both in this process, for tests without a network.

    left, right = pair()            # left is A's end, so left.peer_id == B
    await left.write(b"hello")
    assert await right.read() == b"hello"

What a real network does to a stream is done by the switches of one end: `break_now`, `break_after`, `stall`, `cut` and
`part`.
"""

from __future__ import annotations

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.p2p.identity import peer_id
from actors.p2p.peer_registry.stream import StreamBrokenError

KEYS = {peer_id(key): key for n in range(1, 9) for key in [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)]}
"""Keys of made-up nodes by peer id."""
A, B, C, D = sorted(KEYS)[:4]
"""Peer ids; the earlier letter is the smaller id."""
WINDOW = 512 * 1024
"""Bytes that one side may send ahead of the other's reading."""


class Direction:
    """Bytes from one end to the other."""

    def __init__(self) -> None:
        self.unread = bytearray()
        self.ended = False
        self.stalled = False
        self.most_per_read = WINDOW
        self.left: int | None = None
        """Bytes that still pass before the stream breaks; None = no such end."""
        self.changed = trio.lowlevel.ParkingLot()


class MemoryStream:
    """One end of a pair. Keeps the rules of `PeerStream`."""

    def __init__(self, peer_id: str, address: str, inbound: bool, incoming: Direction, outgoing: Direction) -> None:
        self.peer_id = peer_id
        self.address = address
        self.inbound = inbound
        self.writes = 0
        """Calls of `write`."""
        self.written = 0
        """Bytes that were written from here."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._other: MemoryStream
        self._broken = ""
        self._reset = False
        self._parted = False

    # --- the stream ------------------------------------------------------------------------------------------------

    async def read(self, most: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        way = self._incoming
        while not way.unread:
            self._check()
            if way.ended:
                return b""
            await way.changed.park()
        size = min(most, way.most_per_read)
        data = bytes(way.unread[:size])
        del way.unread[:size]
        way.changed.unpark_all()
        return data

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        way = self._outgoing
        self.writes += 1
        view = memoryview(data)
        while view:
            self._check()
            if way.ended:
                raise StreamBrokenError("written after the end")
            room = 0 if way.stalled else WINDOW - len(way.unread)
            if room <= 0:
                await way.changed.park()
                continue
            piece = view[: room if way.left is None else min(room, way.left)]
            way.unread += piece
            self.written += len(piece)
            view = view[len(piece) :]
            way.changed.unpark_all()
            if way.left is not None:
                way.left -= len(piece)
                if way.left == 0:
                    self._break("broken")

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._outgoing.ended = True
        self._outgoing.changed.unpark_all()

    async def reset(self) -> None:
        self._reset = True
        self.break_now("reset")

    # --- switches --------------------------------------------------------------------------------------------------

    def break_now(self, why: str = "broken") -> None:
        """The connection is gone, for both ends; what was not read yet is lost."""
        if not self._parted:
            for way in (self._incoming, self._outgoing):
                way.unread.clear()
        self._break(why)

    def break_after(self, size: int) -> None:
        """The connection is gone once so many more bytes were written from here, but what was written can be read."""
        self._outgoing.left = size

    def stall(self, stalled: bool = True) -> None:
        """The other side takes nothing (or takes again) of what is written from here."""
        self._outgoing.stalled = stalled
        self._outgoing.changed.unpark_all()

    def cut(self, size: int) -> None:
        """What is written from here arrives in pieces of at most so many bytes."""
        self._outgoing.most_per_read = size

    def part(self) -> None:
        """The network between both ends is gone, and neither knows: nothing passes, not even a reset."""
        for end in (self, self._other):
            end._parted = True
            end.stall()

    @property
    def broken(self) -> str:
        """Why it can't be used any more; empty = it can."""
        return self._broken

    @property
    def was_reset(self) -> bool:
        """This end gave it up."""
        return self._reset

    @property
    def unread(self) -> int:
        """Bytes from here that the other side has not read."""
        return len(self._outgoing.unread)

    def _break(self, why: str) -> None:
        for end in (self,) if self._parted else (self, self._other):
            end._broken = end._broken or why
            end._incoming.changed.unpark_all()
            end._outgoing.changed.unpark_all()

    def _check(self) -> None:
        if self._broken:
            raise StreamBrokenError(self._broken)


def pair(a: str = A, b: str = B) -> tuple[MemoryStream, MemoryStream]:
    """The two ends of a stream that `a` opened to `b`: first the one that `a` holds, whose `peer_id` is `b`."""
    there, back = Direction(), Direction()
    left = MemoryStream(b, f"/memory/{b[-6:]}", inbound=False, incoming=back, outgoing=there)
    right = MemoryStream(a, f"/memory/{a[-6:]}", inbound=True, incoming=there, outgoing=back)
    left._other, right._other = right, left
    return left, right
