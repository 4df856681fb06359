# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the command line asks of a running tree, over its sockets."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.calls import Message
from actors.channel import Channel
from actors.errors import InvalidArgumentsError, MCPServerError, RuntimeUnavailableError, UnknownToolError
from actors.messages import ActorStatus, Directory, State, TreeStatus
from actors.peers import is_spare
from actors.tool_messages import Catalogue, Progress, ToolCall, ToolDescriptor, ToolItem, ToolResult
from supervisor.admin import Down, open_admin, open_socket
from supervisor.rundir import RunInfo, find_running, process_start_time

ASK_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 120.0


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `down`."""

    root_pid: int
    actors: list[str]
    seconds: float


async def status(data_dir: Path) -> TreeStatus:
    """The tree that runs on this data directory."""
    async with open_admin(find_running(data_dir)) as admin:
        return await ask_status(admin)


async def ask_status(admin: Channel) -> TreeStatus:
    """The tree, over a connection that is open."""
    return msgspec.msgpack.decode(await admin.call("status", None, timeout_s=ASK_TIMEOUT_S), type=TreeStatus)


async def ask_directory(admin: Channel) -> Directory:
    """Where all actors are, over a connection that is open."""
    return msgspec.msgpack.decode(await admin.call("directory", None, timeout_s=ASK_TIMEOUT_S), type=Directory)


def _counts(actor: ActorStatus) -> bool:
    return actor.state != State.OFF and not is_spare(actor.name)


async def stop(data_dir: Path, *, now: bool) -> Stopped:
    """Stop the tree and wait until its root is gone."""
    started = time.monotonic()
    info = find_running(data_dir)
    async with open_admin(info) as admin:
        actors = [actor.name for actor in (await ask_status(admin)).actors if _counts(actor)]
        await admin.call("down", Down(now=now), timeout_s=ASK_TIMEOUT_S)
    with trio.move_on_after(_STOP_TIMEOUT_S):
        await _gone(info)
        return Stopped(root_pid=info.root_pid, actors=actors, seconds=time.monotonic() - started)
    raise MCPServerError(f"the root (pid {info.root_pid}) did not end within {_STOP_TIMEOUT_S:g} s; try: down --now")


async def _gone(info: RunInfo) -> None:
    """Wait for the end of a process that is not our child: a pidfd turns readable then."""
    try:
        pidfd = os.pidfd_open(info.root_pid)
    except ProcessLookupError:
        return
    try:
        if process_start_time(info.root_pid) == info.start_time:
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


# --- tools ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_router(data_dir: Path) -> AsyncGenerator[Channel, None]:
    """A connection to the router of the tree on this data directory."""
    async with open_admin(find_running(data_dir)) as admin:
        directory = await ask_directory(admin)
    async with _router_of(directory) as router:
        yield router


@asynccontextmanager
async def _router_of(directory: Directory) -> AsyncGenerator[Channel, None]:
    for entry in directory.entries:
        if entry.name == "router" and entry.state == State.READY:
            async with open_socket(entry.socket) as channel:
                yield channel
                return
    raise RuntimeUnavailableError("the router is not ready; try again, or see: greenroom tree")


async def catalogue(data_dir: Path) -> Catalogue:
    """All tools."""
    async with open_router(data_dir) as router:
        return await ask_router(router)


async def ask_catalogue(directory: Directory) -> Catalogue:
    """All tools, for who has the directory already."""
    async with _router_of(directory) as router:
        return await ask_router(router)


async def ask_router(router: Channel) -> Catalogue:
    """All that is offered."""
    return msgspec.msgpack.decode(await router.call("catalogue", None, timeout_s=ASK_TIMEOUT_S), type=Catalogue)


async def call_tool(
    data_dir: Path, name: str, arguments: tuple[str, ...], progress: Callable[[str], None]
) -> ToolResult:
    """Call a tool with `key=value` texts. `progress` shows a line for each step that the tool reports."""
    decode_item = msgspec.msgpack.Decoder(ToolItem).decode

    def on_item(body: msgspec.Raw) -> None:
        item = decode_item(body)
        if isinstance(item, Progress):
            of = f" of {item.total:g}" if item.total is not None else ""
            progress(f"{item.progress:g}{of}  {item.message}".rstrip())
        else:
            progress(f"{item.level}: {item.data.decode()}")

    async with open_router(data_dir) as router:
        tools = {tool.name: tool for tool in (await ask_router(router)).tools}
        tool = tools.get(name)
        if tool is None:
            nearest = difflib.get_close_matches(name, tools, n=1)
            raise UnknownToolError(
                f"no tool matches {name!r}"
                + (f"; did you mean {nearest[0]}?" if nearest else "; see: greenroom tools list")
            )
        call: Message = ToolCall(
            name=name,
            arguments=parse_arguments(tool, arguments),
            call_id=f"cli-{os.getpid()}-{time.monotonic_ns()}",
            progress=True,
            log_level="info",
        )
        reply = await router.call("tools/call", call, timeout_s=tool.timeout_s, on_item=on_item)
        return msgspec.msgpack.decode(reply, type=ToolResult)


def parse_arguments(tool: ToolDescriptor, arguments: tuple[str, ...]) -> bytes:
    """`key=value` texts as a JSON object: a value is text where the schema says string, else JSON."""
    properties = msgspec.json.decode(tool.input_schema).get("properties", {})
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise InvalidArgumentsError(f"{argument!r} is not KEY=VALUE; {tool.name} takes: {signature(tool)}")
        values[key] = text if _takes_text(properties.get(key, {})) else _json_or_text(text)
    return msgspec.json.encode(values)


def _takes_text(schema: dict[str, object]) -> bool:
    kinds = schema.get("type")
    options = schema.get("anyOf")
    if isinstance(options, list):
        return any(isinstance(option, dict) and _takes_text(option) for option in options) and not any(
            isinstance(option, dict) and option.get("type") in {"object", "array"} for option in options
        )
    return kinds == "string" or "enum" in schema


def _json_or_text(text: str) -> object:
    try:
        value: object = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
    return value


def signature(tool: ToolDescriptor) -> str:
    """A tool as a Python-like signature with its category and pool, or why it is broken."""
    if tool.broken:
        return f"{tool.name}  broken: {tool.broken}"
    schema = msgspec.json.decode(tool.input_schema)
    required = set(schema.get("required", []))
    parts = []
    for key, value in schema.get("properties", {}).items():
        kind = value.get("type") or "|".join(str(option.get("type", "?")) for option in value.get("anyOf", [])) or "any"
        default = "" if key in required else f" = {msgspec.json.encode(value.get('default')).decode()}"
        parts.append(f"{key}: {kind}{default}")
    return f"{tool.name}({', '.join(parts)})  [{tool.category}, {tool.pool}]  {tool.description.splitlines()[0]}"


def catalogue_json(listed: Catalogue) -> bytes:
    """The catalogue as one JSON object, schemas in place."""
    tools = []
    for tool in listed.tools:
        plain = msgspec.to_builtins(tool, builtin_types=(bytes,))
        plain["input_schema"] = msgspec.Raw(tool.input_schema)
        plain["meta"] = msgspec.Raw(tool.meta or b"null")
        plain["output_schema"] = msgspec.Raw(tool.output_schema) if tool.output_schema else None
        tools.append(plain)
    return msgspec.json.encode({"version": listed.version, "tools": tools})


def result_json(result: ToolResult) -> bytes:
    """What the tool answered, with runtime and time."""
    return msgspec.json.encode(
        {"result": msgspec.Raw(result.value), "_runtime": result.runtime, "_duration_ms": result.duration_ms}
    )


def result_text(result: ToolResult) -> str:
    """What the tool answered, for people: text as it is, everything else as indented JSON."""
    if result.shape == "text":
        return str(msgspec.json.decode(result.value))
    return msgspec.json.format(result.value, indent=2).decode()
