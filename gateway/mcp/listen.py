# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is told what: changed lists and resources, on legacy GET streams and on `subscriptions/listen` at revision E.

The streams and subscriptions live in this process. When it dies they end, and clients open new ones and list again. A
reader that has not taken the last notice of a change gets no second one, and one listen has a bounded number of
subscriptions, so what waits for a slow reader is bounded without dropping any news.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actors.messages import Kind
from actors.uris import MAX_URI_CHARS
from gateway.mcp.calls import Outbox
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.http import SSE_HEADERS, sse
from gateway.mcp.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, McpError, notification, params_as, result_body
from gateway.mcp.offers_methods import not_found
from gateway.mcp.sessions import Session
from gateway.mcp.task_methods import TaskMethods
from gateway.mcp.task_news import TaskNews
from gateway.types import Stream

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
KINDS: Final[tuple[Kind, ...]] = ("tools", "prompts", "resources")
_UPDATED: Final = "notifications/resources/updated"


class Wanted(msgspec.Struct, rename="camel"):
    """The kinds that a client asks for; those that are not served here are not read."""

    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: list[str] = []
    task_ids: list[str] = []


class ListenParams(msgspec.Struct):
    """Params of `subscriptions/listen`."""

    notifications: Wanted


class SubscribeParams(msgspec.Struct):
    """Params of `resources/subscribe` and `resources/unsubscribe`."""

    uri: str


class _Listen(msgspec.Struct, frozen=True, eq=False):
    """One open listen."""

    tag: dict[str, object]
    lists: frozenset[str]
    uris: frozenset[str]
    result: bytes
    """The frame that ends it."""


_listen_params = msgspec.json.Decoder(ListenParams)
_subscribe_params = msgspec.json.Decoder(SubscribeParams)


