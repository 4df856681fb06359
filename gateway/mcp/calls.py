# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers that go on: the queue behind an SSE stream, and a call that may turn from a plain answer into one.

A `LiveCall` runs in a task of its own, because its HTTP answer must start before the call ends. The answer stays plain
JSON until the first notification comes or `STREAM_AFTER_S` pass: the call may still fail with another HTTP status, and
most calls are short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from gateway.mcp.http import SSE_HEADERS, sse
from gateway.types import Answer, Stream

STREAM_AFTER_S: Final = 15.0
"""A call that takes longer is answered as a stream, so that nobody on the way takes the silence for death."""
KEEP_ALIVE_S: Final = 15.0
"""Pace of comments on a silent stream."""
KEEP_ALIVE: Final = b": \n\n"
MAX_QUEUED: Final = 1024
"""Frames that wait for a slow reader; the oldest notification is dropped then, never the response."""


class Outbox:
    """Frames on their way to one reader (`http.Events`). All methods but `__anext__` return at once."""

    __slots__ = ("_closed", "_ended", "_frames", "_last", "_on_close", "_wake", "dropped")

    def __init__(self, on_close: Callable[[], None] | None = None) -> None:
        self._frames: deque[bytes] = deque(maxlen=MAX_QUEUED)
        self._last = b""
        self._ended = False
        self._closed = False
        self._on_close = on_close
        self._wake: trio.Event | None = None
        self.dropped = 0
        """Notifications that a slow reader missed."""

    def put(self, frame: bytes) -> None:
        """Queue a frame. Ignored when the stream has ended."""
        if self._ended:
            return
        if len(self._frames) == MAX_QUEUED:
            self.dropped += 1
        self._frames.append(frame)
        self._rouse()

    def put_once(self, frame: bytes, event_id: bytes = b"") -> None:
        """Queue a frame, after the line with its id, unless the very same still waits, under whatever id."""
        if not any(queued.endswith(frame) for queued in self._frames):
            self.put(event_id + frame)

    def clear(self) -> None:
        """Forget what was queued."""
        self._frames.clear()

    def finish(self, last: bytes = b"") -> None:
        """End the stream after what is queued and the frame `last`."""
        if not self._ended:
            self._ended = True
            self._last = last
            self._rouse()

    @property
    def empty(self) -> bool:
        """Whether no notification waits."""
        return not self._frames

    @property
    def waiting(self) -> int:
        """Notifications that wait."""
        return len(self._frames)

    def _rouse(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> bytes:
        try:
            if not self._frames and not self._ended:
                self._wake = trio.Event()
                with trio.move_on_after(KEEP_ALIVE_S):
                    await self._wake.wait()
                self._wake = None
                if not self._frames and not self._ended:
                    return KEEP_ALIVE
            else:
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self._close()
            raise
        piece = b"".join(self._frames)
        self._frames.clear()
        if self._ended:
            piece += self._last
            self._last = b""
        if not piece:
            self._close()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Nobody reads any more: drop what is queued and tell the writer's side."""
        self._close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _close(self) -> None:
        self._ended = True
        self._frames.clear()
        self._last = b""
        if not self._closed:
            self._closed = True
            if self._on_close is not None:
                self._on_close()


class Sink(Protocol):
    """Where the messages of a call go: a connection, or a journal that outlives connections."""

    def put(self, message: bytes, /) -> None:
        """One message for the client."""
        ...

    def finish(self, message: bytes = b"", /) -> None:
        """The last one."""
        ...

    @property
    def empty(self) -> bool:
        """No message waits to be sent."""
        ...

    def attach(self) -> Outbox:
        """The events for the client's connection."""
        ...

    def hang_up(self) -> None:
        """End the connection, not the call, where that can be."""
        ...


class Connection:
    """The one connection of a call at revision 2026-07-28. When it is closed, so is everything."""

    __slots__ = ("_outbox",)

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._outbox = Outbox(on_close)

    @property
    def empty(self) -> bool:
        """No message waits to be sent."""
        return self._outbox.empty

    def put(self, message: bytes) -> None:
        """One message for the client."""
        self._outbox.put(sse(message))

    def finish(self, message: bytes = b"") -> None:
        """The last one."""
        self._outbox.finish(sse(message) if message else b"")

    def attach(self) -> Outbox:
        """The events."""
        return self._outbox

    def hang_up(self) -> None:
        """Nothing could be resumed."""


class LiveCall:
    """A call in its own task, and the answer that it becomes.

    Without a journal a reader that leaves cancels the call (modern); with one it runs on to its end, and its messages
    are kept there (legacy). `stream_after_s`: seconds of silence after which the answer becomes a stream.
    """

    __slots__ = ("_answer", "_changed", "_done", "_journal", "_sink", "_stream_after_s", "scope")

    def __init__(self, journal: Sink | None = None, *, stream_after_s: float = STREAM_AFTER_S) -> None:
        self.scope = trio.CancelScope()
        self._journal = journal
        self._sink: Sink = journal if journal is not None else Connection(self.scope.cancel)
        self._stream_after_s = stream_after_s
        self._changed = trio.Event()
        self._done = False
        self._answer: Answer | None = None

    def notify(self, message: bytes) -> None:
        """Send a notification or a request; the first one makes the answer a stream."""
        self._sink.put(message)
        self._changed.set()

    def hang_up(self) -> None:
        """End the client's connection, if it can come back for the rest."""
        self._sink.hang_up()
        self._changed.set()

    async def run(self, work: Callable[[], Awaitable[Answer]]) -> None:
        """The task. `work` turns its own errors into answers."""
        try:
            with self.scope:
                self._answer = await work()
        finally:
            self._done = True
            if self._changed.is_set() or self._answer is None:
                self._sink.finish(self._answer.body if self._answer is not None else b"")
            self._changed.set()

    async def answer(self) -> Answer | Stream | None:
        """Wait until it is clear how to answer. None when the call was cancelled before anything was said."""
        try:
            with trio.move_on_after(self._stream_after_s):
                await self._changed.wait()
        except trio.Cancelled:
            if self._journal is None:
                self.scope.cancel()
            raise
        self._changed.set()
        if not self._done or not self._sink.empty:
            return Stream(200, SSE_HEADERS, self._sink.attach())
        return self._answer
