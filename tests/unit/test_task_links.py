# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payloads that name results of other tasks: what is put in, what is not looked at, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import InvalidArgumentsError, code_of, to_info
from actors.task_links import (
    MOST_LEVELS,
    Filling,
    LimitExceededError,
    ReferenceMissingError,
    at_path,
    filled,
    linked_ids,
    output_of,
)
from actors.task_messages import TaskState
from actors.task_views import TaskFact
from actors.tool_messages import ToolResult
from actors.tool_tasks import result_text

NAMES = st.sampled_from(["a", "b", "$task", "$literal", "path", "", "~", "/", "~1", "0", "-"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def fill(payload, **outputs):
    return json.loads(filled(json.dumps(payload), outputs))


# --- what is put in --------------------------------------------------------------------------------------------------


def test_outputs_stand_where_they_are_named():
    payload = {
        "x": {"$task": "t1"},
        "list": [1, {"$task": "t2", "path": "/a/1"}, {"deep": {"$task": "t2", "path": ""}}],
    }
    assert fill(payload, t1="one", t2={"a": [3, 4]}) == {"x": "one", "list": [1, 4, {"deep": {"a": [3, 4]}}]}
    assert linked_ids(json.dumps(payload)) == ["t1", "t2"]


def test_a_payload_may_be_an_output_altogether():
    assert fill({"$task": "t"}, t={"a": 1}) == {"a": 1}


def test_a_literal_is_what_is_in_it():
    assert fill({"x": {"$literal": {"$task": "t", "y": {"$literal": 1}}}}) == {
        "x": {"$task": "t", "y": {"$literal": 1}}
    }
    assert linked_ids('{"x": {"$literal": {"$task": "t"}}}') == []


@st.composite
def pages(draw):
    """A payload, the outputs that it names, and what it is to become."""
    outputs = draw(st.dictionaries(st.sampled_from(["t1", "t2", "t3"]), VALUES, min_size=1))

    def plain(value):
        """A value of a payload without links: what looks like one is a literal."""
        if isinstance(value, list):
            return [plain(one) for one in value]
        if not isinstance(value, dict):
            return value
        if value.keys() & {"$task", "$literal"}:
            return {"$literal": value}
        return {name: plain(one) for name, one in value.items()}

    payload, wanted = {}, {}
    for n in range(draw(st.integers(0, 4))):
        task = draw(st.sampled_from([*outputs, ""]))
        if task:
            path, part = "", outputs[task]
            while part and isinstance(part, (dict, list)) and draw(st.booleans()):
                step = draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
                part = part[step]
                path += "/" + str(step).replace("~", "~0").replace("/", "~1")
            payload[f"f{n}"], wanted[f"f{n}"] = [{"$task": task, "path": path}], [part]
        else:
            wanted[f"f{n}"] = draw(VALUES)
            payload[f"f{n}"] = plain(wanted[f"f{n}"])
    return payload, outputs, wanted


@settings(max_examples=50)
@given(pages())
def test_nothing_else_is_changed_and_nothing_in_an_output_is_a_link(page):
    payload, outputs, wanted = page
    text = json.dumps(payload)
    assert set(linked_ids(text)) <= outputs.keys()
    assert json.loads(filled(text, outputs)) == wanted


def test_outputs_may_come_one_by_one_and_in_any_order():
    filling = Filling('{"a": {"$task": "t1"}, "b": {"$task": "t2"}, "c": {"$task": "t1", "path": "/0"}}')
    assert filling.missing() == ["t1", "t2"]
    filling.put("t2", 2)
    assert filling.missing() == ["t1"]
    filling.put("t1", [1])
    assert filling.text() == '{"a":[1],"b":2,"c":1}'


# --- what a task gave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shape"),
    [("text", "text"), ({"a": 1}, "object"), ([1, 2], "wrapped"), ([{"type": "text", "text": "t"}], "content")],
)
def test_the_output_of_a_tool_is_what_it_returned(value, shape):
    given_ = ToolResult(value=json.dumps(value).encode(), shape=shape, runtime="general", duration_ms=1.0)
    assert output_of(result_text(given_)) == value


@pytest.mark.parametrize("value", [None, 5, "text", [1], {"a": {"kind": "tool_result"}}])
def test_the_output_of_an_external_worker_is_its_json(value):
    assert output_of(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["no json", "[" * 100_000, "1e999", '{"kind":"tool_result","value":' + "[" * 9999])
def test_what_is_no_json_is_a_string(text):
    assert output_of(text) == text


# --- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("/b", {"a": 1}), ("/0", {"a": 1}), ("/2", [1, 2]), ("/-", [1]), ("/00", [1]), ("/-1", [1]), ("/", {"a": 1}),
        ("/a/b", {"a": "b"}), ("/0", "text"), ("/9/9", [1]), ("/" + "9" * 5000, [1]), ("/\N{SUPERSCRIPT ONE}", [1, 2]),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_an_error_that_names_both(path, output):
    with pytest.raises(ReferenceMissingError) as caught:
        fill({"x": {"$task": "t1", "path": path}}, t1=output)
    path = path[:200]
    assert path in str(caught.value).replace("\\xb9", "\N{SUPERSCRIPT ONE}")
    assert "'t1'" in str(caught.value)
    info = to_info(caught.value)
    assert (info.code, info.retryable, info.details) == ("REFERENCE_MISSING", False, {"task": "t1", "path": path})


def test_a_task_without_result_is_an_error_that_names_both():
    with pytest.raises(ReferenceMissingError, match=r"'/a' of the output of task 't2'"):
        fill({"x": {"$task": "t1"}, "y": {"$task": "t2", "path": "/a"}}, t1=1)


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (TaskFact(id="t", state=TaskState.FAILED, owner="ann"), "it is failed"),
        (TaskFact(id="t", state=TaskState.LEASED, owner="ann"), "it is leased"),
        (TaskFact(id="t", state=TaskState.COMPLETED, owner="bob", result="1"), "no result of such a task"),
        (
            TaskFact(
                id="t",
                state=TaskState.COMPLETED,
                owner="ann",
                result=result_text(
                    ToolResult(value=b'"no"', shape="text", runtime="general", duration_ms=1.0, is_error=True)
                ),
            ),
            "its tool said that it failed",
        ),
    ],
)
def test_only_what_a_completed_task_of_the_same_owner_gave_is_put_in(fact, why):
    filling = Filling('{"x": {"$task": "t"}}')

    def fill_in():
        filling.put_fact(fact, "ann")
        filling.text()

    with pytest.raises(ReferenceMissingError, match=why):
        fill_in()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        "no json",
        '{"x": 1e999}',
        '{"x": {"$task": 5}}',
        '{"x": {"$task": "t", "path": 5}}',
        '{"x": {"$task": "t", "more": 1}}',
        '{"x": {"$task": "t", "$literal": 1}}',
        '{"x": {"$literal": 1, "more": 1}}',
        '{"x": {"$task": "t", "path": "a"}}',
        '{"x": {"$task": "t", "path": "/~2"}}',
        '{"x": {"$task": "t", "path": "/~"}}',
    ],
)
def test_what_is_malformed_is_refused(payload):
    with pytest.raises(InvalidArgumentsError):
        filled(payload, {"t": 1})


