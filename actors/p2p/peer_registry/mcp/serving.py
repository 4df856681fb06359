# SPDX-License-Identifier: AGPL-3.0-or-later
"""One stream that a peer opened, from its first message to its end.

The first message decides the dialect, and the stream keeps it. Requests are answered as they end, several at once; a
notification can cancel one. A peer that sends faster than it may is told so, and read no faster than it may send.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final, Protocol

import trio
from msgspec import UNSET

from actors.errors import MCPServerError
from actors.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RpcError, error_message, id_json, result_message
from actors.logs import get_logger
from actors.p2p.peer_registry.mcp import p2p_message
from actors.p2p.peer_registry.mcp.answering import Answering, Violation
from actors.p2p.peer_registry.mcp.current import Current
from actors.p2p.peer_registry.mcp.failures import LIMIT_EXCEEDED, RATE_LIMITED, rate_limited, refused
from actors.p2p.peer_registry.mcp.frames import FrameError, FrameReader, FrameWriter
from actors.p2p.peer_registry.mcp.legacy import Legacy
from actors.p2p.peer_registry.mcp.rpc import (
    LEGACY_FRAMING,
    LEGACY_RATE_LIMITED,
    Frame,
    check_envelope,
    params_of,
    parse,
)
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_use import StreamUse

MOST_BAD_FRAMES: Final = 16
"""Messages on one stream that are no JSON-RPC; then it is closed."""
_REMEMBERED_IDS: Final = 1024
"""Ids of requests that may not come again on the stream of a current peer."""


class Dialect(Protocol):
    """How the requests of one stream are answered."""

    most_bytes: int
    most_frames: int | None

    async def answer(self, frame: Frame) -> bytes:
        """The result of a request. Raises `RpcError` and `MCPServerError`."""
        ...

    def error(self, error: MCPServerError) -> RpcError:
        """What a request failed with, in the dialect's words."""
        ...


