# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP over HTTP. The gateway holds connections and owns no truth: it may die at any time.

mcp             the protocol: bytes and values in, bytes out; no I/O
fast_lane       plain `POST /mcp` straight from the socket; everything else goes to hypercorn
app             the Quart application: REST, health, metrics, and MCP for whatever the fast lane hands over
legacy_sse      the transport of 2024-11-05, an adapter in front of mcp
sse             server-sent events, read
stdio           the bridge to programs that start their server; a client of the gateway, in a process of its own
main            the actor
"""
