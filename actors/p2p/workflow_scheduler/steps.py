# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is known of a workflow and its steps: the graph, which never changes, and the state, which `fold.py` changes.

Inside the scheduler a step is its *place* in the topological order, and what one task does is a *part*: a step, or one
item of a step with `for_each`. Parts sort in an order in which they can run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler.definition import Plan
from actors.workflow_messages import STEP_ENDED, Step, StepStatus, WorkflowStatus, step_task_id

WHOLE: Final = -1


class Part(NamedTuple):
    """What one task does: a step (`WHOLE`), or one item of it."""

    place: int
    at: int = WHOLE
    """Index of the item."""

    @property
    def item(self) -> int | None:
        """Its index as events and messages write it."""
        return None if self.at == WHOLE else self.at


class Graph:
    """The steps by place, and what depends on what."""

    def __init__(self, plan: Plan, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        self.steps: list[Step] = [plan.steps[name] for name in plan.order]
        self.place: dict[str, int] = {name: place for place, name in enumerate(plan.order)}
        self.depends = [tuple(sorted(self.place[d] for d in plan.depends[name])) for name in plan.order]
        self.dependents = [tuple(sorted(self.place[d] for d in plan.dependents[name])) for name in plan.order]
        self.plain = [is_plain(step) for step in self.steps]
        self.wholly_plain = all(self.plain)
        self._prefix = f"{workflow_id}:"

    def __len__(self) -> int:
        return len(self.steps)

    def task_id(self, part: Part) -> str:
        """Id of the queue's task that does it."""
        return step_task_id(self.workflow_id, self.steps[part.place].step_id, part.item)

    def part_of(self, task_id: str) -> Part | None:
        """What a task does; None when it is not of this workflow. Names hold no `:` and no brackets."""
        if not task_id.startswith(self._prefix):
            return None
        name, bracket, index = task_id[len(self._prefix) :].partition("[")
        place = self.place.get(name)
        if place is None:
            return None
        if not bracket:
            return Part(place)
        digits = index[:-1]
        if not (index.endswith("]") and digits.isascii() and digits.isdigit() and len(digits) < 10):
            return None
        return Part(place, int(digits))


def is_plain(step: Step) -> bool:
    """Its task can be in the queue before the steps that it depends on have ended. All others are decided *late*."""
    return step.when == "on_success" and step.for_each is None and not step.memo


class Work(msgspec.Struct, kw_only=True):
    """How one call (or a step as a whole) gets on."""

    status: StepStatus = "pending"
    attempt: int = 0
    token: int = 0
    """Of the newest lease that is known."""
    worker: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    result: bytes | None = None
    """CID of the output."""
    memo: bool = False
    error: ErrorInfo | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Nothing changes any more."""
        return self.status in STEP_ENDED


class StepRecord(Work, kw_only=True):
    """How a step gets on."""

    open: int
    """Steps that it depends on and that have not ended,"""
    bad: int = 0
    """and those that ended otherwise than completed,"""
    cause: int = -1
    """and the place of the first of these, of a failure if there is one."""
    decided: bool = False
    """Of one that is decided late: it is to run."""
    for_failure: bool = False
    """It failed, was cancelled by somebody, or was skipped because of one that did."""
    items_link: bytes | None = None
    """CID of the list of `for_each`."""
    items: list[Work] | None = None
    items_open: int = 0
    items_failed: int = 0
    items_cancelled: int = 0


class RunState(msgspec.Struct, kw_only=True):
    """All that the events say of a workflow."""

    steps: list[StepRecord]
    status: WorkflowStatus = "submitted"
    created_at: float = 0.0
    begun_at: float | None = None
    ended_at: float | None = None
    paused: bool = False
    lane_used: bool = False
    """It was paused once: the queue has to be told again after a restart."""
    cancelling: bool = False
    force: bool = False
    reason: str = ""
    code: str = ""
    """Of its error, when it is not cancelled by somebody but stopped by a limit."""
    error: ErrorInfo | None = None
    counts: dict[StepStatus, int]
    """Steps by status."""
    open: int
    """Steps that have not ended."""
    events: int = 0

    @classmethod
    def empty(cls, graph: Graph) -> RunState:
        """Before the first event."""
        steps = [StepRecord(open=len(depends)) for depends in graph.depends]
        return cls(steps=steps, counts={"pending": len(steps)}, open=len(steps))

    def work(self, part: Part) -> Work | None:
        """None when there is no such item (yet)."""
        record = self.steps[part.place]
        if part.at == WHOLE:
            return record
        return record.items[part.at] if record.items is not None and part.at < len(record.items) else None
