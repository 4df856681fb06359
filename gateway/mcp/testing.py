# SPDX-License-Identifier: AGPL-3.0-or-later
"""For tests of the protocol and of what calls it: a backend whose tools are plain functions, and requests by the rules.

Nothing here opens a socket. A request is right unless the test changes it, so that each test shows just its own fault.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.catalogue_view import CatalogueView
from actors.errors import UnknownToolError
from actors.settings import Settings
from actors.tool_messages import (
    Catalogue,
    PromptDescriptor,
    ResourceDescriptor,
    Shape,
    ToolCall,
    ToolDescriptor,
    ToolItem,
    ToolResult,
)
from gateway.mcp.eras import MODERN_VERSION
from gateway.mcp.exchange import Backend
from gateway.mcp.headers import NAME_FIELDS
from gateway.mcp.protocol import Protocol
from gateway.types import Answer, Request, Respondent, Stream

OnItem = Callable[[ToolItem], object] | None
Tool = Callable[[ToolCall, OnItem], Awaitable[ToolResult]]
AskingTool = Callable[[ToolCall, Respondent], Awaitable[ToolResult]]

SECRET: Final = b"a secret of 32 bytes for testing"
CLIENT: Final = {"name": "test", "version": "1"}
META: Final[dict[str, Any]] = {
    "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": CLIENT,
}
HEADERS: Final = {
    "host": "127.0.0.1:8000",
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}

_COMMON: Final[dict[str, Any]] = {
    "title": "T", "description": "D", "category": "test", "runtime": "general", "pool": "general", "timeout_s": 5.0,
}  # fmt: skip


def descriptor(name: str, **fields: Any) -> ToolDescriptor:  # noqa: ANN401 - fields of the Struct
    """A tool; `fields` override."""
    given: dict[str, Any] = {
        "title": name.title(),
        "description": f"The tool {name}.",
        "category": "test",
        "runtime": "general",
        "pool": "general",
        "input_schema": b'{"type":"object","properties":{"text":{"type":"string"}}}',
    }
    return ToolDescriptor(name=name, **(given | fields))


def resource(uri: str, **fields: Any) -> ResourceDescriptor:  # noqa: ANN401 - as above
    """A resource, or a template; `fields` override."""
    return ResourceDescriptor(**(_COMMON | {"name": uri, "uri": uri, "template": "{" in uri} | fields))


def prompt(name: str, **fields: Any) -> PromptDescriptor:  # noqa: ANN401 - as above
    """A prompt; `fields` override."""
    return PromptDescriptor(**(_COMMON | {"name": name} | fields))


def result(value: object, shape: Shape = "text", **fields: Any) -> ToolResult:  # noqa: ANN401 - as above
    """What a tool answers."""
    given: dict[str, Any] = {"runtime": "general", "duration_ms": 0.5}
    return ToolResult(value=msgspec.json.encode(value), shape=shape, **(given | fields))


async def echo(call: ToolCall, _on_item: OnItem) -> ToolResult:
    """A tool that answers with the JSON of its arguments, as text."""
    return result(call.arguments.decode())


class ScriptedBackend:
    """Runs tools in the caller's task. `calls` records what arrived."""

    def __init__(
        self,
        tools: Mapping[str, Tool] | None = None,
        descriptors: list[ToolDescriptor] | None = None,
        asking: Mapping[str, AskingTool] | None = None,
    ) -> None:
        """`asking`: tools that ask the client."""
        self._tools = {"echo": echo} if tools is None else dict(tools)
        self._asking = dict(asking or {})
        self.calls: list[ToolCall] = []
        self.catalogue = CatalogueView(Catalogue(tools=[]))
        self.replace(
            descriptors
            or [descriptor(name) for name in self._tools] + [descriptor(name, asks=True) for name in self._asking]
        )

    def replace(
        self,
        descriptors: list[ToolDescriptor],
        resources: Sequence[ResourceDescriptor] = (),
        prompts: Sequence[PromptDescriptor] = (),
    ) -> None:
        """Offer other lists."""
        version = self.catalogue.version + 1
        by_uri = sorted(resources, key=lambda one: one.uri)
        by_name = sorted(prompts, key=lambda one: one.name)
        offered = Catalogue(tools=descriptors, resources=by_uri, prompts=by_name, version=version)
        self.catalogue = CatalogueView(offered)

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,  # noqa: ARG002 - part of the interface
        on_item: OnItem = None,
        respondent: Respondent | None = None,
    ) -> ToolResult:
        """Run a tool."""
        self.calls.append(call)
        name = call.name if type(call) is ToolCall else call.METHOD
        if name in self._asking:
            assert respondent is not None
            return await self._asking[name](call, respondent)
        tool = self._tools.get(name)
        if tool is None:
            raise UnknownToolError(f"there is no tool {call.name!r}")
        return await tool(call, on_item)


