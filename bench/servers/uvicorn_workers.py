# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/recovery.py`: the official Python SDK's server under uvicorn's own supervisor, with two workers.

Runs in the peers' environment. Usage: `python uvicorn_workers.py PORT`; serves `/mcp` on 127.0.0.1 until SIGTERM.
"""

from __future__ import annotations

import sys

import uvicorn
from mcp_json import server

app = server.streamable_http_app(json_response=True, stateless_http=True)

if __name__ == "__main__":
    uvicorn.run(
        "uvicorn_workers:app",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        workers=2,
        log_level="warning",
        access_log=False,
    )
