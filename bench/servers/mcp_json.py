# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/gateway.py`: the official Python SDK with an `echo` tool, in its fastest form.

Fastest means JSON answers, no sessions, uvicorn on uvloop and httptools, no access log. Runs in the peers' environment
(`bench/peers.py`), never in Greenroom's. Usage: `python mcp_json.py PORT`; serves `/mcp` on 127.0.0.1 until SIGTERM.

After the port: `--streams` for answers as event streams, `--streaming` for these and sessions, `--tools N` for N more
tools. `sleep`, which reports progress every tenth of a second, is for the client scripts of `tests/peers`.
"""

from __future__ import annotations

import sys

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("bench-mcp", log_level="WARNING")


@server.tool()
def echo(text: str) -> str:
    """Return the text unchanged."""
    return text


@server.tool()
async def sleep(seconds: float, ctx: Context) -> str:
    """Wait, reporting progress."""
    steps = max(1, round(seconds * 10))
    for step in range(steps):
        await anyio.sleep(seconds / steps)
        await ctx.report_progress(step + 1, steps)
    return f"slept {seconds} s"


@server.tool()
async def stepwise(text: str, ctx: Context) -> str:
    """Report progress three times and return the text unchanged."""
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return text


def add_tools(count: int) -> None:
    """Tools to be listed."""

    def listed(text: str, count: int = 1, loud: bool = False) -> str:
        return text * count

    for number in range(count):
        server.add_tool(listed, name=f"listed_{number}", description=f"Return the text so many times; tool {number}.")


if __name__ == "__main__":
    options = sys.argv[2:]
    if "--tools" in options:
        add_tools(int(options[options.index("--tools") + 1]))
    sessions = "--streaming" in options
    app = server.streamable_http_app(
        json_response=not sessions and "--streams" not in options, stateless_http=not sessions
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
