# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of peers, for whoever uses this node: over the link with a Greenroom node, else by MCP (`/mcp+p2p/1.0.0`).

A call is made once. When the peer or the way to it is lost before the answer, nobody knows whether it took effect, and
that is what is said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

import msgspec

from actors.errors import (
    InvalidArgumentsError,
    MCPServerError,
    PeerUnreachableError,
    ToolExecutionError,
    UnknownToolError,
)
from actors.p2p.peer_registry.link.messages import CallTool, ToolAnswer
from actors.p2p.peer_registry.mcp.client import McpClient, open_client
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.mcp.results import RemoteTool
from actors.tool_tasks import result_of

if TYPE_CHECKING:
    from actors.p2p.peer_registry.host_events import ConnectionView
    from actors.p2p.peer_registry.host_protocols import PeerSays
    from actors.p2p.peer_registry.link.link import Link
    from actors.p2p.peer_registry.stream import PeerStream

MCP_PROTOCOL: Final = "/mcp+p2p/1.0.0"
LINK_ARGUMENT_BYTES: Final = 900_000
"""Of arguments that go over a link, whose frames have a limit."""
_MOST_TEXT: Final = 2000

Way = Literal["link", "mcp"]
T = TypeVar("T")


class Streams(Protocol):
    """What this needs of the host."""

    def connections(self) -> Sequence[ConnectionView]:
        """The open ones."""

    def says(self, peer_id: str, /) -> PeerSays | None:
        """What a connected peer says of itself; None = not yet."""

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float, /) -> PeerStream:
        """A stream over it."""


class RemoteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer's tool gave."""

    value: Any
    way: Way


class RemoteTools:
    """See the module's text."""

    def __init__(
        self,
        streams: Streams,
        link: Callable[[str], Link | None],
        face: ClientFace,
        token: Callable[[str], str] | None,
    ) -> None:
        """`link` is the one with a peer; `token` makes the proof for one request to it, where there is a secret."""
        self._streams = streams
        self._link = link
        self._face = face
        self._token = token

    async def list(self, peer_id: str, timeout_s: float) -> list[RemoteTool]:
        """Tools that a peer lets this node call. Raises `PeerUnreachableError` when it is not connected, and what
        asking it raises."""
        if self._speaks_mcp(peer_id):
            return await self._by_mcp(peer_id, lambda client: client.list_tools(timeout_s))
        link = self._link(peer_id)
        if link is not None:  # it answers no MCP, and says only names
            return [RemoteTool(name=name) for name in link.peer.about.tools]
        raise _no_way(peer_id)

    async def call(self, peer_id: str, name: str, arguments: dict[str, Any], timeout_s: float) -> RemoteAnswer:
        """Run one. Raises what the tool failed with or the call was refused with, `PeerUnreachableError` when the peer
        is not connected, `DeadlineExceededError`, and `OutcomeUnknownError`."""
        try:
            return await self._called(peer_id, name, msgspec.json.encode(arguments), timeout_s)
        except (UnknownToolError, InvalidArgumentsError) as error:
            # Said of the peer's tool; here, it would be said of the tool that calls it.
            raise ToolExecutionError(name, "p2p", error.message[:_MOST_TEXT]) from None

    async def _called(self, peer_id: str, name: str, body: bytes, timeout_s: float) -> RemoteAnswer:
        link = self._link(peer_id)
        if link is not None and len(body) <= LINK_ARGUMENT_BYTES:
            return await self._by_link(link, name, body, timeout_s)
        if self._speaks_mcp(peer_id):
            found = await self._by_mcp(peer_id, lambda client: client.call_tool(name, body, timeout_s))
            return RemoteAnswer(value=found.value, way="mcp")
        if link is not None:
            raise InvalidArgumentsError(f"the arguments have {len(body)} bytes; a link carries {LINK_ARGUMENT_BYTES}")
        raise _no_way(peer_id)

    def _speaks_mcp(self, peer_id: str) -> bool:
        if all(view.peer_id != peer_id for view in self._streams.connections()):
            raise PeerUnreachableError(f"peer {peer_id} is not connected; peer_connect connects to it")
        said = self._streams.says(peer_id)
        return said is None or MCP_PROTOCOL in said.protocols

    async def _by_link(self, link: Link, name: str, body: bytes, timeout_s: float) -> RemoteAnswer:
        said = await link.call(CallTool(name=name, arguments=body.decode(), timeout_s=timeout_s), timeout_s)
        assert isinstance(said, ToolAnswer)
        result = result_of(said.result)
        value = msgspec.json.decode(result.value)
        if result.is_error:
            raise ToolExecutionError(name, "p2p", str(value)[:_MOST_TEXT])
        # As it comes by MCP, too.
        return RemoteAnswer(value={"result": value} if result.shape == "wrapped" else value, way="link")

    async def _by_mcp(self, peer_id: str, ask: Callable[[McpClient], Awaitable[T]]) -> T:
        async def opened(timeout_s: float) -> PeerStream:
            return await self._streams.open_stream(peer_id, MCP_PROTOCOL, timeout_s)

        make = self._token
        token = None if make is None else lambda: make(peer_id)
        failed: MCPServerError | None = None
        # What is raised inside would come out as a group.
        async with open_client(opened, self._face, token=token) as client:
            try:
                found = await ask(client)
            except MCPServerError as error:
                failed = error
        if failed is not None:
            raise failed
        return found


def _no_way(peer_id: str) -> PeerUnreachableError:
    return PeerUnreachableError(f"peer {peer_id} answers neither {MCP_PROTOCOL} nor a Greenroom link")
