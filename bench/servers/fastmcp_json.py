# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/gateway.py`: FastMCP with an `echo` tool: JSON, no sessions, uvicorn on uvloop and httptools.

Runs in the peers' environment (`bench/peers.py`), never in Greenroom's. Usage: `python fastmcp_json.py PORT`; serves
`/mcp` on 127.0.0.1 until SIGTERM. After the port: `--streams` for answers as event streams, `--streaming` for these and
sessions, `--tools N` for N more tools.
"""

from __future__ import annotations

import sys

import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.tools import Tool

server = FastMCP("bench-fastmcp")


@server.tool
def echo(text: str) -> str:
    """Return the text unchanged."""
    return text


@server.tool
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
        name, told = f"listed_{number}", f"Return the text so many times; tool {number}."
        server.add_tool(Tool.from_function(listed, name=name, description=told))


if __name__ == "__main__":
    options = sys.argv[2:]
    if "--tools" in options:
        add_tools(int(options[options.index("--tools") + 1]))
    sessions = "--streaming" in options
    app = server.http_app(json_response=not sessions and "--streams" not in options, stateless_http=not sessions)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
