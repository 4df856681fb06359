# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official Python client against one server. Usage: `python_client.py URL ERA MODE`.

URL may also be `stdio:COMMAND` (words by blanks), which is started, or `sse:URL` for the transport of 2024-11-05.
ERA is `modern` (probe with server/discover, as the client does by default) or `legacy` (the handshake); MODE is one of
`steps.py`. Runs in the environment of `requirements.txt`, started by `tests/peers/conftest.py`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import mcp_types as types
import steps
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

ERAS = {"modern": "auto", "legacy": "legacy"}


class OfficialPeer:
    """`mcp.Client` as a `steps.Peer`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def about(self) -> tuple[str, str | None]:
        info = self._client.server_info
        return self._client.protocol_version, info.name if info else None

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools(cache_mode="refresh")).tools]

    async def call(
        self, tool: str, arguments: dict[str, Any], on_progress: steps.OnProgress | None = None
    ) -> steps.Outcome:
        result = await self._client.call_tool(tool, arguments, progress_callback=on_progress)
        texts = [part.text for part in result.content if part.type == "text"]
        return {"is_error": bool(result.is_error), "text": "".join(texts)}

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in (await self._client.list_resources(cache_mode="refresh")).resources]

    async def templates(self) -> list[str]:
        listed = await self._client.list_resource_templates(cache_mode="refresh")
        return [one.uri_template for one in listed.resource_templates]

    async def read(self, uri: str) -> str:
        result = await self._client.read_resource(uri, cache_mode="refresh")
        return "".join(part.text for part in result.contents)

    async def prompts(self) -> list[str]:
        return [one.name for one in (await self._client.list_prompts(cache_mode="refresh")).prompts]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        result = await self._client.get_prompt(name, arguments)
        return "".join(message.content.text for message in result.messages)


async def on_elicit(_context: Any, _params: types.ElicitRequestParams) -> types.ElicitResult:
    """The user's answer."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def on_sample(_context: Any, _params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    """The model's answer."""
    text = types.TextContent(type="text", text="something")
    return types.CreateMessageResult(role="assistant", content=text, model="peer-model")


def transport_to(url: str, http: Any) -> Any:
    """What carries the client's messages."""
    kind, _, rest = url.partition(":")
    if kind == "stdio":
        command, *arguments = rest.split()
        return stdio_client(StdioServerParameters(command=command, args=arguments))
    return sse_client(rest) if kind == "sse" else streamable_http_client(url, http_client=http)


@asynccontextmanager
async def connected(url: str, era: str) -> AsyncIterator[OfficialPeer]:
    """A client with a connection of its own."""
    async with create_mcp_http_client() as http:
        http.event_hooks["request"].append(steps.note_handshake)
        async with Client(
            transport_to(url, http),
            mode=ERAS[era],
            read_timeout_seconds=steps.TIMEOUT_S,
            elicitation_callback=on_elicit,
            sampling_callback=on_sample,
        ) as client:
            yield OfficialPeer(client)


if __name__ == "__main__":
    steps.run(partial(connected, *sys.argv[1:3]), sys.argv[3])
