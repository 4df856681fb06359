# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bridge's legacy session (revisions up to 2025-11-25): its id, the handshake that made it, and its GET stream.

A client on stdio knows of no session, so the bridge keeps it: over restarts of the gateway it stays valid by itself
(its id is signed), and when the server does not know it any more the handshake is repeated with the client's own words.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
import trio

from gateway.sse import EventReader, EventTooLongError
from gateway.stdio.messages import Kind, Message, legacy_headers, member, resume_headers
from gateway.stdio.wire import LostError, NotSentError, Wire, patiently

CHANGES: Final = {"tools": "tools", "prompts": "prompts", "resources": "resources"}
"""Server capability -> the name in `notifications/NAME/list_changed`."""
AGAIN_S: Final = 0.2
"""Pause before a stream that ended is opened again; longer when it ends at once again and again."""
AGAIN_CAP_S: Final = 5.0
END_S: Final = 1.0
"""Time for telling the server that the session is over."""

_log = logging.getLogger("greenroom.stdio")

Say = Callable[[bytes], Awaitable[None]]
"""Hands one message to the client."""


def list_changed(kind: str) -> bytes:
    """A notification that a list may have changed: of another session's time nobody knows better."""
    return b'{"jsonrpc":"2.0","method":"notifications/%b/list_changed"}' % kind.encode()


class LegacySession:
    """One at a time; a further `initialize` of the client replaces it."""

    def __init__(self, wire: Wire, say: Say, event_limit: int) -> None:
        self._wire = wire
        self._say = say
        self._event_limit = event_limit
        self.token = ""
        self._streamed = ""
        """The session that had the last stream."""
        self._version = ""
        self._initialize = b""
        self._initialized = b""
        self._changes: list[str] = []
        self._renewing = trio.Lock()
        self._handshake: trio.Event | None = None

    # --- the handshake ---------------------------------------------------------------------------------------------

    def begins(self, message: Message) -> None:
        """The client sent `initialize`: whatever follows waits for its answer."""
        self._initialize, self._initialized = message.body, b""
        self._handshake = trio.Event()

    @property
    def handshaking(self) -> bool:
        """A handshake is on its way."""
        return self._handshake is not None and not self._handshake.is_set()

    async def settled(self) -> None:
        """Wait until the handshake, if one is on its way, has ended."""
        if self._handshake is not None:
            await self._handshake.wait()

    def ends(self) -> None:
        """The handshake was answered, or given up."""
        if self._handshake is not None:
            self._handshake.set()

    def opened(self, response: httpx.Response, body: bytes) -> None:
        """The server answered `initialize`."""
        token, result = response.headers.get("mcp-session-id", ""), member(body, "result")
        if not token or not isinstance(result, dict):
            return
        self.token, self._version = token, str(result.get("protocolVersion", ""))
        self._changes = [name for kind, name in CHANGES.items() if _declares(result.get("capabilities"), kind)]

    def headers(self) -> dict[str, str]:
        """Of a message in this session."""
        return legacy_headers(self.token, self._version)

    def keep(self, message: Message) -> None:
        """Remember the client's `notifications/initialized`, which ends a handshake."""
        if message.kind is Kind.NOTIFICATION and message.method == "notifications/initialized":
            self._initialized = message.body

    async def renew(self, stale: str) -> bool:
        """Open a new session in the place of `stale`, which the server does not know; False when that failed.

        Raises `NotSentError` and `LostError`.
        """
        async with self._renewing:
            if self.token != stale:
                return True  # somebody else did it
            async with self._wire.once("POST", legacy_headers("", ""), self._initialize) as response:
                self.opened(response, await response.aread())
            if self.token == stale:
                return False
            if self._initialized:
                async with self._wire.once("POST", self.headers(), self._initialized) as response:
                    await response.aread()
            _log.warning("the server did not know the session any more; the handshake was repeated")
            return True

    async def end(self) -> None:
        """Tell the server that the session is over: that also ends its calls. Bounded."""
        if self.token:
            with trio.move_on_after(END_S):

                async def delete() -> None:
                    async with self._wire.once("DELETE", self.headers()) as response:
                        await response.aread()

                await patiently(self._wire, delete, "the session's end")

    # --- the stream of the server's own messages -------------------------------------------------------------------

    async def listen(self) -> None:
        """Hand on what the server says outside of requests, until cancelled, or the server offers no such stream."""
        last_id, pause = "", AGAIN_S
        self._streamed = self.token
        while True:
            began, token = trio.current_time(), self.token
            reader = EventReader(self._event_limit)
            reader.last_id = last_id
            try:
                status = await self._listen_once(reader)
                if status not in {200, 404} or (status == 404 and not await self.renew(token)):
                    return
            except (NotSentError, LostError, EventTooLongError) as problem:
                _log.debug("the stream of the session ended: %s", problem)
            last_id = reader.last_id
            pause = AGAIN_S if trio.current_time() - began > AGAIN_CAP_S else min(pause * 2, AGAIN_CAP_S)
            await trio.sleep(reader.retry_s if reader.retry_s is not None and pause == AGAIN_S else pause)

    async def _listen_once(self, reader: EventReader) -> int:
        """Read the stream to its end. The HTTP status: 404 when the session is unknown.

        What changed between two streams of one session the gateway says.
        """
        async with self._wire.once("GET", resume_headers(self.headers(), reader.last_id)) as response:
            if response.status_code != 200:
                await response.aread()
                return response.status_code
            if self.token != self._streamed:
                self._streamed = self.token
                for kind in self._changes:
                    await self._say(list_changed(kind))
            async for chunk in response.aiter_raw():
                for event in reader.feed(chunk):
                    if event.data:
                        await self._say(event.data)
            return response.status_code


def _declares(capabilities: Any, kind: str) -> bool:  # noqa: ANN401 - a JSON value
    value = capabilities.get(kind) if isinstance(capabilities, dict) else None
    return isinstance(value, dict) and value.get("listChanged") is True