def test_a_filled_payload_is_bounded_before_it_is_made():
    many = json.dumps({"x": [{"$task": "t"}] * 5000})
    assert len(filled(many, {"t": "x" * 100})) > 500_000
    with pytest.raises(LimitExceededError, match="larger than 4194304 bytes") as caught:
        filled(many, {"t": "x" * 1_000_000})
    assert code_of(caught.value) == "LIMIT_EXCEEDED"
    with pytest.raises(LimitExceededError, match="larger than 30 bytes"):
        filled('{"x": {"$task": "t"}, "padding": "' + "p" * 30 + '"}', {"t": 1}, most_bytes=30)
    assert filled('{"x":{"$task":"t"}}', {"t": "y" * 22}, most_bytes=30) == '{"x":"' + "y" * 22 + '"}'
    with pytest.raises(LimitExceededError):
        filled('{"x":{"$task":"t"}}', {"t": "y" * 23}, most_bytes=30)


def nested(levels):
    return "[" * levels + "]" * levels


def test_levels_are_bounded():
    assert filled(nested(MOST_LEVELS), {}) == nested(MOST_LEVELS)
    assert filled('{"x":{"$task":"t"}}', {"t": json.loads(nested(MOST_LEVELS))}) == f'{{"x":{nested(MOST_LEVELS)}}}'
    assert filled(f"[{','.join(['[]'] * 300)}]", {}) == f"[{','.join(['[]'] * 300)}]"
    for levels in (MOST_LEVELS + 1, 100_000):
        with pytest.raises(LimitExceededError, match="the payload is nested deeper than 200 levels"):
            filled(nested(levels), {})
    with pytest.raises(LimitExceededError, match="task t is nested deeper"):
        filled('{"x":{"$task":"t"}}', {"t": json.loads(nested(MOST_LEVELS + 1))})


def test_a_pointer_is_as_rfc_6901_has_it():
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, " ": 7, "~1": 9}
    wanted = {"": document, "/foo": ["bar", "baz"], "/foo/0": "bar", "/": 0, "/a~1b": 1, "/m~0n": 8, "/ ": 7, "/~01": 9}
    assert {path: at_path(document, path) for path in wanted} == wanted
