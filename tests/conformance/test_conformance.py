# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official suites pass, and the rules by which that is judged are right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp_conformance.__main__ import CANT_BE_HAD
from mcp_conformance.legs import Leg, Outcome, read_checks
from mcp_conformance.verdict import Expected, complaints, problems, table

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300
LEG = Leg("leg", "suite", (), 1)
NOTHING = Expected({}, {})
LISTED = Expected({"one": "not yet"}, {})


@pytest.mark.process
@pytest.mark.peers
def test_the_official_suites_pass(request):
    # Its output is written by processes of their own, which a capture in this one would not hold.
    path = os.pathsep.join(str(ROOT / part) for part in ("tests/support", "tests/conformance"))
    done = subprocess.run(
        [sys.executable, "-m", "mcp_conformance"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode == CANT_BE_HAD:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_scenario_that_passes_is_no_problem():
    assert problems({LEG: {"one": Outcome(passed=1)}}, NOTHING, every_leg=True) == []


@pytest.mark.parametrize(
    ("outcome", "expected", "says"),
    [
        (Outcome(passed=3, failed=1), NOTHING, "fails 1 check"),
        (Outcome(passed=3, warnings=2), NOTHING, "2 warnings"),
        (Outcome(skipped=1), NOTHING, "was skipped"),
        (Outcome(), NOTHING, "was skipped"),
        (Outcome(passed=1), LISTED, "does not fail"),
        (Outcome(skipped=1), LISTED, "does not fail"),
        (Outcome(passed=1), Expected({}, {"one": "never runs"}), "is not skipped"),
        (Outcome(failed=1), Expected({}, {"one": "never runs"}), "fails 1 check"),
    ],
)
def test_what_is_not_as_expected_is_a_problem(outcome, expected, says):
    (problem,) = problems({LEG: {"one": outcome}}, expected, every_leg=True)
    assert says in problem


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Outcome(passed=2, failed=1), LISTED), (Outcome(skipped=1), Expected({}, {"one": "never runs"}))],
)
def test_what_is_expected_is_no_problem(outcome, expected):
    assert problems({LEG: {"one": outcome}}, expected, every_leg=True) == []


def test_scenarios_that_were_not_run_are_noticed():
    assert problems({LEG: {}}, NOTHING, every_leg=True)
    assert problems({LEG: {"two": Outcome(passed=1)}}, LISTED, every_leg=True)
    assert not problems({LEG: {"two": Outcome(passed=1)}}, LISTED, every_leg=False)


def test_checks_are_counted_and_complaints_kept():
    check = {"id": "a", "description": "what it checks"}
    statuses = ["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO"]
    outcome = read_checks([check | {"status": status, "errorMessage": "why"} for status in statuses])
    assert (outcome.passed, outcome.failed, outcome.warnings, outcome.skipped) == (1, 1, 1, 1)
    assert outcome.complaints == ["failure a: why", "warning a: why"]
    results = {LEG: {"one": outcome}}
    assert "1 x1 !1 s1" in table(results)
    assert "leg one: failure a: why" in complaints(results)
