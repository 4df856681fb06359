# SPDX-License-Identifier: AGPL-3.0-or-later
"""What has to have happened before what in a workflow. "Before" is ancestry in the Merkle clock, never a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.findings import Findings, Part, Said, part_of
from actors.p2p.workflow_scheduler.payloads import (
    Attempted,
    Begun,
    Ended,
    Merged,
    StepCompleted,
    StepEnd,
    StepExpanded,
    StepFact,
    StepFailed,
    StepOffered,
    StepReady,
    StepSkipped,
    StepStarted,
)
from actors.p2p.workflow_scheduler.verify_peers import PeerRules
from actors.workflow_messages import Step, Workflow
from actors.workflow_report import Code

_REMEMBERED: Final = 4
"""Ends of one step, or of the workflow, that later events are compared with. More than one is a finding itself."""


def check(clock: EventClock, said: list[Said], workflow: Workflow | None, findings: Findings) -> None:
    """Hold all events against the rules. Without the definition those that need none."""
    _Rules(clock, said, workflow, findings).check()


class _Rules:
    def __init__(self, clock: EventClock, said: list[Said], workflow: Workflow | None, findings: Findings) -> None:
        self.clock = clock
        self.said = said
        self.findings = findings
        self.steps: dict[str, Step] | None = None
        if workflow is not None:
            self.steps = {step.step_id: step for step in workflow.steps}
        self.begun = [one for one in said if isinstance(one.fact, Begun)][:_REMEMBERED]
        self.ended: list[Said] = []
        self.ends: dict[Part, list[Said]] = defaultdict(list)
        self.items: dict[str, dict[int, Said]] = defaultdict(dict)
        """Step -> place -> the first end of that item."""
        self.expanded: dict[str, list[tuple[Said, int]]] = defaultdict(list)
        """Step -> events that say how many items it has, and how many they say."""
        self.last_start: dict[Part, Said] = {}
        self.peers = PeerRules(clock, findings)

    def check(self) -> None:
        for one in self.said:
            self._collect(one)
            self.peers.collect(one)
        for one in self.said:
            if not isinstance(one.fact, Merged) and self._after(self.ended, one):
                self._found("AFTER_END", one, f"{one.event.kind} after the workflow's end")
            if isinstance(one.fact, StepFact):
                self._step(one, one.fact)
            self.peers.check(one)

    def _collect(self, one: Said) -> None:
        fact = one.fact
        if isinstance(fact, Ended):
            if self.ended:
                self.findings.add("TWICE", "the workflow ended twice", one.cid)
            if len(self.ended) < _REMEMBERED:
                self.ended.append(one)
        elif isinstance(fact, StepExpanded):
            if len(self.expanded[fact.step]) < _REMEMBERED:
                self.expanded[fact.step].append((one, fact.count))
        elif isinstance(fact, StepEnd):
            part = part_of(fact)
            ends = self.ends[part]
            if ends:
                self._found("TWICE", one, f"it ended before: {ends[0].event.kind}")
            if len(ends) < _REMEMBERED:
                ends.append(one)
            if part.item is not None:
                self.items[part.step].setdefault(part.item, one)

    def _step(self, one: Said, fact: StepFact) -> None:
        part = part_of(fact)
        if self._after(self.ends.get(part, ()), one):
            self._found("AFTER_END", one, f"{one.event.kind} after its end")
        if _begins(fact) and not self._after(self.begun, one):
            self._found("ORDER", one, f"{one.event.kind} before the workflow had begun")
        if isinstance(fact, Attempted):
            self._tokens(one, fact)
        if self.steps is None:
            return
        step = self.steps.get(part.step)
        if step is None:
            self._found("STEP", one, "the workflow has no such step")
            return
        if part.item is not None:
            self._item(one, step, part.item)
        elif step.for_each is not None and isinstance(fact, StepCompleted):
            self._list(one, step)
        if _begins(fact):
            self._dependencies(one, step)
        elif isinstance(fact, StepSkipped) and part.item is None:
            self._skipped(one, step)

    # --- the rules ---------------------------------------------------------------------------------------------

    def _dependencies(self, one: Said, step: Step) -> None:
        """It begins when the steps before it have ended, and as far as it wants that have completed."""
        for before in step.depends_on:
            ends = self.ends.get(Part(before), [])
            if step.when == "on_success":
                ends = [end for end in ends if isinstance(end.fact, StepCompleted)]
            if not self._after(ends, one):
                how = "had completed" if step.when == "on_success" else "had ended"
                self._found("ORDER", one, f"{one.event.kind} before step {before} {how}")

    def _skipped(self, one: Said, step: Step) -> None:
        """Because of how the steps before it ended."""
        ends = [end for before in step.depends_on for end in self.ends.get(Part(before), [])]
        if step.when == "on_success":
            ends = [end for end in ends if not isinstance(end.fact, StepCompleted)]
            if not self._after(ends, one):
                self._found("ORDER", one, "it was skipped before a step that it depends on ended without success")
            return
        for before in step.depends_on:
            if not self._after(self.ends.get(Part(before), ()), one):
                self._found("ORDER", one, f"it was skipped before step {before} had ended")

    def _item(self, one: Said, step: Step, index: int) -> None:
        if step.for_each is None:
            self._found("STEP", one, "the step has no items")
            return
        known = self.expanded.get(step.step_id, ())
        counts = [count for other, count in known if self.clock.before(other.cid, one.cid)]
        if not counts:
            self._found("ORDER", one, f"{one.event.kind} before the items were known")
        elif index >= max(counts):
            self._found("STEP", one, "there are not so many items")

    def _list(self, one: Said, step: Step) -> None:
        """A step with items completes when all of them have."""
        if self.ends[Part(step.step_id)][0] is not one:
            return  # it ended before, which was found already
        items = self.items.get(step.step_id, {})
        if len(items) not in [count for _, count in self.expanded.get(step.step_id, ())]:
            self._found("ORDER", one, f"it completed when {len(items)} of its items had ended")
        for index, end in items.items():
            if not isinstance(end.fact, StepCompleted) or not self.clock.before(end.cid, one.cid):
                self._found("ORDER", one, f"it completed before its item [{index}] had")
                return

    def _tokens(self, one: Said, fact: Attempted) -> None:
        """A later attempt has the greater token, and only the newest one is accepted."""
        part = part_of(fact)
        last = self.last_start.get(part)
        if last is not None and fact.task and isinstance(last.fact, Attempted) and self.clock.before(last.cid, one.cid):
            known = (last.fact.token, last.fact.attempt)
            if isinstance(fact, StepStarted) and (fact.token, fact.attempt) <= known:
                self._found("TOKEN", one, f"attempt {fact.attempt} began after attempt {last.fact.attempt}")
            elif not isinstance(fact, StepStarted) and (fact.token, fact.attempt) < known:
                what = "was offered" if isinstance(fact, StepOffered) else "ended it"
                self._found("TOKEN", one, f"attempt {fact.attempt} {what} after attempt {last.fact.attempt} had begun")
        if isinstance(fact, StepStarted):
            self.last_start[part] = one

    # --- helpers -----------------------------------------------------------------------------------------------

    def _after(self, others: Iterable[Said], one: Said) -> bool:
        return any(self.clock.before(other.cid, one.cid) for other in others)

    def _found(self, code: Code, one: Said, message: str) -> None:
        part = part_of(one.fact) if isinstance(one.fact, StepFact) else None
        self.findings.add(code, message, one.cid, part)


def _begins(fact: StepFact) -> bool:
    """Only what may be done does this."""
    if isinstance(fact, StepFailed):
        return fact.attempt > 0
    return isinstance(fact, StepReady | StepExpanded | StepOffered | StepStarted | StepCompleted)
