# SPDX-License-Identifier: AGPL-3.0-or-later
"""A user's document becomes a workflow, or an error that names each place where it is none."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from workflow_definitions import examples, faults_of, plain_values

from actors.errors import InvalidArgumentsError
from actors.p2p.workflow_scheduler.document import parse
from actors.workflow_messages import Condition, Step, StepRetry, Workflow


def messages(document: Any) -> list[str]:
    with pytest.raises(InvalidArgumentsError) as caught:
        parse(document)
    assert all(fault["code"] == "MALFORMED" for fault in caught.value.details["faults"])
    return [fault["message"] for fault in caught.value.details["faults"]]


def in_step(**fields: Any) -> str:
    """What is wrong with a step that is nearly right."""
    (message,) = messages({"name": "w", "steps": [{"step_id": "a", "action": "x", **fields}]})
    return message


def test_a_file() -> None:
    text = """
        name: nightly
        priority: 7
        steps:
          - step_id: fetch
            action: http_fetch
            inputs: {url: "https://example.org"}
            retry_policy: {max_retries: 5}
            timeout: 30
          - step_id: check
            action: say
            depends_on: [fetch]
            when: {not: {op: "==", left: {$from: fetch, path: /status}, right: 200}}
    """
    assert parse(yaml.safe_load(text)) == Workflow(
        name="nightly",
        priority=7,
        steps=[
            Step(
                step_id="fetch",
                action="http_fetch",
                inputs={"url": "https://example.org"},
                retry_policy=StepRetry(max_retries=5),
                timeout=30.0,
            ),
            Step(
                step_id="check",
                action="say",
                depends_on=["fetch"],
                when=Condition(not_=Condition(op="==", left={"$from": "fetch", "path": "/status"}, right=200)),
            ),
        ],
    )


@examples
@given(plain_values)
def test_a_workflow_is_read_as_it_is_written(value: Any) -> None:
    workflow = Workflow(name="w", steps=[Step(step_id="a", action="x", inputs={"v": value}, for_each=value)])
    assert parse(msgspec.to_builtins(workflow)) == workflow


@pytest.mark.parametrize("document", [None, 1, "name: w", [], [1], b"{}"])
def test_what_is_no_object(document: Any) -> None:
    assert messages(document) == ["a workflow is an object with `name` and `steps`"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "the workflow: missing parameter `name`"),
        ({"name": "w"}, "the workflow: missing parameter `steps`"),
        ({"name": "w", "steps": {}}, "the workflow: `steps`: expected a list, got an object"),
        ({"name": "w", "steps": None}, "the workflow: `steps`: expected a list, got null"),
        ({"name": 1, "steps": []}, "the workflow: `name`: expected text, got a whole number"),
        (
            {"name": "w", "steps": [], "priorty": 1},
            "the workflow: unknown parameter `priorty`; did you mean `priority`?",
        ),
        ({"name": "w", "steps": [], "priority": 11}, "the workflow: `priority`: expected a number, at most 10.0"),
        ({"name": "w", "steps": [5]}, "steps[0]: a step is an object with `step_id` and `action`"),
    ],
)
def test_what_is_wrong_with_the_whole(document: Any, message: str) -> None:
    assert messages(document) == [message]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step_id": "a b"}, "steps[0]: `step_id`: expected text without blanks, `:`, `[` and `]`"),
        ({"step_id": 7}, "steps[0]: `step_id`: expected text, got a whole number"),
        ({"depends_on": "b"}, "steps[0]: `depends_on`: expected a list, got text"),
        ({"depends": ["b"]}, "steps[0]: unknown parameter `depends`; did you mean `depends_on`?"),
        ({"inputs": [1]}, "steps[0]: `inputs`: expected an object, got a list"),
        ({"timeout": 0}, "steps[0]: `timeout`: expected a number, more than 0.0"),
        (
            {"retry_policy": {"max_retries": 1.5}},
            "steps[0]: `retry_policy.max_retries`: expected a whole number, got a number",
        ),
        (
            {"placement": "here"},
            "steps[0]: `placement`: not a valid choice: 'here'; choose one of 'any', 'local', 'p2p'",
        ),
        (
            {"when": "sometimes"},
            "steps[0]: `when`: not a valid choice: 'sometimes'; choose one of 'always', 'on_failure', 'on_success',"
            " or a condition",
        ),
    ],
)
def test_what_is_wrong_with_a_step(fields: dict[str, Any], message: str) -> None:
    assert in_step(**fields) == message


def test_a_place_within_a_condition_is_named() -> None:
    assert "`when.all[1].not`: unknown parameter `opp`" in in_step(when={"all": [{"op": "=="}, {"not": {"opp": 1}}]})


def test_each_step_has_its_own_fault_under_its_id() -> None:
    document = {
        "nam": "w",
        "steps": [{"step_id": "a"}, {"step_id": "b", "action": "x"}, {"step_id": "c", "memo": 1, "action": "x"}],
    }
    with pytest.raises(InvalidArgumentsError) as caught:
        parse(document)
    assert [(fault["step"], fault["message"]) for fault in caught.value.details["faults"]] == [
        ("a", "steps[0]: missing parameter `action`"),
        ("c", "steps[2]: `memo`: expected true or false, got a whole number"),
        ("", "the workflow: unknown parameter `nam`; did you mean `name`?"),
    ]


def test_nesting_without_end() -> None:
    when: Any = {"op": "=="}
    for _ in range(5000):
        when = {"not": when}
    assert "nested too deeply" in in_step(when=when)


def test_values_that_only_yaml_has_are_found_by_the_check() -> None:
    faults = faults_of({"step_id": "a", "action": "x", "inputs": {"day": dt.date(2030, 1, 1), "n": {1: 2}}}, tools=None)
    assert [code for _, code, _ in faults] == ["BAD_VALUE", "BAD_VALUE"]
