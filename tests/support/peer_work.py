# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow at its home, as the scheduler holds it, and peers that work for it."""

from __future__ import annotations

import json

from workflow_clocks import signer
from workflow_rig import Rig

from actors.errors import RuntimeUnavailableError
from actors.p2p.cids import cid_text, raw_link
from actors.p2p.peer_registry.link.messages import ClockPlace, Offer
from actors.p2p.peer_registry.sharing.own_events import OwnEvents
from actors.p2p.workflow_scheduler.events import Event
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.workflow_messages import MergeEvents, OfferStep, PeerEnded, Step, StepIsOffered, Workflow

INPUT = raw_link(b"{}")
OUTPUT = json.dumps(
    {"kind": "tool_result", "value": {"x": 1}, "shape": "object", "runtime": "general", "duration_ms": 1}
)


class Home:
    """The workflow `wf` of `ann`, begun; all of its steps call `mix`."""

    def __init__(self, *steps: Step, rules: Rules | None = None) -> None:
        self.rig = Rig(Workflow(name="w", workflow_id="wf", steps=list(steps or (one("a"), one("b")))), rules=rules)
        self.rig.begin()

    @property
    def clock(self):
        return self.rig.run.clock

    def offer(self, ask: OfferStep) -> StepIsOffered:
        event = self.rig.run.offer(ask, self.rig.now)
        self.rig.settle()
        if event is None:
            raise RuntimeUnavailableError("other news come first")
        seq = self.clock.next_seq(ask.peer, [event.cid])
        return StepIsOffered(after=event.cid, height=event.height + 1, seq=seq)

    def merge(self, ask: MergeEvents) -> None:
        self.rig.run.merge(ask, self.rig.now)
        self.rig.settle()

    def kinds(self, peer: str) -> list[str]:
        """What a peer said, in its order."""
        return [event.kind for event in self.clock.ordered() if event.peer == peer]


class Peer:
    """One that works for it."""

    def __init__(self, name: str) -> None:
        self.signer = signer(name)
        self.id = self.signer.peer
        self.events = OwnEvents(self.signer, now=lambda: 7.0)

    def ask(self, task: str = "wf:a", token: int = 1, **more) -> OfferStep:
        """What its home asks the scheduler."""
        fields = {"workflow_id": "wf", "owner": "ann", "attempt": 1, "peer": self.id, "input": INPUT} | more
        return OfferStep(task_id=task, token=token, **fields)

    def offer(self, home: Home, task: str = "wf:a", token: int = 1) -> Offer:
        """What its home sends it."""
        place = home.offer(self.ask(task, token))
        return Offer(
            task_id=task,
            token=token,
            type="mix",
            payload="{}",
            lease_s=60.0,
            input_cid=cid_text(INPUT),
            clock=ClockPlace("wf", cid_text(place.after), place.height, place.seq),
        )

    def does(self, home: Home, task: str = "wf:a", token: int = 1) -> tuple[Offer, list[Event]]:
        """It does a task; what it has to tell then."""
        offer = self.offer(home, task, token)
        self.events.begin("home", offer)
        self.events.end("home", offer, OUTPUT, None)
        return offer, self.events.untold("home", offer)

    def tells(self, events: list[Event], ended: PeerEnded | None = None) -> MergeEvents:
        return MergeEvents(
            workflow_id="wf", peer=self.id, events=[(event.node, event.payload_block) for event in events], ended=ended
        )


def one(step_id: str, *depends_on: str, **more) -> Step:
    return Step(step_id=step_id, action="mix", depends_on=list(depends_on), **more)


def with_payload(event: Event, **changes) -> dict:
    """What an event says, but for these; None takes a field away."""
    fields = event.payload | changes
    return {name: value for name, value in fields.items() if value is not None}
