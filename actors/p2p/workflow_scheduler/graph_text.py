# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow's graph as text for programs that draw, and its longest path. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from actors.p2p.workflow_scheduler.plain import without_control_characters
from actors.workflow_messages import StepStatus

_COLOURS: Final[Mapping[StepStatus, str]] = {
    "pending": "#eeeeee",
    "ready": "#fff3c4",
    "running": "#bfdbfe",
    "completed": "#bbf7d0",
    "failed": "#fecaca",
    "skipped": "#e5e7eb",
    "cancelled": "#d6d3d1",
}


class Graph(NamedTuple):
    """What is drawn of a workflow."""

    name: str
    order: Sequence[str]
    """All steps, each after those that it depends on."""
    actions: Mapping[str, str]
    depends: Mapping[str, Sequence[str]]
    """Step -> those that it depends on directly, each once."""


class CriticalPath(NamedTuple):
    """The steps that a workflow can't be faster than."""

    steps: list[str]
    """In their order."""
    length: float
    """Seconds when `measured`, else the number of steps."""
    measured: bool


def critical_path(graph: Graph, seconds: Mapping[str, float] | None) -> CriticalPath:
    """The longest path through the graph, by how long steps took; by their number when nothing is known of that.

    `seconds` may know some steps only: the others count as much as those on average. Of equally long paths it is the
    one whose steps come first in the graph's order.
    """
    known = {step: max(0.0, took) for step, took in (seconds or {}).items() if step in graph.depends}
    typical = sum(known.values()) / len(known) if known else 1.0
    length: dict[str, float] = {}
    via: dict[str, str | None] = {}
    last: str | None = None
    for step in graph.order:
        best: str | None = None
        for before in graph.depends[step]:
            if best is None or length[before] > length[best]:
                best = before
        via[step] = best
        length[step] = known.get(step, typical) + (length[best] if best is not None else 0.0)
        if last is None or length[step] > length[last]:
            last = step
    path: list[str] = []
    at = last
    while at is not None:
        path.append(at)
        at = via[at]
    return CriticalPath(path[::-1], length[last] if last is not None else 0.0, bool(known))


def dot(graph: Graph, statuses: Mapping[str, StepStatus]) -> str:
    """The graph in the language of Graphviz (https://graphviz.org/doc/info/lang.html)."""
    lines = [
        f"digraph {_dot_text(graph.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled"];',
    ]
    for step in graph.order:
        status = statuses.get(step, "pending")
        label = _dot_text(step, graph.actions[step], status)
        lines.append(f'  {_dot_text(step)} [label={label}, fillcolor="{_COLOURS[status]}"];')
    lines += [f"  {_dot_text(before)} -> {_dot_text(step)};" for before, step in _edges(graph)]
    return "\n".join([*lines, "}", ""])


def mermaid(graph: Graph, statuses: Mapping[str, StepStatus]) -> str:
    """The graph as a flowchart of Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""
    # Ids of its own: some words, such as `end`, break a chart.
    names = {step: f"s{number}" for number, step in enumerate(graph.order)}
    lines = ["flowchart LR"]
    for step in graph.order:
        status = statuses.get(step, "pending")
        label = "<br/>".join(map(_mermaid_text, (step, graph.actions[step], status)))
        lines.append(f'  {names[step]}["{label}"]:::{status}')
    lines += [f"  {names[before]} --> {names[step]}" for before, step in _edges(graph)]
    used = {statuses.get(step, "pending") for step in graph.order}
    lines += [
        f"  classDef {status} fill:{colour},color:#111111" for status, colour in _COLOURS.items() if status in used
    ]
    return "\n".join([*lines, ""])


def _edges(graph: Graph) -> list[tuple[str, str]]:
    return [(before, step) for step in graph.order for before in graph.depends[step]]


def _dot_text(*lines: str) -> str:
    r"""A quoted string; lines are told apart by `\n`, which stands for itself in no name."""
    return (
        '"'
        + "\\n".join(without_control_characters(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
        + '"'
    )


_SPECIAL: Final = re.compile(r"[^\w .,/()-]|[.-](?=\s|$)")
"""All that could mean something there, a list's mark of Markdown (`1. `, `- `) included."""


def _mermaid_text(text: str) -> str:
    """The text, with numbers of characters (`#35;`) where needed."""
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", without_control_characters(text))
