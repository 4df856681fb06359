# SPDX-License-Identifier: AGPL-3.0-or-later
"""The endpoint: one request in, one answer out. This is what the HTTP side calls.

    async with protocol.running():           # holds the tasks of calls; leaving it cancels them
        answer = await protocol.handle(request)

Cancel `handle`, or close the events of its `Stream`, when the client goes away. At revision 2026-07-28 that cancels the
call; in legacy sessions the call runs on to its end (`handle` then returns late, shielded), as those revisions demand.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from actors.jsonrpc import INVALID_REQUEST, error_message, id_json
from actors.settings import Settings
from actors.tool_messages import Changed, Kind, SessionNote
from gateway.mcp.dialogues import Dialogues
from gateway.mcp.eras import LEGACY_VERSIONS, MODERN_VERSION, Way, classify
from gateway.mcp.exchange import Backend, Core, Handler, Tasks
from gateway.mcp.guard import Guard
from gateway.mcp.http import JSON_HEADERS, NO_HEADERS, SSE_HEADERS, Accepts, accepts, is_json, sse
from gateway.mcp.jsonrpc import Frame, McpError, parse
from gateway.mcp.keeping import KeptSubscriptions
from gateway.mcp.legacy import Legacy
from gateway.mcp.listen import Listeners
from gateway.mcp.modern import Modern
from gateway.mcp.news import News
from gateway.mcp.offers_methods import (
    CompletionMethods,
    PromptMethods,
    ResourceMethods,
    prompt_list,
    resource_list,
    template_list,
)
from gateway.mcp.quirks import ACCEPT, NO_CONTENT_TYPE, tolerated
from gateway.mcp.requests import Requests, Siblings
from gateway.mcp.rounds import RoundKeeper
from gateway.mcp.sessions import Session, Sessions
from gateway.mcp.streams import EventId, StreamStore, lost, read_event_id
from gateway.mcp.task_methods import TaskMethods
from gateway.mcp.task_news import TaskNews
from gateway.mcp.task_results import TaskResults
from gateway.mcp.task_shaping import TaskShaper
from gateway.mcp.tools_methods import ToolMethods
from gateway.types import Answer, Request, Stream

_MIN_SECRET_BYTES = 16


class Statistics(msgspec.Struct, frozen=True):
    """What one gateway's protocol holds at the moment."""

    sessions: int
    """Legacy sessions with state in this process."""
    revoked: int
    """Ended session ids that are remembered."""
    live_calls: int
    """Calls in tasks of their own."""
    shielded_calls: int
    """Legacy calls that are run directly."""
    listeners: int
    """Open streams for changes."""
    subscriptions: int
    """Resources and tasks that clients want to hear of."""
    questions: int
    """Questions that wait for a client's answer."""
    kept_streams: int
    """Streams of calls that can be resumed."""


