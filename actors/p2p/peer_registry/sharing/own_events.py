# SPDX-License-Identifier: AGPL-3.0-or-later
"""What this node says of its work for the workflows of others: events of their Merkle clocks, signed by it.

All that it says for one workflow is one line: each event comes after the one before it, and the first one of a task
after the event by which the task was offered. What the workflow's node is not known to have goes along with each result
until it is, so that a result that is lost, or comes too late to count, leaves no hole. A line is kept while a task of
it is here, and a while longer: an offer that was made before its events had arrived must not begin a second line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import trio

from actors.errors import BusyError, MCPServerError
from actors.messages import ErrorInfo
from actors.p2p.cids import cid_of_text
from actors.p2p.identity import NodeSigner
from actors.p2p.peer_registry.link.messages import Offer, WorkEvent
from actors.p2p.peer_registry.sharing.statement import value_link
from actors.p2p.workflow_scheduler.events import Event, made

MOST_UNTOLD: Final = 64
"""Events of one line that its workflow's node is not known to have; they go into one message."""
MOST_LINES: Final = 1024
IDLE_S: Final = 60.0
_MESSAGE_BYTES: Final = 300
_CODE_BYTES: Final = 64

Key = tuple[str, str]
"""Origin and workflow."""


class OwnEvents:
    """See the module's text."""

    def __init__(self, signer: NodeSigner, now: Callable[[], float] = time.time) -> None:
        """`now`: Unix seconds."""
        self._signer = signer
        self._now = now
        self._lines: dict[Key, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def begin(self, origin: str, offer: Offer) -> None:
        """A task begins here. Raises `BusyError` when too much of what was done before is untold, and
        `BadPlaceError`."""
        if offer.clock is None:
            return
        try:
            after, _ = cid_of_text(offer.clock.after), cid_of_text(offer.input_cid)
        except ValueError as error:
            raise BadPlaceError(str(error)) from None
        line = self._line_for((origin, offer.clock.workflow_id))
        parents, height, seq = {after}, offer.clock.height, offer.clock.seq
        if line.last is not None and line.last.seq >= seq:
            # The origin did not know it yet when it made the offer.
            parents.add(line.last.cid)
            height, seq = max(height, line.last.height + 1), line.last.seq + 1
        line.say(made("peer_started", self._fact(offer, after), self._signer, parents=parents, height=height, seq=seq))
        line.tasks[offer.task_id, offer.token] = after

    def end(self, origin: str, offer: Offer, output: str, error: ErrorInfo | None) -> None:
        """A task that began here has ended, with an output or an error."""
        if offer.clock is None:
            return
        line = self._lines[origin, offer.clock.workflow_id]
        fact = self._fact(offer, line.tasks[offer.task_id, offer.token])
        if error is None:
            kind, fact["result"] = "peer_completed", value_link(output)
        else:
            kind = "peer_failed"
            fact["error"] = {"code": _cut(error.code, _CODE_BYTES), "message": _cut(error.message, _MESSAGE_BYTES)}
        last = line.last
        assert last is not None
        line.say(made(kind, fact, self._signer, parents=[last.cid], height=last.height + 1, seq=last.seq + 1))

    def leave(self, origin: str, offer: Offer) -> None:
        """A task is not here any more, however it ended."""
        if offer.clock is not None:
            line = self._lines[origin, offer.clock.workflow_id]
            del line.tasks[offer.task_id, offer.token]
            line.idle_at = trio.current_time()

    def untold(self, origin: str, offer: Offer) -> list[Event]:
        """What the task's origin is not known to have of all that was done for its workflow."""
        return [] if offer.clock is None else list(self._lines[origin, offer.clock.workflow_id].untold)

    def told(self, origin: str, offer: Offer, events: Iterable[Event]) -> None:
        """It has these."""
        if offer.clock is not None:
            line, known = self._lines[origin, offer.clock.workflow_id], {event.cid for event in events}
            line.untold = [event for event in line.untold if event.cid not in known]

    def drop_idle(self) -> None:
        """Forget lines to which nothing was added for a while."""
        now = trio.current_time()
        self._lines = {key: line for key, line in self._lines.items() if line.tasks or now - line.idle_at <= IDLE_S}

    def _line_for(self, key: Key) -> _Line:
        line = self._lines.get(key)
        if line is not None and not line.tasks and len(line.untold) > MOST_UNTOLD // 2:
            # Nobody is about to tell it: what the origin does not know by now, it never will.
            line = None
        if line is None:
            if key not in self._lines and len(self._lines) >= MOST_LINES:
                raise BusyError(f"this node works for {MOST_LINES} workflows already")
            line = self._lines[key] = _Line()
        if len(line.untold) + len(line.tasks) + 2 > MOST_UNTOLD:
            raise BusyError("too much of what was done here for the workflow is not told yet")
        return line

    def _fact(self, offer: Offer, after: bytes) -> dict[str, Any]:
        return {
            "at": int(self._now() * 1000),
            "offer": after,
            "task": offer.task_id,
            "attempt": offer.attempt,
            "token": offer.token,
            "input": cid_of_text(offer.input_cid),
        }


class _Line:
    def __init__(self) -> None:
        self.last: Event | None = None
        self.untold: list[Event] = []
        self.tasks: dict[tuple[str, int], bytes] = {}
        """Task and token of what is here -> the event by which it was offered."""
        self.idle_at = trio.current_time()

    def say(self, event: Event) -> None:
        self.last = event
        self.untold.append(event)


class BadPlaceError(MCPServerError):
    """An offer names no place in its workflow's clock."""

    code = "INVALID_PARAMS"


def as_sent(events: Iterable[Event]) -> list[WorkEvent]:
    """As they go over a link."""
    return [WorkEvent(node=event.node, payload=event.payload_block) for event in events]


def _cut(text: str, most: int) -> str:
    return text.encode(errors="replace")[:most].decode(errors="ignore")
