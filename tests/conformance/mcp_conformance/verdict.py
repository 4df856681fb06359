# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is wrong with a run, and how it is shown."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mcp_conformance.legs import Leg, Outcome

EXPECTED = Path(__file__).resolve().parent.parent / "expected.toml"
Results = dict[Leg, dict[str, Outcome]]


@dataclass(frozen=True)
class Expected:
    """Scenario -> why it does not pass."""

    failures: dict[str, str]
    skipped: dict[str, str]

    @staticmethod
    def read(file: Path = EXPECTED) -> Expected:
        content = tomllib.loads(file.read_text())
        return Expected(content.get("failures", {}), content.get("skipped", {}))


def problems(results: Results, expected: Expected, *, every_leg: bool) -> list[str]:
    """All that is not as expected, one line each. `every_leg`: what is expected must have been seen somewhere."""
    found: list[str] = []
    for leg, outcomes in results.items():
        if len(outcomes) != leg.scenarios:
            found.append(f"{leg.name}: {len(outcomes)} scenarios were run, it has {leg.scenarios}")
        for scenario, outcome in outcomes.items():
            if problem := _problem(scenario, outcome, expected):
                found.append(f"{leg.name}: {scenario} {problem}")
    if every_leg:
        seen = {scenario for outcomes in results.values() for scenario in outcomes}
        listed = [*expected.failures, *expected.skipped]
        found += [f"{name} is in {EXPECTED.name}, but no leg has it" for name in listed if name not in seen]
    return found


def _problem(scenario: str, outcome: Outcome, expected: Expected) -> str:
    if scenario in expected.failures:
        return "" if outcome.failed else f"does not fail: take it out of {EXPECTED.name}"
    if outcome.failed:
        return f"fails {outcome.failed} checks"
    if outcome.warnings:
        return f"has {outcome.warnings} warnings"
    if scenario in expected.skipped:
        return "" if not outcome.passed else f"is not skipped: take it out of {EXPECTED.name}"
    return "" if outcome.passed else "was skipped"


def table(results: Results) -> str:
    """Scenarios down, legs across; in a cell: checks that passed, `x` failed, `!` warned, `s` skipped."""
    scenarios = list(dict.fromkeys(name for outcomes in results.values() for name in outcomes))
    rows = [
        ["", *(leg.name for leg in results)],
        *([name, *(_cell(outcomes.get(name)) for outcomes in results.values())] for name in sorted(scenarios)),
        ["checks", *(_cell(_sum(outcomes)) for outcomes in results.values())],
        ["green scenarios", *(f"{sum(o.green for o in got.values())} of {len(got)}" for got in results.values())],
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def complaints(results: Results) -> str:
    """Each failing or warning check with its message."""
    return "\n".join(
        f"{leg.name} {scenario}: {line}"
        for leg, outcomes in results.items()
        for scenario, outcome in outcomes.items()
        for line in outcome.complaints
    )


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    marked = (("x", outcome.failed), ("!", outcome.warnings), ("s", outcome.skipped))
    return " ".join([str(outcome.passed), *(f"{mark}{count}" for mark, count in marked if count)])


def _sum(outcomes: dict[str, Outcome]) -> Outcome:
    total = Outcome()
    for outcome in outcomes.values():
        total.passed += outcome.passed
        total.failed += outcome.failed
        total.warnings += outcome.warnings
        total.skipped += outcome.skipped
    return total
