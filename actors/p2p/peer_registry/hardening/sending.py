# SPDX-License-Identifier: AGPL-3.0-or-later
"""How frames get out, and what happens when they don't."""

from __future__ import annotations

import struct
from typing import Any, Final

import trio

from actors.p2p.peer_registry.hardening.closing import cut, cut_socket
from actors.p2p.peer_registry.hardening.limits import FRAME_S, GOODBYE_S, STALL_S

_HEADER: Final = struct.Struct("!BBHII")
_DATA: Final = 0
_GO_AWAY: Final = 3
_MOST_BODY: Final = 64 * 1024 - _HEADER.size
_LOOK_EVERY_S: Final = 0.25


def write_whole_frames() -> None:
    """B3: a write that is cancelled leaves half of an encrypted frame on the wire, or uses a nonce up for nothing: the
    connection hangs for ever. Closed by shielding a frame once it is under way, with a time limit after which the
    connection is cut. Waiting for one's turn can be cancelled.
    """
    from libp2p.network.connection.exceptions import RawConnError
    from libp2p.stream_muxer.yamux.yamux import Yamux

    async def write_frame(muxed: Any, frame: bytes) -> None:  # noqa: ANN401
        goodbye = frame[1] == _GO_AWAY
        with trio.move_on_after(GOODBYE_S if goodbye else float("inf")):
            async with muxed._write_lock:
                if muxed.event_shutting_down.is_set() and not goodbye:
                    raise RawConnError(_CLOSED)
                with trio.move_on_after(GOODBYE_S if goodbye else FRAME_S, shield=True) as sending:
                    await muxed.secured_conn.write(frame)
                if not sending.cancelled_caught:
                    return
        # Whoever says goodbye holds a lock of the connection, and goes on closing it.
        await (cut_socket(muxed) if goodbye else cut(muxed))
        raise RawConnError(_CLOSED)

    Yamux._write_frame = write_frame


def wait_for_room() -> None:
    """B14: a write without room polls every 10 ms and gives the stream up after 5 s, so that a reader may not pause.
    Closed by waiting for an event, and for longer.
    """
    from libp2p.stream_muxer.yamux.yamux import YamuxStream

    YamuxStream.send_window = property(_get_room, _set_room)
    YamuxStream.write = _write


def _get_room(stream: Any) -> int:  # noqa: ANN401
    room: int = stream.greenroom_room
    return room


def _set_room(stream: Any, room: int) -> None:  # noqa: ANN401
    stream.greenroom_room = room
    grew = getattr(stream, "greenroom_grew", None)
    if grew is not None and room > 0:
        grew.set()


async def _write(stream: Any, data: bytes) -> None:  # noqa: ANN401
    _check_open(stream)
    sent = 0
    while sent < len(data):
        await _await_room(stream)
        body = data[sent : sent + min(stream.send_window, _MOST_BODY)]
        stream.send_window -= len(body)
        try:
            await stream.conn._write_frame(_HEADER.pack(0, _DATA, 0, stream.stream_id, len(body)) + body)
        except trio.Cancelled:
            stream.send_window += len(body)  # it was still waiting for its turn
            raise
        sent += len(body)


async def _await_room(stream: Any) -> None:  # noqa: ANN401
    by = trio.current_time() + STALL_S
    while stream.send_window <= 0:
        if trio.current_time() >= by:
            _check_open(stream, f"the other side took nothing for {STALL_S:g} s")
        grew = getattr(stream, "greenroom_grew", None)
        if grew is None or grew.is_set():
            grew = stream.greenroom_grew = trio.Event()
        with trio.move_on_after(_LOOK_EVERY_S):
            await grew.wait()
        _check_open(stream)


def _check_open(stream: Any, complaint: str = "") -> None:  # noqa: ANN401
    from libp2p.stream_muxer.exceptions import MuxedStreamError

    if complaint or stream.send_closed or stream.closed:
        raise MuxedStreamError(complaint or "Stream is closed for sending")


_CLOSED: Final = "connection is closed"
"""libp2p looks for this text in the error."""
