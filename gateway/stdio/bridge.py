# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bridge: lines of a client in, lines for it out, requests to the gateway in between.

    await run(tree, settings, stdin=0, stdout=fd)

It returns when the client ended its side (or SIGTERM came) and the open requests had their time. Requests run
concurrently; notifications and answers of the client leave in its order, and a request not before those that stood in
front of it. Both file descriptors may be anything, also plain files: they are read and written in worker threads that
nobody waits for at the end.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Final

import trio

from actors.errors import MCPServerError
from actors.jsonrpc import INTERNAL_ERROR, is_id
from actors.settings import Settings
from gateway.mcp.jsonrpc import McpError
from gateway.stdio.lines import LineReader, TooLong
from gateway.stdio.messages import (
    Kind,
    Message,
    Refused,
    busy,
    cancelled_id,
    errors,
    read,
    too_long,
)
from gateway.stdio.requests import Request
from gateway.stdio.session import LegacySession
from gateway.stdio.wire import LostError, Tree, Wire, patiently

TERM_S: Final = 1.0
"""Time for open requests after SIGTERM: whoever sends it means it."""
_READ_BYTES: Final = 65536
_WRITE_BYTES: Final = 262144
_QUEUED: Final = 64
"""Messages that wait for the client to read; then the gateway waits, which drops notifications, never answers."""
_LETTERS: Final = 1024
"""Notifications and answers of the client that wait to be sent; then reading waits."""
_CANCEL_TRIES: Final = 3
_CANCEL_AGAIN_S: Final = 0.5
_FLUSH_S: Final = 2.0
_ANSWER_FRAMES: Final = 4
"""A message of the server may be larger than a frame between actors: text in JSON in JSON grows."""

_log = logging.getLogger("greenroom.stdio")


class ClientGoneError(Exception):
    """Nobody reads our output any more."""


