# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the other side of a connection may make us keep."""

from __future__ import annotations

import functools
from typing import Any

import trio

from actors.p2p.peer_registry.hardening.limits import FLOOD, MOST_UNREAD, WINDOW, TooMuchError, inbound_streams


class Unread(bytearray):
    """Bytes of a stream that nobody has read yet."""

    def extend(self, more: Any) -> None:  # noqa: ANN401
        """Raises `TooMuchError` when the other side ignores its window."""
        if len(self) + len(more) > MOST_UNREAD:
            raise TooMuchError
        super().extend(more)


class Streams(dict[int, Any]):
    """The open streams of a connection by their numbers."""

    def __init__(self, muxed: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._muxed = muxed

    def __setitem__(self, number: int, stream: Any) -> None:  # noqa: ANN401
        """Raises `TooMuchError` when the other side opens far more than it may."""
        if not stream.is_initiator:
            most = FLOOD * inbound_streams(getattr(self._muxed, "swarm", None))
            if sum(not other.is_initiator for other in self.values()) >= most:
                raise TooMuchError
        super().__setitem__(number, stream)


def bound_unread() -> None:
    """B6: a peer that ignores its window fills the memory with what nobody reads. Closed by an end of the connection
    when a stream holds too much, and when a frame is longer than any window. libp2p closes a connection on
    `trio.TooSlowError` alone; other errors it swallows there.
    """
    from libp2p.stream_muxer.yamux import yamux

    yamux.MAX_WINDOW_SIZE = MOST_UNREAD
    yamux.bytearray = Unread


def bound_streams() -> None:
    """B7, the hard part: thousands of streams are opened faster than they can be refused. Closed by an end of the
    connection.
    """
    from libp2p.stream_muxer.yamux.yamux import Yamux

    original = Yamux.__init__

    @functools.wraps(original)
    def init(muxed: Any, *args: Any, **named: Any) -> None:  # noqa: ANN401
        original(muxed, *args, **named)
        muxed.streams = Streams(muxed)

    Yamux.__init__ = init


def credit_once() -> None:
    """B5: what is read is credited twice, so that windows grow without end; and each read sends a frame. B3b:
    cancelling a read that is sending its window update loses the bytes it has taken. Closed by a window of a fixed
    size, topped up when half of it is used, and by sending that with the read shielded.
    """
    from libp2p.stream_muxer.yamux.yamux import YamuxStream

    async def top_up(stream: Any, *, bytes_read: int = 0) -> None:  # noqa: ANN401, ARG001
        if stream.recv_closed:
            return
        unread = len(stream.conn.stream_buffers.get(stream.stream_id, b""))
        room = WINDOW - stream.recv_window - unread
        if room < WINDOW // 2:
            return
        stream.recv_window += room
        with trio.CancelScope(shield=True):
            await stream.send_window_update(room)

    YamuxStream._auto_tune_and_send_window_update = top_up
