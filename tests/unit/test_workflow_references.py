# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values that stand for other values: what is one, what stands in its place, and that data never is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_definitions import examples, keys, plain_values, values

from actors.p2p.workflow_scheduler.references import (
    MISSING,
    MalformedReferenceError,
    Reference,
    ReferenceMissingError,
    as_links,
    at_path,
    filled,
    looked_up_in,
    pointer_to,
    references,
)


def nothing(reference: Reference) -> Any:
    raise AssertionError(reference)


OUTPUTS = {"a": {"x": [1, {"y/z": 2, "~": 3, "": 4}]}, "b": [5]}
lookup = looked_up_in(lambda step: OUTPUTS.get(step, MISSING))


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("", OUTPUTS["a"]), ("/x/0", 1), ("/x/1/y~1z", 2), ("/x/1/~0", 3), ("/x/1/", 4)],
)
def test_a_pointer_names_a_part(pointer: str, value: Any) -> None:
    assert at_path(OUTPUTS["a"], pointer) == value


@pytest.mark.parametrize("pointer", ["/y", "/x/2", "/x/-1", "/x/01", "/x/-", "/x/", "/x/0/0", "/x/1/y", "/x/٣"])
def test_a_pointer_to_nothing_is_an_error_that_names_it(pointer: str) -> None:
    with pytest.raises(ReferenceMissingError) as caught:
        at_path(OUTPUTS["a"], pointer)
    assert f"`{pointer}`" in str(caught.value)


@pytest.mark.parametrize("pointer", ["x", "#/x", "/~", "/~2", "/a~"])
def test_what_is_no_pointer_is_an_error(pointer: str) -> None:
    with pytest.raises(MalformedReferenceError):
        at_path({}, pointer)


@examples
@given(st.lists(keys, max_size=4), plain_values)
def test_a_pointer_leads_to_where_it_was_made_for(path: list[str], value: Any) -> None:
    whole = value
    for key in reversed(path):
        whole = {"other": 0, key: whole}
    assert at_path(whole, pointer_to(*path)) == value


def test_values_are_put_in_their_places() -> None:
    value = {
        "whole": {"$from": "b"},
        "part": [{"$from": "a", "path": "/x/0"}, "kept"],
        "item": {"$item": "/0"},
        "all of it": {"$item": ""},
        "index": {"$index": True},
        "literal": {"$literal": {"$from": "a"}},
    }
    assert filled(value, lookup, item=[7], index=2) == {
        "whole": [5],
        "part": [1, "kept"],
        "item": 7,
        "all of it": [7],
        "index": 2,
        "literal": {"$from": "a"},
    }


def test_the_first_item_and_null_are_items() -> None:
    assert filled([{"$item": ""}, {"$index": True}], lookup, item=None, index=0) == [None, 0]


@pytest.mark.parametrize("value", [{"$item": ""}, {"$index": True}, {"$from": "c"}, {"$from": "a", "path": "/q"}])
def test_what_is_not_there_is_an_error(value: Any) -> None:
    with pytest.raises(ReferenceMissingError):
        filled([value], lookup)


def test_the_error_names_the_step() -> None:
    with pytest.raises(ReferenceMissingError, match=r"step `a`.*`/q`"):
        filled({"$from": "a", "path": "/q"}, lookup)


@pytest.mark.parametrize(
    "value",
    [
        {"$from": 1},
        {"$from": ""},
        {"$from": "a", "more": 1},
        {"$from": "a", "path": 1},
        {"$from": "a", "path": "x"},
        {"$from": "a", "$literal": 1},
        {"$item": 0},
        {"$item": "x"},
        {"$item": "", "path": ""},
        {"$index": False},
        {"$index": 1},
        {"$literal": 1, "more": 2},
        {"$task": "w:a"},
        {"$task": "w:a", "path": ""},
    ],
)
def test_what_is_nearly_a_form_is_an_error_and_no_data(value: Any) -> None:
    with pytest.raises(MalformedReferenceError):
        references({"deep": [value]})
    with pytest.raises(MalformedReferenceError):
        filled({"deep": [value]}, nothing)


def test_references_are_found_in_order_and_not_in_literals() -> None:
    value = [{"$from": "a"}, {"k": {"$from": "b", "path": "/0"}}, {"$literal": {"$from": "c"}}, {"$from": "a"}]
    assert references(value) == [("a", ""), ("b", "/0"), ("a", "")]


@examples
@given(plain_values)
def test_a_value_without_forms_is_filled_with_itself(value: Any) -> None:
    assert filled(value, nothing) == value
    assert references(value) == []


@examples
@given(values)
def test_a_literal_protects_whatever_is_in_it(value: Any) -> None:
    assert filled({"k": [{"$literal": value}]}, nothing) == {"k": [value]}
    assert references({"$literal": value}) == []


@examples
@given(values)
def test_what_was_put_in_is_never_looked_at(output: Any) -> None:
    assert filled([{"$from": "a"}, {"$item": ""}], looked_up_in({"a": output}.__getitem__), item=output) == [
        output,
        output,
    ]


# --- payloads ------------------------------------------------------------------------------------------------------


def as_the_worker_fills(payload: Any, outputs: dict[str, Any]) -> Any:
    """What the queue's worker makes of a payload with links."""
    if isinstance(payload, list):
        return [as_the_worker_fills(part, outputs) for part in payload]
    if not isinstance(payload, dict):
        return payload
    if "$task" in payload:
        assert payload.keys() <= {"$task", "path"}
        return at_path(outputs[payload["$task"]], payload.get("path", ""))
    if "$literal" in payload:
        assert len(payload) == 1
        return payload["$literal"]
    return {key: as_the_worker_fills(part, outputs) for key, part in payload.items()}


def test_with_all_outputs_known_a_payload_is_plain() -> None:
    value = {"a": {"$from": "b"}, "l": {"$literal": {"$task": "x"}}}
    assert as_links(value, OUTPUTS.__getitem__, str.upper) == ({"a": [5], "l": {"$task": "x"}}, False)


def test_missing_outputs_become_links() -> None:
    value = [{"$from": "q"}, {"$from": "q", "path": "/x/0"}, {"$from": "b"}, {"$from": "b", "path": "/0"}, 1]
    assert as_links(value, lambda step: OUTPUTS.get(step, MISSING), lambda step: f"w:{step}") == (
        [{"$task": "w:q"}, {"$task": "w:q", "path": "/x/0"}, {"$literal": [5]}, 5, 1],
        True,
    )


def test_a_known_output_that_lacks_the_part_is_an_error_at_once() -> None:
    with pytest.raises(ReferenceMissingError, match="step `b`"):
        as_links([{"$from": "q"}, {"$from": "b", "path": "/9"}], lambda s: OUTPUTS.get(s, MISSING), str.upper)


@examples
@given(values, values, values, st.booleans())
def test_a_payload_means_the_same_whichever_outputs_are_known(
    literal: Any, first: Any, second: Any, knows_first: bool
) -> None:
    outputs = {"first": first, "second": second}
    value = {"k": [{"$literal": literal}, {"$from": "first"}], "l": {"$from": "second"}}
    payload, has_links = as_links(value, lambda step: first if step == "first" and knows_first else MISSING, str)
    assert has_links
    assert as_the_worker_fills(payload, outputs) == filled(value, looked_up_in(outputs.__getitem__))


def test_an_object_of_the_queue_in_inputs_is_refused_there_too() -> None:
    with pytest.raises(MalformedReferenceError):
        as_links([{"$from": "q"}, {"$task": "of another owner"}], lambda _: MISSING, str)
