# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a typed function to its contract: the schema that clients see, and what an author is told who got it wrong."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import jsonschema
import msgspec
import pytest
from msgspec import Meta

from actors.schema import call_adapter, contract_of, parse_docstring
from actors.toolkit import ContentBlock, ImageContent, TextContent, ToolContext


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


class Line(msgspec.Struct):
    """A line."""

    start: Point
    names: list[str] = []


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


class Reply(TypedDict):
    ok: bool


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


def function_of(annotation, **default):
    """A tool's function with one parameter of this type, and its default if one is given."""

    def function(value):
        """Take a value."""

    function.__annotations__ = {"value": annotation, "return": str}
    if default:
        function.__defaults__ = (default["default"],)
    return function


def parameter(annotation, **default):
    """The schema of such a parameter, without what it refers to."""
    return contract_of(function_of(annotation, **default)).input_schema["properties"]["value"]


# --- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict, {"type": "object"}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 - authors write it, too
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007 - likewise
        (Annotated[int, Meta(ge=1, lt=5)], {"type": "integer", "minimum": 1, "exclusiveMaximum": 5}),
        (Annotated[str, Meta(max_length=9, pattern="^a")], {"type": "string", "maxLength": 9, "pattern": "^a"}),
        (Annotated[str, Meta(description="Words.")], {"type": "string", "description": "Words."}),
        (dt.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, {"type": "string", "format": "decimal"}),
        (Colour, {"$ref": "#/$defs/Colour"}),
        (Line, {"$ref": "#/$defs/Line"}),
        (Point, {"$ref": "#/$defs/Point"}),
        (Reply, {"$ref": "#/$defs/Reply"}),
    ],
)
def test_a_parameters_type_becomes_its_schema(annotation, schema):
    assert parameter(annotation) == schema


def test_named_types_stand_under_their_names_with_all_they_refer_to():
    definitions = contract_of(function_of(Line)).input_schema["$defs"]
    assert set(definitions) == {"Line", "Point"}
    assert definitions["Line"]["description"] == "A line."
    assert definitions["Line"]["properties"]["start"] == {"$ref": "#/$defs/Point"}
    assert definitions["Point"]["required"] == ["x"]


def test_a_type_may_refer_to_itself():
    schema = contract_of(function_of(Tree)).input_schema
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_a_union_of_tagged_structs_tells_them_apart():
    assert parameter(Cat | Dog)["discriminator"]["mapping"] == {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}


@pytest.mark.parametrize(
    ("annotation", "default", "shown"),
    [
        (int, 5, 5),
        (str | None, None, None),
        (Colour, Colour.RED, "red"),
        (list[int], [], []),
        (list[int], [1, 2], [1, 2]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Point, Point(1), {"x": 1, "y": 0}),
        (Line, Line(Point(1)), {"start": {"x": 1, "y": 0}, "names": []}),
        (dt.date, dt.date(2024, 2, 29), "2024-02-29"),
        (float, 1, 1),
    ],
)
def test_a_default_is_shown_and_makes_the_parameter_optional(annotation, default, shown):
    schema = contract_of(function_of(annotation, default=default)).input_schema
    assert schema["properties"]["value"]["default"] == shown
    assert schema["required"] == []


def test_each_call_gets_a_default_of_its_own_to_change():
    contract = contract_of(function_of(list[int], default=[1]))
    contract.arguments().value.append(2)
    assert contract.arguments().value == [1]


def everything(
    text: str,
    number: Annotated[int, Meta(ge=0)],
    point: Point,
    colour: Colour = Colour.RED,
    *,
    tags: list[str] | None = None,
) -> list[Line]:
    """Take everything."""


def test_schemas_are_valid_and_refuse_what_the_decoder_refuses():
    contract = contract_of(everything)
    validator = jsonschema.Draft202012Validator
    validator.check_schema(contract.input_schema)
    validator.check_schema(contract.output_schema)
    good = {"text": "a", "number": 1, "point": {"x": 1}}
    wrong = [
        {}, {"text": "a"}, good | {"number": -1}, good | {"number": "1"}, good | {"point": {}},
        good | {"colour": "red "}, good | {"tags": [1]}, good | {"more": 1}, good | {"text": None},
    ]  # fmt: skip
    check = validator(contract.input_schema)
    decode = msgspec.json.Decoder(contract.arguments).decode
    assert check.is_valid(good)
    assert decode(msgspec.json.encode(good)).colour is Colour.RED
    for arguments in wrong:
        assert not check.is_valid(arguments), arguments
        with pytest.raises(msgspec.ValidationError):
            decode(msgspec.json.encode(arguments))


