# SPDX-License-Identifier: AGPL-3.0-or-later
"""What comes before what in a graph of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.workflow_scheduler.ancestry import Ancestry


class Graph:
    """An `Ancestry`, and the sets that it stands for."""

    def __init__(self):
        self.ancestry = Ancestry()
        self.lines: list[str] = []
        self.heights: list[int] = []
        self.ancestors: list[set[int]] = []

    def add(self, parents, line):
        self.heights.append(1 + max((self.heights[parent] for parent in parents), default=0))
        self.ancestors.append({*parents}.union(*(self.ancestors[parent] for parent in parents)))
        self.lines.append(line)
        self.ancestry.add(parents, self.heights[-1], line)


@st.composite
def graphs(draw):
    graph = Graph()
    for number in range(draw(st.integers(1, 25))):
        some = st.lists(st.integers(max(0, number - draw(st.sampled_from([1, 3, 25]))), number - 1), max_size=3)
        graph.add(sorted(set(draw(some))) if number else [], draw(st.sampled_from("abc")))
    return graph


@given(graphs())
def test_before_is_ancestry(graph):
    every = range(len(graph.lines))
    for b in every:
        assert [a for a in every if graph.ancestry.before(a, b)] == sorted(graph.ancestors[b])


@given(graphs(), st.data())
def test_the_last_of_a_line_are_found_among_what_some_events_reach(graph, data):
    some = data.draw(st.lists(st.integers(0, len(graph.lines) - 1)))
    reached = set(some).union(*(graph.ancestors[event] for event in some))
    reach = graph.ancestry.reach(some)
    for line in "abc":
        mine = {event for event in reached if graph.lines[event] == line}
        last = set(graph.ancestry.last_of(reach, line))
        assert last <= mine
        # Each one of the line is among them or before one of them.
        assert mine == last | {event for event in mine if any(event in graph.ancestors[one] for one in last)}


def test_one_line_is_one_step_however_long_it_is():
    graph = Graph()
    for number in range(500):
        graph.add([number - 1] if number else [], "a")
    assert graph.ancestry.reach([499], until=0) == {0: 499}


def test_two_lines_that_meet_again_and_again_are_two_steps():
    ancestry = Ancestry()
    ancestry.add([], 1, "a")
    ancestry.add([0], 2, "b")
    for number in range(2, 500):
        ancestry.add([number - 2, number - 1], number + 1, "ab"[number % 2])
    assert ancestry.reach([499]) == {0: 249, 1: 249}
