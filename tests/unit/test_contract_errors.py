# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the author of a function is told that can't be a tool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from actors.schema import ContractError, check_published, contract_of
from actors.toolkit import ToolContext


@dataclasses.dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


class Line(msgspec.Struct):
    """A line."""

    start: Point
    names: list[str] = []


def function_of(annotation, **default):
    """A tool's function with one parameter of this type, and its default if one is given."""

    def function(value):
        """Take a value."""

    function.__annotations__ = {"value": annotation, "return": str}
    if default:
        function.__defaults__ = (default["default"],)
    return function


def returning(annotation):
    function = function_of(str)
    function.__annotations__["return"] = annotation
    return contract_of(function)


def no_docstring(a: int) -> int:
    return a


def no_return(a: int):
    """Do."""


def no_annotation(a) -> int:
    """Do."""


def many(*numbers: int) -> int:
    """Do."""


def any_name(**options: int) -> int:
    """Do."""


def not_defined(a: Nowhere) -> int:  # noqa: F821 - that is the point
    """Do."""


def two_contexts(a: ToolContext, b: ToolContext) -> int:
    """Do."""


def late_context(*, ctx: ToolContext) -> int:
    """Do."""


def optional_context(ctx: ToolContext | None = None) -> int:
    """Do."""


def describes_another(text: str) -> str:
    """Do.

    Args:
        txet: Misspelled.
        more: Gone.
    """


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "it needs a docstring: its first paragraph tells clients what the tool does"),
        (no_return, "it needs a return annotation"),
        (no_annotation, "its parameter a needs an annotation"),
        (many, "its parameter *numbers has no fixed meaning; list the parameters one by one"),
        (any_name, "its parameter **options has no fixed meaning"),
        (not_defined, "its annotations can't be read: name 'Nowhere' is not defined"),
        (two_contexts, "it has two ToolContext parameters"),
        (late_context, "its ToolContext parameter must come before the `*`"),
        (optional_context, "its parameter ctx must be annotated ToolContext and nothing else"),
        (describes_another, "its docstring describes more, txet, which it does not take"),
        (function_of(complex), "its parameter value: complex can't be expressed in JSON"),
        (function_of(Callable), "its parameter value: "),
        (function_of(Point | Line), "may not contain more than one dict-like type"),
        (function_of(int, default=None), "does not fit the annotation (Expected `int`, got `null`); annotate it"),
        (function_of(int, default="5"), "the default of its parameter value does not fit the annotation"),
        (function_of(Any, default=object()), "the default of its parameter value does not fit the annotation"),
    ],
)
def test_a_function_that_can_not_be_a_tool_says_what_to_change(function, said):
    with pytest.raises(ContractError) as refused:
        contract_of(function)
    assert said in str(refused.value)
    assert "schema_hook" not in str(refused.value)


def test_a_result_that_json_does_not_know_is_refused():
    with pytest.raises(ContractError, match="can't be expressed in JSON"):
        returning(Iterator[int])


MADE = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "array"}, 'must have "type": "object"'),
        ({"properties": {"a": {}}}, "names other parameters than its signature: b"),
        ({"required": ["a", "b"]}, "requires other parameters than its signature: b"),
    ],
)
def test_an_authors_own_schema_must_name_the_same_parameters(change, said):
    check_published(MADE, MADE)
    with pytest.raises(ContractError) as refused:
        check_published(MADE | change, MADE)
    assert said in str(refused.value)
