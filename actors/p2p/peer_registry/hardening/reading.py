# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a stream is read, and how its end is told from a break."""

from __future__ import annotations

from typing import Any

import trio

from actors.p2p.peer_registry.hardening.limits import BrokenFrameError


def tell_ends_apart() -> None:
    """B37: a stream that the other side resets, or whose connection breaks, ends for its reader as if everything had
    come; and every stream that ends while it is read leaves something behind until its connection ends. Closed by our
    own reading, which knows an end by the other side's word alone.
    """
    from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

    original = Yamux._read_data_body

    async def read_body(muxed: Any, length: int) -> bytes:  # noqa: ANN401
        try:
            body: bytes = await original(muxed, length)
        except Exception as error:
            # libp2p would take it for the end of the stream and look for the next frame somewhere in this one.
            raise BrokenFrameError from error
        return body

    YamuxStream.recv_closed = property(_get_recv_closed, _set_recv_closed)
    YamuxStream.read = _read
    Yamux._read_data_body = read_body


def _get_recv_closed(stream: Any) -> bool:  # noqa: ANN401
    closed: bool = stream.greenroom_recv_closed
    return closed


def _set_recv_closed(stream: Any, closed: bool) -> None:  # noqa: ANN401
    stream.greenroom_recv_closed = closed
    # When a stream is reset, or the connection breaks, it is closed before nothing can be received any more.
    if closed and not stream.closed:
        stream.greenroom_complete = True


async def _read(stream: Any, most: int | None = -1) -> bytes:  # noqa: ANN401
    while True:
        await trio.lowlevel.checkpoint_if_cancelled()
        complete = getattr(stream, "greenroom_complete", False)
        unread = stream.conn.stream_buffers.get(stream.stream_id)
        if unread and (complete or not stream.closed):
            return await _taken(stream, unread, most)
        if complete or stream.closed:
            await _ended(stream, unread, complete=complete)
        await _more(stream)


async def _taken(stream: Any, unread: bytearray, most: int | None) -> bytes:  # noqa: ANN401
    length = len(unread) if most is None or most < 0 else most
    data = bytes(unread[:length])
    del unread[:length]
    await stream._auto_tune_and_send_window_update(bytes_read=len(data))
    return data


async def _ended(stream: Any, unread: bytearray | None, *, complete: bool) -> None:  # noqa: ANN401
    from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

    if stream.closed:
        if unread:
            unread.clear()
        await stream.conn._finalize_stream(stream, fully_closed=True)
    if complete:
        raise MuxedStreamEOF("the other side has ended the stream")
    raise MuxedStreamReset("the stream was reset, or its connection broke")


async def _more(stream: Any) -> None:  # noqa: ANN401
    """Wait until something has happened to the stream."""
    events = stream.conn.stream_events
    event = events.get(stream.stream_id)
    if event is None:
        stream.closed = True  # it was forgotten
        return
    await event.wait()
    if events.get(stream.stream_id) is event:
        events[stream.stream_id] = trio.Event()
