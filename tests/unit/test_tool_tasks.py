# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the row of a tool's call carries comes out as it went in, and what others wrote there does no harm."""

from __future__ import annotations

import msgspec
import pytest

from actors.errors import NoAnswerError
from actors.tool_messages import Question, ToolResult
from actors.tool_tasks import (
    Caller,
    answer_of,
    answer_text,
    caller_of,
    fingerprint,
    is_answer_to,
    metadata_text,
    no_answer_text,
    question_of,
    question_text,
    result_of,
    result_text,
)

ASKED = Question(key="k", method="elicitation/create", params=b'{"message": "a"}')
OTHER = Question(key="k", method="elicitation/create", params=b'{"message": "b"}')


@pytest.mark.parametrize("value", [b'"text"', b'{"a": 1.50}', b"[1,\n 2]", b"null", '"ü\u2028"'.encode()])
@pytest.mark.parametrize("is_error", [False, True])
def test_a_result_comes_out_as_it_went_in(value, is_error):
    result = ToolResult(value=value, shape="content", runtime="p2p", duration_ms=1.5, is_error=is_error)
    text = result_text(result)
    assert result_of(text) == result
    assert msgspec.json.decode(text)["kind"] == "tool_result"


@pytest.mark.parametrize(
    ("text", "value", "shape"),
    [
        ('{"rows": 3}', b'{"rows": 3}', "object"),
        (' {"kind": "tool_result"}', b' {"kind": "tool_result"}', "object"),
        ("[1]", b"[1]", "wrapped"),
        ("null", b"null", "wrapped"),
        ("no JSON", b'"no JSON"', "text"),
        ("", b'""', "text"),
    ],
)
def test_the_result_of_another_worker_is_shown_as_it_is(text, value, shape):
    result = result_of(text)
    assert (result.value, result.shape, result.is_error) == (value, shape, False)


def test_who_called_is_known_to_the_worker():
    caller = Caller(can=("elicitation", "sampling"), answers={"k": answer_text(fingerprint(ASKED), b'{"a":1}')})
    assert caller_of(metadata_text(caller)) == caller


@pytest.mark.parametrize("metadata", ["{}", '{"mine": 1}', '{"greenroom/caller": 7}', "[]", "no JSON", ""])
def test_nobody_can_be_asked_where_the_metadata_do_not_say(metadata):
    assert caller_of(metadata) == Caller()


def test_a_question_keeps_its_very_bytes():
    assert question_of("k", question_text(ASKED)) == ASKED


@pytest.mark.parametrize("text", ['{"method":"odd/one"}', "{}", "7", "no JSON"])
def test_what_no_tool_asks_is_no_question(text):
    assert question_of("k", text) is None


def test_an_answer_counts_for_its_own_question():
    text = answer_text(fingerprint(ASKED), b'{"action":"accept"}')
    assert answer_of(ASKED, text) == b'{"action":"accept"}'
    assert is_answer_to(ASKED, text)
    assert answer_of(OTHER, text) is None
    assert not is_answer_to(OTHER, text)


def test_that_nobody_will_answer_counts_for_its_own_question_too():
    text = no_answer_text(fingerprint(ASKED), "too late")
    with pytest.raises(NoAnswerError, match="too late"):
        answer_of(ASKED, text)
    assert answer_of(OTHER, text) is None


@pytest.mark.parametrize("text", ["{}", "7", "no JSON", '{"action":"accept"}'])
def test_what_is_no_answer_answers_nothing(text):
    assert answer_of(ASKED, text) is None
