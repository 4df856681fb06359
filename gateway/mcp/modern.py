# SPDX-License-Identifier: AGPL-3.0-or-later
"""Revision 2026-07-28: one request, one answer, no sessions.

`serve` makes the checks of the specification in their order; the first that fails answers. Whoever changes the order
changes what clients see: `tests/unit/test_mcp_modern.py` has a case for each pair of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from msgspec import UNSET

from actors.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, UNSUPPORTED_VERSION, id_json
from gateway.mcp.eras import MODERN_VERSION, MODERN_VERSIONS, E
from gateway.mcp.exchange import CAPABILITIES, Core, Exchange, Handler
from gateway.mcp.headers import NAME_FIELDS, check_name, check_not_repeated, check_params, mismatch
from gateway.mcp.http import NO_HEADERS
from gateway.mcp.jsonrpc import MALFORMED, Frame, McpError, Meta, Params, check_envelope
from gateway.mcp.quirks import NO_TASK_NAME, Quirks
from gateway.mcp.task_shaping import TASKS
from gateway.mcp.tools_methods import ToolMethods, check_level
from gateway.types import Answer, Request, Stream

DISCOVER_TTL_MS: Final = 300_000
"""Milliseconds that a client may keep what `server/discover` said."""
_CHECK_LEVELS_THEMSELVES: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
_NAMED: Final = {"name": attrgetter("name"), "uri": attrgetter("uri"), "taskId": attrgetter("task_id")}


class Modern:
    """The modern pipeline."""

    def __init__(self, core: Core, tools: ToolMethods, quirks: Quirks = frozenset()) -> None:
        self._core = core
        self._task_name_may_lack = NO_TASK_NAME in quirks
        self._tools = tools
        self._discovered: dict[bool, bytes] = {}
        self.capabilities: dict[str, object] = {"logging": {}, **CAPABILITIES}
        """What `server/discover` says; complete before the first request."""
        self.has_tasks: Callable[[], bool] = lambda: False
        """Whether calls can be tasks now."""
        self.methods: dict[str, Handler] = {
            "server/discover": self._discover,
            "tools/list": tools.list,
            "tools/call": tools.call,
        }

    async def serve(self, request: Request, frame: Frame, *, may_stream: bool, by_body: bool) -> Answer | Stream:
        """Answer one message. `by_body`: the routing headers may be missing, and the version header says nothing."""
        id_ = frame.id
        echo = id_json(id_)
        try:
            if frame.is_response:
                raise McpError(INVALID_REQUEST, "this revision has no requests of the server that could be answered")
            check_envelope(frame)
            if id_ is UNSET:
                return Answer(202, NO_HEADERS, b"")
            params = self._check(request, frame, by_body=by_body)
            handler = self.methods.get(frame.method)
            if handler is None:
                raise McpError(METHOD_NOT_FOUND, f"Method not found: {frame.method[:200]}")
            meta = params.meta
            if meta is not None and meta.log_level is not UNSET and frame.method not in _CHECK_LEVELS_THEMSELVES:
                check_level(meta.log_level)  # calls do it themselves, after the client's capabilities
        except McpError as error:
            return self._core.error(echo, error, E)
        frame.params = params
        x = Exchange(
            request.principal, frame, request.body, id_json=echo, revision=E, session=None, may_stream=may_stream
        )
        return await self._core.respond(x, handler)

    def _check(self, request: Request, frame: Frame, *, by_body: bool) -> Params:
        """Steps 3 to 7 of the pipeline."""
        if request.repeated:
            check_not_repeated(request.repeated)
        params = frame.params
        meta = params.meta if params is not None else None
        if params is None or params is MALFORMED or meta is None:
            raise McpError(INVALID_PARAMS, "params._meta must be an object")
        _check_meta(meta)
        headers, method = request.headers, frame.method
        if not by_body:
            version = headers.get("mcp-protocol-version")
            if version is None or (version != meta.version and version.strip(" \t") != meta.version):
                raise mismatch("header MCP-Protocol-Version is missing or differs from _meta")
        field = NAME_FIELDS.get(method)
        if field == "taskId" and (not self.has_tasks() or (self._task_name_may_lack and "mcp-name" not in headers)):
            field = None  # there is no such method, or the header may be missing
        _check_routing(headers, method, params, field, by_body=by_body)
        if meta.version != MODERN_VERSION:
            raise McpError(
                UNSUPPORTED_VERSION,
                "Unsupported protocol version",
                {"supported": MODERN_VERSIONS, "requested": meta.version},
            )
        if method == "tools/call":
            rules = self._tools.param_rules(params.name)
            if rules:
                check_params(rules, headers, bytes(params.arguments), may_lack=by_body)
        return params

    async def _discover(self, _x: Exchange) -> bytes:
        tasks = self.has_tasks()
        said = self._discovered.get(tasks)
        if said is None:
            extensions: dict[str, object] = {"extensions": {TASKS: {}}} if tasks else {}
            members: dict[str, object] = {
                "supportedVersions": MODERN_VERSIONS,
                "capabilities": self.capabilities | extensions,
            }
            if self._core.instructions:
                members["instructions"] = self._core.instructions
            members["_meta"] = {"io.modelcontextprotocol/serverInfo": self._core.server_info}
            said = self._discovered[tasks] = self._core.shapers[E].result(members, ttl_ms=DISCOVER_TTL_MS)
        return said


def _check_routing(
    headers: Mapping[str, str], method: str, params: Params, field: str | None, *, by_body: bool
) -> None:
    named = headers.get("mcp-method")
    if named is None:
        if not by_body:
            raise mismatch("header Mcp-Method is missing")
    elif named != method and named.strip(" \t") != method:
        raise mismatch("header Mcp-Method differs from the body")
    if field is not None and not (by_body and "mcp-name" not in headers):
        check_name(headers.get("mcp-name"), _NAMED[field](params))


def _check_meta(meta: Meta) -> None:
    if type(meta.version) is not str:
        raise McpError(INVALID_PARAMS, "params._meta needs io.modelcontextprotocol/protocolVersion, a string")
    if type(meta.capabilities) is not dict:
        raise McpError(INVALID_PARAMS, "params._meta needs io.modelcontextprotocol/clientCapabilities, an object")
