# SPDX-License-Identifier: AGPL-3.0-or-later
"""Servers as deployed nodes are: they answer by a script of their own, with nothing of ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import peer_streams
import trio

from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

Handle = Callable[["OldStream", dict[str, Any]], Awaitable[None]]


class OldStream:
    """The server's end of one stream."""

    def __init__(self, stream: PeerStream, number: int) -> None:
        self.stream = stream
        self.number = number
        """1 = the first one that was opened."""
        self.state: dict[str, Any] = {}

    async def say(self, message: dict[str, Any]) -> None:
        text = json.dumps(message).encode()
        await self.stream.write(struct.pack(">I", len(text)) + text)

    async def result(self, request: dict[str, Any], result: Any) -> None:
        await self.say({"jsonrpc": "2.0", "id": request["id"], "result": result})

    async def error(self, request: dict[str, Any], code: int, message: str) -> None:
        await self.say({"jsonrpc": "2.0", "id": request.get("id"), "error": {"code": code, "message": message}})

    async def close(self) -> None:
        self.state["closed"] = True
        await self.stream.finish()


class OldServer:
    """Answers each message with `handle`; `open` is what a client is given."""

    def __init__(self, nursery: trio.Nursery, handle: Handle) -> None:
        self._nursery = nursery
        self._handle = handle
        self.streams = 0
        self.seen: list[dict[str, Any]] = []

    async def open(self, timeout_s: float) -> PeerStream:
        self.streams += 1
        theirs, ours = peer_streams.pair()
        self._nursery.start_soon(self._serve, OldStream(ours, self.streams))
        return theirs

    async def _serve(self, one: OldStream) -> None:
        buffer = b""
        try:
            while not one.state.get("closed"):
                while len(buffer) < 4 or len(buffer) < 4 + struct.unpack(">I", buffer[:4])[0]:
                    piece = await one.stream.read()
                    if not piece:
                        return
                    buffer += piece
                size = struct.unpack(">I", buffer[:4])[0]
                message, buffer = json.loads(buffer[4 : 4 + size]), buffer[4 + size :]
                self.seen.append(message)
                await self._handle(one, message)
        except StreamBrokenError:
            pass

    @property
    def methods(self) -> list[str]:
        """Of all messages that came, in order."""
        return [message["method"] for message in self.seen]


def initialized(**more: Any) -> dict[str, Any]:
    """What a deployed node answers to `initialize`, without the parts of MCP."""
    limits = {"max_frame_bytes": 1 << 20, "max_frames": 128, "rate_capacity": 128, "rate_refill_per_sec": 128.0}
    negotiation = {"supports_profile_negotiation": True, "mode": "optional_additive", "profiles": ["mcp++/idl"]}
    return {
        "ok": True, "transport": "/mcp+p2p/1.0.0", "server": {"peer_id": "x"}, "profile_negotiation": negotiation,
        "active_profile": "mcp++/idl", "limits": limits, **more,
    }  # fmt: skip


async def accelerate(one: OldStream, message: dict[str, Any], **more: Any) -> None:
    """A queue node: `initialize` first, content that is any JSON, 128 messages."""
    one.state["frames"] = one.state.get("frames", 0) + 1
    if one.state["frames"] > 128:
        await one.error(message, -32010, "rate_limited")
        await one.close()
    elif "id" not in message:
        return
    elif message["method"] == "initialize":
        one.state["initialized"] = True
        await one.result(message, initialized(**more))
    elif "initialized" not in one.state:
        await one.error(message, -32000, "init_required")
        await one.close()
    elif message["method"] == "tools/list":
        await one.result(message, {"tools": [{"name": "task_queue.rpc", "description": "The queue."}]})
    elif message["method"] == "tools/call":
        params = message["params"]
        if params["name"] == "bad":
            await one.error(message, -32002, "unknown_tool")
        else:
            await one.result(message, {"content": {"ok": True, "echo": params["arguments"]}})
    else:
        await one.error(message, -32601, "method_not_found")


async def datasets(one: OldStream, message: dict[str, Any]) -> None:
    """A node with a list that is always empty, and no calls."""
    if message["method"] == "initialize":
        await one.result(message, {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "d"}})
    elif message["method"] == "tools/list":
        await one.result(message, {"tools": []})
    elif "id" in message:
        await one.error(message, -32601, "Method not found")
