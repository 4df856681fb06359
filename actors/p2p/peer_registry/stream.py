# SPDX-License-Identifier: AGPL-3.0-or-later
"""A stream of bytes between this node and one peer, as all code above the network sees it."""

from __future__ import annotations

from typing import Protocol


class StreamBrokenError(Exception):
    """The stream can't be used any more; what was under way has an unknown outcome."""


class PeerStream(Protocol):
    """One stream over a secured connection. Whatever waits here may be cancelled without harm to other streams."""

    peer_id: str
    """Who is on the other side, proven by the secure channel: `12D3KooW...`."""
    address: str
    """The other side's multiaddr; empty when unknown."""
    inbound: bool
    """The other side opened it."""

    async def read(self, most: int = 65536) -> bytes:
        """Up to `most` bytes, as soon as there are any; empty = the other side ended it. Raises `StreamBrokenError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of it. One writer at a time. Raises `StreamBrokenError`."""
        ...

    async def finish(self) -> None:
        """Say that nothing more is written from here; reading goes on."""
        ...

    async def reset(self) -> None:
        """End it in both directions, whatever is under way. Never raises, takes at most 2 seconds."""
        ...
