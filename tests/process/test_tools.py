# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools in real pool processes: what they keep is everybody's, and what they do wrong is their own call's only."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from running import McpClient, started, wait_until

pytestmark = pytest.mark.process

WILD = '''
import sys

from actors.toolkit import tool


@tool()
def leave(how: str) -> str:
    """Try to end the process."""
    print("leaving by", how)
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    raise ValueError(f"no way {how}")


@tool()
async def leave_async(how: str) -> str:
    """Try to end the process."""
    return leave(how)
'''
EMPTY = "def forgot() -> str: ...\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two pool processes with tools that misbehave."""
    folder = tmp_path_factory.mktemp("tools")
    tools = folder / "wild"
    tools.mkdir()
    (tools / "leave.py").write_text(WILD)
    (tools / "empty.py").write_text(EMPTY)
    with started(folder / "data", "--tools", str(tools), env={"GREENROOM_RUNTIMES__GENERAL__WORKERS": "2"}) as running:
        yield running


@pytest.fixture
def client(tree):
    with McpClient(tree.url) as mcp:
        yield mcp


def pools(tree) -> dict[str, dict]:
    return {
        name: actor
        for name, actor in tree.actors().items()
        if name.startswith("tools.general#") and "spare" not in name
    }


def test_a_dataset_outlives_the_processes_that_made_it(tree, client):
    home = tree.data_dir / "files"
    home.mkdir(exist_ok=True)
    (home / "people.csv").write_text("id,name\n1,Ada\n2,Grace\n")
    loaded = client.call("load_dataset", source="people.csv")["structuredContent"]
    sql = "SELECT name FROM data ORDER BY id"
    for name in pools(tree):
        tree.wait_ready(name, tree.kill(name))
        found = client.call("dataset_query", dataset_id=loaded["dataset_id"], sql=sql)["structuredContent"]
        assert found["rows"] == [["Ada"], ["Grace"]]


@pytest.mark.parametrize("tool", ["leave", "leave_async"])
@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt"), ("else", "ValueError: no way else")],
)
def test_a_tool_can_not_end_its_process_by_an_exception(tree, client, tool, how, said):
    before = pools(tree)
    result = client.call(tool, how=how)
    assert result["isError"] is True
    assert said in result["content"][0]["text"]
    after = pools(tree)
    assert {name: actor["pid"] for name, actor in after.items()} == {
        name: actor["pid"] for name, actor in before.items()
    }


def test_a_failures_place_is_in_the_log_and_not_in_the_answer(tree, client):
    answer = client.request("tools/call", name="leave", arguments={"how": "nowhere"}).text
    assert "Traceback" not in answer
    assert "leave.py" not in answer
    log = Path(f"{tree.data_dir}.log")

    def logged():
        lines = [json.loads(line) for line in log.read_text().splitlines() if '"tool failed"' in line]
        return [line for line in lines if "no way nowhere" in line.get("traceback", "")]

    (line,) = wait_until(logged, 10, "the failure in the log")
    assert (line["tool"], line["error"]) == ("leave", "ValueError")
    assert 'leave.py", line' in line["traceback"]
    assert "leaving by nowhere" in log.read_text()


def test_a_broken_file_is_shown_with_its_reason(tree):
    reason = "wild/empty.py: it defines no tool; put @tool() above a function of its own"
    assert reason in tree.run("tools", "list").stdout
    assert reason in httpx.get(f"{tree.url}/tools").text
