# SPDX-License-Identifier: AGPL-3.0-or-later
"""What other nodes answer to `tools/list` and `tools/call`, in each of the forms that are about."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from actors.errors import ToolExecutionError, UnavailableError
from actors.p2p.peer_registry.mcp.failures import failed_at_peer
from actors.p2p.peer_registry.mcp.shaping import CODE_KEY, RETRYABLE_KEY

_MOST_NAME: Final = 200
_MOST_TEXT: Final = 2000


class RemoteTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the other side describes it. None of it is checked."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}


class RemoteResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool gave."""

    value: Any
    """Its structured content; else its text, when that is all there is; else its content, which may be any JSON."""
    meta: dict[str, Any] = {}


class _Page(msgspec.Struct):
    tools: Any = None
    cursor: Any = msgspec.field(name="nextCursor", default=None)


class _Called(msgspec.Struct):
    content: Any = None
    structured: Any = msgspec.field(name="structuredContent", default=UNSET)
    is_error: Any = msgspec.field(name="isError", default=False)
    meta: Any = msgspec.field(name="_meta", default=None)
    kind: Any = msgspec.field(name="resultType", default="complete")


T = TypeVar("T")
_page = msgspec.json.Decoder(_Page)
_called = msgspec.json.Decoder(_Called)


def read_page(result: bytes) -> tuple[list[RemoteTool], str | None]:
    """The tools on one page of a list, and where it goes on. What is no tool is left out."""
    said = _read(result, _page, "tools/list")
    tools = [tool for one in (said.tools if isinstance(said.tools, list) else []) if (tool := _tool(one)) is not None]
    return tools, said.cursor if isinstance(said.cursor, str) else None


def read_result(result: bytes, name: str) -> RemoteResult:
    """What a call of the tool gave. Raises what it failed with."""
    said = _read(result, _called, name)
    meta = said.meta if isinstance(said.meta, dict) else {}
    if said.kind != "complete":
        raise UnavailableError(f"{name} answers with {str(said.kind)[:_MOST_NAME]!r}, which nodes can't go on with")
    text = _text(said.content)
    if said.is_error is True:
        message = (text if text is not None else str(said.content))[:_MOST_TEXT]
        word = meta.get(CODE_KEY)
        if isinstance(word, str) and word:
            raise failed_at_peer(word, message, name, retryable=meta.get(RETRYABLE_KEY) is True)
        raise ToolExecutionError(name, "p2p", message)
    if said.structured is not UNSET:
        return RemoteResult(value=said.structured, meta=meta)
    return RemoteResult(value=said.content if text is None else text, meta=meta)


def _tool(said: object) -> RemoteTool | None:
    if not isinstance(said, dict):
        return None
    name, description, schema = said.get("name"), said.get("description"), said.get("inputSchema")
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME:
        return None
    return RemoteTool(
        name=name,
        description=description[:_MOST_TEXT] if isinstance(description, str) else "",
        input_schema=schema if isinstance(schema, dict) else {},
    )


def _text(content: object) -> str | None:
    """The text of content that is one block of text."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        text = content[0].get("text")
        if content[0].get("type") == "text" and isinstance(text, str):
            return text
    return None


def _read(result: bytes, decoder: msgspec.json.Decoder[T], what: str) -> T:
    try:
        return decoder.decode(result)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise UnavailableError(f"the peer's answer to {what} is not of MCP") from None
