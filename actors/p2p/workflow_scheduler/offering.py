# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a run does when its steps are offered to peers, and when these tell what they did.

An offer is an event of its own, made before the peer is asked, so that all that had happened here by then came before
what the peer does. What peers say never decides anything: that is up to the queue, which is told of results apart.
"""

from __future__ import annotations

import msgspec

from actors.errors import NotFoundError
from actors.p2p.answers import refuse
from actors.p2p.workflow_scheduler.deciding import Deciding
from actors.p2p.workflow_scheduler.events import BadEventError, Event
from actors.p2p.workflow_scheduler.fold import fold
from actors.p2p.workflow_scheduler.payloads import PeerCompleted, PeerEnd, StepOffered
from actors.p2p.workflow_scheduler.peer_work import MAX_EVENTS
from actors.p2p.workflow_scheduler.steps import WHOLE, Part
from actors.workflow_messages import MergeEvents, OfferStep


def offer(run: Deciding, ask: OfferStep) -> Event | None:
    """See `WorkflowRun.offer`."""
    part = run.graph.part_of(ask.task_id)
    work = None if part is None else run.state.work(part)
    if part is None or work is None or ask.owner != run.owner:
        raise NotFoundError(f"the workflow has no task {ask.task_id[:200]!r}")
    known = run.peers.offer(ask.task_id, ask.token, ask.peer)
    if known is not None:
        return run.clock[known]
    if not run.going or work.ended or run.state.steps[part.place].ended or ask.token < work.token:
        refuse("INVALID_STATE", f"nothing is to be done for {ask.task_id[:200]!r} under this token")
    if run.peers.count >= MAX_EVENTS:
        refuse("LIMIT_EXCEEDED", f"peers have made, or caused, {MAX_EVENTS} events of this workflow")
    if part.at == WHOLE and run.state.steps[part.place].open:
        for before in run.graph.depends[part.place]:
            if not run.state.steps[before].ended:
                run.sending.look(Part(before))
        return None
    run.append(
        "step_offered",
        **run.named(part),
        task=ask.task_id,
        attempt=ask.attempt,
        token=ask.token,
        peer=ask.peer,
        input=ask.input,
    )
    event = run.events[-1]
    run.peers.offered(event, msgspec.convert(event.payload, StepOffered))
    return event


def merge(run: Deciding, ask: MergeEvents) -> None:
    """See `WorkflowRun.merge`."""
    events = run.clock.following(ask.peer, ask.events)
    stages = run.peers.check(events)
    if ask.ended is not None:
        offered = run.peers.offer(ask.ended.task_id, ask.ended.token, ask.peer)
        said = None if offered is None else stages[offered]
        if said is None or not isinstance(said, PeerEnd):
            raise BadEventError("WORK", "no event says that it has ended")
        result = said.result if isinstance(said, PeerCompleted) else b""
        if result != ask.ended.result:
            raise BadEventError("WORK", "the event says that it ended otherwise")
    run.peers.count_in(stages, len(events))
    for event in run.clock.follow(events):
        run.events.append(event)
        fold(run.state, run.graph, event.kind, {})
