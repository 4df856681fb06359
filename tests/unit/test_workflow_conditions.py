# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a step runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from workflow_definitions import examples, plain_values

from actors.p2p.workflow_scheduler.conditions import compared, equal, holds, problem_with
from actors.p2p.workflow_scheduler.references import MISSING, looked_up_in
from actors.workflow_messages import Condition, StepStatus, When

REF = {"$from": "a", "path": "/n"}


def runs(when: When, skipped_for_failure: tuple[str, ...] = (), /, output: Any = MISSING, **ended: StepStatus) -> bool:
    return holds(when, ended, list(ended), looked_up_in(lambda _: output), skipped_for_failure=skipped_for_failure)


@pytest.mark.parametrize(
    ("ended", "on_success", "on_failure"),
    [
        ({}, True, False),
        ({"a": "completed", "b": "completed"}, True, False),
        ({"a": "completed", "b": "failed"}, False, True),
        ({"a": "cancelled"}, False, True),
        ({"a": "skipped"}, False, False),
    ],
)
def test_the_three_words(ended: dict[str, StepStatus], on_success: bool, on_failure: bool) -> None:
    assert runs("on_success", **ended) is on_success
    assert runs("on_failure", **ended) is on_failure
    assert runs("always", **ended)


def test_skipped_for_a_failure_is_a_failure() -> None:
    assert runs("on_failure", ("a",), a="skipped", b="completed")
    assert not runs("on_failure", ("b",), a="skipped", b="completed")


def test_always_waits_for_the_end() -> None:
    assert not runs("always", a="completed", b="running")


def test_how_a_step_ended() -> None:
    when = Condition(step="a", ended=["failed", "skipped"])
    assert runs(when, a="failed")
    assert runs(when, a="skipped")
    assert not runs(when, a="completed")
    assert not runs(when, b="failed")


def test_all_any_not() -> None:
    yes, no = Condition(op="==", left=1, right=1), Condition(op="==", left=1, right=2)
    assert runs(Condition(all=[yes, yes]))
    assert not runs(Condition(all=[yes, no]))
    assert runs(Condition(any=[no, yes]))
    assert not runs(Condition(any=[no, no]))
    assert runs(Condition(not_=no))
    assert not runs(Condition(not_=Condition(not_=no)))


def test_outputs_are_compared() -> None:
    assert runs(Condition(op=">", left=REF, right=3), output={"n": 4})
    assert not runs(Condition(op=">", left=REF, right=3), output={"n": 3})
    assert runs(Condition(op="==", left=REF, right={"$literal": {"$from": "x"}}), output={"n": {"$from": "x"}})


@pytest.mark.parametrize("op", ["==", "!=", "<", "<=", ">", ">=", "in", "contains", "exists"])
def test_a_comparison_with_what_is_not_there_is_false(op: Any) -> None:
    assert not runs(Condition(op=op, left=REF))
    assert not runs(Condition(op=op, left=REF), output={"m": None})


def test_null_exists() -> None:
    assert runs(Condition(op="exists", left=REF), output={"n": None})


@pytest.mark.parametrize(
    ("left", "op", "right"),
    [
        (1, "==", 1.0),
        (1, "!=", True),
        (0, "!=", False),
        ("1", "!=", 1),
        ([1, {"a": [True]}], "==", [1, {"a": [True]}]),
        ([1, {"a": [True]}], "!=", [1, {"a": [1]}]),
        ({"a": 1}, "!=", {"a": 1, "b": 1}),
        (1, "<", 1.5),
        (2**64 - 1, ">", 2**63),
        ("a", "<", "b"),
        ("b", ">=", "b"),
        (2, "<=", 2),
        (1, "in", [True, 1]),
        ("b", "in", "abc"),
        ("k", "in", {"k": 0}),
        ([[1]], "contains", [1]),
        ("abc", "contains", "b"),
        ({"k": 0}, "contains", "k"),
    ],
)
def test_true_comparisons(left: Any, op: Any, right: Any) -> None:
    assert compared(op, left, right)


@pytest.mark.parametrize(
    ("left", "op", "right"),
    [
        ("1", "<", 2),
        (True, "<", 2),
        (None, "<=", None),
        ([1], "<", [2]),
        (1, "<", 1),
        (1, ">", 1),
        (True, "in", [1, 0]),
        (1, "in", "1"),
        (1, "in", {"1": 1}),
        (1, "in", 1),
        ("abc", "contains", 1),
        (None, "contains", None),
    ],
)
def test_false_comparisons(left: Any, op: Any, right: Any) -> None:
    assert not compared(op, left, right)


@examples
@given(plain_values, plain_values)
def test_equal_is_an_equivalence_that_tells_kinds_apart(left: Any, right: Any) -> None:
    assert equal(left, left)
    assert equal(left, right) is equal(right, left)
    if equal(left, right):
        assert left == right
        assert isinstance(left, bool) is isinstance(right, bool)


def test_deep_outputs_are_compared() -> None:
    deep: Any = 1
    for _ in range(20_000):
        deep = [deep]
    assert equal(deep, deep)
    assert not equal(deep, [deep])
    while deep != 1:  # taken apart, as the interpreter would recurse
        deep = deep.pop()


@pytest.mark.parametrize(
    "condition",
    [
        Condition(),
        Condition(step="a"),
        Condition(ended=["failed"]),
        Condition(step="a", ended=["failed"], op="==", left=1),
        Condition(left=1),
        Condition(right=1),
        Condition(all=[]),
        Condition(any=[]),
        Condition(all=[Condition()], any=[Condition()]),
        Condition(not_=Condition(), op="==", left=1),
        Condition(op="exists"),
        Condition(op="exists", left=1),
        Condition(op="exists", left={"$literal": 1}),
        Condition(op="exists", left={"$from": 1}),
        Condition(op="exists", left=REF, right=1),
    ],
)
def test_malformed_conditions(condition: Condition) -> None:
    assert problem_with(condition)


@pytest.mark.parametrize(
    "condition",
    [
        Condition(step="a", ended=["failed"]),
        Condition(op="=="),
        Condition(op="==", left=REF),
        Condition(op="exists", left=REF),
        Condition(all=[Condition()]),
        Condition(not_=Condition()),
    ],
)
def test_well_formed_conditions(condition: Condition) -> None:
    assert problem_with(condition) == ""
