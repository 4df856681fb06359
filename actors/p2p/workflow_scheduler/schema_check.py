# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a step's inputs fit its tool: what is written there against the tool's schema, what will be put in by kind.

A tool checks its arguments itself when it is called, so this may let things pass: a schema that can't be used, or what
can't be known before the step runs. What it does report could never work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from actors.p2p.workflow_scheduler.contracts import (
    ANYTHING,
    HOLE,
    Contract,
    Parts,
    argument_at,
    contract_of,
    natural_output,
)
from actors.p2p.workflow_scheduler.references import Form, Index, Item, Literal, Reference, form_of
from actors.p2p.workflow_scheduler.schema_types import Part, in_words
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import Step

_INTEGER: Final = (Part({"type": "integer"}),)
_MAX_CHECKED_STEP_BYTES: Final = 65_536
_MAX_CHECKED_BYTES: Final = 2_000_000
"""Of the inputs of one step, and of all: of larger ones only the arguments' names and the references are looked at, as
the library needs a microsecond for each byte."""

Report = Callable[[str, str], None]
"""Hears of a fault: code, message."""


class Hole(NamedTuple):
    """A form and where it stands."""

    keys: tuple[str | int, ...]
    form: Form


class SchemaCheck:
    """Checks the steps of one workflow. All references in it are well-formed."""

    def __init__(self, tools: Mapping[str, ToolDescriptor], steps: Mapping[str, Step]) -> None:
        self._tools = tools
        self._steps = steps
        self._outputs: dict[str, Parts] = {}
        self._known: dict[Reference, Parts] = {}
        self._left = _MAX_CHECKED_BYTES

    def check(self, step: Step, size: int, report: Report) -> None:
        """Report the faults of a step of which the tool is known, and whose inputs have so many bytes."""
        tool = self._tools[step.action]
        items = self._check_for_each(step, report) if step.for_each is not None else ANYTHING
        holes: list[Hole] = []
        arguments = _with_holes(step.inputs, (), holes)
        if size > min(self._left, _MAX_CHECKED_STEP_BYTES):
            arguments = dict.fromkeys(arguments, HOLE)
        else:
            self._left -= size
        wanted = contract_of(tool.input_schema)
        if wanted is None:
            return
        for code, message in wanted.problems(arguments):
            report(code, f"{message} (tool `{tool.name}`)")
        for hole in holes:
            self._check_hole(hole, wanted, items, tool.name, report)

    def _check_for_each(self, step: Step, report: Report) -> Parts:
        """What its items are."""
        form = form_of(step.for_each) if isinstance(step.for_each, dict) else None
        if not isinstance(form, Reference):
            return ANYTHING
        lists = self._referred(form)
        if not lists:
            report("NEVER_THERE", f"`for_each`: {_place(form)} there can be nothing")
            return ANYTHING
        kinds = _kinds(lists)
        if "array" not in kinds:
            report("TYPE_MISMATCH", f"`for_each`: {_place(form)} is {_said(lists)}, and it goes over a list")
            return ANYTHING
        return [items for one in lists if "array" in one.kinds() for items in one.items()]

    def _check_hole(self, hole: Hole, wanted: Contract, items: Parts, tool: str, report: Report) -> None:
        where = argument_at(hole.keys)
        given = self._given(hole.form, items)
        if not given:
            report("NEVER_THERE", f"{where}: {_place(hole.form)} there can be nothing")
            return
        takes = wanted.at(hole.keys)
        if not takes:
            return  # said already: an unknown argument
        got, want = _kinds(given), _kinds(takes)
        if got.isdisjoint(want):
            report(
                "TYPE_MISMATCH",
                f"{where}: {_place(hole.form)} is {_said(given)}, and tool `{tool}` wants {in_words(want)}",
            )

    def _given(self, form: Form, items: Parts) -> Parts:
        if isinstance(form, Index):
            return _INTEGER
        if isinstance(form, Item):
            return [part for one in items for part in one.at(form.path)]
        return self._referred(form) if isinstance(form, Reference) else ANYTHING

    def _referred(self, reference: Reference) -> Parts:
        parts = self._known.get(reference)
        if parts is None:
            outputs = self._output_of(reference.step)
            parts = self._known[reference] = [part for one in outputs for part in one.at(reference.path)]
        return parts

    def _output_of(self, step_id: str) -> Parts:
        parts = self._outputs.get(step_id)
        if parts is None:
            step = self._steps.get(step_id)
            tool = None if step is None else self._tools.get(step.action)
            parts = ANYTHING if tool is None else natural_output(tool.output_schema)
            if step is not None and step.for_each is not None:
                parts = [_list_of(part) for part in parts]
            self._outputs[step_id] = parts
        return parts


def _list_of(part: Part) -> Part:
    return Part({"type": "array", "items": part.schema}, part.root, unlikely=part.unlikely)


def _kinds(parts: Parts) -> frozenset[str]:
    return frozenset().union(*(part.kinds() for part in parts))


def _said(parts: Parts) -> str:
    """What a value is, for the texts."""
    return in_words(_kinds([part for part in parts if not part.unlikely] or parts))


def _place(form: Form) -> str:
    """Where a value comes from, for the texts."""
    if isinstance(form, Reference):
        at = f" at `{form.path}`" if form.path else ""
        return f"the output of step `{form.step}`{at}"
    if isinstance(form, Item):
        return "the item of `for_each`" + (f" at `{form.path}`" if form.path else "")
    return "the index of `for_each`"


def _with_holes(value: Any, keys: tuple[str | int, ...], holes: list[Hole]) -> Any:  # noqa: ANN401 - JSON
    """The value, with `HOLE` in place of each form; these are added to `holes`."""
    if isinstance(value, list):
        return [_with_holes(part, (*keys, index), holes) for index, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    form = form_of(value)
    if form is None:
        return {key: _with_holes(part, (*keys, key), holes) for key, part in value.items()}
    if isinstance(form, Literal):
        return form.value
    holes.append(Hole(keys, form))
    return HOLE
