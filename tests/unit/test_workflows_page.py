# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/workflows.md: its example is one that can be run, it names each tool, verb and field, and says the limits that
are in force. That its commands work is shown by `tests/process/test_workflow_commands.py`."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from actors.p2p.workflow_scheduler.as_task import MOST_FOLLOWED
from actors.p2p.workflow_scheduler.definition import DefinitionLimits, check
from actors.p2p_names import WORKFLOW_TOOLS
from actors.settings import Settings
from actors.tools.loader import load
from actors.workflow_messages import Operator, Step, Workflow
from supervisor.cli_workflow import workflow
from supervisor.config_keys import known_keys

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
OURS = Settings().p2p.workflow_scheduler


def rows(title: str, section: str = "# ") -> list[list[str]]:
    """Cells of the rows of the first table with this title below a heading."""
    table = PAGE.partition(section)[2].partition(f"\n| {title} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_example_has_no_faults():
    tools = {tool.name: tool for tool in load(Settings().tools, "general").descriptors()}
    plan = check(msgspec.convert(yaml.safe_load(EXAMPLE), Workflow), tools, DefinitionLimits())
    assert len(plan.order) == 6


@pytest.mark.parametrize(("title", "kind"), [("field of a workflow", Workflow), ("field of a step", Step)])
def test_each_field_is_told_with_its_default(title, kind):
    told = {row[0].strip("`"): row[2] for row in rows(title)}
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    assert set(told) == set(fields)
    for name, said in told.items():
        assert (said == "required") == fields[name].required, name


def test_each_operator_is_told():
    said = next(row for row in rows("object", "### Conditions") if row[0].startswith("`{op:"))
    assert set(re.findall(r"`([^`]+)`", said[1])) - {"left"} == set(Operator.__args__)


def test_each_tool_has_an_example_and_a_row():
    assert set(re.findall(r"^greenroom tools call (\w+)", PAGE, re.MULTILINE)) == set(WORKFLOW_TOOLS)
    assert {row[0].strip("`") for row in rows("tool")} == set(WORKFLOW_TOOLS)


def test_each_verb_is_told_and_exists():
    told = set(
        re.findall(r"`(?:greenroom workflow )?([a-z]+)(?: --?\w+| FILE| ID| \[)", PAGE.partition("## On the")[2])
    )
    assert told == set(workflow.commands)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("steps of a workflow (`max_steps`)", f"{OURS.max_steps}"),
        ("a definition (`max_definition_bytes`)", f"{OURS.max_definition_bytes} bytes"),
        ("items of a `for_each` (`max_items`)", f"{OURS.max_items}"),
        (
            "workflows that run at once (`max_concurrent_workflows`); others wait, by priority, then age",
            f"{OURS.max_concurrent_workflows}",
        ),
        ("workflows that have not ended (`max_waiting_workflows`); then `BUSY`", f"{OURS.max_waiting_workflows}"),
        ("tasks of one workflow in the queue at once (`max_queued_steps`)", f"{OURS.max_queued_steps}"),
        ("a workflow from its begin (`workflow_timeout`)", f"{OURS.workflow_timeout:g} s"),
        ("an ended workflow can be read for (`keep_s`)", f"{OURS.keep_s:.0f} s"),
        ("results of equal work are taken for (`memo_s`)", f"{OURS.memo_s:.0f} s"),
        ("workflows that are followed as MCP tasks at once; others wait", f"{MOST_FOLLOWED}"),
    ],
)
def test_a_limit_is_what_the_page_says(what, limit):
    assert dict(rows("what"))[what] == limit


def test_the_settings_that_it_names_exist():
    named = set(re.findall(r"`(p2p\.[a-z_.]+)`", PAGE)) - {"p2p.workflow_scheduler"}
    assert named
    assert named <= set(known_keys())
