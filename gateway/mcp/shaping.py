# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools and results as each revision knows them. JSON that tools produced is spliced in without being parsed.

Only content blocks made by tools themselves are parsed, and only for revisions that lack some of their kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

import msgspec

from actors.errors import MCPServerError, UnknownToolError, code_of
from actors.jsonrpc import INVALID_PARAMS, encode
from actors.tool_messages import Icon, LogItem, Offered, Progress, Runtime, ToolDescriptor, ToolResult
from gateway.mcp.eras import B, C, D, E
from gateway.mcp.jsonrpc import McpError, notification

LOG_LEVELS: Final = {
    name: rank
    for rank, name in enumerate(("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"))
}

CACHE_SCOPE: Final = "private"
"""Lists may depend on who asks, so only that one may keep them."""


class Shaper:
    """Writes results for one revision."""

    def __init__(self, revision: int, server_info: dict[str, object]) -> None:
        self.revision = revision
        self._meta: dict[str, object] = {}
        meta_start, self._complete = b"", b""
        if revision == E:
            # In each answer the name alone; `server/discover` tells the rest.
            bare = {name: server_info[name] for name in ("name", "title", "version") if name in server_info}
            self._meta = {"io.modelcontextprotocol/serverInfo": bare}
            meta_start = encode(self._meta)[1:-1] + b","
            self._complete = b',"resultType":"complete"'
        start = b',"_meta":{' + meta_start
        self._tool_meta: dict[str | None, bytes] = {None: start + b'"greenroom/duration_ms":'}
        for runtime in ("general", "p2p"):
            named = b'"greenroom/runtime":' + encode(runtime) + b","
            self._tool_meta[runtime] = start + named + b'"greenroom/duration_ms":'

    def result(self, members: dict[str, object], *, ttl_ms: int | None = None) -> bytes:
        """A result from its own members; `ttl_ms` (milliseconds) for those that may be cached. Empty before E: `{}`."""
        if self.revision == E:
            members = {"resultType": "complete", **members}
            if ttl_ms is not None:
                members |= {"ttlMs": ttl_ms, "cacheScope": CACHE_SCOPE}
            members["_meta"] = {**self._meta, **_mapping(members.get("_meta"))}
        return encode(members)

    def tool_result(self, result: ToolResult) -> bytes:
        """The result of `tools/call`."""
        value = one_line(result.value)
        if result.shape == "text":
            head = b'{"content":[{"type":"text","text":' + value + b"}]"
        elif result.shape == "content":
            head = b'{"content":' + (value if self.revision >= D else self.older_content(value))
        else:
            head = b'{"content":[{"type":"text","text":' + encode(value.decode()) + b"}]"
            if self.revision >= C:
                wrapped = b'{"result":' + value + b"}" if result.shape == "wrapped" else value
                head += b',"structuredContent":' + wrapped
        if result.is_error:
            head += b',"isError":true'
        return head + self._complete + self._tool_meta[result.runtime] + b"%.3f}}" % result.duration_ms

    def tool_error(
        self, message: str, *, code: str, retryable: bool, runtime: Runtime | None, duration_ms: float
    ) -> bytes:
        """The result of a call that failed as a call: the model is to read the message, programs the code."""
        extra = b',"greenroom/code":%b,"greenroom/retryable":%b}}' % (encode(code), b"true" if retryable else b"false")
        return (
            b'{"content":[{"type":"text","text":'
            + encode(message)
            + b'}],"isError":true'
            + self._complete
            + self._tool_meta[runtime]
            + b"%.3f" % duration_ms
            + extra
        )

    def failed_call(self, error: MCPServerError, *, runtime: Runtime | None, took_s: float) -> bytes:
        """The result of a call that failed with this error. An unknown tool is an error of the protocol (raised)."""
        if isinstance(error, UnknownToolError):
            raise McpError(INVALID_PARAMS, f"Unknown tool: {error.message}") from None
        return self.tool_error(
            error.message,
            code=code_of(error),
            retryable=error.retryable,
            runtime=runtime,
            duration_ms=took_s * 1000,
        )

    @staticmethod
    def with_meta(result: bytes, name: str, value: object) -> bytes:
        """A result of `tool_result` or `tool_error`, with one more member in its `_meta`, which is its end."""
        return result[:-2] + b"," + encode(name) + b":" + encode(value) + b"}}"

    def tool_list(
        self, tools: Sequence[ToolDescriptor], next_cursor: str | None, *, ttl_ms: int, tasks: bool = False
    ) -> bytes:
        """A page of `tools/list`. `tasks`: calls can be tasks, so it is said which tools are for that."""
        members: dict[str, object] = {"tools": [self.tool(tool, tasks=tasks) for tool in tools]}
        if next_cursor is not None:
            members["nextCursor"] = next_cursor
        return self.result(members, ttl_ms=ttl_ms)

    def tool(self, tool: ToolDescriptor, *, tasks: bool = False) -> dict[str, object]:
        """A tool as it is listed."""
        shown: dict[str, object] = {"name": tool.name}
        if self.revision >= C and tool.title:
            shown["title"] = tool.title
        shown["description"] = tool.description
        shown["inputSchema"] = msgspec.Raw(one_line(tool.input_schema))
        if self.revision >= C:
            # C and D know objects only; without a schema their clients still get the text.
            if tool.output_schema is not None and (self.revision == E or _is_object_schema(tool.output_schema)):
                shown["outputSchema"] = msgspec.Raw(one_line(tool.output_schema))
            shown["_meta"] = listed_meta(tool)
        if self.revision >= B:
            annotations = msgspec.to_builtins(tool.annotations)
            if annotations:
                shown["annotations"] = annotations
        if self.revision >= D and tool.icons:
            shown["icons"] = icon_list(tool.icons)
        if self.revision == D and tasks and tool.task != "forbidden":
            shown["execution"] = {"taskSupport": tool.task}
        return shown

    def progress(self, item: Progress, token: object) -> bytes:
        """`notifications/progress`."""
        params: dict[str, object] = {"progressToken": token, "progress": _number(item.progress)}
        if item.total is not None and isfinite(item.total):
            params["total"] = _number(item.total)
        if item.message and self.revision >= B:
            params["message"] = item.message
        return notification("notifications/progress", params)

    def log(self, item: LogItem) -> bytes:
        """`notifications/message`."""
        params: dict[str, object] = {"level": item.level, "data": msgspec.Raw(one_line(item.data))}
        if item.logger:
            params["logger"] = item.logger
        return notification("notifications/message", params)

    def older_content(self, value: bytes) -> bytes:
        """Content blocks for a revision before D."""
        return encode([self.older_block(block) for block in msgspec.json.decode(value)])

    def older_block(self, block: dict[str, Any]) -> dict[str, Any]:
        """One content block for a revision before D."""
        kind = block.get("type")
        if kind == "audio" and self.revision < B:
            return _text(
                f"[audio, {block.get('mimeType', 'unknown type')}; this client's protocol version can't carry it]"
            )
        if kind == "resource_link" and self.revision < C:
            return _text(f"{block.get('title') or block.get('name', 'resource')}: {block.get('uri', '')}")
        block = {name: content for name, content in block.items() if name != "icons"}
        annotations = block.get("annotations")
        if self.revision < C:
            block.pop("_meta", None)
            if isinstance(annotations, dict):
                block["annotations"] = {name: hint for name, hint in annotations.items() if name != "lastModified"}
            if isinstance(block.get("resource"), dict):
                block["resource"] = {name: part for name, part in block["resource"].items() if name != "_meta"}
        return block


def icon_list(icons: Sequence[Icon]) -> list[object]:
    """Icons as they are listed."""
    return [msgspec.to_builtins(icon) for icon in icons]


def listed_meta(offered: Offered) -> dict[str, object]:
    """`_meta` of a listed tool, resource or prompt: its author's, and ours."""
    ours: dict[str, object] = {"greenroom/category": offered.category, "greenroom/runtime": offered.runtime}
    return msgspec.json.decode(offered.meta) | ours if offered.meta else ours


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: float) -> float | int:
    """Whole numbers without a fraction, as most clients show them."""
    return int(value) if value.is_integer() else value


def one_line(json: bytes) -> bytes:
    """JSON without line breaks: SSE frames and some readers split at them. Inside strings JSON has none."""
    if b"\n" in json or b"\r" in json:
        return msgspec.json.format(json, indent=-1)
    return json


def _is_object_schema(schema: bytes) -> bool:
    root = msgspec.json.decode(schema)
    return isinstance(root, dict) and root.get("type") == "object"
