# SPDX-License-Identifier: AGPL-3.0-or-later
"""What has to come of a workflow: each step alone, one after the other, without a queue, a clock or a process.

The tool of these workflows is a pure function of its arguments that raises `ToolFailedError` when it fails for good,
such as `mix`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from actors.p2p.workflow_scheduler.conditions import holds, is_failure
from actors.p2p.workflow_scheduler.references import MISSING, ReferenceMissingError, filled, looked_up_in
from actors.workflow_messages import Step, StepStatus, Workflow, step_task_id

Tool = Callable[[dict[str, Any]], Any]


class ToolFailedError(Exception):
    """The tool was asked to fail."""


def mix(arguments: dict[str, Any]) -> dict[str, Any]:
    """An output that tells its arguments apart, with a list for those that come after."""
    if arguments.get("fails"):
        raise ToolFailedError("it was asked to fail")
    name = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:8]
    number = int(name[:2], 16)
    return {
        "name": name,
        "number": number,
        "list": [{"at": n, "bad": n == 2 and number < 64} for n in range(number % 5)],
    }


class Outcome(msgspec.Struct):
    """What has to come of a workflow."""

    status: str = "completed"
    steps: dict[str, StepStatus] = {}
    outputs: dict[str, Any] = {}
    calls: dict[str, dict[str, Any]] = {}
    """Task -> arguments, of all calls that complete."""


def in_sequence(workflow: Workflow, tool: Tool = mix) -> Outcome:
    """Run it here. Its steps are in an order in which they can run."""
    made = Outcome()
    for_failure: set[str] = set()
    lookup = looked_up_in(lambda name: made.outputs.get(name, MISSING))
    for step in workflow.steps:
        before = step.depends_on
        if holds(step.when, made.steps, before, lookup, skipped_for_failure=for_failure):
            made.steps[step.step_id] = _run(tool, workflow.workflow_id, step, lookup, made)
            continue
        made.steps[step.step_id] = "skipped"
        if step.when == "on_success" and any(is_failure(name, made.steps, for_failure) for name in before):
            for_failure.add(step.step_id)
    if "failed" in made.steps.values():
        made.status = "failed"
    return made


def _run(tool: Tool, workflow_id: str, step: Step, lookup: Any, made: Outcome) -> StepStatus:
    try:
        items = [None] if step.for_each is None else filled(step.for_each, lookup)
    except ReferenceMissingError:
        return "failed"
    if not isinstance(items, list):
        return "failed"
    outputs = []
    for index, item in enumerate(items):
        part = None if step.for_each is None else index
        try:
            given = filled(step.inputs, lookup) if part is None else filled(step.inputs, lookup, item=item, index=part)
            outputs.append(tool(given))
        except (ReferenceMissingError, ToolFailedError):
            continue
        made.calls[step_task_id(workflow_id, step.step_id, part)] = given
    if len(outputs) < len(items):
        return "failed"
    made.outputs[step.step_id] = outputs[0] if step.for_each is None else outputs
    return "completed"