class Serving:
    """See the module's text."""

    def __init__(
        self, answering: Answering, use: StreamUse, stream: PeerStream, violation: Violation | None = None
    ) -> None:
        self._answering = answering
        self._use = use
        self._stream = stream
        self._peer_id = stream.peer_id
        self._violation = violation
        self._reader = FrameReader(stream, answering.settings.max_frame_bytes)
        self._writer = FrameWriter(stream)
        self._dialect: Dialect | None = None
        self._frames = 0
        self._bad_frames = 0
        self._running: dict[bytes, trio.CancelScope] = {}
        """Requests that are being answered, by the JSON of their ids."""
        self._answered: dict[bytes, None] = {}
        """Ids that may not come again: the latest."""
        self._idle = trio.CancelScope()

    async def run(self) -> None:
        """Serve until the end, which is said to the other side. Raises `StreamBrokenError`."""
        broken: list[StreamBrokenError] = []

        async with trio.open_nursery() as both:

            async def write() -> None:
                try:
                    await self._writer.run()
                except StreamBrokenError as error:
                    broken.append(error)
                    both.cancel_scope.cancel()

            both.start_soon(write)
            async with trio.open_nursery() as requests:
                try:
                    self._touch()
                    with self._idle:
                        await self._read(requests)
                except StreamBrokenError as error:
                    broken.append(error)
                    both.cancel_scope.cancel()
            self._writer.finish()
        if broken:
            raise broken[0]

    # --- messages --------------------------------------------------------------------------------------------------

    async def _read(self, requests: trio.Nursery) -> None:
        more = True
        while more:
            try:
                message = await self._reader.next()
            except FrameError as error:
                self._report(str(error))
                number = LEGACY_FRAMING if isinstance(self._dialect, Legacy) else INVALID_REQUEST
                await self._writer.send(error_message(b"", RpcError(number, str(error))))
                return
            if message is None:
                return
            more = await self._take(message, requests)
            self._touch()

    async def _take(self, message: bytes, requests: trio.Nursery) -> bool:
        """One message; whether there may be more."""
        wait_s = self._use.spend(self._peer_id)
        try:
            frame = parse(message)
        except RpcError as error:
            more = await self._bad(b"", error)
            await trio.sleep(wait_s)
            return more and self._dialect is not None
        if self._dialect is None:
            if self._answering.settings.p2p_messages and p2p_message.is_p2p_message(frame):
                await self._answer_p2p_message(frame)
                return False
            self._dialect = self._chosen(frame)
            if self._dialect is None:
                why = "init_required: the first message has neither a protocol version in its _meta nor initialize"
                await self._writer.send(error_message(id_json(frame.id), RpcError(INVALID_REQUEST, why)))
                return False
        self._frames += 1
        if self._dialect.most_frames is not None and self._frames > self._dialect.most_frames:
            why = f"rate_limited: a stream takes {self._dialect.most_frames} messages; open another one"
            if frame.id is not UNSET:
                await self._writer.send(error_message(id_json(frame.id), RpcError(LEGACY_RATE_LIMITED, why)))
            return False
        if wait_s:
            if frame.id is not UNSET:
                await self._refuse(frame, rate_limited(wait_s))
            await trio.sleep(wait_s)
            return True
        return await self._route(frame, requests)

    def _chosen(self, frame: Frame) -> Current | Legacy | None:
        if frame.jsonrpc != "2.0":
            return None
        try:
            meta = params_of(frame).meta
        except RpcError:
            meta = None
        if meta is not None and meta.version is not UNSET:
            return Current(self._answering, self._peer_id)
        return Legacy(self._answering, self._peer_id) if frame.method == "initialize" else None

    async def _route(self, frame: Frame, requests: trio.Nursery) -> bool:
        if frame.method is UNSET and (frame.result or frame.error is not UNSET):
            return True  # an answer; nothing was asked
        echo = id_json(frame.id)
        try:
            check_envelope(frame)
        except RpcError as error:
            return await self._bad(echo, error)
        if frame.id is UNSET:
            if frame.method == "notifications/cancelled":
                self._cancel(frame)
        elif echo in self._running or echo in self._answered:
            await self._writer.send(error_message(echo, RpcError(INVALID_REQUEST, "this id was used before")))
        elif not self._use.begin(self._peer_id):
            await self._refuse(frame, refused(RATE_LIMITED, "too many requests are open", retryable=True))
        else:
            scope = self._running[echo] = trio.CancelScope()
            if frame.method == "initialize":
                await self._answer(scope, echo, frame)  # takes no time, and what follows it depends on it
            else:
                requests.start_soon(self._answer, scope, echo, frame)
        return True

    async def _bad(self, echo: bytes, error: RpcError) -> bool:
        if self._dialect is None:
            error = RpcError(INVALID_REQUEST, error.message)
        self._bad_frames += 1
        await self._writer.send(error_message(echo, error))
        if self._bad_frames < MOST_BAD_FRAMES:
            return True
        self._report(f"{self._bad_frames} messages that are no JSON-RPC")
        return False

    async def _refuse(self, frame: Frame, error: MCPServerError) -> None:
        assert self._dialect is not None
        await self._writer.send(error_message(id_json(frame.id), self._dialect.error(error)))

    def _cancel(self, frame: Frame) -> None:
        try:
            scope = self._running.get(id_json(params_of(frame).request_id))
        except RpcError:
            return
        if scope is not None:
            scope.cancel()

    # --- answers ---------------------------------------------------------------------------------------------------

    async def _answer(self, scope: trio.CancelScope, echo: bytes, frame: Frame) -> None:
        message = b""
        try:
            with scope:
                message = await self._message(echo, frame)
            del self._running[echo]
            if isinstance(self._dialect, Current):
                self._answered[echo] = None
                if len(self._answered) > _REMEMBERED_IDS:
                    del self._answered[next(iter(self._answered))]
            if message:
                with suppress(StreamBrokenError):  # the writer says so itself
                    await self._writer.send(message)
        finally:
            self._use.end(self._peer_id)
            self._touch()

    async def _message(self, echo: bytes, frame: Frame) -> bytes:
        dialect = self._dialect
        assert dialect is not None
        try:
            message = result_message(echo, await dialect.answer(frame))
            if len(message) <= dialect.most_bytes:
                return message
            size = f"the result has {len(message)} bytes; a message may have {dialect.most_bytes}"
            error = dialect.error(refused(LIMIT_EXCEEDED, size))
        except RpcError as problem:
            error = problem
        except MCPServerError as problem:
            error = dialect.error(problem)
        except Exception as problem:  # noqa: BLE001 - nothing that a peer sends may end the stream's owner
            get_logger().error("a peer's request failed unexpectedly", peer=self._peer_id, exc_info=problem)
            error = RpcError(INTERNAL_ERROR, f"internal error ({type(problem).__name__})")
        return error_message(echo, error)

    async def _answer_p2p_message(self, frame: Frame) -> None:
        if not self._use.begin(self._peer_id):
            return
        self._idle.deadline = math.inf
        try:
            message = await p2p_message.answer(self._answering, self._peer_id, frame)
        finally:
            self._use.end(self._peer_id)
        if message is not None:
            await self._writer.send(message)

    # --- its state -------------------------------------------------------------------------------------------------

    def _report(self, what: str) -> None:
        get_logger().info("a peer does not keep to the rules", peer=self._peer_id, rule=what)
        if self._violation is not None:
            self._violation(self._peer_id, what)

    def _touch(self) -> None:
        """Something was asked or answered."""
        idle_s = self._answering.settings.idle_timeout_s
        self._idle.deadline = math.inf if self._running else trio.current_time() + idle_s
