# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the tasks of a connection may do to the rest of the host: nothing."""

from __future__ import annotations

import functools
from typing import Any

import structlog
import trio

from actors.p2p.peer_registry.hardening.closing import cut
from actors.p2p.peer_registry.hardening.limits import (
    CLOSE_S,
    GRACE_S,
    LINGER_S,
    MOST_REFUSED,
    REFUSED_IN_S,
    RESET_S,
    inbound_streams,
)

log = structlog.get_logger()


def contain_handlers() -> None:
    """B2: an exception that leaves a stream's handler ends the host, or hangs all other streams of the connection (B27:
    so does a malformed pubsub message). Closed by ending that stream only.
    """
    from libp2p.host.basic_host import BasicHost

    original = BasicHost._swarm_stream_handler

    @functools.wraps(original)
    async def handle(host: Any, stream: Any) -> None:  # noqa: ANN401
        try:
            await original(host, stream)
        except Exception as error:  # noqa: BLE001
            log.warning("a peer's stream failed", peer=str(stream.muxed_conn.peer_id), error=_brief(error))
            await _reset(stream)

    BasicHost._swarm_stream_handler = handle


def contain_connections() -> None:
    """B32: an exception that leaves any other task of a connection ends the host. Closed by ending that connection
    only.
    """
    from libp2p.network.connection.swarm_connection import SwarmConn
    from libp2p.stream_muxer.yamux.yamux import Yamux

    def contained(original: Any, muxed_of: Any) -> Any:  # noqa: ANN401
        @functools.wraps(original)
        async def run(owner: Any) -> None:  # noqa: ANN401
            try:
                await original(owner)
            except Exception as error:  # noqa: BLE001
                muxed = muxed_of(owner)
                log.warning("a connection failed", peer=str(muxed.peer_id), error=_brief(error))
                await cut(muxed)

        return run

    Yamux.start = contained(Yamux.start, lambda muxed: muxed)
    SwarmConn.start = contained(SwarmConn.start, lambda conn: conn.muxed_conn)


def end_handlers() -> None:
    """B33: a handler that doesn't look at its stream outlives the connection, and with it all that the connection held.
    Closed by cancelling it some time after the end of the connection. B36: the end of a connection that is cancelled
    half way leaves the connection in the books for ever. Closed by shielding it; it takes no longer than its frames.
    """
    from libp2p.network.connection.swarm_connection import SwarmConn

    run_start, run_handler, run_close = SwarmConn.start, SwarmConn._handle_muxed_stream, SwarmConn.close

    @functools.wraps(run_start)
    async def start(conn: Any) -> None:  # noqa: ANN401
        conn.greenroom_handlers = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_handlers, conn)
            await run_start(conn)
            nursery.cancel_scope.cancel()

    @functools.wraps(run_handler)
    async def handle(conn: Any, stream: Any) -> None:  # noqa: ANN401
        with trio.CancelScope() as scope:
            conn.greenroom_handlers.add(scope)
            try:
                await run_handler(conn, stream)
            finally:
                conn.greenroom_handlers.discard(scope)

    @functools.wraps(run_close)
    async def close(conn: Any) -> None:  # noqa: ANN401
        with trio.move_on_after(CLOSE_S, shield=True):
            await run_close(conn)

    SwarmConn.start, SwarmConn._handle_muxed_stream, SwarmConn.close = start, handle, close


async def _end_handlers(conn: Any) -> None:  # noqa: ANN401
    await conn.event_closed.wait()
    await trio.sleep(GRACE_S)
    for scope in list(conn.greenroom_handlers):
        scope.cancel()


def refuse_streams() -> None:
    """B7, the polite part: a connection may have any number of streams, each with a task and a buffer. Closed by a
    number that the other side may have open; more are reset, and too many of those cut the connection. A stream whose
    handler has returned counts until both sides have ended it, which is not left to the other side.
    """
    from libp2p.network.connection.swarm_connection import SwarmConn
    from libp2p.stream_muxer.yamux.yamux import YamuxStream

    YamuxStream.closed = property(_get_closed, _set_closed)
    original = SwarmConn._handle_muxed_stream

    @functools.wraps(original)
    async def handle(conn: Any, stream: Any) -> None:  # noqa: ANN401
        serving = getattr(conn, "greenroom_serving", 0)
        if serving >= inbound_streams(conn.swarm):
            await _refuse(conn, stream)
            return
        conn.greenroom_serving = serving + 1
        try:
            await original(conn, stream)
            await _ended(stream)
        finally:
            conn.greenroom_serving -= 1

    SwarmConn._handle_muxed_stream = handle


async def _refuse(conn: Any, stream: Any) -> None:  # noqa: ANN401
    now = trio.current_time()
    since, refused = getattr(conn, "greenroom_refused", (now, 0))
    if now - since > REFUSED_IN_S:
        since, refused = now, 0
    conn.greenroom_refused = (since, refused + 1)
    if refused < MOST_REFUSED:
        await _reset(stream)
    elif refused == MOST_REFUSED:
        await cut(conn.muxed_conn)


def _get_closed(stream: Any) -> bool:  # noqa: ANN401
    closed: bool = stream.greenroom_closed
    return closed


def _set_closed(stream: Any, closed: bool) -> None:  # noqa: ANN401
    # Half-closing a stream that was reset would open it again.
    stream.greenroom_closed = closed or getattr(stream, "greenroom_closed", False)
    if closed and (event := getattr(stream, "greenroom_ended", None)) is not None:
        event.set()


async def _ended(stream: Any) -> None:  # noqa: ANN401
    stream.greenroom_ended = trio.Event()
    if not stream.closed:
        with trio.move_on_after(LINGER_S):
            await stream.greenroom_ended.wait()
        if not stream.closed:
            await _reset(stream)


async def _reset(stream: Any) -> None:  # noqa: ANN401
    with trio.move_on_after(RESET_S, shield=True):
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001
            log.debug("a stream could not be reset", error=_brief(error))


def _brief(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
