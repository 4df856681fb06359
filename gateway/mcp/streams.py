# SPDX-License-Identifier: AGPL-3.0-or-later
"""Streams of legacy sessions that outlive their connection: a client that comes back with `Last-Event-ID` gets the
rest.

Each call that is answered as a stream has a `Journal`. It keeps its events (bounded) while the call runs and for
`streams.keep_s` afterwards. An event's id names the gateway process, the stream, the event and the request: so any
gateway can tell whose stream it is, and can say what is to be said when nobody has it any more: **events do not survive
their gateway, sessions do**. The client then gets an error for that very request (its outcome is unknown) instead of
waiting for ever.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict, deque
from typing import Final

import msgspec
import trio

from actors.jsonrpc import INTERNAL_ERROR, error_message
from actors.settings import StreamsSettings
from gateway.mcp.calls import Outbox
from gateway.mcp.http import SSE_HEADERS, sse
from gateway.mcp.jsonrpc import McpError
from gateway.types import Stream

_EVENT_ID: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})\.([0-9]{1,18})\.([A-Za-z0-9_-]{0,512})")


class EventId(msgspec.Struct, frozen=True):
    """The parts of an event's id."""

    gateway: int
    """Incarnation of the process that has the stream."""
    stream: int
    event: int
    """0 is the empty event that opens a stream."""
    request: bytes
    """The JSON of the id of the request that the stream answers."""

    def __str__(self) -> str:
        name = base64.urlsafe_b64encode(self.request).decode().rstrip("=")
        return f"{self.gateway}-{self.stream}.{self.event}.{name}"


def read_event_id(text: str) -> EventId | None:
    """None when it is none of ours."""
    found = _EVENT_ID.fullmatch(text)
    if found is None:
        return None
    try:
        request = base64.urlsafe_b64decode(found[4] + "=" * (-len(found[4]) % 4))
        value = msgspec.json.decode(request)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        return None
    return EventId(int(found[1]), int(found[2]), int(found[3]), request)


