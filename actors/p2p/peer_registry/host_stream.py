# SPDX-License-Identifier: AGPL-3.0-or-later
"""A libp2p stream as a `PeerStream`."""

from __future__ import annotations

from typing import Any

import trio

from actors.p2p.peer_registry.background import Background
from actors.p2p.peer_registry.stream import StreamBrokenError

RESET_S = 2.0
_DRAIN_BYTES = 64 * 1024
"""What is read and forgotten while waiting for the other side's end."""


class HostStream:
    """One stream of a host. It is a `PeerStream`."""

    def __init__(self, stream: Any, address: str, background: Background, *, inbound: bool) -> None:  # noqa: ANN401
        self.peer_id = str(stream.muxed_conn.peer_id)
        self.address = address
        self.inbound = inbound
        self._stream = stream
        self._background = background
        self._ended = False
        self._finished = False
        self._reset = False

    async def read(self, most: int = 65536) -> bytes:
        """See `PeerStream`."""
        from libp2p.network.stream.exceptions import StreamEOF

        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        self._check()
        try:
            data: bytes = await self._stream.read(most)
        except StreamEOF:
            self._ended = True
            return b""
        except Exception as error:
            raise StreamBrokenError(_reason("reading", error)) from error
        return data

    async def write(self, data: bytes) -> None:
        """See `PeerStream`."""
        self._check()
        try:
            await self._stream.write(data)
        except Exception as error:
            raise StreamBrokenError(_reason("writing", error)) from error

    async def finish(self) -> None:
        """See `PeerStream`."""
        if self._finished:
            return
        self._finished = True
        try:
            await self._stream.close_write()
        except Exception as error:
            raise StreamBrokenError(_reason("finishing", error)) from error

    async def reset(self) -> None:
        """See `PeerStream`."""
        self._finished = self._reset = True
        with trio.CancelScope(shield=True):
            await self._background.run(self._stream.reset, RESET_S)

    async def close(self, linger_s: float) -> None:
        """End it politely: everything written arrives. Never raises; takes up to `linger_s` and the time of `reset`."""
        try:
            with trio.move_on_after(linger_s):
                await self.finish()
                left = _DRAIN_BYTES
                while left > 0 and (data := await self.read(left)):
                    left -= len(data)
        except StreamBrokenError:
            pass
        if self._ended:
            await self._background.run(self._stream.close, RESET_S)
        else:
            await self.reset()

    def _check(self) -> None:
        if self._reset:
            raise StreamBrokenError("it was reset here")


def _reason(what: str, error: Exception) -> str:
    text = str(error)
    return f"{what} failed: {text or type(error).__name__}"
