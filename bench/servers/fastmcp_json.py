# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/gateway.py`: FastMCP with one `echo` tool: JSON, no sessions, uvicorn on uvloop and httptools.

Runs in the peers' environment (`bench/peers.py`), never in Greenroom's. Usage: `python fastmcp_json.py PORT`; serves
`/mcp` on 127.0.0.1 until SIGTERM.
"""

from __future__ import annotations

import sys

import uvicorn
from fastmcp import FastMCP

server = FastMCP("bench-fastmcp")


@server.tool
def echo(text: str) -> str:
    """Return the text unchanged."""
    return text


if __name__ == "__main__":
    app = server.http_app(json_response=True, stateless_http=True)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
