# SPDX-License-Identifier: AGPL-3.0-or-later
"""FastMCP's client against one server. Usage and environment are those of `python_client.py`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import steps
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp.shared._httpx_utils import create_mcp_http_client

ERAS = {"modern": "auto", "legacy": "legacy"}


class FastPeer:
    """`fastmcp.Client` as a `steps.Peer`."""

    def __init__(self, client: Client[Any]) -> None:
        self._client = client

    def about(self) -> tuple[str, str | None]:
        info = self._client.session.server_info
        return self._client.session.protocol_version, info.name if info else None

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.list_tools()]

    async def call(
        self, tool: str, arguments: dict[str, Any], on_progress: steps.OnProgress | None = None
    ) -> steps.Outcome:
        result = await self._client.call_tool(tool, arguments, progress_handler=on_progress, raise_on_error=False)
        texts = [part.text for part in result.content if part.type == "text"]
        return {"is_error": bool(result.is_error), "text": "".join(texts)}

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in await self._client.list_resources()]

    async def templates(self) -> list[str]:
        return [one.uri_template for one in await self._client.list_resource_templates()]

    async def read(self, uri: str) -> str:
        return "".join(part.text for part in await self._client.read_resource(uri))

    async def prompts(self) -> list[str]:
        return [one.name for one in await self._client.list_prompts()]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        result = await self._client.get_prompt(name, arguments)
        return "".join(message.content.text for message in result.messages)


async def on_elicit(_message: str, _form: type | None, _params: Any, _context: Any) -> dict[str, str]:
    """The user's answer."""
    return {"name": "Ada"}


async def on_sample(_messages: Any, _params: Any, _context: Any) -> str:
    """The model's answer."""
    return "something"


def http_client(**options: Any) -> Any:
    """The library's own HTTP client, with an ear for handshakes."""
    options.pop("follow_redirects", None)
    client = create_mcp_http_client(**options)
    client.event_hooks["request"].append(steps.note_handshake)
    return client


@asynccontextmanager
async def connected(url: str, era: str) -> AsyncIterator[FastPeer]:
    """A client with a connection of its own."""
    async with Client(
        StreamableHttpTransport(url, httpx_client_factory=http_client),
        mode=ERAS[era],
        timeout=steps.TIMEOUT_S,
        elicitation_handler=on_elicit,
        sampling_handler=on_sample,
        cache=False,
    ) as client:
        yield FastPeer(client)


if __name__ == "__main__":
    steps.run(partial(connected, *sys.argv[1:3]), sys.argv[3])
