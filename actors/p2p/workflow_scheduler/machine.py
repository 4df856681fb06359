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

from collections.abc import Callable, Iterable, Mapping

import msgspec

from actors.messages import ErrorInfo, ToolDescriptor
from actors.p2p.workflow_scheduler.definition import Plan
from actors.p2p.workflow_scheduler.event_clock import Event, EventClock, Signer
from actors.task_messages import Cancel, Enqueue
from actors.task_views import TaskFact
from actors.workflow_messages import ControlWorkflow, StepView, WorkflowStatus, WorkflowView

Outputs = Callable[[bytes], str]
"""CID -> JSON text of an output. It knows each one from the moment it was taken (`Changes.outputs`), before it is on
disk, too. Raises LookupError."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one workflow."""

    timeout_s: float = 86_400.0
    """From its begin; after it, it fails with `TIMEOUT`."""
    max_queued: int = 2000
    """Tasks in the queue that have not ended."""
    max_items: int = 10_000
    """Of one `for_each`."""
    max_payload_bytes: int = 1_000_000
    """Of one task."""
    max_output_bytes: int = 64_000_000
    """Of the list that a `for_each` step makes."""
    max_depends_on: int = 1000
    """Tasks that one task of the queue may wait for; a step waits here until so few of those before it are left."""
    keep_s: float = 86_400.0
    """Tasks can be read for so long after the workflow's latest end."""
    keep_max_s: float = 90 * 86_400.0
    """The queue keeps no task for longer."""


class MemoAsk(msgspec.Struct, frozen=True):
    """Was equal work done before? Answered with `memo_found`."""

    step: str
    index: int | None
    key: bytes


class MemoGain(msgspec.Struct, frozen=True):
    """Work was done that equal work may take the result of, for `memo_s`."""

    key: bytes
    output: bytes
    """CID."""


class Commands(msgspec.Struct):
    """What has to be done, in this order: `pause`, `look`, `memo`, `enqueue`, `cancel`."""

    enqueue: list[Enqueue] = []
    """In an order in which the queue knows what each depends on. Answered: `accepted` or `refused`, or `lost`."""
    cancel: list[Cancel] = []
    """Refused: `refused`; otherwise the task's facts tell."""
    look: list[str] = []
    """Tasks whose facts must be known now. Answered: `observe` (of any state) or `gone`, or `lost`."""
    memo: list[MemoAsk] = []
    pause: bool | None = None
    """Pause or resume the lane `lane(workflow_id)`; None = leave it."""


class Changes(msgspec.Struct):
    """What was decided since the last `take`: all of it is made durable together before `commands` are carried out."""

    events: list[Event]
    outputs: dict[bytes, str]
    """CID -> JSON text of outputs (and lists of items)."""
    memos: list[MemoGain]
    commands: Commands
    look_again_at: float | None = None
    """The queue was full: call `retry_refused` then."""


def lane(workflow_id: str) -> str:
    """The fairness key of a workflow's tasks."""
    return f"workflow:{workflow_id}"


class WorkflowRun:
    """See the module's text. `plan`, `workflow_id` and `owner` are as submitted; `status` is the workflow's."""

    plan: Plan
    workflow_id: str
    owner: str
    clock: EventClock

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
        the queue are looked up by the first `take`."""

    @property
    def status(self) -> WorkflowStatus:
        """The workflow's."""

    # what it is told

    def begin(self, now: float) -> None:
        """Run. Harmless when it runs or has ended."""

    def observe(self, facts: Iterable[TaskFact], now: float) -> None:
        """The queue told this of tasks: in any order, any number of times, of other workflows, too (ignored)."""

    def accepted(self, task_ids: Iterable[str]) -> None:
        """The queue has these (`Submitted`, replayed or not)."""

    def refused(self, task_id: str, error: ErrorInfo, now: float) -> None:
        """The queue refused to enqueue or to cancel this. `QUEUE_FULL` and what is retryable: it is sent again after
        `retry_refused`. Else the step failed. Of a Cancel: `NOT_FOUND` is `gone`, anything else is looked up."""

    def retry_refused(self) -> None:
        """The queue may have room again."""

    def gone(self, task_ids: Iterable[str], now: float) -> None:
        """The queue knows no such tasks (`TaskFacts.unknown`). One that was there before was removed by somebody: the
        step is cancelled. Else it is enqueued when its turn comes."""

    def lost(self) -> None:
        """The queue died or can't be reached: what became of commands is unknown, and news may have been missed.
        All tasks in question are looked up again by the next `take`."""

    def memo_found(self, step: str, index: int | None, result: bytes | None, now: float) -> None:
        """The answer to a `MemoAsk`: CID of the output, None = there is none (any more)."""

    def control(self, order: ControlWorkflow, now: float) -> list[str]:
        """Cancel, pause or resume. Returns, of `cancel`, the steps that have not ended. Raises `InvalidStateError`?
        No: of an ended one it does nothing and returns []; ask `status` first."""

    def fail(self, error: ErrorInfo, now: float) -> None:
        """It can't begin (`DEPENDENCY_FAILED`): it ends as failed. Harmless once it runs: nothing happens."""

    def expire(self, now: float) -> None:
        """Do what is due at `now`: time-out or deadline of the whole."""

    def next_due(self) -> float | None:
        """When `expire` has something to do; None = it has ended."""

    # what it says

    def take(self) -> Changes:
        """What was decided since the last time, and what has to be done."""

    def waits_for(self) -> list[str]:
        """Ids of tasks that are or may be in the queue and have not ended, for a look at all of them now and then."""

    def owns(self, task_id: str) -> bool:
        """Is it the id of one of its tasks?"""

    def view(self, *, steps: bool = True, outputs: bool = False) -> WorkflowView:
        """As it is now."""

    def step_view(self, step: str) -> StepView:
        """One step as it is now."""
