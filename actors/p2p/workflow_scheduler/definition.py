# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a workflow as it was submitted to a plan that can be run, or to all that is wrong with it. Pure."""

from __future__ import annotations

import difflib
import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.p2p.workflow_scheduler.conditions import parts_of, problem_with
from actors.p2p.workflow_scheduler.content import definition_block, step_cids
from actors.p2p.workflow_scheduler.faults import Fault, Faults
from actors.p2p.workflow_scheduler.order import MAX_CYCLES, Order
from actors.p2p.workflow_scheduler.plain import has_control_characters, problems_in
from actors.p2p.workflow_scheduler.references import (
    FROM,
    INDEX,
    ITEM,
    Form,
    Item,
    Literal,
    MalformedReferenceError,
    Reference,
    form_of,
    forms_in,
)
from actors.p2p.workflow_scheduler.schema_check import SchemaCheck
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import Condition, Step, Workflow

__all__ = ["DefinitionLimits", "Fault", "Plan", "check", "plan_of"]

_ENOUGH: Final = 1000
"""Faults, after which inputs are not held against schemas any more."""
_MAX_SUGGESTIONS: Final = 10
"""Unknown names that are looked up among the known ones; more would cost too much."""


class DefinitionLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a definition may be."""

    max_steps: int = 10_000
    max_bytes: int = 8_000_000
    """As JSON, with all that belongs to it."""
    max_input_bytes: int = 1_000_000
    """Of the inputs of one step, as JSON: what the queue takes as payload."""
    max_depth: int = 64
    """Objects and lists within each other in inputs, `for_each`, `when` and metadata, each."""
    max_tags: int = 49
    """Of a step: the queue takes one more, which is the scheduler's."""
    max_items: int = 10_000
    """Of a `for_each` that is written as a list."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow without faults."""

    workflow: Workflow
    order: list[str]
    """All steps, each after those that it depends on."""
    steps: dict[str, Step]
    depends: dict[str, tuple[str, ...]]
    """Step -> those that it depends on directly, each once."""
    dependents: dict[str, tuple[str, ...]]
    """Step -> those that depend on it directly."""
    cids: dict[str, bytes]
    """Of the steps."""
    cid: bytes
    """Of the definition: name and steps."""
    block: bytes
    """What it is the CID of."""


def check(workflow: Workflow, tools: Mapping[str, ToolDescriptor] | None, limits: DefinitionLimits) -> Plan:
    """Make a plan. Raises `InvalidArgumentsError` with all faults (`details.faults`; `details.more_faults` is how many
    there are at least besides).

    Takes about 0.1 ms for each step, and seconds for one that reaches the limits: call it in a thread. `tools`: by
    name, those of the catalogue; None = they are not looked at.
    """
    faults = Faults()
    sizes = _check_size(workflow, limits, faults)
    # What follows takes time and stack as these allow.
    faults.raise_any()
    _check_names(workflow, limits, faults)
    steps = {step.step_id: step for step in workflow.steps}
    order = Order(_check_dependencies(workflow, steps, faults))
    for cycle in order.cycles:
        faults.add(cycle[0], "CYCLE", f"these steps wait for each other: {_path(cycle)}")
    if len(order.steps) < len(steps):
        faults.add("", "CYCLE", f"there are more cycles than these {MAX_CYCLES}")
    sound = [step for step in workflow.steps if _check_references(step, steps, order, limits, faults)]
    if tools is not None:
        _check_tools(workflow, tools, faults)
        sound_ids = {step.step_id for step in sound}
        schemas = SchemaCheck(tools, {step_id: step for step_id, step in steps.items() if step_id in sound_ids})
        for step in sound:
            if step.action in tools and faults.total < _ENOUGH:
                schemas.check(step, sizes[step.step_id], functools.partial(faults.add, step.step_id))
    faults.raise_any()
    return _plan_of(workflow, steps, order.steps)


def plan_of(workflow: Workflow) -> Plan:
    """The plan of a workflow that was checked before, whatever tools and limits there are now. Raises `ValueError` or
    `LookupError` when it can't have been."""
    steps = {step.step_id: step for step in workflow.steps}
    order = Order({step_id: step.depends_on for step_id, step in steps.items()})
    if order.cycles or len(steps) < len(workflow.steps):
        raise ValueError("the workflow has a cycle or a step twice")
    return _plan_of(workflow, steps, order.steps)


def _plan_of(workflow: Workflow, steps: dict[str, Step], order: list[str]) -> Plan:
    cids = step_cids(workflow, order)
    cid, block = definition_block(workflow, cids)
    depends = {step_id: tuple(dict.fromkeys(step.depends_on)) for step_id, step in steps.items()}
    dependents: dict[str, list[str]] = {step_id: [] for step_id in steps}
    for step_id in order:
        for before in depends[step_id]:
            dependents[before].append(step_id)
    return Plan(
        workflow=workflow,
        order=order,
        steps=steps,
        depends=depends,
        dependents={step_id: tuple(after) for step_id, after in dependents.items()},
        cids=cids,
        cid=cid,
        block=block,
    )


