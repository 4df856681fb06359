# SPDX-License-Identifier: AGPL-3.0-or-later
"""The server of MCP between nodes with tools for tests, and a peer that says what it is told to, byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import peer_streams
import pytest
import trio
import wire_schema
from jsonschema import ValidationError

from actors.errors import ForbiddenError, InvalidArgumentsError, UnknownToolError
from actors.p2p.peer_registry.mcp.answering import Answering, CheckToken, QueueRpc, ServerFace
from actors.p2p.peer_registry.mcp.server import McpServer, use_limits
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_use import StreamUse
from actors.settings_p2p import PeerMcpSettings
from actors.tool_messages import ToolDescriptor, ToolResult

PEER, HERE, OTHER = peer_streams.A, peer_streams.B, peer_streams.C
META = "io.modelcontextprotocol/"
CURRENT = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
"""`_meta` of a request in the current binding."""
LONGEST_S = 3600
"""Of the tests' clock, which jumps."""


def descriptor(name: str, **more: Any) -> ToolDescriptor:
    """A tool that takes anything."""
    schema = b'{"type":"object"}'
    return ToolDescriptor(
        name=name, title="", description=f"It does {name}.", category="c", runtime="general", pool="general",
        input_schema=more.pop("input_schema", schema), **more,
    )  # fmt: skip


def gives(value: Any, shape: str = "object", *, is_error: bool = False) -> ToolResult:
    """What a tool gave after two milliseconds."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ToolResult(value=text, shape=shape, runtime="general", duration_ms=2.0, is_error=is_error)


class FakeTools:
    """`echo` gives its arguments, `wait` ends when `go` is set, `fail` raises `failure`; others give `results`."""

    def __init__(self) -> None:
        self.shown: list[ToolDescriptor] = [descriptor(name) for name in ("echo", "fail", "wait")]
        self.results: dict[str, ToolResult] = {}
        self.failure: Exception = ForbiddenError("not for you")
        self.go = trio.Event()
        self.calls: list[tuple[str, str, Any]] = []
        self.running = 0
        self.cancelled = 0

    def list(self, peer_id: str) -> Sequence[ToolDescriptor]:
        return self.shown

    async def call(self, peer_id: str, name: str, arguments: bytes, timeout_s: float) -> ToolResult:
        self.calls.append((peer_id, name, json.loads(arguments)))
        self.running += 1
        try:
            await trio.lowlevel.checkpoint()
            if name == "echo":
                return gives(arguments)
            if name == "fail":
                raise self.failure
            if name == "wait":
                await self.go.wait()
                return gives("done", "text")
            if name in self.results:
                return self.results[name]
            raise UnknownToolError(f"there is no tool {name!r}")
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


class RawPeer:
    """The other end of a stream: sends and reads messages as they are."""

    def __init__(self, stream: PeerStream) -> None:
        self.stream = stream
        self.version = ""
        """That answers are held against; empty = as it fits the request."""
        self._buffer = b""

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.write(data)

    async def send(self, *messages: Any) -> None:
        """Each in a frame; values as JSON, bytes as they are."""
        texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages]
        await self.stream.write(b"".join(struct.pack(">I", len(text)) + text for text in texts))

    async def read(self) -> Any:
        """The next message; None at the end."""
        while len(self._buffer) < 4 or len(self._buffer) < 4 + struct.unpack(">I", self._buffer[:4])[0]:
            piece = await self.stream.read()
            if not piece:
                assert not self._buffer, "it ended within a message"
                return None
            self._buffer += piece
        size = struct.unpack(">I", self._buffer[:4])[0]
        text, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]
        return json.loads(text)

    async def all(self) -> list[Any]:
        """The messages up to the end."""
        found = []
        while (message := await self.read()) is not None:
            found.append(message)
        return found

    async def ask(self, method: str, params: Any = None, id_: Any = 1) -> Any:
        """Send a request and read the next message."""
        await self.send({"jsonrpc": "2.0", "id": id_, "method": method, "params": params or {}})
        answer = await self.read()
        if answer is not None and wire_schema.AVAILABLE:
            version = self.version or ("2026-07-28" if "_meta" in (params or {}) else "2024-11-05")
            try:
                wire_schema.check_message(version, answer, method)
            except ValidationError as error:
                pytest.fail(f"{version} {method}: {error.message}\n{json.dumps(answer)}")
        return answer

    async def current(self, method: str, id_: Any = 1, meta: dict[str, Any] | None = None, **params: Any) -> Any:
        """The same in the current binding."""
        return await self.ask(method, {"_meta": CURRENT | (meta or {}), **params}, id_)

    async def initialize(self, **params: Any) -> Any:
        """Open the stream in the legacy binding."""
        self.version = "2024-11-05"
        return await self.ask("initialize", {"protocolVersion": "2024-11-05", **params}, "open")

    async def gone(self) -> bool:
        """Whether the other side has ended or broken the stream."""
        try:
            return await self.stream.read() == b""
        except StreamBrokenError:
            return True


class Rig:
    """A server, and peers of it."""

    def __init__(self, nursery: trio.Nursery, server: McpServer, tools: FakeTools, use: StreamUse) -> None:
        self.nursery = nursery
        self.server = server
        self.tools = tools
        self.use = use
        self.violations: list[tuple[str, str]] = []
        self.ended = 0

    def stream(self, peer_id: str = PEER) -> PeerStream:
        """A stream that a peer has opened: its end."""
        theirs, ours = peer_streams.pair(peer_id, HERE)
        self.nursery.start_soon(self._serve, ours)
        return theirs

    def peer(self, peer_id: str = PEER) -> RawPeer:
        return RawPeer(self.stream(peer_id))

    async def _serve(self, stream: PeerStream) -> None:
        await self.server.serve(stream)
        self.ended += 1


@asynccontextmanager
async def open_rig(
    check_token: CheckToken | None = None, queue: QueueRpc | None = None, profiles: Any = None, **settings: Any
) -> AsyncGenerator[Rig, None]:
    """A server that runs; `settings` are those of `p2p.peer_registry.mcp`."""
    tools, ours = FakeTools(), PeerMcpSettings(**settings)
    face = ServerFace(peer_id=HERE, name="greenroom", version="1.2.3", **({} if profiles is None else profiles))
    use = StreamUse(use_limits(ours))
    answering = Answering(tools, face, ours, check_token=check_token, queue=queue)
    with trio.fail_after(LONGEST_S):
        async with trio.open_nursery() as nursery:
            rig: Rig
            server = McpServer(answering, use, violation=lambda peer, what: rig.violations.append((peer, what)))
            rig = Rig(nursery, server, tools, use)
            yield rig
            nursery.cancel_scope.cancel()


def only_token(token: str) -> CheckToken:
    """Takes this token from anybody."""

    def check(said: str, peer_id: str) -> None:
        if said != token:
            raise InvalidArgumentsError(f"{peer_id} sent a token that proves nothing")

    return check


def code(answer: Any) -> tuple[int, str | None]:
    """Number and word of an error."""
    error = answer["error"]
    return error["code"], (error.get("data") or {}).get("code")
