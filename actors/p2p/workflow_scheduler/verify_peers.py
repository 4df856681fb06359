# SPDX-License-Identifier: AGPL-3.0-or-later
"""Does what peers say of their work fit what they were offered, and what was accepted from them?"""

from __future__ import annotations

from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.findings import Findings, Said, part_of
from actors.p2p.workflow_scheduler.payloads import PeerCompleted, PeerFact, PeerStarted, StepCompleted, StepOffered
from actors.p2p.workflow_scheduler.peer_work import PeerWork


class PeerRules:
    """Hears of the events in their total order, all of them by `collect` before the first by `check`."""

    def __init__(self, clock: EventClock, findings: Findings) -> None:
        self._clock = clock
        self._findings = findings
        self._work = PeerWork()
        self._starts: dict[bytes, Said] = {}
        """Offer -> what its peer said first."""
        self._done: dict[tuple[str, int], list[Said]] = {}
        """Task and token of what was offered -> how it completed at peers."""

    def collect(self, one: Said) -> None:
        """A peer speaks of what it was offered, in the order in which it happens."""
        fact = one.fact
        if isinstance(fact, StepOffered):
            self._work.offered(one.event, fact)
            self._done.setdefault((fact.task, fact.token), [])
        elif isinstance(fact, PeerFact):
            self._collect(one, fact)

    def _collect(self, one: Said, fact: PeerFact) -> None:
        if wrong := self._work.wrong(one.event, fact):
            self._found(one, wrong)
        elif isinstance(fact, PeerStarted):
            self._starts[fact.offer] = one
        elif not self._clock.before(self._starts[fact.offer].cid, one.cid):
            self._found(one, "it ended before it began")
        elif isinstance(fact, PeerCompleted):
            self._done[fact.task, fact.token].append(one)

    def check(self, one: Said) -> None:
        """What was done by a peer is what the peer says it did, and said before."""
        fact = one.fact
        if not isinstance(fact, StepCompleted) or (fact.task, fact.token) not in self._done:
            return
        said = [at for at in self._done[fact.task, fact.token] if self._clock.before(at.cid, one.cid)]
        if not said:
            self._found(one, "no peer that it was offered to says that it completed")
        elif not any(isinstance(at.fact, PeerCompleted) and at.fact.result == fact.result for at in said):
            self._found(one, "the peer says that it has another output")

    def _found(self, one: Said, message: str) -> None:
        step = self._work.step_of(one.fact) if isinstance(one.fact, PeerFact) else one.fact
        part = part_of(step) if isinstance(step, StepOffered | StepCompleted) else None
        self._findings.add("PEER", message, one.cid, part)
