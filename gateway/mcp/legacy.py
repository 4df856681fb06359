# SPDX-License-Identifier: AGPL-3.0-or-later
"""The four handshake revisions: `initialize`, sessions, GET streams, DELETE, and arrays of messages at 2025-03-26.

Errors of requests travel in HTTP 200; only what concerns HTTP or the session itself has another status. A client that
goes away cancels nothing here; `notifications/cancelled` does, in the process that runs the call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio
from msgspec import UNSET, Raw

from actors.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, error_message, id_json, is_id
from actors.tool_messages import SessionNote
from gateway.mcp.eras import VERSIONS, B, C, D, negotiate
from gateway.mcp.exchange import CAPABILITIES, Core, Exchange, Handler
from gateway.mcp.http import JSON_HEADERS, NO_HEADERS
from gateway.mcp.jsonrpc import MALFORMED, MAX_BATCH, Frame, McpError, check_envelope, params_as, parse
from gateway.mcp.requests import Requests, Siblings
from gateway.mcp.sessions import Session, Sessions
from gateway.mcp.tools_methods import ToolMethods, check_level
from gateway.types import Answer, Request, Stream

BATCH_AT_ONCE: Final = 8
"""Requests of one array that run at the same time."""

_NOTHING: Final = Answer(202, NO_HEADERS, b"")
_TASKS: Final[dict[str, object]] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
"""The capability, of 2025-11-25 alone."""


class InitializeParams(msgspec.Struct, rename="camel"):
    """Params of `initialize`. Only the version is needed to go on."""

    protocol_version: str
    capabilities: dict[str, Any] = {}
    client_info: dict[str, Any] = {}


class LevelParams(msgspec.Struct):
    """Params of `logging/setLevel`."""

    level: Any = None


class CancelledParams(msgspec.Struct, rename="camel"):
    """Params of `notifications/cancelled`."""

    request_id: Any = None


_initialize_params = msgspec.json.Decoder(InitializeParams)
_level_params = msgspec.json.Decoder(LevelParams)
_cancelled_params = msgspec.json.Decoder(CancelledParams)


class Legacy:
    """Serves sessions."""

    def __init__(
        self, core: Core, tools: ToolMethods, sessions: Sessions, requests: Requests, siblings: Siblings | None = None
    ) -> None:
        self._core = core
        self._siblings = siblings
        self._requests = requests
        self._sessions = sessions
        self.capabilities: dict[str, object] = {"logging": {}, **CAPABILITIES}
        self.has_tasks: Callable[[], bool] = lambda: False
        """Whether calls can be tasks now."""
        self.methods: dict[str, Handler] = {
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "tools/list": tools.list,
            "tools/call": tools.call,
        }

    def handshake(self, request: Request, frame: Frame) -> Answer:
        """Answer `initialize` and open a session."""
        echo = id_json(frame.id)
        try:
            check_envelope(frame)
            if frame.id is UNSET:
                raise McpError(INVALID_REQUEST, "initialize needs an id", status=400)
            params = params_as(request.body, _initialize_params)
        except McpError as error:
            return self._core.error(echo, error, B)
        revision = negotiate(params.protocol_version)
        result: dict[str, object] = {
            "protocolVersion": VERSIONS[revision],
            "capabilities": self._capabilities(revision),
            "serverInfo": _server_info(self._core.server_info, revision),
        }
        if self._core.instructions:
            result["instructions"] = self._core.instructions
        token = self._sessions.open(
            revision, client=params.client_info, capabilities=params.capabilities, principal=request.principal
        )
        body = b'{"jsonrpc":"2.0","id":' + echo + b',"result":' + msgspec.json.encode(result) + b"}"
        return Answer(200, [*JSON_HEADERS, ("mcp-session-id", token)], body)

    def _capabilities(self, revision: int) -> dict[str, object]:
        known = {name: how for name, how in self.capabilities.items() if revision >= B or name != "completions"}
        return known | {"tasks": _TASKS} if revision == D and self.has_tasks() else known

    async def serve(
        self, request: Request, session: Session, message: Frame | list[Raw], *, may_stream: bool
    ) -> Answer | Stream:
        """Answer one message, or an array of them, in a live session."""
        if isinstance(message, list):
            return await self._batch(request.principal, session, message)
        return await self._one(request.principal, session, message, request.body, may_stream=may_stream)

    async def _one(
        self, principal: str, session: Session, frame: Frame, body: bytes, *, may_stream: bool
    ) -> Answer | Stream:
        if frame.is_response:
            await self._requests.answered(session.claims.nonce, body)
            return _NOTHING
        echo = id_json(frame.id)
        try:
            check_envelope(frame)
            if frame.id is UNSET:
                await self._notified(session, frame, body)
                return _NOTHING
            handler = self.methods.get(frame.method)
            if handler is None:
                raise McpError(METHOD_NOT_FOUND, f"Method not found: {frame.method[:200]}")
            if frame.params is MALFORMED:
                raise McpError(INVALID_PARAMS, "params and params._meta must be objects")
        except McpError as error:
            return self._core.error(echo, error, session.revision)
        x = Exchange(
            principal, frame, body, id_json=echo, revision=session.revision, session=session, may_stream=may_stream
        )
        return await self._core.respond(x, handler)

    async def _batch(self, principal: str, session: Session, elements: list[Raw]) -> Answer:
        """An array (2025-03-26 only): the answers as one JSON array, in the order of the requests."""
        problem = ""
        if session.revision != B:
            problem = f"arrays of messages do not exist in {VERSIONS[session.revision]}"
        elif not 1 <= len(elements) <= MAX_BATCH:
            problem = f"an array must hold 1 to {MAX_BATCH} messages"
        if problem:
            return self._core.error(b"", McpError(INVALID_REQUEST, problem, status=400), B)
        # Shielded, as single calls are: a client that leaves does not cancel what it sent.
        scope = trio.CancelScope(shield=True)
        self._core.shielded.add(scope)
        try:
            with scope:
                said = [answer for answer in await self._elements(principal, session, elements) if answer]
        finally:
            self._core.shielded.discard(scope)
        if scope.cancelled_caught:
            return self._core.stopping(b"")
        return Answer(200, JSON_HEADERS, b"[" + b",".join(said) + b"]") if said else _NOTHING

    async def _elements(self, principal: str, session: Session, elements: list[Raw]) -> list[bytes]:
        answers = [b""] * len(elements)
        limit = trio.Semaphore(BATCH_AT_ONCE)

        async def one(index: int) -> None:
            async with limit:
                answers[index] = await self._element(principal, session, bytes(elements[index]))

        async with trio.open_nursery() as nursery:
            for index in range(len(elements)):
                nursery.start_soon(partial(one, index))
        return answers

    async def _element(self, principal: str, session: Session, body: bytes) -> bytes:
        """The answer to one element; b'' when there is none."""
        try:
            frame = parse(body)
            if isinstance(frame, list) or frame.method == "initialize":
                raise McpError(INVALID_REQUEST, "not allowed inside an array")
        except McpError as error:
            return error_message(b"", error)
        answer = await self._one(principal, session, frame, body, may_stream=False)
        assert isinstance(answer, Answer)  # it may not stream
        return answer.body

    async def _notified(self, session: Session, frame: Frame, body: bytes) -> None:
        """Notifications that mean nothing here are dropped, as the protocol wants."""
        if frame.method != "notifications/cancelled":
            return
        try:
            id_ = params_as(body, _cancelled_params).request_id
        except McpError:
            return
        if type(id_) not in {str, int}:
            return
        scope = session.calls.get(id_)
        if scope is not None:
            scope.cancel()
        elif self._siblings is not None and is_id(id_):
            await self._siblings.spread(SessionNote(session=session.claims.nonce, cancelled=id_json(id_)))

    async def _ping(self, _x: Exchange) -> bytes:
        return b"{}"

    async def _set_level(self, x: Exchange) -> bytes:
        level = check_level(params_as(x.body, _level_params).level)
        assert x.session is not None  # legacy only
        x.session.log_level = level
        if self._siblings is not None:
            await self._siblings.spread(SessionNote(session=x.session.claims.nonce, log_level=level))
        return b"{}"


def _server_info(info: dict[str, object], revision: int) -> dict[str, object]:
    """`Implementation` as a revision knows it."""
    known = ["name", "version"]
    if revision >= C:
        known.append("title")
    return info if revision >= D else {name: info[name] for name in known if name in info}
