# SPDX-License-Identifier: AGPL-3.0-or-later
"""One call on a channel, as each of its two ends sees it: the caller waits in a `PendingCall`, the callee's handler is
given an `IncomingCall`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio
from outcome import Value

from actors.errors import ActorDiedError, DeadlineExceededError, InvalidArgumentsError, from_info
from actors.messages import Answer, Ask, Call, Failure, Hello, Item, Reply

if TYPE_CHECKING:
    from actors.channel import Channel

Message = msgspec.Struct | msgspec.Raw | None
"""What a call, an answer or an event carries: a value, or one that is encoded already."""
Handler = Callable[["IncomingCall"], Awaitable[Message]]
"""Answers one call: returns the reply's value, or raises. Cancelled when the caller leaves or the deadline comes."""
OnEvent = Callable[[msgspec.Raw], None]
OnItem = Callable[[msgspec.Raw], object]
OnAsk = Callable[[str, msgspec.Raw], Awaitable[Message]]

_encode = msgspec.msgpack.Encoder().encode

T = TypeVar("T")


class StoppedClock:
    """The deadline of a call stands still while one of its questions is open: people think for longer than tools run.

    How long a question may take is for whoever answers it to bound.
    """

    __slots__ = ("_call", "_left", "_open")

    def __init__(self, call: PendingCall | IncomingCall) -> None:
        self._call = call
        self._open = 0
        self._left = 0.0

    def __enter__(self) -> None:
        if not self._open:
            self._left = self._call.deadline - trio.current_time()
            self._call.deadline = math.inf
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            self._call.deadline = trio.current_time() + self._left


class PendingCall:
    """A call that this side waits for."""

    __slots__ = ("clock", "deadline", "end_offset", "on_ask", "on_item", "questions", "task", "timeout_s")

    def __init__(
        self, task: trio.lowlevel.Task, timeout_s: float, on_item: OnItem | None, on_ask: OnAsk | None
    ) -> None:
        self.task = task
        self.timeout_s = timeout_s
        self.deadline = trio.current_time() + timeout_s
        self.on_item = on_item
        self.on_ask = on_ask
        self.end_offset = 0
        """Where its frame ends in the bytes of the channel: tells whether the other side may have seen it."""
        self.clock: StoppedClock | None = None
        """Set once the callee has asked."""
        self.questions: set[trio.CancelScope] | None = None
        """The callee's questions that are being answered; they end with the call."""

    def end(self, outcome: Reply | Failure | ActorDiedError | DeadlineExceededError) -> None:
        """Wake the caller. The call must be forgotten by its channel already."""
        trio.lowlevel.reschedule(self.task, Value(outcome))
        self.cancel_questions()

    def cancel_questions(self) -> None:
        """Nobody waits for the answers any more."""
        if self.questions is not None:
            for scope in self.questions:
                scope.cancel()


def unwrap(outcome: Reply | Failure | ActorDiedError | DeadlineExceededError) -> msgspec.Raw:
    """A call's reply, or its error raised."""
    if type(outcome) is Reply:
        return outcome.body
    if type(outcome) is Failure:
        raise from_info(outcome.error)
    assert isinstance(outcome, (ActorDiedError, DeadlineExceededError))
    raise outcome


class IncomingCall:
    """A call as its handler sees it."""

    __slots__ = ("_asks", "_channel", "_clock", "_next_ask", "body", "deadline", "id", "method", "scope", "timeout_s")

    def __init__(self, channel: Channel, frame: Call) -> None:
        self._channel = channel
        self.id = frame.id
        self.method = frame.method
        self.timeout_s = frame.timeout_s
        """Time that was left when the frame came."""
        self.deadline = trio.current_time() + frame.timeout_s
        self.body = frame.body
        self.scope = trio.CancelScope()
        """Of the handler's run; the channel cancels it when the caller leaves or the deadline comes."""
        self._asks: dict[int, trio.lowlevel.Task] | None = None
        self._next_ask = 0
        self._clock: StoppedClock | None = None

    @property
    def caller(self) -> Hello:
        """Who calls."""
        return self._channel.peer

    @property
    def channel(self) -> Channel:
        """The connection that the call came on, for events back to the caller."""
        return self._channel

    def item(self, value: Message) -> bool:
        """Send one element of the call's stream. Never waits; False when it was dropped because the caller reads too
        slowly. Must be called from the loop's thread."""
        if self._channel.queued_bytes > self._channel.limits.max_queued_bytes:
            return False
        self._channel.send(Item(self.id, msgspec.Raw(_encode(value))))
        return True

    async def ask(self, method: str, value: Message) -> msgspec.Raw:
        """Ask the caller and wait for its answer. The call's deadline stands still meanwhile: the caller has to bound
        the time that its answer takes.

        Raises what the caller's answer carries (`MCPServerError` and below).
        """
        if self._asks is None or self._clock is None:
            self._asks, self._clock = {}, StoppedClock(self)
        self._next_ask += 1
        ask_id = self._next_ask
        self._asks[ask_id] = trio.lowlevel.current_task()
        self._channel.send(Ask(self.id, ask_id, method, msgspec.Raw(_encode(value))))

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            assert self._asks is not None
            self._asks.pop(ask_id, None)
            return trio.lowlevel.Abort.SUCCEEDED

        with self._clock:
            answer: Answer = await trio.lowlevel.wait_task_rescheduled(abort)
        self._channel.look_no_later_than(self.deadline)
        if answer.error is not None:
            raise from_info(answer.error)
        return answer.body

    def answered(self, frame: Answer) -> bool:
        """Wake the task that asked. False when none waits for this answer any more."""
        task = self._asks.pop(frame.ask_id, None) if self._asks else None
        if task is None:
            return False
        trio.lowlevel.reschedule(task, Value(frame))
        return True


def decoded(decode: Callable[[msgspec.Raw], T], call: IncomingCall) -> T:
    """What a call was sent with. Raises `InvalidArgumentsError` when it is something else."""
    try:
        return decode(call.body)
    except msgspec.DecodeError as error:
        raise InvalidArgumentsError(f"{call.method} was sent with what it does not take: {error}") from None
    except RecursionError:
        raise InvalidArgumentsError(f"{call.method} was sent with values that are nested too deeply") from None
