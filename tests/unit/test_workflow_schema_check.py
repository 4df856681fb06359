# SPDX-License-Identifier: AGPL-3.0-or-later
"""Inputs are held against tools' schemas: what could never work is found, what may work is let pass."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_definitions import (
    TOOLS,
    examples,
    faults_of,
    plain_values,
    planned,
    ref,
    step,
    with_schemas,
)

from actors.p2p.workflow_scheduler.contracts import contract_of
from actors.p2p.workflow_scheduler.schema_types import ALL_KINDS, Part, in_words, kind_of


def the_fault(*steps: dict[str, Any], **how: Any) -> tuple[str, str]:
    """Code and message of the one fault."""
    ((_, code, message),) = faults_of(*steps, **how)
    return code, message


def taking(schema: Any, value: Any, *before: dict[str, Any], **more: Any) -> list[tuple[str, str, str]]:
    """Faults of a step whose tool takes `schema` as `value`."""
    whole = {"type": "object", "properties": {"value": schema}, "required": ["value"], "additionalProperties": False}
    tools = {**TOOLS, "t": with_schemas("t", whole)}
    names = [one["step_id"] for one in before]
    return faults_of(*before, step("t", "t", *names, inputs={"value": value}, **more), tools=tools)


# --- what is written there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "inputs"),
    [
        ("add", {"a": 1}),
        ("add", {"a": 1.0, "b": -3}),
        ("halve", {"number": 1}),
        ("names", {"many": None}),
        ("names", {}),
        ("measure", {"size": {"width": 1, "inner": {"width": 2, "inner": None}}, "mode": "exact", "tags": ["x"]}),
        ("anything", {"value": {"any": [1, None]}}),
        ("say", {"text": {"$literal": "x"}}),
    ],
)
def test_inputs_that_fit(action: str, inputs: dict[str, Any]) -> None:
    assert faults_of(step("a", action, inputs=inputs)) == []


@pytest.mark.parametrize(
    ("action", "inputs", "code", "message"),
    [
        ("add", {}, "MISSING_ARGUMENT", "`a` is missing (tool `add`)"),
        ("add", {"a": "1"}, "BAD_ARGUMENT", '`a` is "1", and must be a whole number (tool `add`)'),
        ("add", {"a": 1.5}, "BAD_ARGUMENT", "`a` is 1.5, and must be a whole number (tool `add`)"),
        ("add", {"a": True}, "BAD_ARGUMENT", "`a` is true, and must be a whole number (tool `add`)"),
        ("halve", {"number": [1]}, "BAD_ARGUMENT", "`number` is a list, and must be a number (tool `halve`)"),
        ("names", {"many": "x"}, "BAD_ARGUMENT", '`many` is "x", and must be a whole number or null (tool `names`)'),
        ("names", {"manny": 1}, "UNKNOWN_ARGUMENT", "`manny` is unknown; did you mean `many`? (tool `names`)"),
        ("names", {"zz": 1}, "UNKNOWN_ARGUMENT", "`zz` is unknown; there are `many` (tool `names`)"),
        ("join", {"parts": ["a", 1]}, "BAD_ARGUMENT", "`parts/1` is 1, and must be text (tool `join`)"),
        ("say", {"text": {"$literal": {"a": 1}}}, "BAD_ARGUMENT", "`text` is an object, and must be text (tool `say`)"),
        ("measure", {"size": {}}, "MISSING_ARGUMENT", "`size/width` is missing (tool `measure`)"),
    ],
)
def test_inputs_that_do_not(action: str, inputs: dict[str, Any], code: str, message: str) -> None:
    assert the_fault(step("a", action, inputs=inputs)) == (code, message)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"width": -1}, ["`size/width`", "-1", "0"]),
        (
            {"width": 1, "inner": {"width": 1, "inner": {"width": "x"}}},
            ["`size/inner/inner/width`", '"x"', "whole number"],
        ),
    ],
)
def test_the_place_is_named_however_deep_it_is(size: Any, words: list[str]) -> None:
    code, message = the_fault(step("a", "measure", inputs={"size": size}))
    assert code == "BAD_ARGUMENT"
    assert all(word in message for word in words), message


def test_a_choice_names_the_choices() -> None:
    code, message = the_fault(step("a", "measure", inputs={"size": {"width": 1}, "mode": "slow"}))
    assert code == "BAD_ARGUMENT"
    assert all(f'"{one}"' in message for one in ("slow", "fast", "exact"))


def test_all_arguments_are_looked_at() -> None:
    codes = [code for _, code, _ in faults_of(step("a", "measure", inputs={"mode": 1, "tags": [1, 2], "x": 1}))]
    assert sorted(codes) == ["BAD_ARGUMENT"] * 3 + ["MISSING_ARGUMENT", "UNKNOWN_ARGUMENT"]


def test_missing_and_unknown_ones_are_found_beside_references() -> None:
    faults = faults_of(step("a"), step("b", "add", "a", inputs={"b": ref("a"), "c": ref("a")}))
    assert sorted(code for _, code, _ in faults) == ["MISSING_ARGUMENT", "UNKNOWN_ARGUMENT"]


# --- what will be put in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "path", "action", "argument"),
    [
        ("add", "", "halve", "number"),  # a whole number is a number
        ("halve", "", "add", "a"),  # a number may be whole
        ("say", "", "add", "a"),  # nobody knows what it gives
        ("say", "/x/0", "add", "a"),
        ("anything", "/x", "add", "a"),
        ("names", "", "join", "parts"),
        ("names", "/0", "say", "text"),
        ("measure", "", "measure", "size"),
        ("measure", "/inner", "measure", "size"),  # may be null, and may be one
        ("measure", "/inner/inner/name", "say", "text"),
        ("measure", "/other", "add", "a"),  # objects may have more keys
        ("add", "", "names", "many"),
    ],
)
def test_outputs_that_may_fit(source: str, path: str, action: str, argument: str) -> None:
    inputs = {"measure": {"size": {"width": 1}}, "add": {"a": 1}, "halve": {"number": 1}, "say": {"text": "x"}}
    first = step("a", source, inputs=inputs[source]) if source in inputs else step("a", source)
    assert faults_of(first, step("b", action, "a", inputs={argument: ref("a", path)})) == []


@pytest.mark.parametrize(
    ("source", "path", "action", "argument", "message"),
    [
        ("add", "", "say", "text", "`text`: the output of step `a` is a whole number, and tool `say` wants text"),
        ("halve", "", "say", "text", "`text`: the output of step `a` is a number, and tool `say` wants text"),
        ("names", "", "add", "a", "`a`: the output of step `a` is a list, and tool `add` wants a whole number"),
        ("names", "/0", "add", "a", "`a`: the output of step `a` at `/0` is text, and tool `add` wants a whole number"),
        ("measure", "", "add", "a", "`a`: the output of step `a` is an object, and tool `add` wants a whole number"),
        (
            "measure",
            "/inner/inner/name",
            "add",
            "a",
            "`a`: the output of step `a` at `/inner/inner/name` is text, and tool `add` wants a whole number",
        ),
        (
            "measure",
            "/inner",
            "say",
            "text",
            "`text`: the output of step `a` at `/inner` is an object or null, and tool `say` wants text",
        ),
    ],
)
def test_outputs_that_never_fit(source: str, path: str, action: str, argument: str, message: str) -> None:
    inputs = {"measure": {"size": {"width": 1}}, "add": {"a": 1}, "halve": {"number": 1}, "names": {}}
    first = step("a", source, inputs=inputs[source])
    second = step("b", action, "a", inputs={argument: ref("a", path)})
    assert the_fault(first, second) == ("TYPE_MISMATCH", message)


def test_places_within_an_argument_are_compared_too() -> None:
    first = step("a", "names")
    second = step("b", "measure", "a", inputs={"size": {"width": ref("a", "/0"), "inner": {"width": ref("a")}}})
    faults = faults_of(first, second)
    assert [(code, message.split(":")[0]) for _, code, message in faults] == [
        ("TYPE_MISMATCH", "`size/width`"),
        ("TYPE_MISMATCH", "`size/inner/width`"),
    ]


@pytest.mark.parametrize(("source", "path"), [("names", "/x"), ("names", "/0/0"), ("measure", "/width/x")])
def test_a_path_to_where_nothing_can_be(source: str, path: str) -> None:
    inputs = {"measure": {"size": {"width": 1}}, "names": {}}
    code, message = the_fault(
        step("a", source, inputs=inputs[source]), step("b", inputs={"value": ref("a", path)}, depends_on=["a"])
    )
    assert code == "NEVER_THERE"
    assert f"`{path}`" in message


def test_an_object_with_a_result_and_a_wrapped_result_look_alike() -> None:
    gives = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
    tools = {**TOOLS, "t": with_schemas("t", {"type": "object"}, gives)}

    def faults(path: str, action: str, argument: str) -> list[Any]:
        return faults_of(step("a", "t"), step("b", action, "a", inputs={argument: ref("a", path)}), tools=tools)

    assert faults("", "add", "a") == []
    assert faults("/result", "add", "a") == []
    assert faults("", "measure", "size") == []
    assert [code for _, code, _ in faults("", "say", "text")] == ["TYPE_MISMATCH"]
    assert [code for _, code, _ in faults("/result", "say", "text")] == ["TYPE_MISMATCH"]


# --- for_each ------------------------------------------------------------------------------------------------------


def test_the_output_of_for_each_is_a_list() -> None:
    first = step("a", "add", inputs={"a": {"$item": ""}}, for_each=[1, 2])
    assert faults_of(first, step("b", "add", "a", inputs={"a": ref("a", "/1")})) == []
    code, message = the_fault(first, step("b", "add", "a", inputs={"a": ref("a")}))
    assert code == "TYPE_MISMATCH"
    assert "is a list" in message
    assert the_fault(first, step("b", "add", "a", inputs={"a": ref("a", "/x")}))[0] == "NEVER_THERE"


def test_for_each_wants_a_list() -> None:
    code, message = the_fault(step("a", "add", inputs={"a": 1}), step("b", "anything", "a", for_each=ref("a")))
    assert code == "TYPE_MISMATCH"
    assert "`for_each`" in message
    assert "is a whole number, and" in message
    assert the_fault(step("a", "names"), step("b", "anything", "a", for_each=ref("a", "/x")))[0] == "NEVER_THERE"


def test_items_are_compared() -> None:
    first = step("a", "names")
    assert faults_of(first, step("b", "say", "a", inputs={"text": {"$item": ""}}, for_each=ref("a"))) == []
    code, message = the_fault(first, step("b", "add", "a", inputs={"a": {"$item": ""}}, for_each=ref("a")))
    assert code == "TYPE_MISMATCH"
    assert "the item of `for_each` is text" in message
    assert the_fault(first, step("b", inputs={"value": {"$item": "/x"}}, depends_on=["a"], for_each=ref("a")))[0] == (
        "NEVER_THERE"
    )
    assert faults_of(step("b", "add", inputs={"a": {"$item": ""}}, for_each=[1, "x"])) == []


def test_an_index_is_a_whole_number() -> None:
    assert faults_of(step("b", "add", inputs={"a": {"$index": True}}, for_each=[1])) == []
    code, message = the_fault(step("b", "say", inputs={"text": {"$index": True}}, for_each=[1]))
    assert (code, "whole number" in message) == ("TYPE_MISMATCH", True)


# --- parts that are not known --------------------------------------------------------------------------------------

HOLE = ref("a")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": [1, [2]]}, [HOLE]),
        ({"const": [2]}, [HOLE]),
        ({"not": {"const": [2]}}, [HOLE]),
        ({"not": {"items": {"type": "string"}}}, [HOLE]),
        ({"oneOf": [{"items": {"type": "string"}}, {"items": {"type": "integer"}}]}, [HOLE]),
        ({"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "integer"}}]}, [HOLE]),
        ({"if": {"items": {"type": "string"}}, "then": {"maxItems": 0}}, [HOLE]),
        ({"type": "array", "uniqueItems": True}, [HOLE, HOLE]),
        ({"contains": {"const": 3}, "maxContains": 0, "minContains": 0}, [HOLE]),
        ({"type": "array", "items": {"minLength": 3, "pattern": "x", "format": "date"}}, [HOLE]),
        (
            {"properties": {"a": {"minimum": 3}}, "unevaluatedProperties": False, "anyOf": [{"required": ["a"]}]},
            {"a": HOLE},
        ),
    ],
)
def test_what_is_not_known_yet_passes_as_anything(schema: Any, value: Any) -> None:
    assert taking(schema, value, step("a")) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "maxItems": 1}, [HOLE, HOLE]),
        ({"type": "object", "required": ["b"]}, {"a": HOLE}),
        ({"type": "object", "propertyNames": {"pattern": "^b"}}, {"a": HOLE}),
        ({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}, [HOLE, "x"]),
        ({"type": "array", "prefixItems": [True, {"type": "integer"}]}, [HOLE, "x"]),
        ({"allOf": [{"type": "array"}, {"items": {"type": "integer"}}]}, [HOLE, "x"]),
    ],
)
def test_what_is_known_beside_it_is_checked(schema: Any, value: Any) -> None:
    ((_, code, _),) = taking(schema, value, step("a"))
    assert code == ("MISSING_ARGUMENT" if "required" in schema else "BAD_ARGUMENT")


@pytest.mark.parametrize(
    ("value", "is_unique"), [([1, 2, "1", [1], {"a": 1}], True), ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False)]
)
def test_sets(value: list[Any], is_unique: bool) -> None:
    assert (taking({"type": "array", "uniqueItems": True}, value) == []) is is_unique
    assert taking({"type": "array", "uniqueItems": False}, value) == []


def test_a_large_set_is_compared_without_comparing_all_pairs() -> None:
    value = [{"n": n} for n in range(5000)]
    contract = contract_of(b'{"properties": {"value": {"uniqueItems": true}}}')
    assert contract is not None
    started = time.process_time()
    assert list(contract.problems({"value": value})) == []
    assert len(list(contract.problems({"value": [*value, value[0]]}))) == 1
    assert time.process_time() - started < 1.0


# --- schemas of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"type": 5},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.invalid/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/properties/value"},
        {"pattern": "("},
        {"properties": 3},
        {"anyOf": 7},
        {"items": [1]},
        {"enum": 3},
    ],
)
def test_a_schema_that_is_no_use_finds_no_fault(schema: Any) -> None:
    assert taking(schema, "x") == []
    assert taking(schema, HOLE, step("a", "add", inputs={"a": 1})) == []


def test_nothing_is_fetched_for_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **_: asked.append(given))
    assert taking({"$ref": "http://127.0.0.1:9/schema.json"}, "x") == []
    assert asked == []


def test_schemas_that_lead_to_each_other_without_end_cost_little() -> None:
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    endless = Part({"$ref": "#/$defs/d0", "$defs": {**twice, "d40": {"$ref": "#/$defs/d0"}}})
    started = time.process_time()
    assert endless.kinds() == ALL_KINDS
    assert [part.kinds() for part in endless.at("/a/b")] == [ALL_KINDS]
    inner = Part({"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}] * 3}}})
    assert [part.kinds() for part in inner.at("/a" * 100_000)] == [ALL_KINDS]
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", [b"", b"{", b"3", b"[" * 10_000])
def test_what_is_no_schema_finds_no_fault(text: bytes) -> None:
    tool = with_schemas("t", True)
    tools = {
        **TOOLS,
        "t": type(tool)(
            **{name: getattr(tool, name) for name in tool.__struct_fields__}
            | {"input_schema": text, "output_schema": text}
        ),
    }
    assert faults_of(step("a", "t"), step("b", "say", "a", inputs={"text": ref("a")}), tools=tools) == []


def test_schemas_of_older_drafts() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "definitions": {"n": {"type": "integer"}},
        "properties": {"value": {"$ref": "#/definitions/n"}, "pair": {"items": [{"type": "string"}]}},
    }
    tools = {**TOOLS, "t": with_schemas("t", schema)}
    codes = [
        code
        for _, code, _ in faults_of(
            step("a", "names"),
            step("b", "t", inputs={"value": "x", "pair": [1]}),
            step("c", "t", "a", inputs={"value": ref("a")}),
            tools=tools,
        )
    ]
    assert codes == ["BAD_ARGUMENT", "BAD_ARGUMENT", "TYPE_MISMATCH"]


# --- bounds --------------------------------------------------------------------------------------------------------


def test_of_large_inputs_only_names_and_references_are_looked_at() -> None:
    large = ["x"] * 20_000
    faults = faults_of(
        step("a", "add", inputs={"a": 1}),
        step("b", "measure", "a", inputs={"tags": large, "mode": ref("a"), "size": 1, "z": 1}),
    )
    assert [code for _, code, _ in faults] == ["UNKNOWN_ARGUMENT", "TYPE_MISMATCH"]
    assert [code for _, code, _ in faults_of(step("b", "add", inputs={"b": large}))] == ["MISSING_ARGUMENT"]


def test_one_step_has_a_hundred_faults_at_most() -> None:
    assert len(faults_of(step("a", "join", inputs={"parts": list(range(500))}))) == 100


def test_a_thousand_steps_are_checked_fast() -> None:
    steps = [step("s0", "add", inputs={"a": 1})]
    steps += [step(f"s{n}", "add", f"s{n - 1}", inputs={"a": ref(f"s{n - 1}"), "b": n}) for n in range(1, 1000)]
    started = time.process_time()
    planned(*steps)
    assert time.process_time() - started < 1.5  # a tenth of it, on a machine of its own


# --- kinds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (True, "any value"),
        ({}, "any value"),
        (False, "nothing"),
        ({"type": "number"}, "a number"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"const": 1}, "a whole number"),
        ({"enum": ["a", None, 1.5]}, "text or a number or null"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}], "type": ["integer", "null"]}, "a whole number"),
        ({"allOf": [{"type": ["string", "null"]}, {"type": ["null", "array"]}]}, "null"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "object"}}}, "an object"),
        ({"$ref": "#"}, "any value"),
    ],
)
def test_kinds_of_a_schema(schema: Any, words: str) -> None:
    assert in_words(Part(schema).kinds()) == words


schemas = st.recursive(
    st.booleans()
    | st.builds(
        lambda kinds: {"type": kinds},
        st.lists(
            st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"]),
            min_size=1,
            unique=True,
        ),
    )
    | st.builds(lambda value: {"const": value}, plain_values)
    | st.builds(lambda many: {"enum": many}, st.lists(plain_values, max_size=3)),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "properties": st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "$ref": st.just("#/$defs/d"),
        },
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        ({"properties": {"a": {"type": "null"}}}, "/a", "null"),
        ({"properties": {"a": {"type": "null"}}}, "/b", "any value"),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "null"}}}]}, "/a", "null"),
        ({"$ref": "#/$defs/d", "$defs": {"d": {"additionalProperties": {"type": "null"}}}}, "/a", "null"),
        (
            {
                "anyOf": [
                    {"type": "array", "items": {"type": "null"}},
                    {"type": "array", "prefixItems": [True, {"type": "string"}]},
                ]
            },
            "/1",
            "text or null",
        ),
        ({"type": "array", "items": {"type": "null"}, "anyOf": [{"minItems": 1}, {"maxItems": 0}]}, "/0", "null"),
        ({"patternProperties": {"a": {"type": "null"}}, "additionalProperties": False}, "/a", "any value"),
    ],
)
def test_kinds_at_a_place(schema: Any, path: str, words: str) -> None:
    assert in_words(frozenset().union(*(part.kinds() for part in Part(schema).at(path)))) == words


@examples
@given(schemas, schemas, plain_values, st.sampled_from(["", "/a", "/0", "/a/b", "/1/0"]))
def test_what_a_schema_lets_through_is_of_its_kinds_at_each_place(
    schema: Any, definition: Any, value: Any, path: str
) -> None:
    from jsonschema import Draft202012Validator

    from actors.p2p.workflow_scheduler.references import ReferenceMissingError, at_path

    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"d": definition}}
        if "$ref" in str(definition):
            return
    if not Draft202012Validator(schema).is_valid(value):
        return
    try:
        found = at_path(value, path)
    except ReferenceMissingError:
        return
    kinds = [part.kinds() for part in Part(schema).at(path)]
    assert kind_of(found) in frozenset().union(*kinds)
    assert all(one <= ALL_KINDS for one in kinds)
