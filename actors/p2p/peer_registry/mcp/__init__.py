# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP between nodes: the protocol `/mcp+p2p/1.0.0` on streams of peers, both sides of it.

frames, rpc             bytes and messages
profiles, failures      what is said of MCP++; errors in the words of each dialect
shaping                 tools and results in the words of each dialect
answering               what both dialects answer with; the tools themselves are given from outside
current, legacy, p2p_message    the dialects
serving, server         one stream of a peer, all of them
asking, opening, client the other side: one stream, which dialect it speaks, and the tools of a peer
"""
