# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routing headers: the base64 wrapping, which annotations count, and how values are compared."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.jsonrpc import INVALID_PARAMS
from actors.param_headers import param_rules
from gateway.mcp.headers import check_params, unwrap
from gateway.mcp.jsonrpc import HEADER_MISMATCH, McpError


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("=?base64?SGVsbG8=?=", "Hello"),
        ("  =?base64?SGVsbG8=?=\t", "Hello"),
        ("=?base64??=", ""),
        ("SGVsbG8=", "SGVsbG8="),
        ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
        ("SGVsbG8=?=", "SGVsbG8=?="),
        ("=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
        ("  plain  ", "plain"),
    ],
)
def test_a_header_stands_for_a_text(header: str, text: str) -> None:
    assert unwrap(header) == text


@pytest.mark.parametrize("inner", ["SGVsbG8", "SGVs!!!bG8=", "SGVsbG9=", "SGVs bG8=", "_-8=", "/w==", "SGVsbG8==", "ü"])
def test_broken_wrappings_are_refused(inner: str) -> None:
    with pytest.raises(McpError) as caught:
        unwrap(f"=?base64?{inner}?=")
    assert caught.value.code == HEADER_MISMATCH


@given(st.text())
def test_any_text_survives_the_wrapping(text: str) -> None:
    wrapped = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(McpError):
            unwrap(f"=?base64?{wrapped}?=")
    else:
        assert unwrap(f"=?base64?{wrapped}?=") == text


def schema(**properties: Any) -> bytes:
    return msgspec.json.encode({"type": "object", "properties": properties})


def annotated(name: object, kind: object = "string") -> dict[str, object]:
    return {"type": kind, "x-mcp-header": name}


def test_annotations_are_found_through_properties_only() -> None:
    deep = {"type": "object", "properties": {"c": annotated("Deep", "integer")}}
    listed = {"type": "array", "items": {"type": "object", "properties": {"d": annotated("No")}}}
    chosen = {"anyOf": [annotated("No")]}
    rules = param_rules(schema(a=annotated("Top"), b=deep, c=listed, d=chosen, e={"type": "string"}))
    assert [(rule.header, rule.path, rule.type) for rule in rules] == [
        ("mcp-param-top", ("a",), "string"),
        ("mcp-param-deep", ("b", "c"), "integer"),
    ]


@pytest.mark.parametrize(
    "properties",
    [
        {"a": annotated("")},
        {"a": annotated("two words")},
        {"a": annotated("ü")},
        {"a": annotated(5)},
        {"a": annotated("A", "number")},
        {"a": annotated("A", "object")},
        {"a": annotated("A", ["string", "null"])},
        {"a": annotated("Same"), "b": annotated("sAME")},
    ],
)
def test_one_invalid_annotation_voids_all(properties: dict[str, Any]) -> None:
    assert param_rules(schema(**properties, good=annotated("Good"))) == ()


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"true", b'{"properties":3}'])
def test_a_schema_without_properties_has_no_rules(text: bytes) -> None:
    assert param_rules(text) == ()


RULES = param_rules(schema(s=annotated("S"), i=annotated("I", "integer"), b=annotated("B", "boolean")))


@pytest.mark.parametrize(
    ("arguments", "headers", "fits"),
    [
        ({"s": "eu"}, {"s": "eu"}, True),
        ({"s": "eu"}, {"s": " eu "}, True),
        ({"s": "eu"}, {"s": "EU"}, False),
        ({"s": "Hello"}, {"s": "=?base64?SGVsbG8=?="}, True),
        ({"s": "SGVsbG8="}, {"s": "SGVsbG8="}, True),
        ({"s": "=?base64?SGVsbG8="}, {"s": "=?base64?SGVsbG8="}, True),
        ({"s": "Hello"}, {"s": "=?base64?SGVsbG8?="}, False),
        ({"i": 42}, {"i": "42"}, True),
        ({"i": 42}, {"i": "42.0"}, True),
        ({"i": 42.0}, {"i": "42"}, True),
        ({"i": -7}, {"i": "-7"}, True),
        ({"i": 42}, {"i": "42.5"}, False),
        ({"i": 42}, {"i": "0x2a"}, False),
        ({"i": 42}, {"i": "four"}, False),
        ({"b": True}, {"b": "true"}, True),
        ({"b": False}, {"b": "false"}, True),
        ({"b": True}, {"b": "True"}, False),
        ({"b": True}, {"b": "1"}, False),
        ({"s": ["eu"]}, {"s": "eu"}, False),
        ({}, {}, True),
        ({"s": None}, {}, True),
        ({"s": None}, {"s": ""}, False),
        ({"s": ""}, {"s": ""}, True),
        ({"s": ""}, {}, False),
        ({}, {"s": "eu"}, False),
    ],
)
def test_arguments_and_headers_must_agree(arguments: object, headers: dict[str, str], fits: bool) -> None:
    sent = {f"mcp-param-{name}": value for name, value in headers.items()}
    if fits:
        check_params(RULES, sent, msgspec.json.encode(arguments))
        return
    with pytest.raises(McpError) as caught:
        check_params(RULES, sent, msgspec.json.encode(arguments))
    assert caught.value.code == HEADER_MISMATCH


def test_arguments_that_are_not_json_are_invalid() -> None:
    with pytest.raises(McpError) as caught:
        check_params(RULES, {}, b'{"s":"\xff"}')
    assert caught.value.code == INVALID_PARAMS
