# SPDX-License-Identifier: AGPL-3.0-or-later
"""CIDs of workflows, steps and work: what is the same has the same name (`actors/p2p/cids.py`)."""

from __future__ import annotations

import functools
import graphlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import libipld
import msgspec

from actors.p2p.cids import link, raw_link
from actors.p2p.workflow_scheduler.references import FROM, Literal, Reference, form_of
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import Condition, Step, Workflow

_VERSION: Final = 1
"""Of the blocks that are made here."""


# --- steps ---------------------------------------------------------------------------------------------------------


def step_cids(workflow: Workflow, order: Iterable[str]) -> dict[str, bytes]:
    """The CID of each step: of its tool, inputs, policy and the steps before it, whatever they are called. `order` has
    each step after those that it depends on. Raises as `link` does."""
    steps = {step.step_id: step for step in workflow.steps}
    cids: dict[str, bytes] = {}
    for step_id in order:
        cids[step_id] = link(_work_of(steps[step_id], cids))[0]
    return cids


def _work_of(step: Step, cids: Mapping[str, bytes]) -> dict[str, Any]:
    """What a step does, with links in place of names of steps."""
    policy = _policy_of(step)
    if step.for_each is not None:
        policy["for_each"] = _with_links(step.for_each, cids)
    if isinstance(step.when, Condition):
        policy["when"] = _condition_with_links(policy["when"], cids)
    return {
        "v": _VERSION,
        "tool": step.action,
        "inputs": _with_links(step.inputs, cids),
        "policy": policy,
        "after": sorted(cids[before] for before in set(step.depends_on)),
    }


def _policy_of(step: Step) -> dict[str, Any]:
    """Its fields that say how and when it runs, but for defaults."""
    fields: dict[str, Any] = msgspec.to_builtins(
        msgspec.structs.replace(step, inputs={}, depends_on=[], tags=[], for_each=None)
    )
    del fields["step_id"], fields["action"]
    # Equal numbers of two types have two encodings.
    if "timeout" in fields:
        fields["timeout"] = float(fields["timeout"])
    if "retry_policy" in fields and "backoff_factor" in fields["retry_policy"]:
        fields["retry_policy"]["backoff_factor"] = float(fields["retry_policy"]["backoff_factor"])
    return fields


def _with_links(value: Any, cids: Mapping[str, bytes]) -> Any:  # noqa: ANN401 - JSON with links
    if isinstance(value, list):
        return [_with_links(part, cids) for part in value]
    if not isinstance(value, dict):
        return value
    form = form_of(value)
    if isinstance(form, Reference):
        return {FROM: cids[form.step], "path": form.path} if form.path else {FROM: cids[form.step]}
    if isinstance(form, Literal):
        return value
    return {key: _with_links(part, cids) for key, part in value.items()}


def _condition_with_links(fields: dict[str, Any], cids: Mapping[str, bytes]) -> dict[str, Any]:
    linked = dict(fields)
    for key, part in fields.items():
        if key == "step":
            linked[key] = cids[part]
        elif key in ("left", "right"):
            linked[key] = _with_links(part, cids)
        elif key in ("all", "any"):
            linked[key] = [_condition_with_links(one, cids) for one in part]
        elif key == "not":
            linked[key] = _condition_with_links(part, cids)
    return linked


# --- workflows -----------------------------------------------------------------------------------------------------


def definition_block(workflow: Workflow, cids: Mapping[str, bytes] | None = None) -> tuple[bytes, bytes]:
    """CID and block of a workflow's name and steps; of nothing else about it. `cids` are those of its steps, when they
    are known. Raises as `link` does, and `graphlib.CycleError`."""
    if cids is None:
        graph = graphlib.TopologicalSorter({step.step_id: step.depends_on for step in workflow.steps})
        cids = step_cids(workflow, graph.static_order())
    steps = [_fields_of(step, cids[step.step_id]) for step in workflow.steps]
    return link({"v": _VERSION, "name": workflow.name, "steps": steps})


def _fields_of(step: Step, cid: bytes) -> dict[str, Any]:
    fields = {**_policy_of(step), "cid": cid, "step_id": step.step_id, "action": step.action}
    if step.inputs:
        fields["inputs"] = step.inputs
    if step.for_each is not None:
        fields["for_each"] = step.for_each
    for key, names in (("depends_on", step.depends_on), ("tags", step.tags)):
        if names:
            fields[key] = sorted(set(names))
    return fields


def workflow_of(block: bytes) -> Workflow:
    """The workflow that a block defines, with its name and steps alone. Raises `ValueError`."""
    try:
        fields = libipld.decode_dag_cbor(block)
        steps = [{key: part for key, part in step.items() if key != "cid"} for step in fields["steps"]]
        workflow = msgspec.convert({"name": fields["name"], "steps": steps}, Workflow)
        again = definition_block(workflow)[1]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"the block defines no workflow: {error}") from error
    if again != block or len({step.step_id for step in workflow.steps}) < len(steps):
        raise ValueError("the block defines a workflow in another form than it is made in")
    return workflow


# --- work that is done ---------------------------------------------------------------------------------------------


def memo_key(owner: str, tool: ToolDescriptor, arguments: dict[str, Any]) -> bytes:
    """Names work of which the result may be taken again: the owner's, with a tool as it is now, and these arguments.
    Raises `ValueError` when they are nested too deeply, or no JSON."""
    try:
        # Arguments may hold what other tools gave: numbers, too, that have no place in a block.
        text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"there is no key for these arguments: {error}") from None
    version = tool_version(tool.input_schema, tool.output_schema or b"")
    work = {"owner": owner, "tool": tool.name, "version": version, "arguments": raw_link(text.encode())}
    return link({"v": _VERSION, **work})[0]


@functools.lru_cache(maxsize=1024)
def tool_version(input_schema: bytes, output_schema: bytes) -> bytes:
    """Names a tool's contract, by its schemas as they are written."""
    return link({"input": raw_link(input_schema), "output": raw_link(output_schema)})[0]
