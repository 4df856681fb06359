# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is told what: changed lists and resources, on legacy GET streams and on `subscriptions/listen` at revision E.

The streams live in this process. When it dies they end, and clients open new ones; on that of a session the news that
it missed come first (`news`). Listens take their subscriptions along; those of a session are kept outside (`keeping`)
and read again by the gateway where it has its next stream. A reader that has not taken the last notice of a change gets
no second one, and one listen has a bounded number of subscriptions, so what waits for a slow reader is bounded without
dropping any news. News of tasks are in `task_news`.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec
import trio

from actors.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, result_message
from actors.tool_messages import Kind, SessionNote
from actors.uris import MAX_URI_CHARS
from gateway.mcp.calls import Outbox
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.http import SSE_HEADERS, sse
from gateway.mcp.jsonrpc import McpError, notification, params_as
from gateway.mcp.keeping import KeptSubscriptions, NotKeptError
from gateway.mcp.news import KINDS, News
from gateway.mcp.offers_methods import not_found
from gateway.mcp.requests import Siblings
from gateway.mcp.sessions import Session
from gateway.mcp.task_methods import TaskMethods
from gateway.mcp.task_news import TaskNews
from gateway.types import Stream

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
_UPDATED: Final = "notifications/resources/updated"
_END_S: Final = 2.0
"""Time to forget what is kept of an ended session; what stays goes when the session's id is stale."""
_log = logging.getLogger(__name__)


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

    def __init__(
        self,
        core: Core,
        news: News,
        tasks: TaskMethods,
        task_news: TaskNews,
        kept: KeptSubscriptions | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        """Without `kept` the subscriptions of sessions end with this process."""
        self._core = core
        self._news = news
        self._tasks = tasks
        self._task_news = task_news
        self._max_age_s = core.settings.sessions.max_age_s
        self._kept = kept
        self._siblings = siblings
        self._keeping = trio.Lock()
        """Held while what is kept and what is known here may differ."""
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
        return self._subscriptions + len(self._task_news)

    # --- what happened ---------------------------------------------------------------------------------------------

    def list_changed(self, kind: Kind) -> None:
        """Tell all that want to know that a list is a new one."""
        method = f"notifications/{kind}/list_changed"
        for outbox, listen in self._listens.items():
            if kind in listen.lists:
                outbox.put_once(sse(notification(method, {"_meta": listen.tag})))
        event_id, frame = self._id_line(self._news.list_changed(kind)), sse(notification(method))
        for session in self._sessions:
            session.streams[-1].put_once(frame, event_id)

    def resource_updated(self, uri: str) -> None:
        """Tell all that subscribed to it that a resource has other contents."""
        self._tell(uri, self._news.resource_updated(uri))

    def any_resource_updated(self) -> None:
        """More resources changed than could be named."""
        at = self._news.any_resource_updated()
        for uri in list(self._by_uri):
            self._tell(uri, at)

    def _tell(self, uri: str, at: int) -> None:
        event_id = frame = b""
        for subscriber in self._by_uri.get(uri, ()):
            if isinstance(subscriber, Outbox):
                tag = self._listens[subscriber].tag
                subscriber.put_once(sse(notification(_UPDATED, {"_meta": tag, "uri": uri})))
            elif subscriber.streams:
                event_id, frame = event_id or self._id_line(at), frame or sse(notification(_UPDATED, {"uri": uri}))
                subscriber.streams[-1].put_once(frame, event_id)

    def _id_line(self, at: int) -> bytes:
        return b"id: %s\n" % self._news.event_id(at).encode()

    # --- legacy ----------------------------------------------------------------------------------------------------

    async def open_legacy(self, session: Session, last_event_id: str, age_s: float) -> Stream:
        """A GET stream, which begins with what the session missed. Each message goes to its newest stream only.

        `last_event_id`: what the client names, or ''. `age_s`: seconds since the session was opened.
        """

        def gone() -> None:
            if outbox in session.streams:
                session.streams.remove(outbox)
            if not session.streams:
                self._sessions.discard(session)
                session.left_at = self._news.now()

        missed_since = self._news.read_event_id(last_event_id)
        if missed_since is None:
            missed_since = self._left_at(session, age_s)
        outbox = Outbox(gone)
        if len(session.streams) >= self._most_streams:
            session.streams.pop(0).finish()
        session.streams.append(outbox)
        self._sessions.add(session)
        try:
            async with self._keeping:
                await self._restore(session)
        except NotKeptError as error:
            _log.error("a session's subscriptions are unknown until its next stream: %s", error)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await outbox.aclose()
            raise
        self._catch_up(outbox, session, missed_since)
        return Stream(200, SSE_HEADERS, outbox)

    def _left_at(self, session: Session, age_s: float) -> int:
        """Since when a client that names no event may have missed something."""
        if session.streams:
            return self._news.now()  # the other stream has it
        if session.left_at is not None:
            return session.left_at
        return self._news.now() - round(age_s * 1e9)

    def _catch_up(self, outbox: Outbox, session: Session, at: int) -> None:
        """Begin with all that happened after a time."""
        outbox.clear()  # what came in the meantime is among it
        lists, uris = self._news.since(at, session.subscriptions)
        frames = [sse(notification(f"notifications/{kind}/list_changed")) for kind in lists]
        frames += [sse(notification(_UPDATED, {"uri": uri})) for uri in uris]
        # Only the last one has an id: a client that loses the rest of them gets all of them again.
        for frame in frames[:-1]:
            outbox.put(frame)
        for frame in frames[-1:]:
            outbox.put(self._id_line(self._news.now()) + frame)
        self._task_news.again(session)

    async def subscribe(self, x: Exchange) -> bytes:
        """Handler of `resources/subscribe`."""
        uri = params_as(x.body, _subscribe_params).uri
        session = x.session
        assert session is not None  # legacy only
        try:
            async with self._keeping:
                await self._restore(session)
                if uri in session.subscriptions:
                    return b"{}"
                if not self._may_subscribe(uri):
                    raise not_found(uri, x.revision)
                self._check_room(len(session.subscriptions) + 1, 1)
                if self._kept is not None:
                    await self._kept.add(session.claims.nonce, uri, session.claims.issued_at + self._max_age_s)
                self._know(session, session.subscriptions | {uri})
        except NotKeptError as error:
            raise _not_kept(error) from None
        await self._spread(session)
        return b"{}"

    async def unsubscribe(self, x: Exchange) -> bytes:
        """Handler of `resources/unsubscribe`. Also of what was not subscribed to: the wish is fulfilled."""
        uri = params_as(x.body, _subscribe_params).uri
        session = x.session
        assert session is not None  # legacy only
        try:
            async with self._keeping:
                if self._kept is not None:
                    await self._kept.remove(session.claims.nonce, uri)
                self._know(session, session.subscriptions - {uri})
        except NotKeptError as error:
            raise _not_kept(error) from None
        await self._spread(session)
        return b"{}"

    async def ended(self, session: Session) -> None:
        """A client ended its session: nothing is kept of it. Also of one that leaves right after its DELETE."""
        try:
            with trio.move_on_after(_END_S, shield=True):
                async with self._keeping:
                    if self._kept is not None:
                        await self._kept.end(session.claims.nonce)
        except NotKeptError as error:
            _log.warning("the subscriptions of an ended session are forgotten only when its id is stale: %s", error)

    async def read_again(self, session: Session) -> None:
        """Another gateway changed what is kept of a session. One that was not read yet will be when it has to."""
        try:
            async with self._keeping:
                if session.restored:
                    session.restored = False
                    await self._restore(session)
        except NotKeptError as error:
            _log.error("a session's subscriptions are unknown until its next stream: %s", error)

    async def _restore(self, session: Session) -> None:
        """Read what is kept of a session, unless that is known."""
        if self._kept is not None and not session.restored:
            self._know(session, await self._kept.read(session.claims.nonce))
            session.restored = True

    def _know(self, session: Session, uris: set[str]) -> None:
        """These are a session's subscriptions now."""
        if session.dropped:
            return
        for uri in session.subscriptions - uris:
            self._remove(uri, session)
        for uri in uris - session.subscriptions:
            self._add(uri, session)
        session.subscriptions = uris

    async def _spread(self, session: Session) -> None:
        if self._siblings is not None:
            await self._siblings.spread(SessionNote(session=session.claims.nonce, subscriptions=True))

    def forget(self, session: Session) -> None:
        """A session's state is dropped here, and its subscriptions with it."""
        self._task_news.forget(session)
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
            self._task_news.forget(outbox)
            listen = self._listens.pop(outbox, None)
            for uri in listen.uris if listen is not None else ():
                self._remove(uri, outbox)

        outbox = Outbox(gone)
        outbox.put(
            sse(notification("notifications/subscriptions/acknowledged", {"_meta": tag, "notifications": accepted}))
        )
        end = sse(result_message(x.id_json, self._shaper.result({"_meta": tag})))
        self._listens[outbox] = _Listen(tag, frozenset(kinds), frozenset(uris), end)
        for uri in uris:
            self._add(uri, outbox)
        if tasks:
            self._task_news.listen(outbox, tag, tasks)
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


def _not_kept(error: NotKeptError) -> McpError:
    _log.error("a subscription was refused: %s", error)
    return McpError(INTERNAL_ERROR, "subscriptions can't be kept at the moment; try again later")
