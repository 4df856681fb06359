# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a user's document (a file, or a tool's arguments) to a workflow. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, TypeVar, get_args

import msgspec

from actors.p2p.workflow_scheduler.faults import Faults
from actors.schema import JsonSchema, json_schema
from actors.tools.arguments import explain
from actors.workflow_messages import Step, StepName, When, Workflow

_Kind = TypeVar("_Kind", Step, Workflow)
_NAME_RULE: Final = f"text matching regex {next(meta.pattern for meta in get_args(StepName)[1:])!r}"
_WORDS: Final = ", ".join(sorted(repr(word) for word in get_args(get_args(When)[0])))


def parse(document: object) -> Workflow:
    """Read a workflow's definition; whether it can be run is for `definition.check` to say. Raises
    `InvalidArgumentsError` with all faults, as that does."""
    faults = Faults()
    workflow: Workflow | None = None
    parsed: list[Step | None] = []
    if not isinstance(document, Mapping):
        faults.add("", "MALFORMED", "a workflow is an object with `name` and `steps`")
    else:
        steps = document.get("steps")
        if isinstance(steps, (list, tuple)):
            # Each by itself, as a conversion tells the first fault only.
            parsed = [_read(step, Step, f"steps[{index}]", faults) for index, step in enumerate(steps)]
            document = {**document, "steps": []}
        workflow = _read(document, Workflow, "the workflow", faults)
    faults.raise_any()
    assert workflow is not None
    return msgspec.structs.replace(workflow, steps=[step for step in parsed if step is not None])


def _read(value: object, kind: type[_Kind], where: str, faults: Faults) -> _Kind | None:
    step_id = ""
    if kind is Step:
        if not isinstance(value, Mapping):
            faults.add("", "MALFORMED", f"{where}: a step is an object with `step_id` and `action`")
            return None
        step_id = str(value.get("step_id", ""))
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        text = explain(where, error, _schema_of(kind)).message
        if text.startswith(f"{where}: `when`: not a valid choice"):
            text += f"; choose one of {_WORDS}, or a condition"
        faults.add(step_id, "MALFORMED", text.replace(_NAME_RULE, "text without blanks, `:`, `[` and `]`"))
    return None


@functools.cache
def _schema_of(kind: type[Any]) -> JsonSchema:
    return json_schema(kind)
