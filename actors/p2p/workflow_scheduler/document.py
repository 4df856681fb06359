# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a user's document (a file, or a tool's arguments) to a workflow. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.p2p.workflow_scheduler.faults import Faults
from actors.schema import JsonSchema, json_schema
from actors.tools.arguments import explain
from actors.workflow_messages import Step, Workflow


def parse(document: object) -> Workflow:
    """Read a workflow's definition; whether it can be run is for `definition.check` to say. Raises
    `InvalidArgumentsError` with all faults, as that does."""
    faults = Faults()
    if not isinstance(document, Mapping):
        faults.add("", "MALFORMED", "a workflow is an object with `name` and `steps`")
        faults.raise_any()
        raise AssertionError
    steps = document.get("steps", [])
    parsed: list[Step] = []
    if not isinstance(steps, (list, tuple)):
        faults.add("", "MALFORMED", "`steps`: expected a list")
    else:
        for index, step in enumerate(steps):
            try:
                parsed.append(msgspec.convert(step, Step))
            except (msgspec.ValidationError, RecursionError) as error:
                faults.add(_id_of(step), "MALFORMED", explain(f"`steps[{index}]`", error, _schema_of(Step)).message)
    try:
        return_value = msgspec.convert({**document, "steps": []} if "steps" in document else document, Workflow)
    except (msgspec.ValidationError, RecursionError) as error:
        faults.add("", "MALFORMED", explain("the workflow", error, _schema_of(Workflow)).message)
    faults.raise_any()
    return msgspec.structs.replace(return_value, steps=parsed)


def _id_of(step: Any) -> str:  # noqa: ANN401 - anything
    step_id = step.get("step_id") if isinstance(step, Mapping) else None
    return step_id if isinstance(step_id, str) else ""


@functools.cache
def _schema_of(kind: type[msgspec.Struct]) -> JsonSchema:
    return json_schema(kind)
