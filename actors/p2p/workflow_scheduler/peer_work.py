# SPDX-License-Identifier: AGPL-3.0-or-later
"""Attempts that were offered to peers, and whether what peers say of them is possible.

A peer speaks only of what it was offered, and of nothing else than that: the same task, attempt, token and input. Its
beginning comes right after the offer; it ends once, after that.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, MutableMapping
from typing import Final

import msgspec

from actors.p2p.workflow_scheduler.events import BadEventError, Event
from actors.p2p.workflow_scheduler.payloads import (
    KINDS,
    PEER_KINDS,
    Fact,
    PeerCompleted,
    PeerFact,
    PeerFailed,
    PeerStarted,
    StepOffered,
)

MAX_EVENT_BYTES: Final = 2 * 1024
"""Of an event of a peer, both blocks together."""
MAX_EVENTS: Final = 100_000
"""In one workflow: offers, and what peers say of them."""

Stages = MutableMapping[bytes, PeerFact | None]
"""Offer -> the latest that its peer said; None = nothing yet."""


class PeerWork:
    """See the module's text."""

    def __init__(self) -> None:
        self.count = 0
        """Events that are about it."""
        self._offers: dict[bytes, StepOffered] = {}
        self._newest: dict[tuple[str, int, str], bytes] = {}
        """Task, token and peer -> the offer."""
        self._stages: dict[bytes, PeerFact | None] = {}

    def replay(self, events: Iterable[Event]) -> None:
        """Learn what stored events say, in their total order."""
        for event in events:
            if event.kind == "step_offered":
                self.offered(event, msgspec.convert(event.payload, StepOffered))
            elif event.kind in PEER_KINDS:
                self.take([event])

    def offered(self, event: Event, fact: StepOffered) -> None:
        """There is an offer."""
        self.count += 1
        self._offers[event.cid] = fact
        self._newest[fact.task, fact.token, fact.peer] = event.cid
        self._stages.setdefault(event.cid, None)

    def offer(self, task: str, token: int, peer: str) -> bytes | None:
        """The event by which this attempt was offered to this peer."""
        return self._newest.get((task, token, peer))

    def step_of(self, fact: PeerFact) -> StepOffered | None:
        """What was offered."""
        return self._offers.get(fact.offer)

    def check(self, events: Iterable[Event]) -> ChainMap[bytes, PeerFact | None]:
        """Raises `BadEventError` when one of these (which follow each other) can't be. What follows from them, for
        `count_in`."""
        stages: ChainMap[bytes, PeerFact | None] = ChainMap({}, self._stages)
        for event in events:
            kind = KINDS.get(event.kind) if event.kind in PEER_KINDS else None
            if kind is None:
                raise BadEventError("WORK", f"a peer says no {event.kind}", event.cid)
            if len(event.node) + len(event.payload_block) > MAX_EVENT_BYTES:
                raise BadEventError("TOO_LARGE", f"it has more than {MAX_EVENT_BYTES} bytes", event.cid)
            try:
                fact = msgspec.convert(event.payload, kind)
            except msgspec.ValidationError as error:
                raise BadEventError("WORK", f"its payload is not that of {event.kind}: {error}", event.cid) from None
            if wrong := self.wrong(event, fact, stages):
                raise BadEventError("WORK", wrong, event.cid)
        return stages

    def count_in(self, stages: ChainMap[bytes, PeerFact | None], events: int) -> None:
        """What `check` gave has become part of the clock, with so many events."""
        self._stages.update(stages.maps[0])
        self.count += events

    def take(self, events: Iterable[Event]) -> None:
        """Learn of what was checked before."""
        events = list(events)
        self.count_in(self.check(events), len(events))

    def wrong(self, event: Event, fact: Fact, stages: Stages | None = None) -> str:
        """Why a peer can't have said this now; '' = it can, and it counts."""
        assert isinstance(fact, PeerFact)
        stages = self._stages if stages is None else stages
        offer = self._offers.get(fact.offer)
        if offer is None:
            return "it names no offer"
        if event.peer != offer.peer:
            return f"the offer was made to {offer.peer}"
        if (fact.task, fact.attempt, fact.token, fact.input) != (offer.task, offer.attempt, offer.token, offer.input):
            return "it speaks of something else than what was offered"
        before = stages[fact.offer]
        if isinstance(fact, PeerStarted):
            if before is not None:
                return "the peer began it before"
            if fact.offer not in event.parents:
                return "it does not come right after the offer"
        elif before is None:
            return "the peer had not begun it"
        elif isinstance(before, PeerCompleted | PeerFailed):
            return "the peer ended it before"
        stages[fact.offer] = fact
        return ""
