# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is told that the list of tools changed: legacy GET streams, and `subscriptions/listen` at revision E.

The streams live in this process. When it dies they end, and clients open new ones and list again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.mcp.calls import Outbox
from gateway.mcp.exchange import Exchange
from gateway.mcp.http import SSE_HEADERS, sse
from gateway.mcp.jsonrpc import INVALID_REQUEST, McpError, notification, params_as, result_body
from gateway.mcp.sessions import MAX_STREAMS, Session
from gateway.mcp.shaping import Shaper
from gateway.types import Stream

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
_TOOLS_CHANGED: Final = "notifications/tools/list_changed"


class Wanted(msgspec.Struct, rename="camel"):
    """The kinds that a client asks for; those that are not served here are not read."""

    tools_list_changed: bool = False


class ListenParams(msgspec.Struct):
    """Params of `subscriptions/listen`."""

    notifications: Wanted


_listen_params = msgspec.json.Decoder(ListenParams)


class Listeners:
    """All open streams for changes."""

    def __init__(self, shaper: Shaper) -> None:
        self._shaper = shaper
        self._sessions: set[Session] = set()
        self._on_tools: dict[Outbox, bytes] = {}
        """Stream at E -> the frame that tells it of changed tools."""
        self._results: dict[Outbox, bytes] = {}
        """Stream at E -> the frame that ends it."""
        self._legacy_frame = sse(notification(_TOOLS_CHANGED))

    def __len__(self) -> int:
        return len(self._results) + sum(len(session.streams) for session in self._sessions)

    def tools_changed(self) -> None:
        """Tell everybody once; a reader that has not taken the last notice gets no second one."""
        for outbox, frame in self._on_tools.items():
            outbox.put_once(frame)
        for session in self._sessions:
            session.streams[-1].put_once(self._legacy_frame)

    def open_legacy(self, session: Session) -> Stream:
        """A GET stream. Each message goes to the newest stream of a session only."""

        def gone() -> None:
            if outbox in session.streams:
                session.streams.remove(outbox)
            if not session.streams:
                self._sessions.discard(session)

        outbox = Outbox(gone)
        if len(session.streams) >= MAX_STREAMS:
            session.streams.pop(0).finish()
        session.streams.append(outbox)
        self._sessions.add(session)
        return Stream(200, SSE_HEADERS, outbox)

    async def listen(self, x: Exchange) -> Stream:
        """Handler of `subscriptions/listen`: the acknowledgement first, then changes until either side ends it."""
        wanted = params_as(x.body, _listen_params).notifications
        if not x.may_stream:
            raise McpError(INVALID_REQUEST, "a listen is answered as text/event-stream; accept that", status=406)
        tag = {SUBSCRIPTION_ID: x.frame.id}

        def gone() -> None:
            self._on_tools.pop(outbox, None)
            self._results.pop(outbox, None)

        outbox = Outbox(gone)
        accepted = {"toolsListChanged": True} if wanted.tools_list_changed else {}
        acknowledged = notification(
            "notifications/subscriptions/acknowledged", {"_meta": tag, "notifications": accepted}
        )
        outbox.put(sse(acknowledged))
        self._results[outbox] = sse(result_body(x.id_json, self._shaper.result({"_meta": tag})))
        if wanted.tools_list_changed:
            self._on_tools[outbox] = sse(notification(_TOOLS_CHANGED, {"_meta": tag}))
        return Stream(200, SSE_HEADERS, outbox)

    def close(self) -> None:
        """End all streams, each in the way of its era."""
        for outbox, result in list(self._results.items()):
            outbox.finish(result)
        for session in list(self._sessions):
            for stream in list(session.streams):
                stream.finish()