# --- results ---------------------------------------------------------------------------------------------------------


def returning(annotation):
    function = function_of(str)
    function.__annotations__["return"] = annotation
    return contract_of(function)


@pytest.mark.parametrize(
    ("annotation", "shape", "schema"),
    [
        (str, "text", None),
        (Annotated[str, Meta(max_length=5)], "text", None),
        (TextContent, "content", None),
        (list[TextContent | ImageContent], "content", None),
        (list[ContentBlock], "content", None),
        (ContentBlock, "content", None),
        (Reply, "object", {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}),
        (dict, "object", {"type": "object"}),
        (dict[str, int], "object", {"type": "object", "additionalProperties": {"type": "integer"}}),
        (int, "wrapped", {"type": "integer"}),
        (None, "wrapped", {"type": "null"}),
        (list[str], "wrapped", {"type": "array", "items": {"type": "string"}}),
        (str | None, "wrapped", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Any, "wrapped", {}),
    ],
)
def test_a_results_type_decides_how_it_is_shown(annotation, shape, schema):
    contract = returning(annotation)
    if shape == "wrapped":
        schema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    assert (contract.shape, contract.output_schema) == (shape, schema)


@pytest.mark.parametrize(
    ("annotation", "shape"), [(Line, "object"), (Point, "object"), (Tree, "object"), (Pair, "wrapped")]
)
def test_an_object_result_has_object_at_the_root_of_its_schema(annotation, shape):
    contract = returning(annotation)
    assert contract.shape == shape
    assert contract.output_schema["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(contract.output_schema)


# --- docstrings ------------------------------------------------------------------------------------------------------


def documented(text: str, count: Annotated[int, Meta(description="Said in Meta.")] = 1, plain: str = "") -> str:
    """Do this
    and that.

    Not for clients: how it does it.

    Args:
        text: What to do it with,
            told in two lines.
        count (int): Said in the docstring.

    Returns:
        plain: nothing of a parameter.
    """


def test_the_first_paragraph_describes_the_tool_and_args_its_parameters():
    contract = contract_of(documented)
    properties = contract.input_schema["properties"]
    assert contract.description == "Do this and that."
    assert properties["text"]["description"] == "What to do it with, told in two lines."
    assert properties["count"]["description"] == "Said in Meta."
    assert "description" not in properties["plain"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", {})),
        ("One line.", ("One line.", {})),
        ("Args:\n    a: x", ("", {"a": "x"})),
        ("Do.\n\nParameters:\n    a: x: y\n    b:\n        later", ("Do.", {"a": "x: y", "b": "later"})),
        ("Do.\nArgs:\n    a: x\n\n    b: y", ("Do.", {"a": "x", "b": "y"})),
        ("Do.\n\nNote: this is no section of ours", ("Do.", {})),
    ],
)
def test_docstrings_of_all_forms_are_read(text, expected):
    assert parse_docstring(text) == expected


# --- the context, and how a tool is called ---------------------------------------------------------------------------


def context_first(ctx: ToolContext, a: int, b: int = 2) -> Any:
    """Take a context."""
    return ctx, a, b


def context_last(a: int, b: int = 2, ctx: ToolContext = None) -> Any:
    """Take a context."""
    return ctx, a, b


def context_between(a: int, ctx: Annotated[ToolContext, "the call"], *, b: int = 2) -> Any:
    """Take a context."""
    return ctx, a, b


def keywords_only(*, a: int, b: int = 2) -> Any:
    """Take no context."""
    return None, a, b


def positional_only(a: int, b: int = 2, /) -> Any:
    """Take no context."""
    return None, a, b


@pytest.mark.parametrize("function", [context_first, context_last, context_between, keywords_only, positional_only])
def test_every_kind_of_parameter_gets_its_value_and_the_context_is_no_argument(function):
    contract = contract_of(function)
    assert list(contract.input_schema["properties"]) == ["a", "b"]
    ctx = object() if contract.context_at is not None else None
    invoke = call_adapter(function, contract)
    assert invoke(contract.arguments(a=1), ctx) == (ctx, 1, 2)
    assert invoke(contract.arguments(a=1, b=3), ctx) == (ctx, 1, 3)