class Bridge:
    """One client's connection."""

    def __init__(self, tree: Tree, settings: Settings, stdin: int, stdout: int) -> None:
        self._settings = settings.stdio
        self._line_limit = settings.server.max_body_bytes
        self._event_limit = _ANSWER_FRAMES * settings.channel.max_frame_bytes
        self._stdin, self._stdout = stdin, stdout
        self._wire = Wire(tree, settings.stdio.patience_s)
        self._out, self._to_write = trio.open_memory_channel[bytes](_QUEUED)
        self._letters, self._to_send = trio.open_memory_channel[tuple[Message, trio.Event]](_LETTERS)
        self._session = LegacySession(self._wire, self._say, self._event_limit)
        self._requests: dict[int | str, Request] = {}
        self._running: set[Request] = set()
        self._fence: trio.Event | None = None
        self._listening = trio.CancelScope()
        self._ending = trio.Event()
        self._leaving = trio.CancelScope()
        self._room = trio.Event()
        self._nursery: trio.Nursery
        self.failure: MCPServerError | None = None
        """Why there was no system to begin with."""

    async def run(self) -> None:
        """The connection's life. Raises `ClientGoneError`."""
        try:
            async with trio.open_nursery() as around:
                around.start_soon(self._write)
                async with trio.open_nursery() as self._nursery:
                    await self._nursery.start(self._follow_signals)
                    self._nursery.start_soon(self._send_letters)
                    self._nursery.start_soon(self._begin)
                    await self._ending.wait()
                    await self._finish()
                    self._nursery.cancel_scope.cancel()
                around.cancel_scope.deadline = trio.current_time() + _FLUSH_S
                await self._out.aclose()
        finally:
            with trio.CancelScope(shield=True):  # closes sockets
                await self._wire.aclose()

    async def _begin(self) -> None:
        """Nothing is read before there is a system: a failed start is told by the exit code, not to each request."""
        try:
            await self._wire.begin()
        except MCPServerError as problem:
            self.failure = problem
            self._ending.set()
        else:
            await self._read()

    async def _finish(self) -> None:
        """The client sends nothing more: open requests have their time, then the session ends."""
        with self._leaving, trio.move_on_after(self._settings.end_s):
            while any(not request.lasts for request in self._running) or self._to_send.statistics().current_buffer_used:
                self._room = trio.Event()
                await self._room.wait()
        cut = McpError(INTERNAL_ERROR, "the client ended the connection during the request", {"code": "CANCELLED"})
        for request in list(self._running):
            if request.lasts:
                request.scope.cancel()
            else:
                await request.give_up(cut)
        await self._session.end()

    async def _follow_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            task_status.started()
            async for _ in received:
                if self._leaving.deadline < float("inf"):
                    self._leaving.cancel()
                self._leaving.deadline = trio.current_time() + TERM_S
                self._ending.set()

    # --- the client's side -------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        reader = LineReader(self._line_limit)
        while data := await trio.to_thread.run_sync(os.read, self._stdin, _READ_BYTES, abandon_on_cancel=True):
            for line in reader.feed(data):
                await self._take(line)
        for line in reader.end():
            await self._take(line)
        self._ending.set()

    async def _write(self) -> None:
        """Until the queue is closed. What waits is written together."""
        async for line in self._to_write:
            lines = [line, b"\n"]
            size = len(line)
            while size < _WRITE_BYTES:
                try:
                    line = self._to_write.receive_nowait()  # noqa: PLW2901 - the same queue
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
                lines += (line, b"\n")
                size += len(line)
            try:
                await trio.to_thread.run_sync(_write_all, self._stdout, b"".join(lines), abandon_on_cancel=True)
            except OSError as problem:
                raise ClientGoneError(f"the client does not read any more ({problem.strerror})") from problem

    async def _say(self, data: bytes) -> None:
        await self._out.send(data)

    async def _take(self, line: bytes | TooLong) -> None:
        """One line of the client."""
        if isinstance(line, TooLong):
            await self._say(too_long(line, self._line_limit))
            return
        try:
            message = read(line)
        except Refused as refusal:
            await self._say(refusal.answer)
            return
        if message.method == "notifications/cancelled" and message.kind is Kind.NOTIFICATION:
            self._cancel(message)
        elif message.ids:
            await self._start(message)
        elif self._session.token or self._session.handshaking:
            self._session.keep(message)
            self._fence = trio.Event()
            await self._letters.send((message, self._fence))
        # Else nobody waits for it: 2026-07-28 has no notifications of the client but the one above.

    async def _start(self, message: Message) -> None:
        if len(self._running) >= self._settings.max_requests:
            for answer in errors(message.ids, busy(self._settings.max_requests)):
                await self._say(answer)
            return
        if message.method == "initialize" and not message.modern:
            self._session.begins(message)
        request = Request(message, self._wire, self._session, self._say, self._event_limit)
        request.fence = None if message.modern or message.method == "initialize" else self._fence
        self._running.add(request)
        self._requests.update(dict.fromkeys(message.ids, request))
        self._nursery.start_soon(self._serve, request)

    async def _serve(self, request: Request) -> None:
        try:
            await request.run()
        finally:
            self._running.discard(request)
            for id_ in request.message.ids:
                if self._requests.get(id_) is request:
                    del self._requests[id_]
            self._room.set()

    def _cancel(self, message: Message) -> None:
        id_ = cancelled_id(message.body)
        request = self._requests.get(id_) if is_id(id_) else None
        if request is None or request.muted:
            return
        if request.message.modern:
            request.muted = True
            request.scope.cancel()  # closes the request's HTTP stream: that is the way to cancel there
            return
        if request.message.kind is Kind.REQUEST:
            if request.message.method == "initialize":
                return  # must not be cancelled
            request.muted = True
        self._nursery.start_soon(self._cancel_legacy, message, request)

    async def _cancel_legacy(self, message: Message, request: Request) -> None:
        """Pass a cancellation on. It may overtake its request, so it is said again while that is open."""
        for _ in range(_CANCEL_TRIES):
            await self._post(message)
            with trio.move_on_after(_CANCEL_AGAIN_S):
                await request.done.wait()
                return

    # --- notifications and answers of the client ---------------------------------------------------------------------

    async def _send_letters(self) -> None:
        async for message, sent in self._to_send:
            await self._session.settled()
            try:
                await self._post(message)
            finally:
                sent.set()
            self._room.set()
            if message.method == "notifications/initialized":
                self._listening.cancel()
                self._listening = trio.CancelScope()
                self._nursery.start_soon(self._listen, self._listening)

    async def _listen(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._session.listen()

    async def _post(self, message: Message) -> None:
        async def post() -> None:
            token = self._session.token
            async with self._wire.once("POST", self._session.headers(), message.body) as response:
                await response.aread()
            if response.status_code == 404 and not await self._session.renew(token):
                raise LostError("the session is unknown")

        if self._session.token:
            await patiently(self._wire, post, message.method or "an answer of the client")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


async def run(tree: Tree, settings: Settings, *, stdin: int, stdout: int) -> None:
    """Serve one client to its end. Raises `MCPServerError` when there is no system to begin with."""
    bridge = Bridge(tree, settings, stdin, stdout)
    try:
        await bridge.run()
    except* ClientGoneError as gone:
        _log.warning("%s", gone.exceptions[0])
    if bridge.failure is not None:
        raise bridge.failure
