# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client answers, checked before a tool sees it."""

from __future__ import annotations

import msgspec
import pytest

from actors.tool_messages import Question
from gateway.mcp.answers import BadAnswerError, read_answer

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 3},
        "mail": {"type": "string", "format": "email"},
        "page": {"type": "string", "format": "uri"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "one": {"type": "string", "enum": ["a", "b"]},
        "titled": {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
        "many": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        "whole": {"type": "integer", "minimum": 1, "maximum": 5},
        "number": {"type": "number"},
        "yes": {"type": "boolean"},
    },
}


def question(method, params):
    return Question(key="q1", method=method, params=msgspec.json.encode(params))


def read(question, answer):
    return msgspec.json.decode(read_answer(question, msgspec.json.encode(answer)))


FORM = question("elicitation/create", {"mode": "form", "message": "?", "requestedSchema": SCHEMA})
URL = question("elicitation/create", {"mode": "url", "message": "?", "url": "https://a"})
SAMPLE = question("sampling/createMessage", {})
ROOTS = question("roots/list", {})
GOOD = {
    "text": "ab", "mail": "a@b.c", "page": "https://a", "day": "2026-12-24", "at": "2026-12-24T10:00:00Z", "one": "a",
    "titled": "a", "many": ["a", "b"], "whole": 5, "number": 1.5, "yes": False,
}  # fmt: skip


def test_a_good_answer_is_kept_and_nothing_else():
    answer = {"action": "accept", "content": {**GOOD, "odd": 1, "text": None}, "_meta": {"a": 1}}
    content = {name: value for name, value in GOOD.items() if name != "text"}
    assert read(FORM, answer) == {"action": "accept", "content": content}
    assert read(FORM, {"action": "decline", "content": {"text": 1}}) == {"action": "decline"}
    assert read(URL, {"action": "accept", "content": {"a": 1}}) == {"action": "accept"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", ""), ("text", "abcd"), ("text", 1), ("mail", "nobody"), ("page", "page"), ("day", "24.12."),
        ("at", "2026-12-24"), ("at", "now"), ("one", "c"), ("titled", "A"), ("many", []), ("many", ["a", "b", "a"]),
        ("many", ["c"]), ("many", "a"), ("many", [1]), ("many", [[]]),
        ("whole", 0), ("whole", 6), ("whole", 1.5), ("whole", True),
        ("number", "1"), ("number", True), ("yes", 1), ("yes", "true"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_name(name, value):
    with pytest.raises(BadAnswerError, match=f"content.{name}"):
        read(FORM, {"action": "accept", "content": {name: value}})


SAMPLED = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (FORM, 1), (FORM, {}), (FORM, {"action": "ok"}), (FORM, {"action": ["accept"]}),
        (FORM, {"action": "accept", "content": []}),
        (SAMPLE, SAMPLED | {"role": "system"}), (SAMPLE, SAMPLED | {"role": []}), (SAMPLE, SAMPLED | {"model": None}),
        (SAMPLE, SAMPLED | {"content": "x"}), (SAMPLE, SAMPLED | {"content": {"type": "text"}}),
        (SAMPLE, SAMPLED | {"content": [{"type": "video"}]}), (SAMPLE, SAMPLED | {"content": {"type": []}}),
        (SAMPLE, {}),
        (ROOTS, {}), (ROOTS, {"roots": {}}), (ROOTS, {"roots": [1]}), (ROOTS, {"roots": [{"uri": 1}]}),
        (ROOTS, {"roots": [{"uri": "file:///a", "name": 1}]}),
    ],
)  # fmt: skip
def test_an_answer_of_the_wrong_shape_is_refused(asked, answer):
    with pytest.raises(BadAnswerError):
        read(asked, answer)


def test_what_is_no_json_is_refused():
    with pytest.raises(BadAnswerError):
        read_answer(FORM, b"{")


def test_answers_of_a_model_and_of_the_client():
    assert read(SAMPLE, SAMPLED) == SAMPLED
    assert read(SAMPLE, SAMPLED | {"content": [{"type": "tool_use", "id": "1", "name": "n", "input": {}}]})
    assert read(ROOTS, {"roots": []}) == {"roots": []}
