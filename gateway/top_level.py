# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fields of a tool's result that REST answers beside `result`, too, because callers look for them there. A tool names
them in its `_meta` (`TOP_LEVEL`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from actors.tool_messages import TOP_LEVEL, ToolDescriptor, ToolResult

_TAKEN: Final = frozenset({"status", "result", "error", "_runtime", "_duration_ms"})


class _Meta(msgspec.Struct):
    fields: list[str] = msgspec.field(name=TOP_LEVEL, default_factory=list)


_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def fields_of(tool: ToolDescriptor | None) -> list[str]:
    """Names of such fields; those that would hide others are not among them."""
    if tool is None or not tool.meta:
        return []
    try:
        return [name for name in _decode_meta(tool.meta).fields if name not in _TAKEN]
    except msgspec.MsgspecError:
        return []


def raised(names: list[str], result: ToolResult) -> dict[str, msgspec.Raw]:
    """Those of these fields that a result has, as JSON."""
    if not names or result.shape != "object":
        return {}
    values = _decode_fields(result.value)
    return {name: values[name] for name in names if name in values}


def described(tools: Iterable[ToolDescriptor]) -> dict[str, dict[str, Any]]:
    """For the OpenAPI document: field -> schema of what it is, by the tools that have it."""
    owners: dict[str, list[str]] = {}
    for tool in tools:
        for name in fields_of(tool):
            owners.setdefault(name, []).append(tool.name)
    return {
        name: {"description": f"Only of {', '.join(names)}: the same as `result.{name}`"}
        for name, names in owners.items()
    }
