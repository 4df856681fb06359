# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Model Context Protocol of the gateway, sans I/O: values and bytes in, bytes out. No sockets, no web framework.

    eras            the five revisions, and which one a request belongs to
    http            Accept, Content-Type, headers of answers
    guard           Host and Origin
    jsonrpc         frames and errors
    headers         routing headers of the modern revision
    calls           SSE queues, and calls that turn into streams
    tokens          signed text that clients carry
    sessions        legacy session ids
    streams         streams that outlive their connection
    shaping         tools and results as each revision knows them
    offers_shaping  the same for resources and prompts
    exchange        what handlers get, and what runs them
    paging          cursors
    capabilities    what a client can be asked
    answers         checks of what it answers
    respondents     what both ways to ask have in common
    rounds          questions at the modern revision
    requests        questions in legacy sessions
    dialogues       what handlers need that may ask
    tools_methods   tools/list, tools/call
    offers_methods  resources/..., prompts/..., completion/complete
    listen          streams for changes
    modern, legacy  the two ways to serve a request
    protocol        the endpoint
    testing         helpers for tests

Layering: each module imports only those above it in this list.
"""

from gateway.mcp.exchange import Backend as Backend
from gateway.mcp.protocol import Protocol as Protocol
from gateway.mcp.protocol import Statistics as Statistics
