# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the command line asks of a running tree about resources and prompts."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from actors.catalogue_view import CatalogueView
from actors.errors import InvalidArgumentsError
from actors.tool_messages import (
    Catalogue,
    PromptDescriptor,
    PromptGet,
    ResourceDescriptor,
    ResourceRead,
    ToolCall,
    ToolResult,
)
from supervisor import client

_UNKNOWN_TIMEOUT_S = 10.0
"""For what the catalogue does not have: the router says so."""


async def read_resource(data_dir: Path, uri: str) -> bytes:
    """What a resource holds: MCP's `contents`, as JSON."""
    return await _ask(data_dir, ResourceRead(name=uri, arguments=b"{}", call_id=_call_id()))


async def get_prompt(data_dir: Path, name: str, arguments: tuple[str, ...]) -> bytes:
    """A prompt's messages, as JSON. `arguments` are `key=value` texts."""
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise InvalidArgumentsError(f"{argument!r} is not KEY=VALUE; see: greenroom prompts list")
        values[key] = text
    return await _ask(data_dir, PromptGet(name=name, arguments=msgspec.json.encode(values), call_id=_call_id()))


async def _ask(data_dir: Path, call: ToolCall) -> bytes:
    async with client.open_router(data_dir) as router:
        known = CatalogueView(await client.ask_router(router)).of(call)
        timeout_s = known.timeout_s if known is not None else _UNKNOWN_TIMEOUT_S
        reply = await router.call(call.METHOD, call, timeout_s=timeout_s)
    return msgspec.msgpack.decode(reply, type=ToolResult).value


def _call_id() -> str:
    return f"cli-{os.getpid()}-{time.monotonic_ns()}"


# --- for people ----------------------------------------------------------------------------------------------------


def resource_line(resource: ResourceDescriptor) -> str:
    """A resource on one line, or why it is broken."""
    if resource.broken:
        return f"{resource.uri}  broken: {resource.broken}"
    kind = resource.mime_type or "any kind"
    return f"{resource.uri}  ({resource.name}, {kind})  [{resource.category}, {resource.pool}]  {resource.description}"


def prompt_line(prompt: PromptDescriptor) -> str:
    """A prompt as a signature, or why it is broken."""
    if prompt.broken:
        return f"{prompt.name}  broken: {prompt.broken}"
    arguments = ", ".join(argument.name + ("" if argument.required else "?") for argument in prompt.arguments)
    return f"{prompt.name}({arguments})  [{prompt.category}, {prompt.pool}]  {prompt.description}"


def contents_of(contents: bytes) -> list[str | bytes]:
    """Texts and bytes of a resource."""
    parts = msgspec.json.decode(contents)
    return [part["text"] if "text" in part else base64.b64decode(part["blob"]) for part in parts]


def messages_text(messages: bytes) -> str:
    """A prompt's messages, one below the other."""
    return "\n".join(f"{one['role']}: {_block_text(one['content'])}" for one in msgspec.json.decode(messages))


def _block_text(block: dict[str, Any]) -> str:
    if block["type"] == "text":
        return str(block["text"])
    if block["type"] == "resource" and "text" in block["resource"]:
        return f"[{block['resource']['uri']}]\n{block['resource']['text']}"
    return f"[{block['type']}, {block.get('mimeType') or block.get('uri') or block['resource']['uri']}]"


def resources_json(listed: Catalogue) -> bytes:
    """The resources as one JSON object."""
    return msgspec.json.encode({"version": listed.version, "resources": [_plain(one) for one in listed.resources]})


def prompts_json(listed: Catalogue) -> bytes:
    """The prompts as one JSON object."""
    return msgspec.json.encode({"version": listed.version, "prompts": [_plain(one) for one in listed.prompts]})


def _plain(one: ResourceDescriptor | PromptDescriptor) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(one, builtin_types=(bytes,))
    plain["meta"] = msgspec.Raw(one.meta or b"null")
    return plain
