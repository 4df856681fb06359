# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP over standard input and output, for programs that start their server: a bridge to the gateway of a tree.

    lines     bytes in, lines out; each bounded
    messages  what a line is, and the headers that its revision wants
    wire      HTTP to the gateway, and what became of a request that failed
    session   the legacy session that the client does not know of
    requests  one request on its way
    bridge    all of them, and the ends

Layering: each module imports only those above it in this list. It runs in a process of its own and is a client of the
gateway like any other: `greenroom stdio` starts it, by name, and gives it the way to the tree (`wire.Tree`).
"""

from gateway.stdio.bridge import run as run
