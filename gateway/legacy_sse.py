# SPDX-License-Identifier: AGPL-3.0-or-later
"""The transport of 2024-11-05, HTTP+SSE, for clients that know no other (`server.legacy_sse`, off by default).

`GET /sse` opens a stream, whose first event, `endpoint`, says where to POST. Each message posted there is answered
with 202, and what it leads to comes as `message` events on the stream. This is an adapter in front of
`Protocol.handle`, which does everything else, the checks of Host and Origin included: it knows nothing of methods. The
connection is the session: when it ends, so does what was started on it. Its id is a secret of 192 bits, known in this
process only; after a death of the gateway such a client has to connect again, as this transport has no way to go on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qs

import trio

from actors.settings import ServerSettings
from gateway.mcp.calls import Outbox
from gateway.mcp.http import SSE_HEADERS, sse
from gateway.sse import EventReader, EventTooLongError
from gateway.types import Answer, Protocol, Request, Stream
from gateway.wire import error_answer

STREAM_PATH: Final = "/sse"
MESSAGES_PATH: Final = "/messages"
MAX_AT_ONCE: Final = 64
"""Messages of one client that are being handled; more are refused with 503."""
_ID: Final = "session_id"
_EVENT_LIMIT: Final = 64 * 1024 * 1024
"""Bytes; what the gateway itself writes is smaller."""
_PASSED_ON: Final = frozenset({"host", "origin", "authorization", "user-agent"})
"""Headers of the client's own request that the protocol sees."""

_log = logging.getLogger(__name__)


class LegacySse:
    """All streams of one gateway."""

    def __init__(self, protocol: Protocol, settings: ServerSettings) -> None:
        self._protocol = protocol
        self._max_streams = settings.legacy_sse_streams
        self._connections: dict[str, _Connection] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._connections)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this is entered streams can be opened. Leaving it ends them."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    def open(self, request: Request) -> Answer | Stream:
        """`GET /sse`."""
        if self._nursery is None or len(self._connections) >= self._max_streams:
            return error_answer(503, "BUSY", f"{self._max_streams} such clients are connected; try again later")
        id_ = secrets.token_urlsafe(24)
        connection = _Connection(self._protocol, request, lambda: self._gone(id_))
        self._connections[id_] = connection
        endpoint = f"{MESSAGES_PATH}?{_ID}={id_}".encode()
        connection.outbox.put(b"event: endpoint\ndata: " + endpoint + b"\n\n")
        self._nursery.start_soon(connection.run)
        return Stream(200, SSE_HEADERS, connection.outbox)

    def post(self, request: Request, query: str) -> Answer:
        """`POST /messages?session_id=...`."""
        given = parse_qs(query).get(_ID, [])
        connection = self._connections.get(given[0]) if len(given) == 1 else None
        if connection is None:
            return error_answer(404, "UNKNOWN_SESSION", f"no such stream; open one with GET {STREAM_PATH}")
        if connection.principal != request.principal:
            return error_answer(404, "UNKNOWN_SESSION", "the stream belongs to somebody else")
        return connection.take(request)

    def _gone(self, id_: str) -> None:
        connection = self._connections.pop(id_, None)
        if connection is not None:
            connection.scope.cancel()


class _Connection:
    """One client: its stream, and what it started."""

    def __init__(self, protocol: Protocol, request: Request, gone: Callable[[], None]) -> None:
        self._protocol = protocol
        self._headers = _passed_on(request.headers)
        self.principal = request.principal
        self.outbox = Outbox(gone)
        self.scope = trio.CancelScope()
        self._open = 0
        self._session = ""
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until the stream is closed; then the protocol is told that the session is over."""
        with self.scope:
            async with trio.open_nursery() as self._nursery:
                try:
                    await trio.sleep_forever()
                finally:
                    # Calls of sessions are shielded against a client's leaving; only the session's end ends them.
                    with trio.CancelScope(shield=True):  # bounded: only drops what is remembered
                        if self._session:
                            await self._protocol.handle(self._request("DELETE", {}, b""))

    def take(self, request: Request) -> Answer:
        """Start to handle one posted message."""
        if self._nursery is None or self._open >= MAX_AT_ONCE:
            return error_answer(503, "BUSY", f"{MAX_AT_ONCE} messages are being handled; try again")
        content_type = {k: v for k, v in request.headers.items() if k == "content-type"}
        self._open += 1
        self._nursery.start_soon(self._handle, content_type, request.body)
        return Answer(202, [("content-type", "text/plain")], b"Accepted")

    async def _handle(self, content_type: dict[str, str], body: bytes) -> None:
        try:
            answer = await self._protocol.handle(self._request("POST", content_type, body))
            if isinstance(answer, Stream):
                await self._forward(answer)
                return
            token = dict(answer.headers).get("mcp-session-id", "")
            if token and not self._session:
                self._session = token
                assert self._nursery is not None  # it runs this
                self._nursery.start_soon(self._listen)
            if answer.body:
                self.outbox.put(sse(answer.body))
        finally:
            self._open -= 1

    async def _listen(self) -> None:
        """What the server says outside of requests."""
        answer = await self._protocol.handle(self._request("GET", {}, b""))
        if isinstance(answer, Stream):
            await self._forward(answer)

    async def _forward(self, stream: Stream) -> None:
        reader = EventReader(_EVENT_LIMIT)
        try:
            async for piece in stream.events:
                for event in reader.feed(piece):
                    # Events without data only say an id, which nobody can come back to here.
                    if event.data:
                        self.outbox.put(sse(event.data))
        except EventTooLongError as problem:
            _log.error("an event was not forwarded: %s", problem)
        finally:
            with trio.CancelScope(shield=True):
                await stream.events.aclose()

    def _request(self, method: str, headers: Mapping[str, str], body: bytes) -> Request:
        both = {"accept": "application/json, text/event-stream"}
        session = {"mcp-session-id": self._session} if self._session else {}
        return Request(
            method=method, headers=self._headers | dict(headers) | both | session, body=body, principal=self.principal
        )


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in _PASSED_ON}
