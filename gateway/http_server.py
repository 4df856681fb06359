# SPDX-License-Identifier: AGPL-3.0-or-later
"""hypercorn's way: connections that the fast lane handed over, served by hypercorn's trio TCPServer and the Quart app.

hypercorn is used without its own accept loop, worker or command line. This module configures it, keeps the
application's lifespan, and starts one hardened server (`gateway.hardening`) per connection. Importing it imports
hypercorn, which is slow: the fast lane does so in a thread.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import socket
from typing import TYPE_CHECKING

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext

from actors.settings import ServerSettings
from gateway.hardening import AsgiApp, GuardedServer, HandedStream, withhold_disconnect

if TYPE_CHECKING:
    from gateway.metrics import Metrics

HYPERCORN = "0.18.0"
"""The one release whose private seams `gateway.hardening` was written for."""


class StartupError(RuntimeError):
    """The application could not be started, or its lifespan ended while it served. The gateway can't go on."""


def make_config() -> Config:
    """hypercorn's settings; the limits are in `gateway.hardening`. Raises StartupError for another hypercorn."""
    found = importlib.metadata.version("hypercorn")
    if found != HYPERCORN:
        raise StartupError(f"hypercorn {HYPERCORN} is needed, {found} is installed; install the pinned requirements")
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("gateway.hypercorn")
    config.include_server_header = False
    config.keep_alive_max_requests = 1_000_000
    config.startup_timeout = 20.0
    # A full queue would block hypercorn's reader for good when an application answers without reading the body. The
    # body limit of `StrictConnection` bounds it instead.
    config.max_app_queue_size = math.inf  # type: ignore[assignment]
    return config


class HypercornWay:
    """One application behind hypercorn. Made in a worker thread; everything else runs in the lane's trio loop."""

    def __init__(self, app: AsgiApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._config = make_config()
        self._app = ASGIWrapper(withhold_disconnect(app))
        self._settings = settings
        self._metrics = metrics
        self._context = WorkerContext(None)
        self._servers: set[GuardedServer] = set()
        self._lifespan = Lifespan(self._app, self._config, {})

    async def run(self, ready: trio.Event) -> None:
        """Start the application, set `ready`, and keep its lifespan until cancelled.

        Raises StartupError, in a group; the log has the cause. The end is a cancellation: there is no shutdown phase.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._lifespan.handle_lifespan)
            try:
                await self._lifespan.wait_for_startup()
            except trio.BrokenResourceError as error:
                raise StartupError("the application ended during its start") from error
            if self._lifespan.shutdown.is_set():  # it ended, with or without saying so
                raise StartupError("the application failed to start; the log has the reason")
            ready.set()
            await self._lifespan.shutdown.wait()  # set when the lifespan ends; we never ask it to
            raise StartupError("the application's lifespan ended while it served")

    async def take_over(self, sock: socket.socket, data: bytes) -> None:
        """Serve a connection to its end. `data` was read from it already."""
        stream = HandedStream(trio.socket.from_stdlib_socket(sock), data, self._settings.write_timeout_s)
        server = GuardedServer(self._app, self._config, self._context, {}, stream)  # type: ignore[arg-type]
        server.settings = self._settings
        server.on_error = self._metrics.connection_failed
        self._servers.add(server)
        try:
            await server.run()
        finally:
            self._servers.discard(server)

    async def drain(self) -> None:
        """Close idle connections now and the others after their answers."""
        await self._context.terminated.set()
        for server in self._servers:
            server.close_if_idle()