class Journal:
    """The events of one call, and the connection that reads them now, if there is one."""

    __slots__ = (
        "_bytes",
        "_events",
        "_hung_up",
        "_id",
        "_kept",
        "_opening",
        "_reader",
        "_store",
        "ended_at",
        "session",
    )

    def __init__(self, store: StreamStore, session: bytes, id_: EventId, opening: bytes) -> None:
        self._store = store
        self.session = session
        """Whose stream it is: the session's nonce."""
        self._id = id_
        self._opening = opening
        self._events: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._reader: Outbox | None = None
        self._hung_up = False
        self._kept = False
        self.ended_at: float | None = None

    @property
    def stream(self) -> int:
        """Its number in this gateway."""
        return self._id.stream

    @property
    def empty(self) -> bool:
        """Nothing was said yet."""
        return not self._events

    def put(self, message: bytes) -> None:
        """One more message for the client."""
        self._id = msgspec.structs.replace(self._id, event=self._id.event + 1)
        frame = b"id: " + str(self._id).encode() + b"\n" + sse(message)
        self._events.append((self._id.event, frame))
        self._count(len(frame))
        if len(self._events) > self._store.settings.max_events:
            self.drop_oldest()
        if self._reader is not None:
            self._reader.put(frame)

    def finish(self, message: bytes = b"") -> None:
        """The last message; b'' when the stream ends without one."""
        if message:
            self.put(message)
        self.ended_at = trio.current_time()
        if self._reader is not None:
            self._reader.finish()
        if self._kept:
            self._store.ended(self)

    def attach(self, after: int = -1) -> Outbox:
        """A reader for all events after this one; an earlier reader ends."""
        self.detach()
        if not self._kept:
            self._kept = True
            self._store.keep(self)
            self._store.kept_bytes += self._bytes
        outbox = Outbox(lambda: self._gone(outbox))
        # As one frame: an outbox holds a bounded number of them, which `streams.max_events` may pass.
        said = b"".join(frame for number, frame in self._events if number > after)
        if after < 0:
            said = self._opening + said
        if said:
            outbox.put(said)
        if self.ended_at is not None or self._hung_up:
            self._hung_up = False
            outbox.finish()
        else:
            self._reader = outbox
        return outbox

    def hang_up(self) -> None:
        """End the connection; the client comes back for the rest."""
        if self._reader is None:
            self._hung_up = not self._kept
        self.detach()

    def detach(self) -> None:
        """End the present reader, if there is one."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.finish()

    def drop_oldest(self) -> bool:
        """Forget one event, never the last one. False when there is nothing to forget."""
        if len(self._events) < 2:
            return False
        self._count(-len(self._events.popleft()[1]))
        return True

    def forget(self) -> None:
        """The store drops this journal."""
        self._store.kept_bytes -= self._bytes
        self._kept = False

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._kept:
            self._store.kept_bytes += size
            if size > 0:
                self._store.make_room(self)

    def _gone(self, outbox: Outbox) -> None:
        if self._reader is outbox:
            self._reader = None


class StreamStore:
    """The journals of one gateway."""

    def __init__(self, settings: StreamsSettings, gateway: int) -> None:
        self.settings = settings
        self.gateway = gateway
        """This process's incarnation."""
        self.kept_bytes = 0
        self._next = 0
        self._live: dict[int, Journal] = {}
        self._ended: OrderedDict[int, Journal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live) + len(self._ended)

    def open(self, session: bytes, request: bytes, *, primed: bool) -> Journal:
        """The journal of a new call; kept once somebody reads it. `primed`: the stream begins with an empty event, as
        sessions at 2025-11-25 want it; older clients would take that for broken JSON."""
        self._next += 1
        first = EventId(self.gateway, self._next, 0, request)
        opening = b""
        if primed:
            opening = b"id: %s\nretry: %d\ndata:\n\n" % (str(first).encode(), round(self.settings.retry_s * 1000))
        return Journal(self, session, first, opening)

    def keep(self, journal: Journal) -> None:
        """Its events may be asked for again."""
        (self._live if journal.ended_at is None else self._ended)[journal.stream] = journal

    def ended(self, journal: Journal) -> None:
        """It stays for a while; others have stayed for long enough."""
        if self._live.pop(journal.stream, None) is not None:
            self._ended[journal.stream] = journal
        self._forget_old()

    def make_room(self, journal: Journal) -> None:
        """Keep within `streams.max_kept_bytes`: ended streams go first, then what this one said first."""
        while self.kept_bytes > self.settings.max_kept_bytes:
            if self._ended:
                self._ended.popitem(last=False)[1].forget()
            elif not journal.drop_oldest():
                return

    def resume(self, session: bytes, at: EventId) -> Stream | None:
        """The rest of a stream of this gateway; None when it is not kept, or not this session's."""
        self._forget_old()
        journal = self._live.get(at.stream) or self._ended.get(at.stream)
        if at.gateway != self.gateway or journal is None or journal.session != session:
            return None
        return Stream(200, SSE_HEADERS, journal.attach(at.event))

    def _forget_old(self) -> None:
        oldest = trio.current_time() - self.settings.keep_s
        while self._ended:
            journal = next(iter(self._ended.values()))
            if journal.ended_at is not None and journal.ended_at > oldest:
                return
            self._ended.popitem(last=False)[1].forget()


def lost(at: EventId) -> Stream:
    """What a client gets that comes back for a stream that nobody has: an honest end."""
    error = McpError(
        INTERNAL_ERROR,
        "the gateway that ran this call ended, or its events are no longer kept; whether the call took effect is "
        "unknown: check before you repeat it",
        {"code": "OUTCOME_UNKNOWN", "retryable": False},
    )
    outbox = Outbox()
    outbox.finish(sse(error_message(at.request, error)))
    return Stream(200, SSE_HEADERS, outbox)
