# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each rule of a chaos run is broken by a history made for it, and by no other; a good history breaks none."""

from __future__ import annotations

import msgspec
import pytest

from supervisor.chaos.checker import NOTHING_STARTED, REPEATED_WITHIN_S, RULES, check, rule_name
from supervisor.chaos.history import EffectLine, Ended, Evidence, Footprint, Injected, Invoked, RootLife

LIMIT_S = 10.0
POOL = "tools.chaos"


def invoked(number, tool="echo", at=100.0, **fields):
    given = {
        "operation": number,
        "token": f"t{number}",
        "retry_safe": tool != "chaos_effect",
        "effect": tool == "chaos_effect",
        "limit_s": LIMIT_S,
    }
    return Invoked(number=number, tool=tool, at=at, **(given | fields))


def ok(number, at=100.1, **fields):
    return Ended(number=number, at=at, outcome="ok", **({"answer": f"t{number}", "answered_id": number} | fields))


def failed(number, code, at=100.1):
    return Ended(number=number, at=at, outcome="failed", code=code, answered_id=number)


def lost(number, at=100.1):
    return Ended(number=number, at=at, outcome="lost", code="ReadError")


def fault(number=1, name="kill", began=99.9, ended=100.2, **fields):
    given = {"target": "tools.chaos#0", "parameter": "", "touches": [POOL], "recovery_s": 0.01}
    return Injected(number=number, fault=name, began=began, ended=ended, **(given | fields))


def seen(calls=(), ends=(), **fields):
    """Evidence whose every call is of a known pool."""
    pools = {"echo": "tools.general", "sleep": "tools.general", "chaos_effect": POOL}
    return Evidence(invoked=list(calls), ended=list(ends), pools=pools, **fields)


EFFECT = invoked(1, "chaos_effect")
DONE = [EffectLine("t1", 50)]
AT_GENERAL = fault(touches=["tools.general"])
AT_GATEWAY = fault(touches=["gateway"], target="gateway")
BOTH = [AT_GENERAL, fault(2, touches=["tools.general"])]
ROOT = RootLife(pid=9, warm=Footprint(50, 40_000), last=Footprint(55, 42_000))

GOOD = {
    "an answer": seen([invoked(1)], [ok(1)]),
    "an effect": seen([EFFECT], [ok(1, pid=50)], effects=DONE),
    "an unknown outcome that happened": seen([EFFECT], [failed(1, "OUTCOME_UNKNOWN")], effects=DONE, faults=[fault()]),
    "an unknown outcome that did not": seen([EFFECT], [failed(1, "OUTCOME_UNKNOWN")], faults=[fault()]),
    "a lost effect": seen([EFFECT], [lost(1)], effects=DONE, faults=[AT_GATEWAY]),
    "a refused effect": seen([EFFECT], [failed(1, "BREAKER_OPEN")], faults=[fault()]),
    "a lost call that was repeated": seen(
        [invoked(1), invoked(2, at=100.2, operation=1)], [lost(1), ok(2, 100.3)], faults=[AT_GATEWAY]
    ),
    "two faults in one call": seen([invoked(1)], [failed(1, "OUTCOME_UNKNOWN")], faults=BOTH),
    "the death of all": seen([invoked(1)], [failed(1, "OUTCOME_UNKNOWN")], faults=[fault(touches=["*"])]),
    "a neighbour without files": seen([EFFECT], [failed(1, "TOOL_FAILED")], faults=[fault(name="fd_exhaustion")]),
    "harm that fails": seen([invoked(1, "chaos_raise", fault=True, retry_safe=False)], [failed(1, "TOOL_FAILED")]),
    "a replaced target": seen(faults=[fault(pids_before={"tools.chaos#0": 5}, pids_after={"tools.chaos#0": 6})]),
    "a flat root": seen(roots=[ROOT]),
    "a root that was not measured": seen(roots=[RootLife(pid=9, last=Footprint(5, 5))]),
}

