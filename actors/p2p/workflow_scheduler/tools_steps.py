# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps as the tools take them: those of `workflow_submit`, and the tasks of `submit_workflow`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.errors import InvalidArgumentsError
from actors.workflow_messages import Name, Placement, Step, StepName, StepRetry, When

JsonMap = dict[str, Any]


class StepGiven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One call of a tool, or with `for_each` one for each item of a list."""

    step_id: Annotated[StepName, Meta(description="Unique in its workflow.")]
    action: Annotated[Name, Meta(description="Name of the tool.")]
    inputs: Annotated[
        JsonMap | None,
        Meta(
            description='The tool\'s arguments. {"$from": "STEP", "path": "/POINTER"} stands for the output of a step '
            'in depends_on, or a part of it; {"$item": "/POINTER"} and {"$index": true} for the item of for_each; '
            '{"$literal": VALUE} for the value as it is.'
        ),
    ] = None
    depends_on: Annotated[list[StepName] | None, Meta(description="Steps that have to end before it begins.")] = None
    when: Annotated[
        When,
        Meta(description="on_success (all of depends_on completed), on_failure, always, or a condition on their ends."),
    ] = "on_success"
    for_each: Annotated[Any, Meta(description="A list, or $from for one: a call for each item.")] = None
    retry_policy: Annotated[StepRetry | None, Meta(description="What follows a failed attempt.")] = None
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=31_536_000)] | None,
        Meta(description="Seconds for one attempt; null = the tool's own."),
    ] = None
    tags: list[Name] | None = None
    placement: Annotated[Placement, Meta(description="Where it runs: on this node, on peers, or anywhere.")] = "any"
    memo: Annotated[bool, Meta(description="Take the result of equal work done before; for tools that only read.")] = (
        False
    )

    def as_step(self) -> Step:
        """As the scheduler takes it."""
        return Step(
            step_id=self.step_id,
            action=self.action,
            inputs=self.inputs or {},
            depends_on=self.depends_on or [],
            when=self.when,
            for_each=self.for_each,
            retry_policy=self.retry_policy,
            timeout=self.timeout,
            tags=self.tags or [],
            placement=self.placement,
            memo=self.memo,
        )


class _TaskGiven(msgspec.Struct, frozen=True):
    """What of a task is not an input of its tool."""

    task: Name
    step_id: StepName | None = None
    depends_on: list[StepName] | None = None


def step_of(task: JsonMap, number: int) -> Step:
    """A task as a step; `number` counts from 1. Raises `InvalidArgumentsError`."""
    try:
        known = msgspec.convert(task, _TaskGiven)
    except msgspec.ValidationError as error:
        raise InvalidArgumentsError(
            f"tasks[{number - 1}]: {error}; a task is an object whose `task` names a tool", parameter="tasks"
        ) from None
    return Step(
        step_id=known.step_id or f"task-{number}",
        action=known.task,
        inputs={key: value for key, value in task.items() if key not in _TaskGiven.__struct_fields__},
        depends_on=known.depends_on or [],
    )