def _path(cycle: list[str]) -> str:
    shown = cycle if len(cycle) <= 12 else [*cycle[:6], f"… {len(cycle) - 12} more …", *cycle[-6:]]
    return " -> ".join(shown)


# --- the whole -----------------------------------------------------------------------------------------------------


def _check_size(workflow: Workflow, limits: DefinitionLimits, faults: Faults) -> dict[str, int]:
    """Number, depth, values and bytes. Returns the bytes of the steps' inputs."""
    if not workflow.steps:
        faults.add("", "NO_STEPS", "it has no steps")
    if len(workflow.steps) > limits.max_steps:
        faults.add("", "TOO_MANY_STEPS", f"it has {len(workflow.steps)} steps; at most {limits.max_steps} are allowed")
        return {}
    of_whole = ("name", "workflow_id", "priority", "tags", "dependencies", "metadata", "deadline")
    _check_values("", {name: getattr(workflow, name) for name in of_whole}, limits, faults)
    for step in workflow.steps:
        values = {name: getattr(step, name) for name in _OF_STEP}
        if step.retry_policy is not None:
            values["backoff_factor"] = step.retry_policy.backoff_factor
        _check_values(step.step_id, values, limits, faults)
        if isinstance(step.when, Condition):
            _check_condition_values(step.step_id, step.when, 1, limits, faults)
    if faults.total:
        return {}  # it has no size: it can't be encoded
    size = len(msgspec.json.encode(workflow))
    if size > limits.max_bytes:
        faults.add("", "TOO_LARGE", f"it has {size} bytes; at most {limits.max_bytes} are allowed")
    sizes: dict[str, int] = {}
    for step in workflow.steps:
        sizes[step.step_id] = size = len(msgspec.json.encode(step.inputs)) if step.inputs else 2
        if size > limits.max_input_bytes:
            faults.add(
                step.step_id,
                "TOO_LARGE",
                f"its inputs have {size} bytes; at most {limits.max_input_bytes} are allowed",
            )
    return sizes


_OF_STEP: Final = ("step_id", "action", "inputs", "depends_on", "for_each", "timeout", "tags")


def _check_values(step: str, values: dict[str, Any], limits: DefinitionLimits, faults: Faults) -> None:
    for name, value in values.items():
        for code, message in problems_in(value, limits.max_depth, (name,)):
            faults.add(step, code, message)


def _check_condition_values(
    step: str, condition: Condition, depth: int, limits: DefinitionLimits, faults: Faults
) -> None:
    if depth > limits.max_depth:
        faults.add(step, "TOO_DEEP", f"`when` has conditions more than {limits.max_depth} levels deep")
        return
    values = {"when/step": condition.step, "when/left": condition.left, "when/right": condition.right}
    _check_values(step, values, limits, faults)
    for part in (*(condition.all or ()), *(condition.any or ())):
        _check_condition_values(step, part, depth + 1, limits, faults)
    if condition.not_ is not None:
        _check_condition_values(step, condition.not_, depth + 1, limits, faults)


def _check_names(workflow: Workflow, limits: DefinitionLimits, faults: Faults) -> None:
    for what, name in (("name", workflow.name), ("workflow_id", workflow.workflow_id)):
        if has_control_characters(name):
            faults.add("", "BAD_NAME", f"its {what} has control characters")
    if workflow.workflow_id and workflow.workflow_id in workflow.dependencies:
        faults.add("", "SELF_DEPENDENCY", "it waits for itself")
    counts = Counter(step.step_id for step in workflow.steps)
    for step_id, count in counts.items():
        if count > 1:
            faults.add(step_id, "DUPLICATE_STEP", f"{count} steps have this id")
        if has_control_characters(step_id):
            faults.add(step_id, "BAD_NAME", "its id has control characters")
    for step in workflow.steps:
        if has_control_characters(step.action):
            faults.add(step.step_id, "BAD_NAME", "its action has control characters")
        if len(step.tags) > limits.max_tags:
            faults.add(
                step.step_id, "TOO_MANY_TAGS", f"it has {len(step.tags)} tags; at most {limits.max_tags} are allowed"
            )


def _check_dependencies(workflow: Workflow, steps: Mapping[str, Step], faults: Faults) -> dict[str, list[str]]:
    """Step -> those of its dependencies that are steps."""
    suggestions = _Suggestions(steps)
    for step in workflow.steps:
        for before in dict.fromkeys(step.depends_on):
            if before == step.step_id:
                faults.add(step.step_id, "SELF_DEPENDENCY", "it depends on itself")
            elif before not in steps:
                faults.add(
                    step.step_id,
                    "UNKNOWN_DEPENDENCY",
                    f"it depends on `{before}`, which is no step{suggestions.of(before)}",
                )
    depends: dict[str, list[str]] = {step_id: [] for step_id in steps}
    for step in workflow.steps:
        depends[step.step_id] += [one for one in step.depends_on if one in steps and one != step.step_id]
    return depends


class _Suggestions:
    """Known names that are like an unknown one."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known
        self._found: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Ends a sentence: nothing, or the nearest names."""
        if name not in self._found:
            if len(self._found) >= _MAX_SUGGESTIONS or len(self._known) > 2000:
                return ""
            near = difflib.get_close_matches(name, self._known, n=3)
            self._found[name] = f"; did you mean {' or '.join(f'`{one}`' for one in near)}?" if near else ""
        return self._found[name]


