# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow's file: what is in it is what is submitted, and faults are named by their lines."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from actors.errors import InvalidArgumentsError, UnavailableError
from actors.workflow_messages import Step, StepRetry, Workflow
from supervisor.workflow_file import read_workflow, with_lines

GOOD = """\
name: nightly
tags: [a, b]
steps:
  - step_id: load
    action: echo
    inputs:
      text: costs $5 and ${HOME}
      when: 2026-01-01
  - {step_id: next, action: echo, depends_on: [load], inputs: {text: {$from: load, path: /a}},
     retry_policy: {max_retries: 0}}
"""


def read(tmp_path, text: str | bytes):
    path = tmp_path / "w.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_workflow(str(path))


def faults_of(tmp_path, text):
    with pytest.raises(InvalidArgumentsError) as caught:
        read(tmp_path, text)
    return caught.value


def test_what_is_in_it_is_taken_as_it_is(tmp_path):
    assert read(tmp_path, GOOD).workflow == Workflow(
        name="nightly",
        tags=["a", "b"],
        steps=[
            Step(step_id="load", action="echo", inputs={"text": "costs $5 and ${HOME}", "when": "2026-01-01"}),
            Step(
                step_id="next",
                action="echo",
                depends_on=["load"],
                inputs={"text": {"$from": "load", "path": "/a"}},
                retry_policy=StepRetry(max_retries=0),
            ),
        ],
    )


def test_json_is_yaml(tmp_path):
    assert read(tmp_path, '{"name": "w", "steps": [{"step_id": "a", "action": "b"}]}').workflow.steps[0].action == "b"


def test_a_dash_reads_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(GOOD.encode())))
    assert read_workflow("-").workflow.name == "nightly"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[")))
    with pytest.raises(InvalidArgumentsError, match="standard input is no workflow"):
        read_workflow("-")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: x\nsteps: [\n", 3, "not valid YAML"),
        ("name: x\nname: y\n", 2, "the key 'name' twice"),
        ("name: x\nsteps:\n  - step_id: a\n    action: b\n    inputs: *no\n", 5, "not valid YAML"),
        ("name: x\nsteps:\n  - step_id: a\n    actoin: b\n", 4, "actoin"),
        ("name: x\nsteps:\n  - step_id: a\n    action: b\n    tags: 3\n", 5, "steps[0].tags: Expected `array`"),
        ("name: x\nsteps:\n  - step_id: a\n    action: b\n    when: {op: '=='\n      , x: 1}\n", 6, "x"),
        ("name: x\npriority: 11\nsteps: []\n", 2, "priority"),
        ("name: x\nsteps: []\ncolour: red\n", 3, "colour"),
        ("", 1, "object"),
        ("- a\n", 1, "object"),
        (b"name: \xff\n", 0, "not text in UTF-8"),
        ("name: !!int x\nsteps: []\n", 1, "can't be read as int"),
        ("name: x\n? [a]\n: b\n", 2, "not a plain word"),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, text, line, words):
    error = faults_of(tmp_path, text)
    (fault,) = error.details["faults"]
    assert fault["line"] == line
    assert words in fault["message"]
    assert f"\n  line {line}: " in str(error)


def test_nesting_has_an_end(tmp_path):
    assert "nested too deeply" in str(faults_of(tmp_path, "[" * 5000))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnavailableError, match="No such file"):
        read_workflow(str(tmp_path / "none.yaml"))


def test_faults_of_the_scheduler_are_shown_by_the_lines_of_their_steps(tmp_path):
    file = read(tmp_path, GOOD)
    found = [
        {"step": "next", "code": "UNKNOWN_TOOL", "message": "there is no tool"},
        {"step": "", "code": "CYCLE", "message": "round"},
        {"step": "load", "code": "X", "message": "bad"},
    ]
    error = with_lines(InvalidArgumentsError("3 faults", faults=found, more_faults=7), file)
    assert [(fault["line"], fault["step"]) for fault in error.details["faults"]] == [(1, ""), (4, "load"), (9, "next")]
    assert str(error).splitlines() == [
        f"{tmp_path}/w.yaml is no workflow that can be run: 10 faults",
        "  line 1: round [CYCLE]",
        "  line 4: bad [X]",
        "  line 9: there is no tool [UNKNOWN_TOOL]",
        "  ... and 7 more",
    ]


def test_other_errors_stay_as_they_are(tmp_path):
    error = InvalidArgumentsError("too large")
    assert with_lines(error, read(tmp_path, GOOD)) is error
