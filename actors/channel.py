# SPDX-License-Identifier: AGPL-3.0-or-later
"""A channel: one connection between two actors, on a Unix socket, carrying many calls at once in both directions.

On the wire each frame is a length (4 bytes, big endian) and one msgpack value of `actors.messages.Frame`. Promises:

* A call ends exactly once: with its reply, a typed error, its deadline, or `ActorDiedError` as soon as the connection
  ends.
* Cancelling the task that waits for a call, or its deadline, cancels the handler on the other side.
* Inside a call the callee may send items (progress) and ask the caller (elicitation); both end with the call.
* All that waits is bounded: open calls in each direction (`BusyError` beyond), bytes queued for a slow reader, the
  size of a frame (checked before memory is taken for it), and the time that a peer may take to read or to say hello.
* A side that has to end can do so without a call of the other side that lies unread (`leave`).
* A bad frame ends this connection with a reason; nothing else.

It does not promise order between different calls, and it retries nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from actors.calls import Handler, IncomingCall, Message, OnAsk, OnEvent, OnItem, PendingCall, StoppedClock, unwrap
from actors.errors import ActorDiedError, BusyError, DeadlineExceededError, DrainingError, MCPServerError, to_info
from actors.framing import EndError, FrameReader, Outbox
from actors.messages import (
    PROTOCOL_VERSION,
    Answer,
    Ask,
    Call,
    Cancel,
    ErrorInfo,
    Event,
    Failure,
    Frame,
    Hello,
    Item,
    Leaving,
    NoMore,
    Reply,
)

if TYPE_CHECKING:
    from trio.socket import SocketType

_encode = msgspec.msgpack.Encoder().encode
_NOTHING = msgspec.Raw(_encode(None))


class ChannelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one channel. Both ends should agree on `max_frame_bytes`."""

    max_frame_bytes: int = 16 * 1024 * 1024
    max_calls_at_once: int = 1024
    """In each direction."""
    max_queued_bytes: int = 4 * 1024 * 1024
    """Above this, senders wait; a single frame may exceed it."""
    hello_timeout_s: float = 5.0
    write_timeout_s: float = 30.0
    """A peer that reads nothing for so long is given up."""


class ChannelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is open and what was seen; a snapshot."""

    open_outgoing: int
    open_incoming: int
    queued_bytes: int
    frames_in: int
    late_frames: int
    """Replies, items and answers for calls that had ended already: dropped."""
    refused_calls: int


class ChannelClosedError(MCPServerError):
    """The channel ended. `reason` says why; for whoever runs the channel, callers see `ActorDiedError`."""

    code = "CHANNEL_CLOSED"
    retryable = True


class FrameTooLargeError(MCPServerError):
    """A value does not fit into one frame; nothing was sent."""

    code = "FRAME_TOO_LARGE"


class Channel:
    """One connection. Whoever opens it runs `run()` in a nursery of theirs; it ends when the connection does."""

    def __init__(
        self,
        sock: SocketType,
        *,
        me: Hello,
        handler: Handler | None = None,
        on_event: OnEvent | None = None,
        accept: Callable[[Hello], None] | None = None,
        limits: ChannelLimits | None = None,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """`accept` may refuse the peer's hello by raising; `on_error` hears of handlers' unexpected errors."""
        self.limits = limits or ChannelLimits()
        self.peer = Hello(PROTOCOL_VERSION, "?", 0)
        self.closed_reason = ""
        self._sock = sock
        self._me = me
        self._handler = handler
        self._on_event = on_event
        self._accept = accept
        self._on_error = on_error
        self._outbox = Outbox(
            sock, max_queued_bytes=self.limits.max_queued_bytes, write_timeout_s=self.limits.write_timeout_s
        )
        self._pending: dict[int, PendingCall] = {}
        self._incoming: dict[int, IncomingCall] = {}
        self._next_id = 0
        self._frames_in = 0
        self._late = 0
        self._refused = 0
        self._closed = False
        self.other_leaves = False
        """The other side takes no new calls."""
        self._no_more = trio.Event()
        """The other side makes no new calls, and all that it made were read."""
        self._nursery: trio.Nursery | None = None
        self._look = trio.CancelScope()
        self._look_at = math.inf

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> str:
        """Say hello, then carry frames until the connection ends. Returns why it ended, in words.

        `task_status.started()` comes after the peer's hello was accepted. Raises `ChannelClosedError` when it was not.
        """
        try:
            self.send(self._me)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_deadlines)
                try:
                    await self._read(task_status)
                except EndError as end:
                    self.closed_reason = self.closed_reason or str(end)
                except (OSError, trio.ClosedResourceError) as error:
                    self.closed_reason = self.closed_reason or f"connection lost ({error})"
                nursery.cancel_scope.cancel()
        finally:
            self._end()
        if self.peer.actor == "?":
            raise ChannelClosedError(f"no connection: {self.closed_reason}")
        return self.closed_reason

    def close(self, reason: str = "closed here") -> None:
        """End the connection now. Open calls end with `ActorDiedError`, handlers are cancelled."""
        self.closed_reason = self.closed_reason or reason
        self._end()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """Have the other side make no more calls; when this returns, all that it made were read. It may take its time:
        the caller bounds the wait."""
        if not self._closed:
            self.send(Leaving())
            await self._no_more.wait()

    @property
    def closed(self) -> bool:
        """True once no call can be made any more."""
        return self._closed

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the other side."""
        return self._outbox.queued_bytes

    @property
    def open_calls(self) -> int:
        """Calls that the other side waits for."""
        return len(self._incoming)

    @property
    def in_flight(self) -> int:
        """Calls that this side waits for."""
        return len(self._pending)

    def statistics(self) -> ChannelStatistics:
        """A snapshot of what is open and what was seen."""
        return ChannelStatistics(
            open_outgoing=len(self._pending),
            open_incoming=len(self._incoming),
            queued_bytes=self.queued_bytes,
            frames_in=self._frames_in,
            late_frames=self._late,
            refused_calls=self._refused,
        )

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._no_more.set()
        self._sock.close()
        pending, self._pending = self._pending, {}
        for call in pending.values():
            died = ActorDiedError(
                self.peer.actor, self.peer.incarnation, sent=call.end_offset <= self._outbox.written_total
            )
            call.end(died)
        self._outbox.close()

    # --- calling ---------------------------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        value: Message,
        *,
        timeout_s: float,
        on_item: OnItem | None = None,
        on_ask: OnAsk | None = None,
    ) -> msgspec.Raw:
        """Run `method` on the other side and return its reply, still encoded.

        `on_item` is called for each element of the call's stream, from the reading task: it must not wait. `on_ask`
        answers the callee's questions.
        Raises `BusyError` and `DrainingError` (nothing was sent), `DeadlineExceededError`, `ActorDiedError`,
        `FrameTooLargeError`, and whatever the handler raised, as `actors.errors.from_info` makes it.
        """
        if self.queued_bytes > self.limits.max_queued_bytes:
            with trio.move_on_after(timeout_s):
                await self._outbox.room()
        if self._closed:
            raise ActorDiedError(self.peer.actor, self.peer.incarnation, sent=False)
        if self.other_leaves:
            raise DrainingError(f"{self.peer.actor} is ending and takes no new calls")
        if len(self._pending) >= self.limits.max_calls_at_once:
            self._refused += 1
            raise BusyError(f"{len(self._pending)} calls are open to {self.peer.actor}, which is the limit; try again")
        self._next_id = call_id = self._next_id + 1
        pending = PendingCall(trio.lowlevel.current_task(), timeout_s, on_item, on_ask)
        self.send(Call(call_id, method, timeout_s, msgspec.Raw(_encode(value))))
        pending.end_offset = self._outbox.queued_total
        self._pending[call_id] = pending
        self.look_no_later_than(pending.deadline)

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            if self._pending.pop(call_id, None) is not None:
                self.send(Cancel(call_id, "the caller left"))
                pending.cancel_questions()
            return trio.lowlevel.Abort.SUCCEEDED

        return unwrap(await trio.lowlevel.wait_task_rescheduled(abort))

    async def _keep_deadlines(self) -> None:
        """End calls whose deadline has come. One task for all: a cancel scope for each would double a call's cost."""
        while True:
            self._look_at = min(
                (call.deadline for calls in (self._pending, self._incoming) for call in calls.values()),
                default=math.inf,
            )
            with trio.CancelScope(deadline=self._look_at) as self._look:
                await trio.sleep_forever()
            now = trio.current_time()
            for call_id, pending in list(self._pending.items()):
                if pending.deadline <= now:
                    del self._pending[call_id]
                    self.send(Cancel(call_id, "its deadline has come"))
                    within = f"within {pending.timeout_s:g} s; the call was cancelled"
                    pending.end(DeadlineExceededError(f"no answer from {self.peer.actor} {within}"))
            for call in self._incoming.values():
                if call.deadline <= now:
                    call.scope.cancel()

    def look_no_later_than(self, deadline: float) -> None:
        """A call of this channel has this deadline now."""
        if deadline < self._look_at:
            self._look_at = self._look.deadline = deadline

    def post(self, value: Message) -> None:
        """Send a one-way event. Never waits; a peer that does not read is given up after `write_timeout_s`."""
        self.send(Event(msgspec.Raw(_encode(value))))

    # --- writing ---------------------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Queue one frame; frames that are due in the same turn of the loop leave together. Dropped once closed."""
        if self._closed:
            return
        data = _encode(frame)
        if len(data) > self.limits.max_frame_bytes:
            raise FrameTooLargeError(
                f"a message has {len(data)} bytes; the limit is {self.limits.max_frame_bytes} (channel.max_frame_bytes)"
            )
        self._outbox.put(data)

    async def _write(self) -> None:
        try:
            await self._outbox.run()
        except (OSError, trio.ClosedResourceError) as error:
            self.close(f"connection lost ({error})")
        except trio.TooSlowError:
            self.close(f"the other side took nothing for {self.limits.write_timeout_s:g} s")

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, task_status: trio.TaskStatus[None]) -> None:
        reader = FrameReader(self._sock, self.limits.max_frame_bytes)
        with trio.move_on_after(self.limits.hello_timeout_s) as waiting:
            while (hello := reader.next_frame()) is None:
                await reader.fill()
        if waiting.cancelled_caught or hello is None:
            raise EndError("no hello in time")
        self._check_hello(hello)
        task_status.started()
        while True:
            while (frame := reader.next_frame()) is not None:
                self._frames_in += 1
                self._dispatch(frame)
            await reader.fill()

    def _check_hello(self, frame: Frame) -> None:
        if not isinstance(frame, Hello):
            raise EndError("the first frame was no hello")
        if frame.version != PROTOCOL_VERSION:
            raise EndError(f"{frame.actor} speaks version {frame.version}, this side {PROTOCOL_VERSION}")
        if self._accept is not None:
            try:
                self._accept(frame)
            except MCPServerError as refused:
                raise EndError(f"refused {frame.actor}: {refused}") from None
        self.peer = frame

    def _dispatch(self, frame: Frame) -> None:
        kind = type(frame)
        if kind is Reply or kind is Failure:
            pending = self._pending.pop(frame.id, None)  # type: ignore[union-attr]
            if pending is None:
                self._late += 1
            else:
                pending.end(frame)  # type: ignore[arg-type]
        elif kind is Call:
            self._start(frame)  # type: ignore[arg-type]
        elif kind is Event:
            if self._on_event is not None:
                self._on_event(frame.body)  # type: ignore[union-attr]
        else:
            self._dispatch_rare(frame)

    def _dispatch_rare(self, frame: Frame) -> None:
        if isinstance(frame, Cancel):
            call = self._incoming.get(frame.id)
            if call is not None:
                call.scope.cancel()
        elif isinstance(frame, Item):
            pending = self._pending.get(frame.id)
            if pending is None or pending.on_item is None:
                self._late += 1
            else:
                pending.on_item(frame.body)
        elif isinstance(frame, Ask):
            assert self._nursery is not None
            self._nursery.start_soon(self._answer, frame)
        elif isinstance(frame, Answer):
            call = self._incoming.get(frame.id)
            if call is None or not call.answered(frame):
                self._late += 1
        elif isinstance(frame, Leaving):
            self.other_leaves = True
            self.send(NoMore())
        elif isinstance(frame, NoMore):
            self._no_more.set()
        else:
            raise EndError("a second hello")

    # --- serving ---------------------------------------------------------------------------------------------------

    def _start(self, frame: Call) -> None:
        if self._handler is None:
            self._fail(frame.id, MCPServerError(f"this side answers no calls ({frame.method})"))
        elif frame.id in self._incoming:
            raise EndError(f"call {frame.id} was started twice")
        elif len(self._incoming) >= self.limits.max_calls_at_once:
            self._refused += 1
            self._fail(frame.id, BusyError(f"{self._me.actor} has {len(self._incoming)} calls open; try again"))
        else:
            call = self._incoming[frame.id] = IncomingCall(self, frame)
            self.look_no_later_than(call.deadline)
            assert self._nursery is not None
            self._nursery.start_soon(self._serve, call)

    async def _serve(self, call: IncomingCall) -> None:
        """Run the handler; its slot is kept until there is room for the reply, so that a peer that never reads can't
        pile up finished work."""
        assert self._handler is not None
        try:
            with call.scope:
                try:
                    value = await self._handler(call)
                except Exception as error:  # noqa: BLE001
                    self._handler_failed(call, error)
                else:
                    self._reply(call, value)
                if self.queued_bytes > self.limits.max_queued_bytes:
                    await self._outbox.room()
                return
            if trio.current_time() >= call.deadline:
                self._fail(call.id, DeadlineExceededError(f"{call.method} did not end within {call.timeout_s:g} s"))
        finally:
            del self._incoming[call.id]

    def _reply(self, call: IncomingCall, value: Message) -> None:
        try:
            self.send(Reply(call.id, msgspec.Raw(_encode(value))))
        except FrameTooLargeError as error:
            self._fail(call.id, error)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._handler_failed(call, error)

    def _handler_failed(self, call: IncomingCall, error: BaseException) -> None:
        if not isinstance(error, MCPServerError) and self._on_error is not None:
            self._on_error(call.method, error)
        self._fail(call.id, error)

    def _fail(self, call_id: int, error: BaseException) -> None:
        try:
            self.send(Failure(call_id, to_info(error)))
        except (FrameTooLargeError, TypeError, ValueError):
            self.send(Failure(call_id, ErrorInfo(code="INTERNAL", message="the error could not be carried")))

    async def _answer(self, frame: Ask) -> None:
        pending = self._pending.get(frame.id)
        if pending is None:
            self._late += 1
            return
        if pending.on_ask is None:
            refusal = to_info(MCPServerError(f"the caller answers no questions ({frame.method})"))
            self.send(Answer(frame.id, frame.ask_id, _NOTHING, refusal))
            return
        scope = trio.CancelScope()
        if pending.questions is None:
            pending.questions = set()
        pending.questions.add(scope)
        pending.clock = pending.clock or StoppedClock(pending)
        with scope:
            try:
                with pending.clock:
                    value = await pending.on_ask(frame.method, frame.body)
                answer = Answer(frame.id, frame.ask_id, msgspec.Raw(_encode(value)))
            except Exception as error:  # noqa: BLE001
                answer = Answer(frame.id, frame.ask_id, _NOTHING, to_info(error))
            finally:
                pending.questions.discard(scope)
            self.look_no_later_than(pending.deadline)
            self.send(answer)
