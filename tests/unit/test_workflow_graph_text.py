# SPDX-License-Identifier: AGPL-3.0-or-later
"""The graph as text: whatever names say, the texts are the graph. And the longest path."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_definitions import examples, planned, step

from actors.p2p.workflow_scheduler.definition import Plan, plan_of
from actors.p2p.workflow_scheduler.graph_text import CriticalPath, Graph, critical_path, dot, mermaid
from actors.workflow_messages import Step, StepStatus, Workflow


def drawn(plan: Plan) -> Graph:
    actions = {step_id: one.action for step_id, one in plan.steps.items()}
    return Graph(plan.workflow.name, plan.order, actions, plan.depends)


def graph(*steps: dict[str, Any]) -> Graph:
    return drawn(planned(*steps, tools=None))


DIAMOND = graph(step("a"), step("b", "say", "a"), step("c", "say", "a"), step("d", "say", "b", "c"))
STATUSES: dict[str, StepStatus] = {"a": "completed", "b": "running"}


def test_dot() -> None:
    assert dot(graph(step("a"), step("b", "say", "a")), {"a": "completed"}).splitlines() == [
        'digraph "w" {',
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled"];',
        '  "a" [label="a\\nanything\\ncompleted", fillcolor="#bbf7d0"];',
        '  "b" [label="b\\nsay\\npending", fillcolor="#eeeeee"];',
        '  "a" -> "b";',
        "}",
    ]


def test_mermaid() -> None:
    assert mermaid(graph(step("end"), step("b", "say", "end")), {"end": "completed"}).splitlines() == [
        "flowchart LR",
        '  s0["end<br/>anything<br/>completed"]:::completed',
        '  s1["b<br/>say<br/>pending"]:::pending',
        "  s0 --> s1",
        "  classDef pending fill:#eeeeee,color:#111111",
        "  classDef completed fill:#bbf7d0,color:#111111",
    ]


def test_each_dependency_is_an_edge() -> None:
    edges = {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}
    assert set(re.findall(r'"(\w)" -> "(\w)"', dot(DIAMOND, STATUSES))) == edges
    names = dict(re.findall(r'(s\d)\["(\w)', mermaid(DIAMOND, STATUSES)))
    drawn = re.findall(r"(s\d) --> (s\d)", mermaid(DIAMOND, STATUSES))
    assert {(names[one], names[other]) for one, other in drawn} == edges


def named(name: str, action: str, step_id: str) -> Graph:
    return drawn(plan_of(Workflow(name=name, steps=[Step(step_id=step_id, action=action)])))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', "a\\", "<b>", "]:::x", "1. x", "- x", "#quot;", "`x`", "a\nb -> c", "%%", "&amp;", "end", ";"]
)


@examples
@given(names, names, names)
def test_names_stay_within_their_quotes(name: str, action: str, step_id: str) -> None:
    one = named(name, action, step_id)
    text = r'"(?:[^"\\\n]|\\.)*"'
    lines = dot(one, {}).split("\n")
    assert re.fullmatch(rf"digraph {text} \{{", lines[0])
    assert re.fullmatch(rf"  {text} \[label={text}, fillcolor={text}\];", lines[3])
    assert lines[4:] == ["}", ""]
    chart = mermaid(one, {}).split("\n")
    assert re.fullmatch(r'  s0\["(?:\w|[ .,/()-]|#\d+;|<br/>)*"\]:::pending', chart[1])
    assert len(chart) == 4


@pytest.mark.parametrize(
    "text", ['"', "<", ">", "\\", "#", ";", "&", "`", "|", "{", "é", "日", "🙂", "a_b", "1. x", "v1.2-rc"]
)
def test_mermaid_shows_the_name_as_it_is(text: str) -> None:
    label = mermaid(named("w", text, "a"), {}).split("\n")[1]
    shown = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label.split("<br/>")[1])
    assert shown == text


# --- the longest path ----------------------------------------------------------------------------------------------


def test_without_times_steps_are_counted() -> None:
    whole = graph(step("a"), step("b", "x", "a"), step("c", "x", "b"), step("z"), step("d", "x", "c", "z"))
    expected = CriticalPath(["a", "b", "c", "d"], 4.0, measured=False)
    assert critical_path(whole, None) == critical_path(whole, {}) == critical_path(whole, {"unknown": 9.0}) == expected


def test_with_times_it_is_the_slowest() -> None:
    times = {"a": 1.0, "b": 1.0, "c": 5.0, "d": 2.0}
    assert critical_path(DIAMOND, times) == CriticalPath(["a", "c", "d"], 8.0, measured=True)


def test_steps_without_a_time_count_as_the_others_do() -> None:
    assert critical_path(DIAMOND, {"a": 2.0, "b": 4.0}) == CriticalPath(["a", "b", "d"], 9.0, measured=True)


@examples
@given(
    st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=8, max_size=8),
)
def test_no_path_is_longer(edges: list[list[int]], lengths: list[int]) -> None:
    depends = [sorted({before for before in befores if before < n}) for n, befores in enumerate(edges)]
    whole = graph(*(step(str(n), "x", *map(str, on)) for n, on in enumerate(depends)))
    times = {str(n): float(lengths[n]) for n in range(len(edges))}
    found = critical_path(whole, times)
    assert found.length == sum(times[name] for name in found.steps)
    assert all(one in whole.depends[after] for one, after in pairwise(found.steps))

    def longest(name: str) -> Any:
        return times[name] + max(map(longest, whole.depends[name]), default=0.0)

    assert found.length == max(map(longest, whole.order))
