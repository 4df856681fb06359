# SPDX-License-Identifier: AGPL-3.0-or-later
"""The legs: which suite runs how, and what its checks said."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mcp_conformance.suites import Suites

OLD: Final = "conformance-0.1.16"
NEW: Final = "conformance-0.2.0-alpha.12"
LEG_LIMIT_S: Final = 240
_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True)
class Leg:
    """One run of one suite."""

    name: str
    suite: str
    arguments: tuple[str, ...]
    scenarios: int
    """How many it has: fewer results mean that something was not run."""


LEGS: Final = (
    Leg("0.1.16", OLD, ("--suite", "all"), 32),
    Leg("required-2025-11-25", NEW, ("--requirements", "2025-11-25"), 33),
    Leg("required-2026-07-28", NEW, ("--requirements", "2026-07-28"), 50),
    Leg("all", NEW, ("--suite", "all"), 65),
    Leg("wire-2025-06-18", NEW, ("--suite", "all", "--spec-version", "2025-06-18"), 27),
    Leg("wire-2025-11-25", NEW, ("--suite", "all", "--spec-version", "2025-11-25"), 33),
    Leg("wire-2026-07-28", NEW, ("--suite", "all", "--spec-version", "2026-07-28"), 40),
)


@dataclass
class Outcome:
    """What the checks of one scenario in one leg said."""

    passed: int = 0
    failed: int = 0
    warnings: int = 0
    skipped: int = 0
    complaints: list[str] = field(default_factory=list)
    """Check, and its message, of each failure and warning."""

    @property
    def green(self) -> bool:
        """Stricter than the suites, which let warnings pass, and scenarios that only skip."""
        return bool(self.passed) and not self.failed and not self.warnings


def run_leg(leg: Leg, suites: Suites, url: str, output: Path) -> dict[str, Outcome]:
    """Scenario -> outcome. Raises `subprocess.TimeoutExpired`, and RuntimeError when the suite leaves no results."""
    folder = output / leg.name
    command = [*suites.command(leg.suite), "server", "--url", url, *leg.arguments, "-o", str(folder)]
    # Whether all is well is read from the checks; the exit code of the suites counts some of them only.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=LEG_LIMIT_S, stdin=subprocess.DEVNULL
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    outcomes = read_outcomes(folder)
    if not outcomes:
        raise RuntimeError(f"{leg.name} left no results:\n{(done.stdout + done.stderr)[-2000:]}")
    return outcomes


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """What a suite wrote: a folder for each scenario, with `checks.json` in it."""
    outcomes: dict[str, Outcome] = {}
    for file in sorted(folder.glob("*/checks.json")):
        named = _FOLDER.fullmatch(file.parent.name)
        assert named is not None, f"{file.parent} is no name of a scenario"
        outcomes[named["scenario"]] = read_checks(json.loads(file.read_text()))
    return outcomes


def read_checks(checks: list[dict]) -> Outcome:
    """Count checks by status; those that only inform count as nothing."""
    outcome = Outcome()
    for check in checks:
        match check["status"]:
            case "SUCCESS":
                outcome.passed += 1
            case "FAILURE":
                outcome.failed += 1
            case "WARNING":
                outcome.warnings += 1
            case "SKIPPED":
                outcome.skipped += 1
        if check["status"] in ("FAILURE", "WARNING"):
            message = check.get("errorMessage") or check["description"]
            outcome.complaints.append(f"{check['status'].lower()} {check['id']}: {message}")
    return outcome