# --- references ----------------------------------------------------------------------------------------------------


def _check_references(
    step: Step, steps: Mapping[str, Step], order: Order, limits: DefinitionLimits, faults: Faults
) -> bool:
    """Whether inputs and `for_each` are well-formed, wherever their references lead."""
    sound = True
    for where, value in (("inputs", step.inputs), ("for_each", step.for_each)):
        try:
            forms = list(forms_in(value))
        except MalformedReferenceError as error:
            faults.add(step.step_id, "MALFORMED_REFERENCE", f"`{where}`: {error}")
            sound = False
            continue
        has_item = where == "inputs" and step.for_each is not None
        for form in dict.fromkeys(forms):
            _check_form(step, where, form, steps, order, faults, has_item=has_item)
    if step.for_each is not None and sound:
        sound = _check_for_each(step, limits, faults)
    if isinstance(step.when, Condition):
        _check_condition(step, step.when, steps, order, faults)
    elif step.when == "on_failure" and not step.depends_on:
        faults.add(step.step_id, "BAD_CONDITION", "it waits for a failure, and depends on no step")
    return sound


def _check_form(
    step: Step,
    where: str,
    form: Form,
    steps: Mapping[str, Step],
    order: Order,
    faults: Faults,
    *,
    has_item: bool,
) -> None:
    if isinstance(form, Reference):
        if form.step not in steps:
            faults.add(step.step_id, "UNKNOWN_REFERENCE", f"`{where}` refers to `{form.step}`, which is no step")
        elif form.step == step.step_id:
            faults.add(step.step_id, "NOT_AFTER", f"`{where}` refers to the output of the step itself")
        elif not order.comes_after(step.step_id, form.step):
            faults.add(
                step.step_id,
                "NOT_AFTER",
                f"`{where}` refers to `{form.step}`, which need not have ended before: add it to `depends_on`",
            )
    elif not has_item:
        name = ITEM if isinstance(form, Item) else INDEX
        faults.add(
            step.step_id, "ITEM_OUTSIDE_FOR_EACH", f"`{where}` has `{name}`, which `inputs` of a `for_each` step has"
        )


def _check_for_each(step: Step, limits: DefinitionLimits, faults: Faults) -> bool:
    value = step.for_each
    if isinstance(value, dict):
        form = form_of(value)
        if isinstance(form, Literal):
            value = form.value
        elif isinstance(form, Reference):
            return True
    if not isinstance(value, list):
        faults.add(step.step_id, "BAD_FOR_EACH", f"`for_each` is a list, or a reference (`{FROM}`) to one")
        return False
    if len(value) > limits.max_items:
        faults.add(
            step.step_id,
            "BAD_FOR_EACH",
            f"`for_each` has {len(value)} items; at most {limits.max_items} are allowed",
        )
    return True


def _check_condition(step: Step, whole: Condition, steps: Mapping[str, Step], order: Order, faults: Faults) -> None:
    for condition in parts_of(whole):
        problem = problem_with(condition)
        if problem:
            faults.add(step.step_id, "BAD_CONDITION", f"`when`: {problem}")
        if condition.step:
            _check_form(step, "when", Reference(condition.step), steps, order, faults, has_item=False)
        for value in (condition.left, condition.right):
            try:
                for form in forms_in(value):
                    _check_form(step, "when", form, steps, order, faults, has_item=False)
            except MalformedReferenceError as error:
                faults.add(step.step_id, "MALFORMED_REFERENCE", f"`when`: {error}")


# --- tools ---------------------------------------------------------------------------------------------------------


def _check_tools(workflow: Workflow, tools: Mapping[str, ToolDescriptor], faults: Faults) -> None:
    suggestions = _Suggestions({name: tool for name, tool in tools.items() if not tool.broken})
    for step in workflow.steps:
        tool = tools.get(step.action)
        if tool is None:
            faults.add(step.step_id, "UNKNOWN_TOOL", f"there is no tool `{step.action}`{suggestions.of(step.action)}")
            continue
        for code, message in _unfit(tool, memo=step.memo):
            faults.add(step.step_id, code, message)


def _unfit(tool: ToolDescriptor, *, memo: bool) -> list[tuple[str, str]]:
    """Why a tool can't do a step."""
    found = []
    if tool.broken:
        found.append(("BROKEN_TOOL", f"the tool `{tool.name}` can't be used: {tool.broken}"))
    if tool.runtime == "p2p":
        found.append(
            ("NOT_WORK", f"the tool `{tool.name}` is about tasks, workflows or peers; it is not work for a step")
        )
    if tool.requires:
        found.append(
            (
                "NEEDS_CLIENT",
                f"the tool `{tool.name}` has to ask a client ({', '.join(tool.requires)}), and a step has none",
            )
        )
    if memo and tool.annotations.read_only_hint is not True:
        found.append(("MEMO_NOT_READ_ONLY", f"`memo` is for tools that only read, and `{tool.name}` does not say so"))
    return found