BAD = {
    "one outcome per call": {
        "no end": seen([invoked(1)], []),
        "two ends": seen([invoked(1)], [ok(1), ok(1, 100.2)]),
        "an end without a call": seen([], [ok(7)]),
        "a number twice": seen([invoked(1), invoked(1)], [ok(1)]),
    },
    "the right answer": {
        "another text": seen([invoked(1)], [ok(1, answer="t2")]),
        "another id": seen([invoked(1)], [ok(1, answered_id=2)]),
        "an error with another id": seen(
            [EFFECT], [msgspec.structs.replace(failed(1, "BUSY"), answered_id=2)], faults=[fault()]
        ),
    },
    "no answer from the dead": {
        "killed before": seen(
            [invoked(1, "chaos_effect", at=105.0)], [ok(1, 105.1, pid=50)], effects=DONE, faults=[fault(dead=[50])]
        ),
    },
    "acknowledged is done": {
        "nothing in the file": seen([EFFECT], [ok(1, pid=50)]),
        "done by another process": seen([EFFECT], [ok(1, pid=51)], effects=DONE),
    },
    "no effect twice": {
        "twice": seen([EFFECT], [ok(1, pid=50)], effects=DONE * 2),
        "never asked for": seen([], [], effects=DONE),
        "twice after an unknown outcome": seen(
            [EFFECT], [failed(1, "OUTCOME_UNKNOWN")], effects=DONE * 2, faults=[fault()]
        ),
    },
    "refused is not done": {
        code: seen([EFFECT], [failed(1, code)], effects=DONE, faults=[fault()]) for code in sorted(NOTHING_STARTED)
    },
    "repeatable calls are answered": {
        "unknown in peace": seen([invoked(1)], [failed(1, "OUTCOME_UNKNOWN")]),
        "unknown after one fault": seen([invoked(1)], [failed(1, "OUTCOME_UNKNOWN")], faults=[AT_GENERAL]),
        "unknown while another pool has faults": seen(
            [invoked(1)], [failed(1, "OUTCOME_UNKNOWN")], faults=[AT_GENERAL, fault(2)]
        ),
        "out of time": seen([invoked(1)], [failed(1, "DEADLINE_EXCEEDED")], faults=BOTH),
    },
    "errors have a reason": {
        "an internal error": seen([EFFECT], [failed(1, "INTERNAL")], faults=[fault()]),
        "a failed tool": seen([invoked(1)], [failed(1, "TOOL_FAILED")], faults=[AT_GENERAL]),
        "refused in peace": seen([invoked(1)], [failed(1, "RUNTIME_UNAVAILABLE")]),
        "refused long after the fault": seen(
            [invoked(1, at=200.0)], [failed(1, "RUNTIME_UNAVAILABLE", 200.1)], faults=[AT_GENERAL]
        ),
        "unknown in peace": seen([EFFECT], [failed(1, "OUTCOME_UNKNOWN")]),
    },
    "connections break with the gateway only": {
        "in peace": seen([EFFECT], [lost(1)]),
        "while a pool has a fault": seen([EFFECT], [lost(1)], faults=[fault()]),
    },
    "lost calls succeed when repeated": {
        "never": seen([invoked(1)], [lost(1)], faults=[AT_GATEWAY]),
        "late": seen(
            [invoked(1), invoked(2, at=120.0, operation=1)],
            [lost(1), ok(2, 100.2 + REPEATED_WITHIN_S + LIMIT_S)],
            faults=[AT_GATEWAY],
        ),
    },
    "calls end in time": {
        "late": seen([invoked(1)], [ok(1, 100.0 + LIMIT_S + 2.5)]),
    },
    "faults go as expected": {
        "a problem": seen(faults=[fault(problems=["it was not replaced within 5 s"])]),
    },
    "siblings keep their pids": {
        "another pool": seen(faults=[fault(pids_before={"tools.general#0": 5}, pids_after={"tools.general#0": 6})]),
        "gone": seen(faults=[fault(pids_before={"router": 5}, pids_after={"gateway": 6})]),
    },
    "the root stays flat": {
        "files": seen(roots=[RootLife(pid=9, warm=Footprint(50, 40_000), last=Footprint(59, 40_000))]),
        "memory": seen(roots=[RootLife(pid=9, warm=Footprint(50, 40_000), last=Footprint(50, 60_000))]),
    },
    "the tree is whole": {
        "not ready": seen(not_whole=["router is failed"]),
        "zombies": seen(zombies=[5]),
        "strays": seen(strays=[5]),
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_breaks_no_rule(name):
    assert check(GOOD[name]) == []


@pytest.mark.parametrize(("rule", "name"), [(rule, name) for rule, histories in BAD.items() for name in histories])
def test_a_bad_history_breaks_its_rule_and_no_other(rule, name):
    assert {one.rule for one in check(BAD[rule][name])} == {rule}


def test_every_rule_has_a_history_that_breaks_it():
    assert list(BAD) == [rule_name(rule) for rule in RULES]
