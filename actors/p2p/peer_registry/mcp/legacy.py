# SPDX-License-Identifier: AGPL-3.0-or-later
"""The legacy binding (`mcp-binding/legacy-2024-11-05`) as deployed nodes speak it: `initialize` opens a stream.

Deployed clients don't send `notifications/initialized`, so requests are answered from the answer to `initialize` on.
The task queue is the tool `task_queue.rpc`; its token stands in its arguments, so it needs none of ours.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import trio

from actors.errors import MCPServerError
from actors.jsonrpc import INVALID_REQUEST, METHOD_NOT_FOUND, RpcError, encode
from actors.p2p.peer_registry.mcp import failures
from actors.p2p.peer_registry.mcp.answering import LISTED_BYTES, Answering, called, cursor_of
from actors.p2p.peer_registry.mcp.profiles import known, legacy_capabilities, legacy_negotiation, read_legacy
from actors.p2p.peer_registry.mcp.rpc import LEGACY_VERSION, PROTOCOL, Frame, Params, decoded, params_of
from actors.p2p.peer_registry.mcp.shaping import legacy_called, legacy_tool, page
from actors.tool_messages import ToolResult

QUEUE_TOOL: Final = "task_queue.rpc"
QUEUE_TIMEOUT_S: Final = 75.0
"""Longer than all other requests: one can wait for a task."""
MOST_FRAMES: Final = 128
"""Messages of a peer on one stream, as deployed clients know it; after them it has to open another one."""
_LIST: Final = ("tools/list", "tools.list")
_CALL: Final = ("tools/call", "tools.call")
_QUEUE_DESCRIPTION: Final = (
    "The task queue: one request of /ipfs-datasets/task-queue/1.0.0, a JSON object with op and token."
)


class _Wanted(msgspec.Struct):
    """What `initialize` asks for, as far as it is looked at."""

    capabilities: Any = None
    profile: Any = None
    profiles: Any = None


_wanted = msgspec.json.Decoder(_Wanted)


class Legacy:
    """Answers the requests of one stream."""

    def __init__(self, answering: Answering, peer_id: str) -> None:
        self._answering = answering
        self._peer_id = peer_id
        self._initialized = False
        self.most_bytes = answering.settings.max_frame_bytes
        """Of an answer: a client of this binding publishes no limit, so that ours counts."""
        self.most_frames: int | None = MOST_FRAMES
        """Messages that the peer may send on the stream."""

    async def answer(self, frame: Frame) -> bytes:
        """The result of a request. Raises `RpcError` and `MCPServerError`."""
        if frame.method == "initialize":
            return self._opened(frame)
        if frame.method == "ping":
            return b"{}"
        params = params_of(frame)
        if frame.method in _CALL and params.name == QUEUE_TOOL and self._answering.queue is not None:
            return await self._queue(params)
        if frame.method not in _LIST + _CALL:
            raise RpcError(METHOD_NOT_FOUND, f"there is no method {frame.method[:200]!r}")
        self._answering.authorize(self._peer_id, params.meta)
        if frame.method in _LIST:
            return self._listed(params)
        return legacy_called(await self._answering.call(self._peer_id, params))

    def error(self, error: MCPServerError) -> RpcError:
        """What a request failed with, in the words of this binding."""
        return failures.as_legacy(error)

    def _opened(self, frame: Frame) -> bytes:
        if self._initialized:
            raise RpcError(INVALID_REQUEST, "the stream is initialized already")
        wanted = decoded(frame.params, _wanted, "params")
        named = read_legacy(wanted.capabilities)
        if isinstance(wanted.profiles, list):
            named = known(wanted.profiles) + named
        named = known([wanted.profile]) + named
        self._initialized = True
        answering = self._answering
        face, limits = answering.face, answering.limits()
        return encode(
            {
                "protocolVersion": LEGACY_VERSION,
                "capabilities": {"tools": {}, **legacy_capabilities(face.profiles)},
                "serverInfo": face.info(),
                "ok": True,
                "transport": PROTOCOL,
                "server": {"peer_id": face.peer_id},
                **legacy_negotiation(face.profiles, named),
                "limits": limits | {"max_frames": MOST_FRAMES},
            }
        )

    def _listed(self, params: Params) -> bytes:
        tools = [legacy_tool(tool) for tool in self._answering.tools.list(self._peer_id)]
        if self._answering.queue is not None:
            schema = {"type": "object", "properties": {"op": {"type": "string"}, "token": {"type": "string"}}}
            tools.append({"name": QUEUE_TOOL, "description": _QUEUE_DESCRIPTION, "inputSchema": schema})
        shown, following = page(tools, cursor_of(params), min(LISTED_BYTES, self.most_bytes // 2))
        return encode({"tools": shown} if following is None else {"tools": shown, "nextCursor": following})

    async def _queue(self, params: Params) -> bytes:
        assert self._answering.queue is not None
        _, arguments = called(params)
        started = trio.current_time()
        reply = await self._answering.queue(self._peer_id, arguments, QUEUE_TIMEOUT_S)
        took_ms = (trio.current_time() - started) * 1000
        return legacy_called(ToolResult(value=encode(reply), shape="object", runtime="p2p", duration_ms=took_ms))