class Protocol:
    """All revisions of MCP on one endpoint. One per gateway process."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        server_name: str,
        version: str,
        session_secret: bytes,
        new_call_id: Callable[[], str],
        now: Callable[[], float] = time.time,
        clock: Callable[[], int] = time.monotonic_ns,
        gateway: int = 0,
        siblings: Siblings | None = None,
        kept: KeptSubscriptions | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        """`session_secret` signs session ids: the same in all gateways and over restarts. `now`: seconds since 1970.
        `clock`: nanoseconds of a clock that all gateways of a machine share. `gateway` is this process's incarnation,
        `siblings` are the node's other gateways, and `kept` is what they all keep; without it the subscriptions of
        sessions end with this process. Without `tasks`, the way to the task queue, calls can't be tasks."""
        if len(session_secret) < _MIN_SECRET_BYTES:
            raise ValueError(f"session_secret needs at least {_MIN_SECRET_BYTES} bytes")
        server = settings.server
        told = settings.mcp
        info: dict[str, object] = {"name": server_name, "version": version}
        if told.title:
            info["title"] = told.title
        if told.website_url:
            info["websiteUrl"] = told.website_url
        if told.icons:
            info["icons"] = [{"src": src} for src in told.icons]
        self._core = Core(
            settings,
            backend,
            server_info=info,
            instructions=told.instructions,
            secret=session_secret,
            new_call_id=new_call_id,
        )
        self._guard = Guard(
            bound_host=server.host, allowed_hosts=server.allowed_hosts, allowed_origins=server.allowed_origins
        )
        self._quirks = tolerated(server)
        self._max_body = server.max_body_bytes
        task_shaper = TaskShaper(settings, self._core.shapers, lambda: backend.catalogue, now)
        self._has_queue = tasks is not None
        self._task_news = TaskNews(tasks, task_shaper)
        task_methods = TaskMethods(self._core, tasks, task_shaper, self._task_news)
        news = News(gateway, settings.streams.max_events, clock)
        self._listeners = Listeners(self._core, news, task_methods, self._task_news, kept, siblings)
        self._sessions = Sessions(session_secret, now, settings.sessions, self._listeners.forget)
        self._siblings = siblings
        self._requests = Requests(settings.questions, gateway, siblings)
        self._streams = StreamStore(settings.streams, gateway)
        rounds = RoundKeeper(self._core, settings.questions, now)
        dialogues = Dialogues(settings, rounds, self._requests, self._streams)
        tools = ToolMethods(self._core, told.page_size, dialogues, task_methods)
        both: dict[str, Handler] = {
            "resources/list": resource_list(self._core),
            "resources/templates/list": template_list(self._core),
            "resources/read": ResourceMethods(self._core, dialogues).read,
            "prompts/list": prompt_list(self._core),
            "prompts/get": PromptMethods(self._core, dialogues).get,
            "completion/complete": CompletionMethods(self._core).complete,
        }
        self._modern = Modern(self._core, tools, self._quirks)
        self._modern.methods |= both | task_methods.modern() | {"subscriptions/listen": self._listeners.listen}
        self._legacy = Legacy(self._core, tools, self._sessions, self._requests, siblings)
        results = TaskResults(self._core, task_methods, task_shaper, dialogues)
        self._legacy.methods |= (
            both
            | task_methods.legacy()
            | {
                "tasks/result": results.result,
                "resources/subscribe": self._listeners.subscribe,
                "resources/unsubscribe": self._listeners.unsubscribe,
            }
        )
        self._modern.has_tasks = self._legacy.has_tasks = lambda: task_methods.there

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this is entered calls can be handled. Leaving it, or being cancelled, ends all calls and streams."""
        async with trio.open_nursery() as nursery:
            self._core.nursery = nursery
            nursery.start_soon(self._end_when_cancelled)
            if self._has_queue:
                nursery.start_soon(self._task_news.run)
            try:
                yield
            finally:
                self._core.nursery = None
                nursery.cancel_scope.cancel()

    async def _end_when_cancelled(self) -> None:
        # Direct legacy calls are shielded from the cancellation of their own tasks, so somebody must pass it on.
        try:
            await trio.sleep_forever()
        finally:
            self._core.nursery = None
            self._listeners.close()
            for scope in list(self._core.shielded):
                scope.cancel()

    def list_changed(self, kind: Kind) -> None:
        """A list is a new one: tell those who listen."""
        self._listeners.list_changed(kind)

    def changed(self, news: Changed) -> None:
        """A pool says what changed: tell those who listen or subscribed."""
        for kind in news.lists:
            self._listeners.list_changed(kind)
        if news.any_uri:
            self._listeners.any_resource_updated()
        for uri in news.uris:
            self._listeners.resource_updated(uri)

    def statistics(self) -> Statistics:
        """Numbers for metrics."""
        nursery = self._core.nursery
        return Statistics(
            sessions=len(self._sessions),
            revoked=self._sessions.revoked,
            live_calls=len(nursery.child_tasks) - 1 - self._has_queue if nursery is not None else 0,
            shielded_calls=len(self._core.shielded),
            listeners=len(self._listeners),
            subscriptions=self._listeners.subscriptions,
            questions=len(self._requests),
            kept_streams=len(self._streams),
        )

    def check_host_origin(self, request: Request) -> Answer | None:
        """None when Host and Origin may pass, else the refusal. `handle` asks this itself; other routes should too."""
        refusal = self._guard.refusal(request)
        return None if refusal is None else _refused(*refusal)

    async def handle(self, request: Request) -> Answer | Stream:
        """Answer one request. Raises nothing but cancellation."""
        refused = self.check_host_origin(request)
        if refused is not None:
            return refused
        headers = request.headers
        takes = accepts(headers.get("accept"))
        if request.method != "POST":
            return await self._other_verb(request, takes)
        refused = self._check_http(request, takes)
        if refused is not None:
            return refused
        try:
            message = parse(request.body)
        except McpError as error:
            return Answer(400, JSON_HEADERS, error_message(b"", error))
        answer = await self._route(request, message, may_stream=takes.sse)
        if not takes.json and isinstance(answer, Answer) and answer.status == 200:
            return Answer(200, [*SSE_HEADERS, *answer.headers[1:]], sse(answer.body))
        return answer

    def _check_http(self, request: Request, takes: Accepts) -> Answer | None:
        content_type = request.headers.get("content-type")
        if content_type is None:
            if NO_CONTENT_TYPE not in self._quirks:
                return _refused(400, "Content-Type must be application/json")
        elif not is_json(content_type):
            return _refused(400, "Content-Type must be application/json")
        if not (takes.json or takes.sse) or (ACCEPT not in self._quirks and not takes.both_named):
            return _refused(406, "Accept must list application/json and text/event-stream")
        if len(request.body) > self._max_body:
            return _refused(413, f"the body may have at most {self._max_body} bytes")
        return None

    async def _route(
        self, request: Request, message: Frame | list[msgspec.Raw], *, may_stream: bool
    ) -> Answer | Stream:
        """Tell the era and serve there."""
        headers = request.headers
        header = headers.get("mcp-protocol-version")
        if header is not None:
            header = header.strip(" \t")
        method, meta_version = None, None
        if isinstance(message, Frame):
            method = message.method
            meta = message.params.meta if message.params is not None else None
            if meta is not None and meta.version is not msgspec.UNSET:
                meta_version = meta.version
        token = headers.get("mcp-session-id")
        session = self._session(request, token) if token is not None else None
        way = classify(
            method=method,
            header=header,
            meta_version=meta_version,
            session=None if session is None else session.revision,
            session_given=token is not None,
            quirks=self._quirks,
        )
        if way is Way.MODERN or way is Way.MODERN_LENIENT:
            if isinstance(message, list):
                return _refused(400, "the body must be one request or notification")
            return await self._modern.serve(request, message, may_stream=may_stream, by_body=way is Way.MODERN_LENIENT)
        if way is Way.HANDSHAKE:
            assert isinstance(message, Frame)  # it has a method
            return self._legacy.handshake(request, message)
        if way is Way.SESSION:
            assert session is not None
            return await self._legacy.serve(request, session, message, may_stream=may_stream)
        return _not_served(way, id_json(message.id) if isinstance(message, Frame) else b"")

    def _session(self, request: Request, token: str) -> Session | None:
        return None if "mcp-session-id" in request.repeated else self._sessions.find(token, request.principal)

    async def _other_verb(self, request: Request, takes: Accepts) -> Answer | Stream:
        """GET and DELETE belong to sessions; without a sign of one, and in all other cases, only POST is allowed."""
        header, token = request.headers.get("mcp-protocol-version"), request.headers.get("mcp-session-id")
        if header is not None:
            header = header.strip(" \t")
        session = self._session(request, token) if token is not None else None
        known_verb = request.method in {"GET", "DELETE"}
        if not known_verb or (session is None and header not in LEGACY_VERSIONS and (header or token is None)):
            refusal = _refused(405, f"{request.method} is not served here")
            # What is allowed depends on the era that the request shows.
            allowed = "POST" if known_verb or header == MODERN_VERSION else "POST, GET, DELETE"
            return Answer(405, [*JSON_HEADERS, ("allow", allowed)], refusal.body)
        way = classify(
            method=None,
            header=header,
            meta_version=None,
            session=None if session is None else session.revision,
            session_given=token is not None,
            quirks=self._quirks,
        )
        if way is not Way.SESSION or session is None or token is None:
            return _not_served(way, b"")
        if request.method == "DELETE":
            self._sessions.end(token, session)
            await self._listeners.ended(session)
            if self._siblings is not None:
                await self._siblings.spread(SessionNote(session=session.claims.nonce, ended=True))
            return Answer(200, NO_HEADERS, b"")
        if not takes.sse:
            return _refused(406, "Accept must list text/event-stream")
        resumed = self._resumed(request, session)
        if resumed is not None:
            return resumed
        last_event_id = request.headers.get("last-event-id", "")
        return await self._listeners.open_legacy(session, last_event_id, self._sessions.age_s(session))

    def _resumed(self, request: Request, session: Session) -> Stream | None:
        """The rest of the stream that a client lost, or its end; None when it asks for no such thing."""
        at = read_event_id(request.headers.get("last-event-id", ""))
        if at is None:
            return None
        nonce = session.claims.nonce
        if at.gateway != self._streams.gateway and self._siblings is not None:
            events = self._siblings.resume(at.gateway, nonce, str(at))
            if events is not None:
                return Stream(200, SSE_HEADERS, events)
        return self.resume_here(nonce, at)

    async def take_note(self, note: SessionNote) -> None:
        """Another gateway was told something by a client of a session."""
        session = self._sessions.take_note(note)
        if note.subscriptions and session is not None:
            await self._listeners.read_again(session)

    def resume_here(self, session: bytes, at: EventId) -> Stream:
        """The rest of a stream that this gateway has (or had). `session`: the session's nonce."""
        return self._streams.resume(session, at) or lost(at)

    async def take_answer(self, session: bytes, answer: bytes) -> None:
        """Another gateway was given the answer to a question of this one. `session`: the session's nonce."""
        await self._requests.answered(session, answer)


def _refused(status: int, reason: str) -> Answer:
    return Answer(status, JSON_HEADERS, error_message(b"", McpError(INVALID_REQUEST, reason)))


def _not_served(way: Way, echo: bytes) -> Answer:
    """The answer to a request that belongs to no session that lives."""
    status, reason = {
        Way.BAD_VERSION: (400, "MCP-Protocol-Version must name the version of the session"),
        Way.UNKNOWN_SESSION: (404, "unknown or ended session; send initialize again"),
    }.get(way, (400, "no session: send initialize first, or _meta of revision 2026-07-28"))
    return Answer(status, JSON_HEADERS, error_message(echo, McpError(INVALID_REQUEST, reason)))
