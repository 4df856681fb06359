# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of another node. `open_client` gives an `McpClient` for as long as its block runs.

A stream is opened when it is needed and kept; which binding the other side speaks is found out once. A call is sent
once: when its stream ends before the answer, nobody knows whether it took effect, and that is what is said.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from actors.errors import DeadlineExceededError, OutcomeUnknownError, UnavailableError
from actors.jsonrpc import RpcError
from actors.logs import get_logger
from actors.p2p.peer_registry.mcp.asking import AskedStream
from actors.p2p.peer_registry.mcp.failures import from_peer
from actors.p2p.peer_registry.mcp.opening import (
    ClientFace,
    RemoteServer,
    knows_no_current,
    open_current,
    open_legacy,
)
from actors.p2p.peer_registry.mcp.results import RemoteResult, RemoteTool, read_page, read_result
from actors.p2p.peer_registry.mcp.rpc import CURRENT_BINDING, TOKEN_KEY
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

OpenStream = Callable[[float], Awaitable[PeerStream]]
"""Opens a stream of the protocol to the other side within so many seconds; raises `MCPServerError`."""
_FRESH_S: Final = 40.0
"""A stream that was not used for longer is not used again: the other side may be about to close it."""
_OPENING_S: Final = 10.0
"""For the first question on a stream, at most."""
_MOST_PAGES: Final = 100
_MOST_TOOLS: Final = 10_000


class McpClient:
    """See the module's text."""

    def __init__(
        self, nursery: trio.Nursery, open_stream: OpenStream, face: ClientFace, token: Callable[[], str] | None
    ) -> None:
        self._nursery = nursery
        self._open_stream = open_stream
        self._face = face
        self._token = token
        self._opening = trio.Lock()
        self._asked: AskedStream | None = None
        self.server: RemoteServer | None = None
        """What the other side said of itself; None = it was not asked yet."""

    async def connect(self, timeout_s: float) -> RemoteServer:
        """Find out who is there. Raises what `call_tool` raises."""
        await self._ready(trio.current_time() + timeout_s)
        assert self.server is not None
        return self.server

    async def list_tools(self, timeout_s: float) -> list[RemoteTool]:
        """The tools that the other side shows. Raises what `call_tool` raises."""
        deadline = trio.current_time() + timeout_s
        tools: list[RemoteTool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            params: dict[str, object] = {} if cursor is None else {"cursor": cursor}
            result = await self._ask("tools/list", params, deadline, "tools/list")
            more, cursor = read_page(result)
            tools += more
            if cursor is None or len(tools) > _MOST_TOOLS:
                break
        return tools[:_MOST_TOOLS]

    async def call_tool(self, name: str, arguments: bytes, timeout_s: float) -> RemoteResult:
        """Run a tool; `arguments` is a JSON object. Raises what the tool failed with or the call was refused with, what
        opening a stream raises, `DeadlineExceededError` (the other side is told to stop), and `OutcomeUnknownError`."""
        params: dict[str, object] = {"name": name, "arguments": msgspec.Raw(arguments)}
        result = await self._ask("tools/call", params, trio.current_time() + timeout_s, name)
        return read_result(result, name)

    async def _ask(self, method: str, params: dict[str, object], deadline: float, what: str) -> bytes:
        asked = await self._ready(deadline)
        assert self.server is not None
        token = "" if self._token is None else self._token()
        if self.server.binding == CURRENT_BINDING:
            params = {**params, "_meta": self._face.meta(token)}
        elif token:
            params = {**params, "_meta": {TOKEN_KEY: token}}
        try:
            return await asked.ask(method, params, max(0.0, deadline - trio.current_time()))
        except RpcError as error:
            raise from_peer(error, what) from None

    # --- streams ---------------------------------------------------------------------------------------------------

    async def _ready(self, deadline: float) -> AskedStream:
        with trio.move_on_at(deadline):
            async with self._opening:
                if self._asked is None or not self._may_be_used(self._asked):
                    self.close()
                    self._asked = await self._opened(deadline)
                return self._asked
        raise DeadlineExceededError("the peer was not reached in time; nothing was asked of it")

    def _may_be_used(self, asked: AskedStream) -> bool:
        if not asked.usable or (not asked.waiting and trio.current_time() - asked.used_at > _FRESH_S):
            return False
        most = None if self.server is None else self.server.most_frames
        # Each open request may be followed by its cancellation.
        return most is None or asked.sent + asked.waiting + 2 <= most

    async def _opened(self, deadline: float) -> AskedStream:
        known = self.server
        if known is None or known.binding == CURRENT_BINDING:
            try:
                return await self._begin(open_current, deadline)
            except RpcError as error:
                if not knows_no_current(error):
                    raise from_peer(error, "server/discover") from None
                why = error.message[:200]
            except OutcomeUnknownError as error:
                why = error.message[:200]
            if known is not None:
                get_logger().warning("a peer does not speak the current MCP binding any more", reason=why)
        try:
            return await self._begin(open_legacy, deadline)
        except RpcError as error:
            self.server = None
            raise from_peer(error, "initialize") from None
        except (OutcomeUnknownError, StreamBrokenError) as error:
            self.server = None
            raise UnavailableError(f"the peer speaks no binding of MCP that this node knows: {error}") from None

    async def _begin(
        self, begin: Callable[[AskedStream, ClientFace, float], Awaitable[RemoteServer]], deadline: float
    ) -> AskedStream:
        left = deadline - trio.current_time()
        asked = AskedStream(await self._open_stream(left), self._face.most_bytes)
        self._nursery.start_soon(asked.run)
        try:
            self.server = await begin(asked, self._face, min(_OPENING_S, left))
        except BaseException:
            asked.close()
            raise
        asked.most_bytes = self.server.most_bytes
        return asked

    def close(self) -> None:
        """Ask nothing more on the stream that there is; what was asked is still answered."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None


@asynccontextmanager
async def open_client(
    open_stream: OpenStream, face: ClientFace, *, token: Callable[[], str] | None = None
) -> AsyncGenerator[McpClient, None]:
    """A client of one node. `token` makes the proof for one request where a secret is configured. At the end of the
    block what is still open is given up."""
    async with trio.open_nursery() as nursery:
        yield McpClient(nursery, open_stream, face, token)
        nursery.cancel_scope.cancel()
