# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which workflow is next."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.workflow_scheduler.line import Line, Waiting


def line(*waiting: Waiting, most: int = 1) -> Line:
    made = Line(most)
    for one in waiting:
        made.add(one)
    return made


def one(workflow_id: str, at: float = 0.0, **more) -> Waiting:
    return Waiting(id=workflow_id, created_at=at, **{"priority": 5.0} | more)


def taken(made: Line) -> list[str]:
    """All that can be taken, each of which completes at once."""
    found = []
    while (workflow_id := made.take()) is not None:
        found.append(workflow_id)
        made.ended(workflow_id, completed=True)
    return found


def test_the_highest_priority_comes_first_then_the_oldest():
    made = line(one("young", 2.0), one("old", 1.0), one("high", 3.0, priority=9.0), one("low", 0.0, priority=1.0))
    assert taken(made) == ["high", "old", "young", "low"]


def test_so_many_run_at_once():
    made = line(one("a"), one("b"), one("c"), most=2)
    assert [made.take(), made.take(), made.take()] == ["a", "b", None]
    assert (len(made), made.running) == (3, {"a", "b"})
    made.ended("a", completed=True)
    assert made.take() == "c"


def test_who_is_next_is_told_without_taking_it():
    made = line(one("a"), one("b"))
    assert (made.first(), made.first(), made.take()) == ("a", "a", "a")
    assert made.first() is None, "there is no room"


def test_nobody_begins_before_all_that_it_needs_has_completed():
    made = line(one("a"), one("c", needs=frozenset("ab"), priority=9.0), one("b"), most=9)
    assert [made.take(), made.take(), made.take()] == ["a", "b", None]
    assert made.ended("a", completed=True) == []
    assert (made.waits_for("c"), made.take()) == (["b"], None)
    made.ended("b", completed=True)
    assert made.take() == "c"


def test_those_that_need_what_did_not_complete_are_told():
    made = line(one("a"), one("c", needs=frozenset("ab")), one("d", needs=frozenset("a")), one("b"), most=9)
    assert made.ended("a", completed=False) == ["c", "d"]
    assert set(made.needed()) == {"b", "a"} - {"a"}
    made.ended("c", completed=False)
    made.ended("d", completed=False)
    assert (list(made.needed()), len(made)) == ([], 1)


def test_what_ended_while_it_waited_is_not_taken():
    made = line(one("a"), one("b"))
    made.ended("a", completed=False)
    assert taken(made) == ["b"]


def test_a_deadline_is_told_once_and_only_of_those_that_wait():
    made = line(one("a", deadline=5.0), one("b", deadline=3.0), one("c", deadline=9.0), most=9)
    assert made.next_due() == 3.0
    made.take()
    assert made.overdue(6.0) == ["b"]
    assert made.overdue(6.0) == []
    assert made.overdue(10.0) == ["c"]
    assert made.next_due() == math.inf


@given(
    st.lists(st.tuples(st.integers(1, 10), st.sets(st.integers(0, 7), max_size=3)), max_size=8),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_all_come_once_and_after_what_they_need(wanted, most, rng):
    # Each needs only earlier ones, as at submission.
    needs = {f"w{n}": {f"w{need}" for need in after if need < n} for n, (_, after) in enumerate(wanted)}
    made = Line(most)
    for n, (priority, _) in enumerate(wanted):
        made.add(one(f"w{n}", float(n), priority=float(priority), needs=frozenset(needs[f"w{n}"])))
    ended: list[str] = []
    running: list[str] = []
    while len(made):
        while (workflow_id := made.take()) is not None:
            assert needs[workflow_id] <= set(ended)
            running.append(workflow_id)
            assert len(running) <= most
        running.sort()
        workflow_id = running.pop(rng.randrange(len(running)))
        ended.append(workflow_id)
        made.ended(workflow_id, completed=True)
    assert sorted(ended) == sorted(needs)
