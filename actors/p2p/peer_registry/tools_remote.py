# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools that reach the tools of peers."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from actors.p2p.answers import Done
from actors.p2p.peer_registry.mcp.results import RemoteTool
from actors.p2p.peer_registry.remote_tools import RemoteTools, Way
from actors.toolkit import tool

PeerId = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[1-9A-HJ-NP-Za-km-z]+$")]
Seconds = Annotated[float, Meta(gt=0, le=300)]
ToolName = Annotated[str, Meta(min_length=1, max_length=200)]


class ToolsOfPeer(Done, kw_only=True):
    """What a peer lets this node call."""

    peer_id: str
    tools: list[RemoteTool]
    """As the peer describes them: a claim."""


class ResultOfPeer(Done, kw_only=True):
    """What a peer's tool gave."""

    peer_id: str
    tool: str
    result: Any
    way: Way
    """How it was called: over the link between Greenroom nodes, or by MCP."""


class RemoteToolTools:
    """Methods of an object that has the way to peers."""

    def __init__(self, remote: RemoteTools) -> None:
        self._remote = remote

    @tool(read_only=True, open_world=True)
    async def peer_tools(self, peer_id: PeerId, timeout: Seconds = 10) -> ToolsOfPeer:
        """List the tools that a connected peer lets this node call.

        Args:
            peer_id: Its id.
            timeout: Seconds.
        """
        return ToolsOfPeer(peer_id=peer_id, tools=await self._remote.list(peer_id, timeout))

    @tool(destructive=True, open_world=True)
    async def peer_call_tool(
        self,
        peer_id: PeerId,
        tool_name: ToolName,
        arguments: dict[str, Any] | None = None,
        timeout: Seconds = 30,
    ) -> ResultOfPeer:
        """Call a tool of a connected peer, once: when the answer is lost, the error says that the outcome is unknown.

        Args:
            peer_id: Its id.
            tool_name: One that peer_tools lists.
            arguments: Its arguments; null = none.
            timeout: Seconds.
        """
        answer = await self._remote.call(peer_id, tool_name, arguments or {}, timeout)
        return ResultOfPeer(peer_id=peer_id, tool=tool_name, result=answer.value, way=answer.way)

    def all(self) -> list[Any]:
        """Each of them."""
        return [self.peer_tools, self.peer_call_tool]
