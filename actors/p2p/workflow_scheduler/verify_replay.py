# SPDX-License-Identifier: AGPL-3.0-or-later
"""From the events of an export to what became of the workflow. Of events that exclude each other the first one in the
total order counts."""

from __future__ import annotations

import msgspec

from actors.messages import ErrorInfo
from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler.findings import Findings, Said
from actors.p2p.workflow_scheduler.payloads import (
    Begun,
    Ended,
    Error,
    PeerFact,
    StepCancelled,
    StepCompleted,
    StepExpanded,
    StepFact,
    StepFailed,
    StepOffered,
    StepReady,
    StepSkipped,
    StepStarted,
    Submitted,
)
from actors.workflow_messages import STEP_ENDED, WORKFLOW_ENDED, StepStatus, Workflow
from actors.workflow_report import ReplayedStep, WorkflowReport


def replay(said: list[Said], workflow: Workflow | None, report: WorkflowReport, findings: Findings) -> None:
    """Fill the report in. Without the definition with the steps that the events name."""
    table = _Table(workflow, report, findings)
    for one in said:
        if report.status not in WORKFLOW_ENDED:
            table.take(one)
    report.steps = [step.shown() for step in table.steps.values()]


class _Step(msgspec.Struct, kw_only=True):
    step_id: str
    action: str
    status: StepStatus = "pending"
    attempts: dict[int | None, int] = {}
    """By item."""
    workers: dict[str, None] = {}
    peers: dict[str, None] = {}
    started_at: float | None = None
    ended_at: float | None = None
    items: int | None = None
    ended_items: set[int] = set()
    memo: bool = False
    result: bytes = b""
    error: ErrorInfo | None = None
    reason: str = ""

    def shown(self) -> ReplayedStep:
        return ReplayedStep(
            step_id=self.step_id,
            action=self.action,
            status=self.status,
            attempts=sum(self.attempts.values()),
            workers=list(self.workers),
            peers=list(self.peers),
            started_at=self.started_at,
            ended_at=self.ended_at,
            items=self.items,
            items_ended=len(self.ended_items),
            memo=self.memo,
            result=cid_text(self.result) if self.result else "",
            error=self.error,
            reason=self.reason,
        )


class _Table:
    def __init__(self, workflow: Workflow | None, report: WorkflowReport, findings: Findings) -> None:
        self.steps: dict[str, _Step] = {}
        self.grows = workflow is None
        self.offered: dict[bytes, _Step] = {}
        self.report = report
        self.findings = findings
        if workflow is not None:
            report.name = workflow.name
            self.steps = {step.step_id: _Step(step_id=step.step_id, action=step.action) for step in workflow.steps}

    def take(self, one: Said) -> None:
        """Let one event count."""
        match one.fact:
            case Submitted(at=at):
                self.report.created_at = at / 1000
                self.report.status = "submitted"
            case Begun(at=at) if self.report.status == "submitted":
                self.report.started_at = at / 1000
                self.report.status = "running"
            case Ended() as fact:
                self._end(one, fact)
            case PeerFact(offer=offer):
                step = self.offered.get(offer)
                if step is not None:
                    step.peers[one.event.peer] = None
            case StepFact() as fact:
                if self.grows:
                    self.steps.setdefault(fact.step, _Step(step_id=fact.step, action=""))
                step = self.steps.get(fact.step)
                if step is not None and isinstance(fact, StepOffered):
                    self.offered[one.cid] = step
                if step is not None and step.status not in STEP_ENDED and fact.index not in step.ended_items:
                    _take_step(step, fact)

    def _end(self, one: Said, fact: Ended) -> None:
        wrong = [step.step_id for step in self.steps.values() if step.status not in ("completed", "skipped")]
        if fact.status == "completed" and wrong:
            what = f"step {wrong[0]} is {self.steps[wrong[0]].status}"
            self.findings.add("STATUS", f"it ended as completed, and {what}", one.cid)
        self.report.status = fact.status
        self.report.ended_at = fact.at / 1000
        self.report.error = _info(fact.error)
        for step in self.steps.values():
            if step.status not in STEP_ENDED:
                step.status = "cancelled"
                step.ended_at = self.report.ended_at


def _take_step(step: _Step, fact: StepFact) -> None:
    match fact:
        case StepReady():
            step.status = "ready" if step.status == "pending" else step.status
        case StepExpanded(count=count):
            step.items = count
            step.status = "ready" if step.status == "pending" else step.status
        case StepStarted(at=at):
            _attempted(step, fact.index, fact.attempt, fact.worker, at)
            step.status = "running"
        case StepCompleted() | StepFailed():
            if fact.task:
                _attempted(step, fact.index, fact.attempt, fact.worker, fact.started)
            _end_step(step, fact)
        case StepSkipped() | StepCancelled():
            _end_step(step, fact)


def _attempted(step: _Step, index: int | None, attempt: int, worker: str, at: int | None) -> None:
    step.attempts[index] = max(attempt, step.attempts.get(index, 0))
    if worker:
        step.workers[worker] = None
    if at is not None and step.started_at is None:
        step.started_at = at / 1000


def _end_step(step: _Step, fact: StepCompleted | StepFailed | StepSkipped | StepCancelled) -> None:
    if fact.index is not None:
        step.ended_items.add(fact.index)
        return
    step.ended_at = fact.at / 1000
    match fact:
        case StepCompleted(result=result, memo=memo):
            step.status, step.result, step.memo = "completed", result, memo
        case StepFailed(error=error):
            step.status, step.error = "failed", _info(error)
        case StepSkipped(reason=reason):
            step.status, step.reason = "skipped", reason
        case StepCancelled(reason=reason):
            step.status, step.reason = "cancelled", reason


def _info(error: Error | None) -> ErrorInfo | None:
    return None if error is None else ErrorInfo(code=error.code, message=error.message)
