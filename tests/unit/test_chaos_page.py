# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/chaos.md says what the code says: its rules, its limits, its commands, and its example of a run."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from supervisor.chaos import enabling
from supervisor.chaos.checker import RULES, rule_name
from supervisor.chaos.cli import chaos
from supervisor.chaos.faults import FAULTS, OWN_ONLY
from supervisor.chaos.load import CLIENTS

PAGE = (Path(__file__).parents[2] / "docs" / "chaos.md").read_text()


def test_every_rule_is_listed_with_its_meaning():
    rows = re.findall(r"^\| ([a-z ]+) \| (.+) \|$", PAGE, re.MULTILINE)[1:]
    assert rows == [(rule_name(rule), rule.__doc__.strip()) for rule in RULES]


def test_the_example_shows_every_fault_and_that_all_rules_hold():
    run = re.search(r"```\n(chaos run: .*?)```", PAGE, re.DOTALL)[1]
    assert re.findall(r"^([a-z_]+) +\d+  ", run, re.MULTILINE) == list(FAULTS)
    assert f"all {len(RULES)} hold" in run


def test_limits_and_load_are_named():
    assert f"{enabling.ADDRESS_SPACE_BYTES // 1024**3} GiB of" in PAGE
    assert f"{enabling.OPEN_FILES} open files" in PAGE
    assert f"files of {enabling.FILE_SIZE_BYTES // 1024**2} MiB" in PAGE
    assert all(f"`{tool}`" in PAGE for tool in CLIENTS)
    assert len(CLIENTS) == 5
    assert all(f"`{name}` is possible with `--own` only" in PAGE for name in OWN_ONLY)


def test_every_option_that_is_named_exists():
    shown = CliRunner().invoke(chaos, ["run", "--help"]).output
    options = {option for option in re.findall(r"--[a-z]+", PAGE) if option != "--data"}
    assert options
    assert all(option in shown for option in options)
