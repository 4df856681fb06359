# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that this side of a link waits for.

The peer has said how many requests it works on at once. So many calls are sent; further ones stand in line for a short
while. A place is free again when the peer has answered, also where nobody waits for the answer any more: so an honest
peer never has to say "busy".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from outcome import Error, Value

from actors.errors import (
    BusyError,
    DeadlineExceededError,
    MCPServerError,
    OutcomeUnknownError,
    PeerUnreachableError,
)
from actors.p2p.peer_registry.link.frames import Op
from actors.p2p.peer_registry.link.messages import Problem, Said
from actors.p2p.peer_registry.link.outgoing import Outgoing
from actors.p2p.peer_registry.link.problems import error_of
from actors.p2p.peer_registry.link.reasons import LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules

_encode = msgspec.msgpack.Encoder().encode


class Pending:
    """One call."""

    __slots__ = ("answers", "deadline", "frame", "give_up", "number", "task", "timeout_s")

    def __init__(
        self, task: trio.lowlevel.Task, frame: bytes, answers: tuple[type[Said], ...], timeout_s: float
    ) -> None:
        self.task = task
        self.frame = frame
        """Empty once it was sent."""
        self.answers = answers
        self.timeout_s = timeout_s
        self.deadline = trio.current_time() + timeout_s
        self.give_up = self.deadline
        """When its waiting ends: its deadline, or sooner while it stands in line."""
        self.number = 0
        """Of its frame among all that were put out."""


class Calls:
    """The table of a link's calls. Never waits, but for `result`."""

    def __init__(self, peer: str, rules: LinkRules, outgoing: Outgoing, look_by: Callable[[float], None]) -> None:
        """`look_by` is told when `expire` is due."""
        self.places = 0
        """Requests that the peer would take now."""
        self.done = 0
        self.late = 0
        """Answers that nobody waited for any more."""
        self.on_less: Callable[[], None] | None = None
        """Called when the peer has answered a request."""
        self._peer = peer
        self._rules = rules
        self._outgoing = outgoing
        self._look_by = look_by
        self._pending: dict[int, Pending] = {}
        self._line: OrderedDict[int, Pending] = OrderedDict()
        """Those of them that were not sent."""
        self._owed: set[int] = set()
        """Ids of sent ones that nobody waits for; the peer still has to answer."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def open(self) -> int:
        """Requests that the peer has not answered."""
        return len(self._pending) - len(self._line) + len(self._owed)

    @property
    def unsettled(self) -> bool:
        """The peer owes answers, or will: calls stand in line."""
        return bool(self._pending or self._owed)

    def begin(self, call_id: int, pending: Pending) -> None:
        """Send a call, or put it into the line. Raises `BusyError` when that is full."""
        if self.places > 0:
            self._send(pending)
        elif len(self._line) >= self._rules.max_waiting:
            raise BusyError(f"{len(self._line)} calls to {self._peer} wait already; try again")
        else:
            self._line[call_id] = pending
            pending.give_up = min(pending.deadline, trio.current_time() + self._rules.place_wait_s)
        self._pending[call_id] = pending
        self._look_by(pending.give_up)

    async def result(self, call_id: int) -> Any:  # noqa: ANN401 - one of the request's answers
        """Wait for the end of a call that this task began."""

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            if (pending := self._pending.pop(call_id, None)) is not None:
                self._leave(call_id, pending)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def answered(self, call_id: int, answer: Said) -> None:
        """An answer or a `Problem` has come. Raises `LinkViolation` when it answers nothing, or can't be its answer."""
        pending = self._pending.get(call_id)
        if pending is None:
            if call_id not in self._owed:
                raise LinkViolation(Violation.ORDER, "an answer to nothing")
            self._owed.discard(call_id)
            self.late += 1
        elif pending.frame:
            raise LinkViolation(Violation.ORDER, "an answer to a request that was not sent")
        elif type(answer) in pending.answers:
            del self._pending[call_id]
            self.done += 1
            trio.lowlevel.reschedule(pending.task, Value(answer))
        elif type(answer) is Problem:
            del self._pending[call_id]
            trio.lowlevel.reschedule(pending.task, Error(error_of(answer)))
        else:
            raise LinkViolation(Violation.FRAME, f"{type(answer).__name__} is no answer to this request")
        self.places += 1
        if self._line:
            self._send_next()
        if self.on_less is not None:
            self.on_less()

    def expire(self, now: float) -> None:
        """End those that have waited long enough."""
        for call_id, pending in [item for item in self._pending.items() if item[1].give_up <= now]:
            del self._pending[call_id]
            in_line = bool(pending.frame)
            self._leave(call_id, pending)
            trio.lowlevel.reschedule(pending.task, Error(self._too_late(pending, in_line, now)))

    def next_expiry(self) -> float:
        """When the next one has waited long enough."""
        return min((pending.give_up for pending in self._pending.values()), default=math.inf)

    def fail(self, why: str, last_id: int | None = None) -> None:
        """The link has ended. `last_id`: of the last request that the peer took, where it has said so."""
        pending, self._pending = self._pending, {}
        taken = self._outgoing.taken_total
        for call_id, call in pending.items():
            sent = not call.frame and call.number <= taken and (last_id is None or call_id <= last_id)
            trio.lowlevel.reschedule(call.task, Error(lost(self._peer, why, sent=sent)))
        self._line.clear()
        self._owed.clear()
        self.places = 0

    def _send(self, pending: Pending) -> None:
        self.places -= 1
        self._outgoing.put(pending.frame)
        pending.number = self._outgoing.put_total
        pending.frame = b""

    def _send_next(self) -> None:
        while self._line and self.places > 0:
            _, pending = self._line.popitem(last=False)
            self._send(pending)
            pending.give_up = pending.deadline
            self._look_by(pending.give_up)

    def _leave(self, call_id: int, pending: Pending) -> None:
        if pending.frame:
            del self._line[call_id]
        else:
            self._owed.add(call_id)
            self._outgoing.put(_encode((call_id, Op.CANCEL, None)))

    def _too_late(self, pending: Pending, in_line: bool, now: float) -> MCPServerError:
        if in_line and pending.deadline > now:
            return BusyError(f"{self._peer} works on as many requests as it takes; nothing was sent, try again")
        return DeadlineExceededError(f"no answer from {self._peer} within {pending.timeout_s:g} s; it was told to stop")


def lost(peer: str, why: str, *, sent: bool) -> MCPServerError:
    """The error of a call whose link has ended."""
    if sent:
        return OutcomeUnknownError(f"the link with {peer} ended during the call ({why})", peer=peer)
    return PeerUnreachableError(f"the link with {peer} ended ({why}); nothing of the call was begun", peer=peer)
