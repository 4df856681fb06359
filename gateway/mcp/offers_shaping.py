# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources and prompts as each revision knows them. What they hold is spliced in without being parsed, but for
revisions that lack some of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.jsonrpc import encode
from actors.tool_messages import Annotations, PromptDescriptor, ResourceDescriptor, ToolResult
from gateway.mcp.eras import C, D
from gateway.mcp.shaping import Shaper, icon_list, listed_meta, one_line


def resource(shaper: Shaper, one: ResourceDescriptor) -> dict[str, object]:
    """A resource or a template as it is listed."""
    shown: dict[str, object] = {"uriTemplate" if one.template else "uri": one.uri, "name": one.name}
    _describe(shaper, one, shown)
    if one.mime_type:
        shown["mimeType"] = one.mime_type
    if one.size is not None and not one.template:
        shown["size"] = one.size
    annotations = _annotations(shaper, one.annotations)
    if annotations:
        shown["annotations"] = annotations
    return shown


def prompt(shaper: Shaper, one: PromptDescriptor) -> dict[str, object]:
    """A prompt as it is listed."""
    shown: dict[str, object] = {"name": one.name}
    _describe(shaper, one, shown)
    if one.arguments:
        shown["arguments"] = [
            {"name": argument.name}
            | ({"description": argument.description} if argument.description else {})
            | {"required": argument.required}
            for argument in one.arguments
        ]
    return shown


def page(
    shaper: Shaper, member: str, entries: Sequence[dict[str, object]], next_cursor: str | None, *, ttl_ms: int
) -> bytes:
    """A page of a list."""
    members: dict[str, object] = {member: entries}
    if next_cursor is not None:
        members["nextCursor"] = next_cursor
    return shaper.result(members, ttl_ms=ttl_ms)


def contents(shaper: Shaper, result: ToolResult, one: ResourceDescriptor) -> bytes:
    """The result of `resources/read`."""
    value = one_line(result.value)
    if shaper.revision < C and b'"_meta"' in value:
        parts = msgspec.json.decode(value)
        value = encode([{name: part for name, part in entry.items() if name != "_meta"} for entry in parts])
    return shaper.result({"contents": msgspec.Raw(value)}, ttl_ms=int(one.fresh_s * 1000))


def messages(shaper: Shaper, result: ToolResult, one: PromptDescriptor) -> bytes:
    """The result of `prompts/get`."""
    value = one_line(result.value)
    if shaper.revision < D:
        said = msgspec.json.decode(value)
        value = encode([message | {"content": shaper.older_block(message["content"])} for message in said])
    return shaper.result({"description": one.description, "messages": msgspec.Raw(value)})


def completion(shaper: Shaper, result: ToolResult | None) -> bytes:
    """The result of `completion/complete`; without one there is nothing to propose."""
    value = b'{"values":[]}' if result is None else one_line(result.value)
    return shaper.result({"completion": msgspec.Raw(value)})


def _describe(shaper: Shaper, one: ResourceDescriptor | PromptDescriptor, shown: dict[str, object]) -> None:
    if shaper.revision >= C and one.title:
        shown["title"] = one.title
    shown["description"] = one.description
    if shaper.revision >= C:
        shown["_meta"] = listed_meta(one)
    if shaper.revision >= D and one.icons:
        shown["icons"] = icon_list(one.icons)


def _annotations(shaper: Shaper, given: Annotations) -> dict[str, object]:
    annotations: dict[str, object] = msgspec.to_builtins(given)
    if shaper.revision < C:
        annotations.pop("lastModified", None)
    return annotations
