# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official Python client against one server. Usage: `python_client.py URL ERA MODE`.

URL may also be `stdio:COMMAND` (words by blanks), which is started, or `sse:URL` for the transport of 2024-11-05.

ERA is `modern` (probe with server/discover, as the client does by default) or `legacy` (the handshake).
MODE `tour` prints one JSON object with all that was seen. MODE `cancel` starts a long `sleep` and prints one JSON line;
at the first line on standard input it cancels the call and prints what that gave, at the second it leaves.
Runs in the environment of `requirements.txt`, started by `tests/peers/conftest.py`.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client

MODES = {"modern": "auto", "legacy": "legacy"}


async def outcome(client: Client, tool: str, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A call's result, or its protocol error's code, as plain values."""
    try:
        result = await client.call_tool(tool, arguments, **options)
    except MCPError as error:
        return {"error_code": error.code, "message": error.message}
    texts = [part.text for part in result.content if part.type == "text"]
    return {"is_error": bool(result.is_error), "text": "".join(texts)}


async def tour(client: Client) -> dict[str, Any]:
    """List, call, watch progress, and make two mistakes."""
    progress: list[list[Any]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append([done, total, message])

    listed = await client.list_tools()
    return {
        "protocol_version": client.protocol_version,
        "server_name": client.server_info.name if client.server_info else None,
        "tools": [tool.name for tool in listed.tools],
        "echo": await outcome(client, "echo", {"text": "grüß dich"}),
        "sleep": await outcome(client, "sleep", {"seconds": 0.3}, progress_callback=on_progress),
        "progress": progress,
        "wrong_argument": await outcome(client, "echo", {"txet": 1}),
        "unknown_tool": await outcome(client, "no_such_tool", {}),
    }


async def cancel(client: Client) -> None:
    """Start, and on command cancel, one long call; stay connected until told to leave."""
    seen: dict[str, Any] = {"finished": None}

    async def long_call(scope: anyio.CancelScope) -> None:
        with scope:
            seen["finished"] = await outcome(client, "sleep", {"seconds": 30}, progress_callback=ignore)

    async def ignore(_done: float, _total: float | None, _message: str | None) -> None:
        """Progress is asked for so that the answer is a stream."""

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(long_call, scope)
        print(json.dumps({"started": True}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        scope.cancel()
    # A further call shows that cancelling one call leaves the connection usable.
    print(
        json.dumps({"cancelled": scope.cancelled_caught, **seen, "echo": await outcome(client, "echo", {"text": "a"})}),
        flush=True,
    )
    await anyio.to_thread.run_sync(sys.stdin.readline)


def server_of(url: str) -> Any:
    """What the client connects to: a URL, or a transport."""
    kind, _, rest = url.partition(":")
    if kind == "stdio":
        command, *arguments = rest.split()
        return stdio_client(StdioServerParameters(command=command, args=arguments))
    return sse_client(rest) if kind == "sse" else url


async def main(url: str, era: str, mode: str) -> None:
    """Connect and do what was asked for."""
    with anyio.fail_after(60):
        async with Client(server_of(url), mode=MODES[era], read_timeout_seconds=40) as client:
            if mode == "tour":
                print(json.dumps(await tour(client)), flush=True)
            else:
                await cancel(client)


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:4]))
