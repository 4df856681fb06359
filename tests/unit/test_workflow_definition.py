# SPDX-License-Identifier: AGPL-3.0-or-later
"""A definition is checked whole: every fault is named, and what has none becomes a plan."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_definitions import (
    READS,
    TOOLS,
    add,
    codes_of,
    described,
    examples,
    faults_of,
    planned,
    ref,
    say,
    step,
)

from actors.errors import InvalidArgumentsError, from_info, to_info
from actors.p2p.workflow_scheduler.content import definition_block
from actors.p2p.workflow_scheduler.definition import DefinitionLimits, check, plan_of
from actors.p2p.workflow_scheduler.document import parse
from actors.p2p.workflow_scheduler.order import MAX_CYCLES, Order
from actors.workflow_messages import Condition, Step, Workflow


def the_fault(*steps: dict[str, Any], **how: Any) -> tuple[str, str, str]:
    (fault,) = faults_of(*steps, **how)
    return fault


# --- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_comes_after_what() -> None:
    plan = planned(
        step("d", "anything", "b", "c", "b"), step("b", "anything", "a"), step("c", "anything", "a"), step("a")
    )
    assert plan.order == ["a", "b", "c", "d"]
    assert plan.depends == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    assert plan.dependents == {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}
    assert {name: one.step_id for name, one in plan.steps.items()} == {name: name for name in "abcd"}
    assert (plan.cid, plan.block) == definition_block(plan.workflow, plan.cids)
    assert plan_of(plan.workflow) == plan


@pytest.mark.parametrize(
    "steps", [[("a", ["a"])], [("a", []), ("a", [])], [("a", ["b"])], [("a", ["b"]), ("b", ["a"])]]
)
def test_a_plan_is_not_made_of_what_was_never_sound(steps: list[tuple[str, list[str]]]) -> None:
    workflow = Workflow(name="w", steps=[Step(step_id=name, action="x", depends_on=on) for name, on in steps])
    with pytest.raises((ValueError, LookupError)):
        plan_of(workflow)


def test_tools_need_not_be_looked_at() -> None:
    assert planned(step("a", "gone", inputs={"x": 1}), tools=None).order == ["a"]


@examples
@given(st.lists(st.lists(st.integers(0, 14), max_size=4), max_size=15))
def test_order_and_ancestry_are_those_of_the_graph(edges: list[list[int]]) -> None:
    depends = {str(n): [str(before) for before in befores if before < n] for n, befores in enumerate(edges)}
    order = Order(depends)
    before: dict[str, set[str]] = {}
    for name, direct in depends.items():
        before[name] = set(direct).union(*(before[one] for one in direct))
    assert sorted(order.steps) == sorted(depends)
    for name, direct in depends.items():
        assert all(order.steps.index(one) < order.steps.index(name) for one in direct)
        assert {one for one in depends if order.comes_after(name, one)} == before[name]


@examples
@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=8, max_size=8))
def test_what_comes_after_is_never_denied_in_a_graph_with_cycles(edges: list[list[int]]) -> None:
    depends = {str(n): {str(before) for before in befores if before != n} for n, befores in enumerate(edges)}
    reached = {name: set(direct) for name, direct in depends.items()}
    for _ in depends:
        reached = {name: direct.union(*(reached[one] for one in direct)) for name, direct in reached.items()}
    order = Order(depends)
    assert bool(order.cycles) is any(name in before for name, before in reached.items())
    for cycle in order.cycles:
        assert cycle[0] == cycle[-1]
        assert all(one in depends[after] for one, after in pairwise(cycle))
    assert all(order.comes_after(name, one) for name, before in reached.items() for one in before)


# --- the graph -----------------------------------------------------------------------------------------------------


def test_no_steps() -> None:
    assert codes_of() == [("", "NO_STEPS")]


def test_too_many_steps() -> None:
    limits = DefinitionLimits(max_steps=2)
    assert codes_of(step("a"), step("b"), limits=limits) == []
    _, code, text = the_fault(step("a"), step("b"), step("c"), limits=limits)
    assert (code, "3" in text, "2" in text) == ("TOO_MANY_STEPS", True, True)


def test_an_id_twice() -> None:
    assert codes_of(step("a"), step("b"), step("a"), step("a")) == [("a", "DUPLICATE_STEP")]


def test_an_unknown_dependency_with_the_name_that_may_be_meant() -> None:
    fault = the_fault(step("fetch"), step("b", "anything", "fetsch"))
    assert fault[:2] == ("b", "UNKNOWN_DEPENDENCY")
    assert "`fetsch`" in fault[2]
    assert "did you mean `fetch`?" in fault[2]


def test_a_dependency_on_itself() -> None:
    assert codes_of(step("a", "anything", "a")) == [("a", "SELF_DEPENDENCY")]
    assert codes_of(step("a"), workflow_id="w1", dependencies=["w1"]) == [("", "SELF_DEPENDENCY")]


def test_each_cycle_with_its_path() -> None:
    faults = faults_of(
        step("a", "anything", "b"),
        step("b", "anything", "a"),
        step("x", "anything", "z"),
        step("y", "anything", "x"),
        step("z", "anything", "y"),
        step("after", "anything", "a"),
    )
    assert [code for _, code, _ in faults] == ["CYCLE", "CYCLE"]
    assert any(path in faults[0][2] for path in ("a -> b -> a", "b -> a -> b"))
    assert any(path in faults[1][2] for path in ("x -> y -> z -> x", "y -> z -> x -> y", "z -> x -> y -> z"))


def test_many_cycles_are_too_many() -> None:
    faults = faults_of(*(step(f"{n}{end}", "anything", f"{n}{'ab'[end == 'a']}") for n in range(50) for end in "ab"))
    assert len(faults) == MAX_CYCLES + 1
    assert "more" in faults[-1][2]


@pytest.mark.parametrize("name", ["a\n", "a\x00", "a\x1b[2J"])
def test_names_with_control_characters(name: str) -> None:
    workflow = Workflow(name=name, steps=[Step(step_id=name, action=name)])
    with pytest.raises(InvalidArgumentsError) as caught:
        check(workflow, None, DefinitionLimits())
    assert [fault["code"] for fault in caught.value.details["faults"]] == ["BAD_NAME"] * 3


def test_more_tags_than_the_queue_takes() -> None:
    assert codes_of(step("a", tags=["t"] * 49)) == []
    assert codes_of(step("a", tags=["t"] * 50)) == [("a", "TOO_MANY_TAGS")]


# --- references ----------------------------------------------------------------------------------------------------


def test_references_to_what_came_before() -> None:
    steps = [
        step("a"),
        step("b", "anything", "a"),
        step("c", "anything", "b", inputs={"value": [ref("a"), ref("b", "/x")]}),
    ]
    assert codes_of(*steps) == []


@pytest.mark.parametrize("where", ["inputs", "for_each", "left", "step"])
@pytest.mark.parametrize(
    ("target", "code"), [("q", "UNKNOWN_REFERENCE"), ("b", "NOT_AFTER"), ("other", "NOT_AFTER"), ("later", "NOT_AFTER")]
)
def test_references_to_what_did_not(where: str, target: str, code: str) -> None:
    fields: dict[str, Any] = {
        "inputs": {"inputs": {"value": ref(target)}},
        "for_each": {"for_each": ref(target)},
        "left": {"when": {"not": {"op": "==", "left": [ref(target)]}}},
        "step": {"when": {"any": [{"step": target, "ended": ["failed"]}]}},
    }[where]
    steps = [step("a"), step("other"), step("b", "anything", "a", **fields), step("later", "anything", "b")]
    fault = the_fault(*steps)
    assert fault[:2] == ("b", code)
    assert f"`{target}`" in fault[2] or target == "b"


@pytest.mark.parametrize("form", [{"$from": 1}, {"$from": "a", "path": "x"}, {"$from": "a", "x": 1}, {"$task": "t"}])
@pytest.mark.parametrize("where", ["inputs", "for_each", "when"])
def test_malformed_references(form: Any, where: str) -> None:
    fields: dict[str, Any] = {
        "inputs": {"inputs": {"value": [form]}},
        "for_each": {"for_each": [form]},
        "when": {"when": {"op": "==", "left": [form]}},
    }[where]
    assert codes_of(step("a"), step("b", "anything", "a", **fields)) == [("b", "MALFORMED_REFERENCE")]


@pytest.mark.parametrize("form", [{"$item": ""}, {"$index": True}])
def test_items_are_for_inputs_of_for_each(form: Any) -> None:
    fault = ("a", "ITEM_OUTSIDE_FOR_EACH")
    assert codes_of(step("a", inputs={"value": form}, for_each=[1])) == []
    assert codes_of(step("a", inputs={"value": form})) == [fault]
    assert codes_of(step("a", for_each=[form])) == [fault]
    assert codes_of(step("a", for_each=[1], when={"op": "==", "left": form})) == [fault]


@pytest.mark.parametrize("value", [[], [1], [ref("a")], ref("a"), ref("a", "/x"), {"$literal": []}])
def test_what_for_each_goes_over(value: Any) -> None:
    assert codes_of(step("a"), step("b", "anything", "a", for_each=value)) == []


@pytest.mark.parametrize("value", [1, "x", {}, {"a": [1]}, {"$literal": {}}, {"$item": ""}, False])
def test_what_for_each_does_not_go_over(value: Any) -> None:
    assert ("b", "BAD_FOR_EACH") in codes_of(step("a"), step("b", "anything", "a", for_each=value))


def test_too_many_items() -> None:
    limits = DefinitionLimits(max_items=3)
    assert codes_of(step("a", for_each=[1, 2, 3]), limits=limits) == []
    assert codes_of(step("a", for_each=[1, 2, 3, 4]), limits=limits) == [("a", "BAD_FOR_EACH")]
    assert codes_of(step("a", for_each={"$literal": [1, 2, 3, 4]}), limits=limits) == [("a", "BAD_FOR_EACH")]


def test_malformed_conditions() -> None:
    bad = {"any": [{"op": "==", "left": 1, "step": "a"}, {"not": {"all": []}}]}
    assert codes_of(step("a"), step("b", "anything", "a", when=bad)) == [("b", "BAD_CONDITION"), ("b", "BAD_CONDITION")]


def test_a_failure_of_nothing() -> None:
    assert codes_of(step("a", when="on_failure")) == [("a", "BAD_CONDITION")]
    assert codes_of(step("a"), step("b", "anything", "a", when="on_failure")) == []


# --- tools ---------------------------------------------------------------------------------------------------------


def test_an_unknown_tool_with_the_nearest_names() -> None:
    fault = the_fault(step("a", "mesure"))
    assert fault[:2] == ("a", "UNKNOWN_TOOL")
    assert "`mesure`" in fault[2]
    assert "`measure`" in fault[2]


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"broken": "no module named x"}, "BROKEN_TOOL", "no module named x"),
        ({"runtime": "p2p"}, "NOT_WORK", "not work"),
        ({"requires": ("sampling",)}, "NEEDS_CLIENT", "sampling"),
    ],
)
def test_tools_that_are_not_for_steps(fields: dict[str, Any], code: str, word: str) -> None:
    fault = the_fault(step("a", "say", inputs={"text": "x"}), tools={"say": described(say, **fields)})
    assert fault[:2] == ("a", code)
    assert word in fault[2]


def test_a_tool_that_may_ask_is_allowed() -> None:
    assert codes_of(step("a", "say", inputs={"text": "x"}), tools={"say": described(say, asks=True)}) == []


def test_memo_is_for_tools_that_read() -> None:
    memo = step("a", "add", inputs={"a": 1}, memo=True)
    assert codes_of(memo) == [("a", "MEMO_NOT_READ_ONLY")]
    assert codes_of(memo, tools={"add": described(add, annotations=READS)}) == []


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "BAD_NUMBER"),
        (float("inf"), "BAD_NUMBER"),
        (2**64, "BAD_NUMBER"),
        (-(2**63) - 1, "BAD_NUMBER"),
        ("\ud800", "BAD_VALUE"),
        ({1: 2}, "BAD_VALUE"),
        ({"\udfff": 1}, "BAD_VALUE"),
        (b"x", "BAD_VALUE"),
        ((1, 2), "BAD_VALUE"),
    ],
)
@pytest.mark.parametrize("where", ["inputs", "for_each", "left", "right", "metadata"])
def test_values_that_json_does_not_exchange(where: str, value: Any, code: str) -> None:
    fields: dict[str, Any] = {"action": "anything"}
    if where in ("left", "right"):
        fields["when"] = Condition(not_=Condition(op="==", **{where: [value]}))
    elif where == "for_each":
        fields["for_each"] = [[value]]
    elif where == "inputs":
        fields["inputs"] = {"value": {"deep": [value]}}
    metadata = {"m": [value]} if where == "metadata" else {}
    with pytest.raises(InvalidArgumentsError) as caught:
        check(Workflow(name="w", steps=[Step(step_id="a", **fields)], metadata=metadata), TOOLS, DefinitionLimits())
    (fault,) = caught.value.details["faults"]
    assert (fault["step"], fault["code"]) == ("" if metadata else "a", code)
    assert ("m" if metadata else where) in fault["message"]
    msgspec.msgpack.encode(to_info(caught.value))


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 1e308, "é\U0001f600", "", None, -0.0])
def test_values_that_it_does(value: Any) -> None:
    assert codes_of(step("a", inputs={"value": [value]}), metadata={"m": value}) == []


def test_names_that_are_no_text() -> None:
    bad = "\ud800"
    workflow = Workflow(name=bad, steps=[Step(step_id="a", action=bad, tags=[bad], when=Condition(step=bad))])
    with pytest.raises(InvalidArgumentsError) as caught:
        check(workflow, TOOLS, DefinitionLimits())
    assert len(caught.value.details["faults"]) == 4


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_too_deep() -> None:
    limits = DefinitionLimits(max_depth=5)
    assert codes_of(step("a", inputs={"value": nested(3)}), limits=limits) == []
    assert codes_of(step("a", inputs={"value": nested(4)}), limits=limits) == [("a", "TOO_DEEP")]
    assert codes_of(step("a"), metadata={"m": nested(9)}, limits=limits) == [("", "TOO_DEEP")]


def test_so_deep_that_the_stack_would_not_do() -> None:
    when = Condition(op="==", left=1, right=1)
    for _ in range(20_000):
        when = Condition(not_=when)
    steps = [Step(step_id="a", action="anything", inputs={"value": nested(20_000)}, when=when)]
    with pytest.raises(InvalidArgumentsError) as caught:
        check(Workflow(name="w", steps=steps), TOOLS, DefinitionLimits())
    assert [fault["code"] for fault in caught.value.details["faults"]] == ["TOO_DEEP", "TOO_DEEP"]


def test_too_large() -> None:
    big = step("a", inputs={"value": "x" * 1000})
    assert codes_of(big, limits=DefinitionLimits(max_bytes=1200)) == []
    assert codes_of(big, limits=DefinitionLimits(max_bytes=900)) == [("", "TOO_LARGE")]
    assert codes_of(big, limits=DefinitionLimits(max_input_bytes=1010)) == [("a", "TOO_LARGE")]
    assert codes_of(big, limits=DefinitionLimits(max_input_bytes=1012)) == []


# --- all at once ---------------------------------------------------------------------------------------------------


def test_all_faults_are_named_together() -> None:
    codes = codes_of(
        step("a", "add", inputs={"a": "x"}),
        step("b", "ad", "q"),
        step("c", "anything", "c", inputs={"value": ref("nobody")}),
        step("d", "anything", for_each=3),
    )
    assert set(codes) == {
        ("a", "BAD_ARGUMENT"),
        ("b", "UNKNOWN_TOOL"),
        ("b", "UNKNOWN_DEPENDENCY"),
        ("c", "SELF_DEPENDENCY"),
        ("c", "UNKNOWN_REFERENCE"),
        ("d", "BAD_FOR_EACH"),
    }


def test_a_hundred_are_told_and_how_many_more_there_are() -> None:
    workflow = parse({"name": "w", "steps": [step(f"s{n}", f"tool-{n}") for n in range(130)]})
    with pytest.raises(InvalidArgumentsError) as caught:
        check(workflow, TOOLS, DefinitionLimits())
    assert len(caught.value.details["faults"]) == 100
    assert caught.value.details["more_faults"] == 30
    assert "130 faults" in caught.value.message
    assert "step `s0`" in caught.value.message
    again = from_info(msgspec.json.decode(msgspec.json.encode(to_info(caught.value)), type=type(to_info(caught.value))))
    assert again.details == caught.value.details
