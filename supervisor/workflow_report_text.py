# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was found out about an exported workflow, as text for people."""

from __future__ import annotations

from typing import Final

from actors.workflow_report import Finding, ReplayedStep, WorkflowReport
from supervisor.screen import duration
from supervisor.task_text import clock, one_line, printable, table

_MOST_NAMED: Final = 5
"""Workers, peers, heads."""


def report_text(report: WorkflowReport, what: str) -> str:
    """The workflow, its steps, and the verdict. `what` is the file or the workflow's id."""
    lines = [*_head(report), *_steps(report), *_notes(report)]
    return "\n".join(map(printable, [*lines, *_verdict(report, what)]))


def _head(report: WorkflowReport) -> list[str]:
    if not report.workflow_id:
        return []
    name = f" ({report.name})" if report.name else ""
    owner = f" of {report.owner}" if report.owner else ""
    lines = [f"workflow {report.workflow_id}{name}{owner}: {report.status}"]
    times = (("submitted", report.created_at), ("begun", report.started_at), ("ended", report.ended_at))
    lines.append(", ".join(f"{word} {clock(at)}" for word, at in times if at is not None))
    lines.append(f"definition {report.cid}")
    if report.error is not None:
        lines.append(f"{report.error.code}: {one_line(report.error.message)}")
    return [line for line in lines if line]


def _steps(report: WorkflowReport) -> list[str]:
    if not report.steps:
        return []
    head = ("step", "action", "status", "attempts", "took", "worker", "")
    return ["", *table(head, [_row(step) for step in report.steps])]


def _row(step: ReplayedStep) -> tuple[str, ...]:
    took = ""
    if step.started_at is not None and step.ended_at is not None:
        took = duration(max(0.0, step.ended_at - step.started_at))
    note = f"{step.error.code}: {step.error.message}" if step.error is not None else step.reason
    if step.items is not None:
        note = f"{step.items_ended} of {step.items} items{': ' if note else ''}{note}"
    if step.memo:
        note = note or "the result of equal work"
    attempts = str(step.attempts or "")
    return (step.step_id, step.action, step.status, attempts, took, _some([*step.workers, *step.peers]), one_line(note))


def _notes(report: WorkflowReport) -> list[str]:
    notes = []
    if report.missing_outputs_total:
        notes.append(f"not in the file: {_counted(report.missing_outputs_total, 'output')} that the events name")
    if report.unused_blocks:
        notes.append(f"{_counted(report.unused_blocks, 'block')} in the file that nothing names")
    return ["", *notes] if notes else []


def _verdict(report: WorkflowReport, what: str) -> list[str]:
    signed = f"signed by {_some(report.peers)}, head {_some(report.heads)}"
    if report.sound:
        return ["", f"all {report.events} events of workflow {report.workflow_id} are sound: {signed}"]
    lines = [f"{_counted(report.findings_total, 'thing')} wrong with {what}:", *map(_finding, report.findings)]
    if report.findings_total > len(report.findings):
        lines.append(f"  ... and {report.findings_total - len(report.findings)} more")
    if report.events:
        lines.append(f"{_counted(report.events, 'event')} in it can be read: {signed}")
    return ["", *lines]


def _finding(finding: Finding) -> str:
    where = f" step {finding.step}:" if finding.step else ""
    of = f" ({finding.event})" if finding.event and finding.event not in finding.message else ""
    return f"  {finding.code}:{where} {one_line(finding.message)}{of}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (f", ... ({len(names)})" if len(names) > _MOST_NAMED else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
