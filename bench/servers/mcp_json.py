# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/gateway.py`: the official Python SDK with one `echo` tool, in its fastest form.

Fastest means JSON answers, no sessions, uvicorn on uvloop and httptools, no access log. Runs in the peers' environment
(`bench/peers.py`), never in Greenroom's. Usage: `python mcp_json.py PORT`; serves `/mcp` on 127.0.0.1 until SIGTERM.

`--streaming` after the port (sessions, event streams) and the tool `sleep`, which reports progress every tenth of a
second, are for trying the client scripts of `tests/peers` on a foreign server; the benchmark uses neither.
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


if __name__ == "__main__":
    streaming = "--streaming" in sys.argv[2:]
    app = server.streamable_http_app(json_response=not streaming, stateless_http=not streaming)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
