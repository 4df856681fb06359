# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP over HTTP. The gateway holds connections and owns no truth: it may die at any time.

mcp             the protocol: bytes and values in, bytes out; no I/O
fast_lane       plain `POST /mcp` straight from the socket; everything else goes to hypercorn
app             the Quart application: REST, health, metrics, and MCP for whatever the fast lane hands over
main            the actor
"""
