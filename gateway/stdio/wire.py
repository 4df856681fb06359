# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bridge's way to the gateway: HTTP over loopback, with a clear word on what became of a request that failed.

What failed before it was sent is told apart from what failed afterwards: the one may be sent again, of the other the
outcome is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import httpx
import trio

from actors.errors import MCPServerError
from actors.tool_messages import ToolDescriptor

CONNECT_S: Final = 5.0
"""Time for a connection over loopback; a gateway that restarts leaves it in the backlog, where it counts as made."""
SILENCE_S: Final = 24 * 3600.0
"""An answer may be silent for so long. Calls have deadlines of their own, and hung gateways are replaced by their root:
this is for what nobody thought of."""
KEPT_IDLE_S: Final = 30.0
"""Less than the gateway's `server.idle_timeout_s`, so that it never closes a connection that is about to be used."""
_KEPT: Final = 32
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5)

_log = logging.getLogger("greenroom.stdio")


class Tree(Protocol):
    """The system behind the gateway, as whoever starts the bridge gives it."""

    async def find(self) -> str:
        """The gateway's address (`http://host:port`) now. Raises `MCPServerError` while there is none."""
        ...

    async def tool(self, name: str) -> ToolDescriptor | None:
        """What is known of a tool; None when there is none. Bounded. Raises `MCPServerError` while it can't be told."""
        ...


class NotSentError(Exception):
    """The request did not leave: it may be sent again."""


class LostError(Exception):
    """The connection ended after the request had left, or while its answer came."""


class Wire:
    """Requests to the gateway of one tree, wherever it is at the moment."""

    def __init__(self, tree: Tree, patience_s: float) -> None:
        """`patience_s`: how long a request waits for a gateway."""
        self._tree = tree
        self._patience_s = patience_s
        self._url = ""
        self._finding = trio.Lock()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=KEPT_IDLE_S)
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        self._http = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)

    async def begin(self) -> None:
        """Find the gateway for the first time. Raises `MCPServerError`."""
        self._url = await self._tree.find()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def once(
        self, method: str, headers: dict[str, str], body: bytes = b""
    ) -> AsyncGenerator[httpx.Response, None]:
        """One try. Raises `NotSentError`; reading the answer raises `LostError`."""
        url = await self._find()
        request = self._http.build_request(method, f"{url}/mcp", headers=headers, content=body)
        try:
            response = await self._http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as problem:
            self._url = ""
            raise NotSentError("the gateway can't be reached") from problem
        except httpx.TransportError as problem:
            self._url = ""
            raise LostError(str(problem) or type(problem).__name__) from problem
        try:
            yield response
        except (httpx.TransportError, httpx.StreamError) as problem:
            self._url = ""
            raise LostError(str(problem) or type(problem).__name__) from problem
        finally:
            with trio.CancelScope(shield=True):  # closes a socket, or gives it back
                await response.aclose()

    async def _find(self) -> str:
        async with self._finding:
            if not self._url:
                try:
                    self._url = await self._tree.find()
                except MCPServerError as problem:
                    raise NotSentError(str(problem)) from problem
            return self._url

    async def tool(self, name: str) -> ToolDescriptor | None:
        """What is known of a tool; None when there is none, or the tree does not come back in time."""
        patience = self.patience()
        while True:
            try:
                await self._find()
                return await self._tree.tool(name)
            except (NotSentError, MCPServerError) as problem:
                _log.debug("nothing is known of %s: %s", name, problem)
                if not await patience.again():
                    return None

    def patience(self) -> Patience:
        """For one request."""
        return Patience(self._patience_s)


class Patience:
    """How long one request goes on trying, and the pauses in between."""

    def __init__(self, limit_s: float) -> None:
        self._until = trio.current_time() + limit_s
        self._tries = 0

    async def again(self) -> bool:
        """Wait for a moment; False when the time is over."""
        if trio.current_time() >= self._until:
            return False
        pause = _PAUSES_S[min(self._tries, len(_PAUSES_S) - 1)]
        self._tries += 1
        await trio.sleep(pause)
        return True


async def patiently(wire: Wire, work: Callable[[], Awaitable[None]], what: str) -> bool:
    """Do `work` again until it was sent, and whatever became of it; False when it never was."""
    patience = wire.patience()
    while True:
        try:
            await work()
        except NotSentError as problem:
            if not await patience.again():
                _log.warning("%s was not sent: %s", what, problem)
                return False
        except LostError as problem:
            _log.warning("whether %s arrived is unknown: %s", what, problem)
            return True
        else:
            return True