class Listeners:
    """All open streams for changes."""

    def __init__(self, core: Core, tasks: TaskMethods, news: TaskNews) -> None:
        self._core = core
        self._tasks = tasks
        self._news = news
        self._shaper = core.shapers[-1]
        self._most_streams = core.settings.sessions.max_streams
        self._most = core.settings.mcp.max_subscriptions
        self._most_in_all = core.settings.mcp.max_subscriptions_in_all
        self._sessions: set[Session] = set()
        """Those with an open GET stream."""
        self._listens: dict[Outbox, _Listen] = {}
        self._by_uri: dict[str, set[Outbox | Session]] = {}
        self._subscriptions = 0

    def __len__(self) -> int:
        return len(self._listens) + sum(len(session.streams) for session in self._sessions)

    @property
    def subscriptions(self) -> int:
        """To resources and tasks, of all clients."""
        return self._subscriptions + len(self._news)

    # --- what happened ---------------------------------------------------------------------------------------------

    def list_changed(self, kind: Kind) -> None:
        """Tell all that want to know that a list is a new one."""
        method = f"notifications/{kind}/list_changed"
        for outbox, listen in self._listens.items():
            if kind in listen.lists:
                outbox.put_once(sse(notification(method, {"_meta": listen.tag})))
        frame = sse(notification(method))
        for session in self._sessions:
            session.streams[-1].put_once(frame)

    def resource_updated(self, uri: str) -> None:
        """Tell all that subscribed to it that a resource has other contents."""
        legacy = b""
        for subscriber in self._by_uri.get(uri, ()):
            if isinstance(subscriber, Outbox):
                tag = self._listens[subscriber].tag
                subscriber.put_once(sse(notification(_UPDATED, {"_meta": tag, "uri": uri})))
            elif subscriber.streams:
                legacy = legacy or sse(notification(_UPDATED, {"uri": uri}))
                subscriber.streams[-1].put_once(legacy)

    def any_resource_updated(self) -> None:
        """More resources changed than could be named."""
        for uri in list(self._by_uri):
            self.resource_updated(uri)

    # --- legacy ----------------------------------------------------------------------------------------------------

    def open_legacy(self, session: Session) -> Stream:
        """A GET stream. Each message goes to the newest stream of a session only."""

        def gone() -> None:
            if outbox in session.streams:
                session.streams.remove(outbox)
            if not session.streams:
                self._sessions.discard(session)

        outbox = Outbox(gone)
        if len(session.streams) >= self._most_streams:
            session.streams.pop(0).finish()
        session.streams.append(outbox)
        self._sessions.add(session)
        return Stream(200, SSE_HEADERS, outbox)

    async def subscribe(self, x: Exchange) -> bytes:
        """Handler of `resources/subscribe`."""
        uri = params_as(x.body, _subscribe_params).uri
        assert x.session is not None  # legacy only
        if uri not in x.session.subscriptions:
            if not self._may_subscribe(uri):
                raise not_found(uri, x.revision)
            self._check_room(len(x.session.subscriptions) + 1, 1)
            x.session.subscriptions.add(uri)
            self._add(uri, x.session)
        return b"{}"

    async def unsubscribe(self, x: Exchange) -> bytes:
        """Handler of `resources/unsubscribe`. Also of what was not subscribed to: the wish is fulfilled."""
        uri = params_as(x.body, _subscribe_params).uri
        assert x.session is not None  # legacy only
        if uri in x.session.subscriptions:
            x.session.subscriptions.discard(uri)
            self._remove(uri, x.session)
        return b"{}"

    def forget(self, session: Session) -> None:
        """A session's state is dropped here, and its subscriptions with it."""
        self._news.forget(session)
        for uri in session.subscriptions:
            self._remove(uri, session)
        session.subscriptions.clear()

    # --- revision E ------------------------------------------------------------------------------------------------

    async def listen(self, x: Exchange) -> Stream:
        """Handler of `subscriptions/listen`: the acknowledgement first, then changes until either side ends it."""
        wanted = params_as(x.body, _listen_params).notifications
        if not x.may_stream:
            raise McpError(INVALID_REQUEST, "a listen is answered as text/event-stream; accept that", status=406)
        uris = list(dict.fromkeys(uri for uri in wanted.resource_subscriptions if self._may_subscribe(uri)))
        self._check_room(len(wanted.resource_subscriptions) + len(wanted.task_ids), len(uris))
        tasks = await self._tasks.named(x, wanted.task_ids)
        asked = (wanted.tools_list_changed, wanted.prompts_list_changed, wanted.resources_list_changed)
        kinds = [kind for kind, asked_for in zip(KINDS, asked, strict=True) if asked_for]
        tag: dict[str, object] = {SUBSCRIPTION_ID: x.frame.id}
        accepted: dict[str, object] = {f"{kind}ListChanged": True for kind in kinds}
        if uris:
            accepted["resourceSubscriptions"] = uris
        if tasks:
            accepted["taskIds"] = [view.task.id for view in tasks]

        def gone() -> None:
            self._news.forget(outbox)
            listen = self._listens.pop(outbox, None)
            for uri in listen.uris if listen is not None else ():
                self._remove(uri, outbox)

        outbox = Outbox(gone)
        outbox.put(
            sse(notification("notifications/subscriptions/acknowledged", {"_meta": tag, "notifications": accepted}))
        )
        end = sse(result_body(x.id_json, self._shaper.result({"_meta": tag})))
        self._listens[outbox] = _Listen(tag, frozenset(kinds), frozenset(uris), end)
        for uri in uris:
            self._add(uri, outbox)
        if tasks:
            self._news.listen(outbox, tag, tasks)
        return Stream(200, SSE_HEADERS, outbox)

    def close(self) -> None:
        """End all streams, each in the way of its era."""
        for outbox, listen in list(self._listens.items()):
            outbox.finish(listen.result)
        for session in list(self._sessions):
            for stream in list(session.streams):
                stream.finish()

    # --- subscriptions ---------------------------------------------------------------------------------------------

    def _may_subscribe(self, uri: str) -> bool:
        return len(uri) <= MAX_URI_CHARS and self._core.backend.catalogue.resource(uri) is not None

    def _check_room(self, of_client: int, more: int) -> None:
        if of_client > self._most:
            raise McpError(INVALID_PARAMS, f"a client may subscribe to {self._most} resources and tasks at a time")
        if self.subscriptions + more > self._most_in_all:
            raise McpError(INVALID_REQUEST, "the server has as many subscriptions as it takes; try again later")

    def _add(self, uri: str, subscriber: Outbox | Session) -> None:
        self._by_uri.setdefault(uri, set()).add(subscriber)
        self._subscriptions += 1

    def _remove(self, uri: str, subscriber: Outbox | Session) -> None:
        subscribers = self._by_uri[uri]
        subscribers.discard(subscriber)
        if not subscribers:
            del self._by_uri[uri]
        self._subscriptions -= 1
