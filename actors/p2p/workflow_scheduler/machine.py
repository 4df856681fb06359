# SPDX-License-Identifier: AGPL-3.0-or-later
"""One workflow's run: facts in, events and commands out.

Pure: no I/O and no clock of its own; `now` is Unix seconds. To decide is to append an event and fold it, so that a
replay of the events gives the equal state. What is known of the queue besides (which tasks were sent) is not in the
events: after a replay the tasks are looked up first.

Its owner does this, over and over: tell it something (`observe`, `accepted`, `refused`, ...); `take()`; make the taken
events, outputs and memos durable together; then carry out the taken commands, and tell it what came of them. Between
telling and taking no other task may run. Commands may be repeated, and may be lost together with their process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler import offering
from actors.p2p.workflow_scheduler.deciding import Deciding
from actors.p2p.workflow_scheduler.definition import Plan
from actors.p2p.workflow_scheduler.dispatch import depends_on, fill
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import Event, Signer
from actors.p2p.workflow_scheduler.facts import send_later, take_fact, take_gone
from actors.p2p.workflow_scheduler.fold import replay
from actors.p2p.workflow_scheduler.run_values import Changes, Commands, Outputs, Rules
from actors.p2p.workflow_scheduler.steps import WHOLE, Graph, Part, RunState
from actors.p2p.workflow_scheduler.view import step_view, workflow_view
from actors.task_messages import Cancel
from actors.task_views import TaskFact
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import (
    WORKFLOW_ENDED,
    ControlWorkflow,
    MergeEvents,
    OfferStep,
    StepView,
    WorkflowStatus,
    WorkflowView,
)

MOST_DOUBTS: Final = 3
"""The queue did not know what a task depends on, though it should: after so many times the step fails."""


class WorkflowRun:
    """See the module's text. Made by `submit` or `replayed`."""

    def __init__(self, deciding: Deciding) -> None:
        self._run = deciding

    @classmethod
    def submit(
        cls,
        plan: Plan,
        clock: EventClock,
        signer: Signer,
        rules: Rules,
        *,
        workflow_id: str,
        owner: str,
        tools: Mapping[str, ToolDescriptor],
        outputs: Outputs,
        now: float,
    ) -> WorkflowRun:
        """A new one: `submitted` is its first event. `clock` is empty. `tools` are only looked at for memo keys."""
        graph = Graph(plan, workflow_id)
        state = RunState.empty(graph)
        run = Deciding(plan, clock, signer, rules, graph, state, owner=owner, tools=tools, outputs=outputs)
        run.now = now
        run.append("submitted", workflow=plan.cid, workflow_id=workflow_id, owner=owner)
        return cls(run)

    @classmethod
    def replayed(
        cls,
        plan: Plan,
        clock: EventClock,
        signer: Signer,
        rules: Rules,
        *,
        workflow_id: str,
        owner: str,
        tools: Mapping[str, ToolDescriptor],
        outputs: Outputs,
        now: float,
    ) -> WorkflowRun:
        """One whose events are in `clock` already. What they left undecided is decided now; the tasks that may be in
        the queue are looked up first."""
        graph = Graph(plan, workflow_id)
        state = replay(graph, clock.ordered())
        run = Deciding(plan, clock, signer, rules, graph, state, owner=owner, tools=tools, outputs=outputs)
        run.now = now
        run.peers.replay(clock.ordered())
        if state.status == "running":
            for place, record in enumerate(state.steps):
                if record.status == "completed":
                    run.sending.cover(place)
            run.sending.recover(_maybe_sent(run))
            run.pause = state.paused if state.lane_used else None
            run.touch(range(len(graph)))
        run.settle()
        return cls(run)

    @property
    def plan(self) -> Plan:
        """As it was submitted."""
        return self._run.plan

    @property
    def workflow_id(self) -> str:
        """Its id."""
        return self._run.graph.workflow_id

    @property
    def owner(self) -> str:
        """Who submitted it."""
        return self._run.owner

    @property
    def clock(self) -> EventClock:
        """Its events. Foreign ones that are merged into it count after a replay."""
        return self._run.clock

    @property
    def state(self) -> RunState:
        """What the events say; not to be changed."""
        return self._run.state

    @property
    def status(self) -> WorkflowStatus:
        """The workflow's."""
        return self._run.state.status

    @property
    def all_sent(self) -> bool:
        """All that is left of it is with the queue, which needs nobody to go on: news can only be written down."""
        run = self._run
        return run.graph.wholly_plain and len(run.sending.tasks) == run.state.open

    # --- what it is told ---------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Run. Harmless when it runs or has ended."""
        run = self._at(now)
        if run.state.status == "submitted":
            run.append("begun")
            run.touch(place for place, record in enumerate(run.state.steps) if not record.open)
            run.settle()

    def observe(self, facts: Iterable[TaskFact], now: float) -> None:
        """The queue told this of tasks: in any order, any number of times; those of others are ignored."""
        run = self._at(now)
        if run.state.status != "running":
            return
        found = [(part, fact) for fact in facts if (part := run.graph.part_of(fact.id)) is not None]
        found.sort(key=lambda pair: pair[0])
        for part, fact in found:
            take_fact(run, part, fact)
            run.settle()

    def accepted(self, task_ids: Iterable[str]) -> None:
        """The queue has these (`Submitted`, replayed or not)."""
        sending = self._run.sending
        for part in self._parts(task_ids):
            if part in sending.tasks:
                sending.tasks[part] = True
                if part in sending.again:
                    sending.look(part)  # it may have ended already, and nobody listened

    def refused(self, task_id: str, error: ErrorInfo, now: float) -> None:
        """The queue refused to enqueue or to cancel this. `QUEUE_FULL` and what is retryable: it is sent again after
        `retry_refused`. Else the step failed. Of a Cancel: `NOT_FOUND` as in `gone`, anything else is looked up."""
        run = self._at(now)
        for part in self._parts([task_id]):
            if part not in run.sending.tasks:
                continue
            if run.sending.tasks[part] or run.state.cancelling:
                self._cancel_refused(part, error)
            else:
                self._enqueue_refused(part, error)
        run.settle()

    def retry_refused(self) -> None:
        """The queue may have room again."""
        self._run.sending.retry_refused()

    def gone(self, task_ids: Iterable[str], now: float) -> None:
        """The queue knows no such tasks (`TaskFacts.unknown`). One that was there before was removed by somebody: the
        step is cancelled. Else it is enqueued when its turn comes."""
        run = self._at(now)
        for part in self._parts(task_ids):
            take_gone(run, part)
        run.settle()

    def lost(self) -> None:
        """The queue died or could not be reached: what became of commands is unknown, and news may have been missed.
        All tasks in question are looked up again before anything is sent."""
        run = self._run
        if run.state.status == "running":
            run.sending.doubt_all()
            run.pause = run.state.paused if run.state.lane_used else None

    def memo_found(self, step: str, index: int | None, output: str | None, now: float) -> None:
        """The answer to a `MemoAsk`: the output's JSON text, None = there is none."""
        run = self._at(now)
        place = run.graph.place.get(step)
        part = Part(-1 if place is None else place, WHOLE if index is None else index)
        if part not in run.sending.memo_asked:
            return
        run.sending.memo_asked.discard(part)
        if not run.going:
            return
        if output is None:
            run.sending.memo_none.add(part)
            run.sending.offer(part)
        else:
            run.end(part, "step_completed", attempt=0, worker="", result=run.outputs.put_text(output), memo=True)
        run.settle()

    def control(self, order: ControlWorkflow, now: float) -> list[str]:
        """Cancel, pause or resume. Returns, of `cancel`, the steps that have not ended. A repeat is harmless; one that
        has ended stays as it is."""
        run = self._at(now)
        state = run.state
        if state.status in WORKFLOW_ENDED:
            return []
        if order.what == "cancel":
            if not state.cancelling or (order.force and not state.force):
                run.stop(order.reason or "cancelled", force=order.force)
            waiting = [run.graph.steps[place].step_id for place, record in enumerate(state.steps) if not record.ended]
            run.settle()
            return waiting
        pause = order.what == "pause"
        if pause != state.paused and not (pause and state.cancelling):
            if pause:
                run.append("paused", reason=order.reason[:2000])
            else:
                run.append("resumed")
            run.pause = pause
        return []

    def offer(self, ask: OfferStep, now: float) -> Event | None:
        """An attempt is about to be offered to a peer: what the peer makes of it comes after this event. None = news of
        steps before it have to come first: ask again then. The same again is the same event. Raises NOT_FOUND when it
        is none of its tasks, INVALID_STATE when nothing is to be done for it any more, LIMIT_EXCEEDED."""
        return offering.offer(self._at(now), ask)

    def merge(self, ask: MergeEvents, now: float) -> None:
        """Take over what a peer says of its work here: all of it, or none. Raises `BadEventError`."""
        offering.merge(self._at(now), ask)

    def fail(self, error: ErrorInfo, now: float) -> None:
        """It can't begin (`DEPENDENCY_FAILED`). Harmless once it has begun: then nothing happens."""
        run = self._at(now)
        if run.state.status == "submitted":
            run.append("ended", status="failed", error=run.error_of(error))

    def expire(self, now: float) -> None:
        """Do what is due: the time of the whole has run out. All others that are told `now` do this first."""
        self._at(now)

    def next_due(self) -> float | None:
        """When `expire` has something to do; None = never."""
        state = self._run.state
        return None if state.status in WORKFLOW_ENDED or state.code else self._run.end_at()

    # --- what it says ------------------------------------------------------------------------------------------

    def take(self) -> Changes:
        """What was decided since the last time, and what has to be done."""
        run, sending = self._run, self._run.sending
        tasks, asks = fill(run)
        commands = Commands(enqueue=tasks, memo=asks)
        run.pause, commands.pause = None, run.pause
        sending.looks, looks = [], sending.looks
        commands.look = [run.graph.task_id(part) for part in looks if part in sending.asked]
        commands.cancel = list(self._cancels())
        run.events, events = [], run.events
        run.memos, memos = [], run.memos
        sending.full_news, full = False, sending.full_news
        return Changes(events, run.outputs.take(), memos, commands, full=full)

    def waits_for(self) -> list[str]:
        """Ids of tasks that are or may be in the queue and have not ended, for a look at them now and then."""
        return [self._run.graph.task_id(part) for part in self._run.sending.tasks]

    def owns(self, task_id: str) -> bool:
        """Whether it is the id of one of its tasks."""
        return self._run.graph.part_of(task_id) is not None

    def view(self, *, steps: bool = True, outputs: bool = False) -> WorkflowView:
        """As it is now. With `outputs`, those that are not in memory are read."""
        return workflow_view(self._run, steps=steps, outputs=outputs)

    def step_view(self, step: str, *, outputs: bool = False) -> StepView:
        """One step as it is now. Raises KeyError when there is none of this name."""
        return step_view(self._run, self._run.graph.place[step], outputs=outputs)

    # --- inside ------------------------------------------------------------------------------------------------

    def _at(self, now: float) -> Deciding:
        """It is later; what is due is done."""
        run = self._run
        run.now = now
        due = self.next_due()
        if due is not None and now >= due:
            if run.state.status == "submitted":
                run.append("ended", status="failed", error={"code": "TIMEOUT", "message": "its deadline has passed"})
            else:
                run.stop("it did not end in time", force=True, code="TIMEOUT")
                run.settle()
        return run

    def _parts(self, task_ids: Iterable[str]) -> list[Part]:
        parts = map(self._run.graph.part_of, task_ids)
        return sorted(part for part in parts if part is not None)

    def _cancel_refused(self, part: Part, error: ErrorInfo) -> None:
        sending = self._run.sending
        if error.code == "NOT_FOUND" and part not in sending.unsure:
            sending.asked.add(part)
            take_gone(self._run, part)
        else:
            sending.look(part)

    def _enqueue_refused(self, part: Part, error: ErrorInfo) -> None:
        run, sending = self._run, self._run.sending
        if error.retryable or error.code == "QUEUE_FULL":
            sending.absent(part)
            sending.put_back.append(part)
            sending.full = sending.full_news = True
        elif error.code == "ID_CONFLICT" and part in sending.again:
            sending.look(part)  # an earlier sending, which was thought to be lost, arrived after all
        elif error.code == "INVALID_PARAMS" and self._doubt(part):
            sending.absent(part)
            send_later(run, part)
        else:
            sending.forget(part)  # of that id, there may be a task of somebody else
            run.fail(part, error.code, error.message)

    def _doubt(self, part: Part) -> bool:
        """Whether the refusal may be for tasks that it depends on: the queue refused them, too, or they are gone.
        They may have been sent again and completed since."""
        run, sending = self._run, self._run.sending
        if part.at != WHOLE or not run.graph.depends[part.place]:
            return False
        if not sending.uncovered[part.place]:
            sending.doubts[part] = sending.doubts.get(part, 0) + 1
            for place in depends_on(run, part):
                sending.look(Part(place))
                sending.unsure.add(Part(place))
        return sending.doubts.get(part, 0) <= MOST_DOUBTS

    def _cancels(self) -> Iterator[Cancel]:
        """Those that depend on others first: otherwise the queue would say that they were skipped."""
        run, sending = self._run, self._run.sending
        for part in sorted(sending.cancels, reverse=True):
            yield Cancel(id=run.graph.task_id(part), reason=run.state.reason, force=run.state.force)
        for part in sending.withdrawn:
            yield Cancel(id=run.graph.task_id(part), reason="its step has ended", force=True)
        sending.cancels = set()
        sending.withdrawn = []


def _maybe_sent(run: Deciding) -> Iterator[tuple[Part, bool]]:
    """Tasks that may be in the queue, and whether it was seen there."""
    graph, steps = run.graph, run.state.steps
    single = bytearray(len(graph))
    """Places of steps whose one task may be there."""
    for place, record in enumerate(steps):
        if record.ended:
            continue
        if record.items is not None:
            for index, item in enumerate(record.items):
                if not item.ended:
                    yield Part(place, index), item.status == "running"
        elif record.decided or (
            graph.plain[place]
            and all(single[before] or steps[before].status == "completed" for before in graph.depends[place])
        ):
            single[place] = 1
            yield Part(place), record.status == "running"
