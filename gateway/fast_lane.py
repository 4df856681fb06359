# SPDX-License-Identifier: AGPL-3.0-or-later
"""The gateway's own accept loop: plain `POST /mcp` is answered straight from the socket, all else goes to hypercorn.

Plain means: request line `POST /mcp HTTP/1.1`, one Content-Length, no header twice, no Transfer-Encoding, Expect or
Upgrade. The first request of a connection that is anything else takes the connection, with every byte read so far, to
`gateway.http_server` for the rest of its life. Answers keep the order of the requests; a client that leaves cancels its
call. Quart and hypercorn are imported in a worker thread while the lane already serves.

Time-outs are kept by one ticker for all connections: it shuts a late connection's reading side, so that the task behind
it reads an end of file. Nothing per request is spent on them. They are at most `TICK_S * EXPIRE_EVERY` late.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from actors.listening import AGAIN_S, OUT_OF_FILES
from actors.settings import ServerSettings
from gateway.connection import Connection
from gateway.types import Protocol

if TYPE_CHECKING:
    from gateway.http_server import HypercornWay
    from gateway.metrics import Metrics

TICK_S = 0.05
"""A call that is older than one to two ticks gets a watcher for its client's leaving."""
EXPIRE_EVERY = 5
"""Ticks between two looks for late connections."""

_log = logging.getLogger(__name__)

AppFactory = Callable[[], Any]
"""Builds the ASGI application; called once, in a worker thread."""


class FastLane:
    """What the connections of one listening socket share. Made by `serve`."""

    def __init__(
        self,
        protocol: Protocol,
        make_app: AppFactory,
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self.protocol = protocol
        self.settings = settings
        self.metrics = metrics
        self.tick = 0
        self.now = trio.current_time()
        """The clock at the last tick."""
        self.connections: set[Connection] = set()
        self.busy: set[Connection] = set()
        """Connections whose call is running."""
        self.draining = False
        self.handover_ready = trio.Event()
        """Set when hypercorn and the application are up."""
        self.nursery: trio.Nursery
        self.handover: HypercornWay
        self._listener: socket.socket | None = None
        self._opened = trio.Event()
        self._make_app = make_app
        self._accepting = trio.CancelScope()
        self._room = trio.Event()
        self._ended = trio.Event()

    def open(self, listener: socket.socket | int) -> None:
        """Accept connections on a listening socket (or its file descriptor, which is taken over) from now on. Once."""
        self._listener = socket.socket(fileno=listener) if isinstance(listener, int) else listener
        self._opened.set()

    async def run(self, task_status: trio.TaskStatus[FastLane]) -> None:
        """Serve until cancelled, or until `drain` is done."""
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._run_handover)
                async with trio.open_nursery() as self.nursery:
                    self.nursery.start_soon(self._ticks)
                    self.nursery.start_soon(self._accept)
                    task_status.started(self)
                    try:
                        await self._ended.wait()
                    finally:
                        for connection in list(self.connections):
                            connection.abort()
                        self.nursery.cancel_scope.cancel()
                outer.cancel_scope.cancel()
        finally:
            if self._listener is not None:
                self._listener.close()

    async def drain(self, grace_s: float, idle_s: float = 0.0) -> None:
        """Take no more connections, finish the running calls within `grace_s` seconds, then let `serve` return.

        Connections in use are closed with their next answer; an idle one is left open for `idle_s` seconds more, for a
        request that is on its way to a closed connection is lost.
        """
        self.draining = True
        self._accepting.cancel()
        with trio.move_on_after(grace_s):
            await trio.sleep(idle_s)
            if self.handover_ready.is_set():
                await self.handover.drain()
            for connection in list(self.connections):
                if connection.idle:
                    connection.expire()
            while self.connections:
                self._room = trio.Event()
                await self._room.wait()
        self._ended.set()

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        self.connections.discard(connection)
        self._room.set()

    async def _run_handover(self) -> None:
        """Load hypercorn and the application, then keep its lifespan. Its failure is the gateway's failure."""
        self.handover = await trio.to_thread.run_sync(
            _load, self._make_app, self.settings, self.metrics, abandon_on_cancel=True
        )
        await self.handover.run(self.handover_ready)

    async def _accept(self) -> None:
        with self._accepting:
            await self._opened.wait()
            assert self._listener is not None
            self._listener.setblocking(False)
            while True:
                while len(self.connections) >= self.settings.max_connections:
                    self._room = trio.Event()
                    await self._room.wait()
                await trio.lowlevel.wait_readable(self._listener)
                try:
                    sock, address = self._listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in OUT_OF_FILES:
                        _log.warning("no connection can be accepted for now: %s", error)
                        await trio.sleep(AGAIN_S)
                    continue
                self._open(sock, address)

    def _open(self, sock: socket.socket, address: object) -> None:
        sock.setblocking(False)
        peer = ""
        if isinstance(address, tuple) and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = str(address[0])
        connection = Connection(self, sock, peer)
        self.connections.add(connection)
        self.metrics.connections_opened += 1
        self.nursery.start_soon(connection.run)

    async def _ticks(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self.tick += 1
            self.now = trio.current_time()
            for connection in self.busy:
                if self.tick - connection.started_tick >= 2:
                    connection.watch()
            if self.tick % EXPIRE_EVERY == 0:
                for connection in self.connections:
                    if connection.deadline < self.now:
                        connection.expire()


def _load(make_app: AppFactory, settings: ServerSettings, metrics: Metrics) -> HypercornWay:
    from gateway.http_server import HypercornWay

    return HypercornWay(make_app(), settings, metrics)


async def serve(
    listener: socket.socket | int | None,
    protocol: Protocol,
    make_app: AppFactory,
    settings: ServerSettings,
    *,
    metrics: Metrics,
    task_status: trio.TaskStatus[FastLane] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP on a listening socket (or its file descriptor, which is taken over) until cancelled or drained.

    `task_status.started` gives the `FastLane`, whose `drain` ends the service politely. Without a listener everything
    is made ready, and nothing accepted until the lane is given one by `open`. Raises what the application's start
    raises.
    """
    lane = FastLane(protocol, make_app, settings, metrics)
    if listener is not None:
        lane.open(listener)
    await lane.run(task_status)
