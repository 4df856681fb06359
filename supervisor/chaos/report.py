# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a chaos run found, for people and as one JSON object."""

from __future__ import annotations

import statistics
from collections import Counter

import msgspec

from supervisor.chaos.checker import RULES, Violation, rule_name
from supervisor.chaos.faults import FAULTS
from supervisor.chaos.history import Injected
from supervisor.chaos.runner import Plan, Run

SHOWN = 10
"""Violations of one rule that are shown; all are counted."""
_WIDE = 44


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fault's line in the table."""

    fault: str
    times: int
    expected: str
    seen: str
    recovery_p50_ms: float | None
    recovery_max_ms: float | None
    verdict: str
    """`as expected`, or how many times not."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report: what `--json` prints."""

    ok: bool
    seed: int
    minutes: float
    seconds: float
    faults_planned: int
    faults_injected: int
    calls: dict[str, int]
    effects: int
    faults: list[Row]
    violations: list[Violation]
    """At most ten of each rule."""
    violations_total: int
    repeat: str
    """The command that repeats the run."""


def summarize(run: Run) -> Summary:
    """A run's report."""
    injected = run.evidence.faults
    kinds = [name for name in FAULTS if any(fault.fault == name for fault in injected)]
    return Summary(
        ok=not run.violations,
        seed=run.plan.seed,
        minutes=run.plan.minutes,
        seconds=run.seconds,
        faults_planned=run.planned,
        faults_injected=len(injected),
        calls=run.calls,
        effects=len(run.evidence.effects),
        faults=[_row(name, [fault for fault in injected if fault.fault == name]) for name in kinds],
        violations=_bounded(run.violations),
        violations_total=len(run.violations),
        repeat=repeat_command(run.plan),
    )


def repeat_command(plan: Plan) -> str:
    """The exact command that gives the same schedule again."""
    own = " --own" if plan.own else ""
    faults = f" --faults {','.join(plan.faults)}" if plan.faults_given else ""
    return f"greenroom chaos run{own} --seed {plan.seed} --minutes {plan.minutes:g}{faults}"


def _row(name: str, faults: list[Injected]) -> Row:
    back = [fault.recovery_s * 1000 for fault in faults if fault.recovery_s is not None]
    bad = [fault for fault in faults if fault.problems]
    telling = (bad or faults)[-1]
    return Row(
        fault=name,
        times=len(faults),
        expected=FAULTS[name].expected,
        seen="; ".join(telling.problems) or telling.seen,
        recovery_p50_ms=round(statistics.median(back), 1) if back else None,
        recovery_max_ms=round(max(back), 1) if back else None,
        verdict=f"{len(bad)} not" if bad else "as expected",
    )


def _bounded(violations: list[Violation]) -> list[Violation]:
    seen: Counter[str] = Counter()
    kept = []
    for one in violations:
        seen[one.rule] += 1
        if seen[one.rule] <= SHOWN:
            kept.append(one)
    return kept


def report_text(summary: Summary) -> str:
    """The report for people."""
    lines = [
        f"chaos run: seed {summary.seed}, {summary.seconds:.0f} s, {summary.faults_injected} of "
        f"{summary.faults_planned} planned faults, {sum(summary.calls.values())} calls, {summary.effects} effects",
        "",
        *_table(summary.faults),
        "",
        "calls:  " + "  ".join(f"{code} {count}" for code, count in summary.calls.items()),
        f"rules:  {_rules(summary)}",
    ]
    for rule in dict.fromkeys(one.rule for one in summary.violations):
        lines += ["", f"BROKEN: {rule}"]
        lines += [f"  {one.details}" for one in summary.violations if one.rule == rule]
    more = summary.violations_total - len(summary.violations)
    lines += [f"  and {more} more"] if more else []
    lines += ["", f"again:  {summary.repeat}"]
    return "\n".join(lines)


def _rules(summary: Summary) -> str:
    broken = {one.rule for one in summary.violations}
    if not broken:
        return f"all {len(RULES)} hold"
    return f"{len(broken)} of {len(RULES)} broken, {summary.violations_total} times"


def _table(rows: list[Row]) -> list[str]:
    head = ["fault", "times", "expected", "seen (last)", "back p50", "max ms", "verdict"]
    cells = [
        [
            row.fault,
            str(row.times),
            _short(row.expected),
            _short(row.seen),
            _ms(row.recovery_p50_ms),
            _ms(row.recovery_max_ms),
            row.verdict,
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    right = {1, 4, 5}
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *cells]
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else line[: _WIDE - 1] + "…"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def faults_text() -> str:
    """All faults, for `greenroom chaos faults`."""
    width = max(len(name) for name in FAULTS)
    lines = []
    for kind in FAULTS.values():
        lines += [f"{kind.name.ljust(width)}  {kind.does}", f"{' ' * width}  -> {kind.expected}"]
    return "\n".join(lines)


def rules_text() -> str:
    """All rules, one per line."""
    return "\n".join(f"{rule_name(rule)}: {(rule.__doc__ or '').strip()}" for rule in RULES)
