# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of peers, for whoever uses this node: over the link with a Greenroom node, else by MCP (`/mcp+p2p/1.0.0`).

A call is made once. When the peer or the way to it is lost before the answer, nobody knows whether it took effect, and
that is what is said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import trio

from actors.errors import (
    DeadlineExceededError,
    InvalidArgumentsError,
    MCPServerError,
    OutcomeUnknownError,
    PeerUnreachableError,
    ToolExecutionError,
    UnavailableError,
)
from actors.p2p.peer_registry.link.messages import CallTool
from actors.p2p.peer_registry.mcp.client import McpClient, open_client
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.mcp.results import RemoteTool
from actors.p2p.peer_registry.mcp.rpc import PROTOCOL
from actors.peer_messages import PeerToolAnswer
from actors.tool_tasks import result_of

if TYPE_CHECKING:
    from actors.p2p.peer_registry.host_events import ConnectionView
    from actors.p2p.peer_registry.host_protocols import PeerSays
    from actors.p2p.peer_registry.link.link import Link
    from actors.p2p.peer_registry.stream import PeerStream

LINK_ARGUMENT_BYTES: Final = 900_000
"""Of arguments that go over a link, whose frames have a limit."""
_MOST_TEXT: Final = 2000

T = TypeVar("T")


class Streams(Protocol):
    """What this needs of the host."""

    def connections(self) -> Sequence[ConnectionView]:
        """The open ones."""

    def says(self, peer_id: str, /) -> PeerSays | None:
        """What a connected peer says of itself; None = not yet."""

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float, /) -> PeerStream:
        """A stream over it."""


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

    async def call(self, peer_id: str, name: str, arguments: bytes, timeout_s: float) -> PeerToolAnswer:
        """Run one; `arguments` is a JSON object. Raises what the tool failed with or the call was refused with
        (`UnknownToolError` also for a tool that this node may not call), `PeerUnreachableError` when nothing was asked
        of the peer, and `OutcomeUnknownError` also when its time ran out."""
        link = self._link(peer_id)
        if link is not None and len(arguments) <= LINK_ARGUMENT_BYTES:
            return await self._by_link(link, name, arguments, timeout_s)
        if self._speaks_mcp(peer_id):
            return await self._call_by_mcp(peer_id, name, arguments, timeout_s)
        if link is not None:
            size = len(arguments)
            raise InvalidArgumentsError(f"the arguments have {size} bytes; a link carries {LINK_ARGUMENT_BYTES}")
        raise _no_way(peer_id)

    def _speaks_mcp(self, peer_id: str) -> bool:
        if all(view.peer_id != peer_id for view in self._streams.connections()):
            raise PeerUnreachableError(f"peer {peer_id} is not connected; peer_connect connects to it")
        said = self._streams.says(peer_id)
        return said is None or PROTOCOL in said.protocols

    async def _by_link(self, link: Link, name: str, body: bytes, timeout_s: float) -> PeerToolAnswer:
        try:
            said = await link.call(CallTool(name=name, arguments=body.decode(), timeout_s=timeout_s), timeout_s)
        except DeadlineExceededError as error:
            raise _unknown(name, error) from None
        try:
            result = result_of(said.result)
            value = msgspec.json.decode(result.value)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise _no_result(name) from None
        if result.is_error:
            raise ToolExecutionError(name, "p2p", str(value)[:_MOST_TEXT])
        # As it comes by MCP, too.
        wrapped = b'{"result":' + result.value + b"}"
        return PeerToolAnswer(value=wrapped if result.shape == "wrapped" else result.value, way="link")

    async def _call_by_mcp(self, peer_id: str, name: str, body: bytes, timeout_s: float) -> PeerToolAnswer:
        deadline = trio.current_time() + timeout_s

        async def call(client: McpClient) -> bytes:
            try:
                await client.connect(timeout_s)
            except DeadlineExceededError as error:
                raise PeerUnreachableError(error.message, peer_id=peer_id) from None
            try:
                found = await client.call_tool(name, body, max(0.0, deadline - trio.current_time()))
                return msgspec.json.encode(found.value)
            except DeadlineExceededError as error:
                raise _unknown(name, error) from None
            except (UnicodeError, RecursionError):
                raise _no_result(name) from None

        return PeerToolAnswer(value=await self._by_mcp(peer_id, call), way="mcp")

    async def _by_mcp(self, peer_id: str, ask: Callable[[McpClient], Awaitable[T]]) -> T:
        async def opened(timeout_s: float) -> PeerStream:
            return await self._streams.open_stream(peer_id, PROTOCOL, timeout_s)

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


def _unknown(name: str, error: DeadlineExceededError) -> OutcomeUnknownError:
    return OutcomeUnknownError(f"{error.message}; {name} may or may not have taken effect", tool=name)


def _no_result(name: str) -> UnavailableError:
    return UnavailableError(f"{name} was run, and what the peer answered is no result that can be read")


def _no_way(peer_id: str) -> PeerUnreachableError:
    return PeerUnreachableError(f"peer {peer_id} answers neither {PROTOCOL} nor a Greenroom link")
