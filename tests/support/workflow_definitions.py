# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools and documents for tests of workflows' definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from actors.errors import InvalidArgumentsError
from actors.p2p.workflow_scheduler.definition import DefinitionLimits, Plan, check
from actors.p2p.workflow_scheduler.document import parse
from actors.schema import contract_of
from actors.tool_messages import ToolAnnotations, ToolDescriptor

examples = settings(max_examples=100, deadline=None)
READS = ToolAnnotations(read_only_hint=True)


class Size(msgspec.Struct):
    """A struct with parts of each kind."""

    width: Annotated[int, msgspec.Meta(ge=0)]
    name: str = ""
    inner: Size | None = None


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def halve(number: float) -> float:
    """Halve."""
    return number / 2


def say(text: str) -> str:
    """Say; what it gives has no schema."""
    return text


def measure(size: Size, mode: Literal["fast", "exact"] = "fast", tags: list[str] = []) -> Size:  # noqa: B006
    """Measure."""
    return size


def names(many: int | None = None) -> list[str]:
    """List."""
    return []


def join(parts: list[str]) -> str:
    """Join."""
    return "".join(parts)


def anything(value: Any) -> Any:
    """Take and give whatever it is."""
    return value


def described(function: Callable[..., Any], **fields: Any) -> ToolDescriptor:
    """A function as the catalogue has it."""
    contract = contract_of(function)
    given: dict[str, Any] = {
        "name": function.__name__,
        "title": "",
        "description": contract.description,
        "category": "test",
        "runtime": "general",
        "pool": "general",
        "input_schema": msgspec.json.encode(contract.input_schema),
        "output_schema": None if contract.output_schema is None else msgspec.json.encode(contract.output_schema),
    }
    return ToolDescriptor(**{**given, **fields})


def with_schemas(name: str, takes: Any, gives: Any = None) -> ToolDescriptor:
    """A tool with these schemas."""
    return described(
        anything,
        name=name,
        input_schema=msgspec.json.encode(takes),
        output_schema=None if gives is None else msgspec.json.encode(gives),
    )


TOOLS: Mapping[str, ToolDescriptor] = {
    function.__name__: described(function) for function in (add, halve, say, measure, names, join, anything)
}


def step(step_id: str, action: str = "anything", /, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A step of a document. `anything` gets the input that it needs."""
    if action == "anything":
        fields.setdefault("inputs", {"value": 1})
    return {"step_id": step_id, "action": action, "depends_on": list(depends_on), **fields}


def ref(step_id: str, path: str = "") -> dict[str, Any]:
    """A reference."""
    return {"$from": step_id, "path": path} if path else {"$from": step_id}


def planned(*steps: dict[str, Any], tools: Mapping[str, ToolDescriptor] | None = TOOLS, **fields: Any) -> Plan:
    """The plan of a document without faults."""
    return check(parse({"name": "w", "steps": list(steps), **fields}), tools, DefinitionLimits())


def faults_of(
    *steps: dict[str, Any],
    tools: Mapping[str, ToolDescriptor] | None = TOOLS,
    limits: DefinitionLimits = DefinitionLimits(),  # noqa: B008
    **fields: Any,
) -> list[tuple[str, str, str]]:
    """Step, code and message of each fault; none when there is none."""
    try:
        check(parse({"name": "w", "steps": list(steps), **fields}), tools, limits)
    except InvalidArgumentsError as error:
        return [(fault["step"], fault["code"], fault["message"]) for fault in error.details["faults"]]
    return []


def codes_of(*steps: dict[str, Any], **how: Any) -> list[tuple[str, str]]:
    """Step and code of each fault."""
    return [(step_id, code) for step_id, code, _ in faults_of(*steps, **how)]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
keys = st.text(max_size=5) | st.sampled_from(["$from", "$literal", "$item", "$index", "$task", "path", "a", "b"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
"""Any JSON, with keys that mean something among others."""
plain_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~0$", max_size=3), inner, max_size=3),
    max_leaves=12,
)
"""Any JSON without forms."""
