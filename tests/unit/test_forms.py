# SPDX-License-Identifier: AGPL-3.0-or-later
"""Forms: what a Struct becomes on the wire, and what no form can hold."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from actors.forms import Email, FormError, Url, choices, form_schema


class Status(Enum):
    ACTIVE = "active"
    PENDING = "pending"


class Defaults(msgspec.Struct):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Status = Status.ACTIVE
    verified: bool = True


class Choices(msgspec.Struct):
    single: Literal["a", "b"]
    titled: Annotated[str, choices({"a": "First", "b": "Second"})]
    multi: Annotated[list[Literal["a", "b"]], Meta(min_length=1, max_length=2)]
    titled_multi: list[Annotated[str, choices({"a": "First"})]] = []


class Texts(msgspec.Struct):
    mail: Email
    page: Url
    day: dt.date
    at: Annotated[dt.datetime, Meta(tz=True)]
    short: Annotated[str, Meta(min_length=1, max_length=3, title="Short", description="Not long")]
    count: Annotated[int, Meta(ge=1, le=9)]
    note: str | None = None
    state: Status | None = None


def test_defaults_of_all_kinds():
    assert form_schema(Defaults) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
    }


def test_choices_of_all_kinds():
    schema = form_schema(Choices)
    first, second = {"const": "a", "title": "First"}, {"const": "b", "title": "Second"}
    assert schema["properties"] == {
        "single": {"type": "string", "enum": ["a", "b"]},
        "titled": {"type": "string", "oneOf": [first, second]},
        "multi": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        "titled_multi": {"type": "array", "items": {"anyOf": [first]}, "default": []},
    }
    assert schema["required"] == ["single", "titled", "multi"]


def test_formats_and_bounds():
    properties = form_schema(Texts)["properties"]
    assert [properties[name]["format"] for name in ("mail", "page", "day", "at")] == [
        "email",
        "uri",
        "date",
        "date-time",
    ]
    assert properties["short"] == {
        "type": "string", "minLength": 1, "maxLength": 3, "title": "Short", "description": "Not long",
    }  # fmt: skip
    assert properties["count"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert properties["note"] == {"type": "string"}
    assert properties["state"] == {"type": "string", "enum": ["active", "pending"]}


def test_a_schema_is_used_as_it_is():
    schema = {
        "type": "object",
        "properties": {"legacy": {"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]}},
        "required": ["legacy"],
    }
    assert form_schema(schema) == schema


class Nested(msgspec.Struct):
    inner: Defaults


class Loose(msgspec.Struct):
    anything: Any


class Lists(msgspec.Struct):
    texts: list[str]


class Numbers(msgspec.Struct):
    number: Literal[1, 2]


class Pattern(msgspec.Struct):
    text: Annotated[str, Meta(pattern="^a")]


@pytest.mark.parametrize(
    "form",
    [
        Nested, Loose, Lists, Numbers, Pattern, int, "text", {}, {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"type": "null"}}},
        {"type": "object", "properties": {"a": 1}},
    ],
)  # fmt: skip
def test_what_no_client_can_show_is_no_form(form):
    with pytest.raises(FormError):
        form_schema(form)
