# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools and results as each dialect knows them. JSON that tools made is put in without being parsed; only content
blocks are, for the legacy dialect, which lacks some of their kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.errors import MCPServerError, code_of
from actors.jsonrpc import META, encode
from actors.tool_messages import ToolDescriptor, ToolResult

CODE_KEY: Final = "greenroom/code"
"""In `_meta` of the result of a call that failed: the stable word for it."""
RETRYABLE_KEY: Final = "greenroom/retryable"
_TTL_MS: Final = 60_000
"""Milliseconds that a peer may keep what it was told of this node and its tools."""
_OLD_BLOCKS: Final = ("text", "image", "resource")
"""Kinds of content of the legacy dialect."""


class Shaper:
    """Writes results of the current dialect."""

    def __init__(self, server_info: Mapping[str, object]) -> None:
        self._info = {META + "serverInfo": dict(server_info)}

    def told(self, members: Mapping[str, object]) -> bytes:
        """A result of which the peer may keep what it was told of this node."""
        kept = {"ttlMs": _TTL_MS, "cacheScope": "private"}
        return encode({"resultType": "complete", **members, **kept, "_meta": self._info})

    def called(self, result: ToolResult) -> bytes:
        """The result of `tools/call`."""
        members = _content(result)
        if result.shape == "wrapped":
            members["structuredContent"] = {"result": msgspec.Raw(result.value)}
        elif result.shape not in ("text", "content"):
            members["structuredContent"] = msgspec.Raw(result.value)
        return self._called(members, result.is_error, _measured(result))

    def failed(self, error: MCPServerError) -> bytes:
        """The result of a call that failed as a call."""
        members: dict[str, object] = {"content": [_text(error.message)]}
        return self._called(members, True, {CODE_KEY: code_of(error), RETRYABLE_KEY: error.retryable})

    def _called(self, members: dict[str, object], is_error: bool, meta: dict[str, object]) -> bytes:
        if is_error:
            members["isError"] = True
        return encode({"resultType": "complete", **members, "_meta": self._info | meta})


def legacy_called(result: ToolResult) -> bytes:
    """The result of `tools/call` in the legacy dialect."""
    members = _content(result)
    if result.shape == "content":
        members["content"] = [_old_block(block) for block in msgspec.json.decode(result.value)]
    if result.is_error:
        members["isError"] = True
    return encode({**members, "_meta": _measured(result)})


def shown_tool(tool: ToolDescriptor) -> dict[str, object]:
    """A tool as it is listed in the current dialect."""
    shown: dict[str, object] = {"name": tool.name, "description": tool.description}
    if tool.title:
        shown["title"] = tool.title
    shown["inputSchema"] = msgspec.Raw(tool.input_schema)
    if tool.output_schema is not None:
        shown["outputSchema"] = msgspec.Raw(tool.output_schema)
    if annotations := msgspec.to_builtins(tool.annotations):
        shown["annotations"] = annotations
    return shown


def legacy_tool(tool: ToolDescriptor) -> dict[str, object]:
    """A tool as it is listed in the legacy dialect."""
    return {"name": tool.name, "description": tool.description, "inputSchema": msgspec.Raw(tool.input_schema)}


def page(tools: Sequence[Mapping[str, object]], after: str, most_bytes: int) -> tuple[list[msgspec.Raw], str | None]:
    """Those that follow the one of this name, as many as fit into so many bytes, and the name that the next page
    follows. A tool that would fill a page of its own is left out."""
    shown: list[msgspec.Raw] = []
    left = most_bytes
    last = after
    for tool in sorted(tools, key=_name):
        name = _name(tool)
        if name <= after:
            continue
        text = encode(tool)
        if len(text) > most_bytes:
            continue
        left -= len(text) + 1
        if left < 0:
            return shown, last
        shown.append(msgspec.Raw(text))
        last = name
    return shown, None


def _name(tool: Mapping[str, object]) -> str:
    return str(tool["name"])


def _content(result: ToolResult) -> dict[str, object]:
    if result.shape == "text":
        return {"content": [{"type": "text", "text": msgspec.Raw(result.value)}]}
    if result.shape == "content":
        return {"content": msgspec.Raw(result.value)}
    return {"content": [_text(result.value.decode())]}


def _old_block(block: dict[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind in _OLD_BLOCKS:
        return {name: value for name, value in block.items() if name not in ("_meta", "icons")}
    if kind == "resource_link":
        return _text(f"{block.get('title') or block.get('name', 'resource')}: {block.get('uri', '')}")
    return _text(f"[{kind}, {block.get('mimeType', 'unknown type')}; this protocol version can't carry it]")


def _measured(result: ToolResult) -> dict[str, object]:
    return {"greenroom/runtime": result.runtime, "greenroom/duration_ms": round(result.duration_ms, 3)}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