def protocol(
    backend: Backend | None = None,
    settings: Settings | None = None,
    *,
    page_size: int | None = None,
    **fields: Any,  # noqa: ANN401 - more arguments of `Protocol`
) -> Protocol:
    """A protocol with fixed name, secret and call ids."""
    numbers = itertools.count(1)
    given = settings if settings is not None else Settings()
    if page_size is not None:
        given = msgspec.structs.replace(given, mcp=msgspec.structs.replace(given.mcp, page_size=page_size))
    return Protocol(
        given,
        backend if backend is not None else ScriptedBackend(),
        server_name="greenroom",
        version="1.2.3",
        session_secret=SECRET,
        new_call_id=lambda: f"call-{next(numbers)}",
        **fields,
    )


def post(body: object, headers: Mapping[str, str | None] | None = None, **fields: Any) -> Request:  # noqa: ANN401
    """A POST of a JSON value (or of bytes as they are). A header that is None is left out."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    merged = {**HEADERS, **(headers or {})}
    return Request("POST", {name: value for name, value in merged.items() if value is not None}, data, **fields)


def modern(
    method: str,
    params: Mapping[str, object] | None = None,
    headers: Mapping[str, str | None] | None = None,
    *,
    id: object = 1,  # noqa: A002 - the protocol's word
    meta: Mapping[str, object] | None = None,
    **fields: Any,  # noqa: ANN401
) -> Request:
    """A request of revision 2026-07-28, right in all its parts but those given."""
    given = {"_meta": {**META, **(meta or {})}, **(params or {})}
    routing: dict[str, str | None] = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": method}
    name = given.get(NAME_FIELDS.get(method, ""))
    if isinstance(name, str):
        routing["mcp-name"] = name
    body = {"jsonrpc": "2.0", "id": id, "method": method, "params": given}
    return post(body, routing | dict(headers or {}), **fields)


def legacy(
    method: str,
    params: Mapping[str, object] | None = None,
    headers: Mapping[str, str | None] | None = None,
    *,
    id: object = 1,  # noqa: A002
    **fields: Any,  # noqa: ANN401
) -> Request:
    """A request of a handshake revision; `headers` are those of the session. With `id=None`: a notification."""
    body: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        body["id"] = id
    if params is not None:
        body["params"] = params
    return post(body, headers, **fields)


async def open_session(endpoint: Protocol, version: str, **fields: Any) -> dict[str, str | None]:  # noqa: ANN401
    """Make the handshake; the headers for requests in the session."""
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}
    answer = await endpoint.handle(legacy("initialize", params, **fields))
    return {"mcp-session-id": dict(answer.headers)["mcp-session-id"], "mcp-protocol-version": version}


def said(answer: Answer | Stream) -> Any:  # noqa: ANN401 - JSON
    """The JSON of a complete answer."""
    assert isinstance(answer, Answer)
    return msgspec.json.decode(answer.body)


def messages(frames: bytes) -> list[Any]:
    """The JSON-RPC messages in a piece of an SSE stream; comments are left out."""
    found = []
    for event in frames.split(b"\n\n"):
        data = [line.removeprefix(b"data: ") for line in event.split(b"\n") if line.startswith(b"data: ")]
        if data:
            found.append(msgspec.json.decode(b"\n".join(data)))
    return found


async def drain(answer: Answer | Stream) -> list[Any]:
    """All messages of a stream that ends."""
    assert isinstance(answer, Stream)
    return [message async for frames in answer.events for message in messages(frames)]
