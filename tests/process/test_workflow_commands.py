# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom workflow` and the tools of workflows against a real tree, as docs/workflows.md shows them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest
from running import GREENROOM, started, wait_until

pytestmark = pytest.mark.process

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
TOOLS = '''
from actors.toolkit import tool

@tool(read_only=True)
async def inference(model: str) -> str:
    """Stands for a model."""
    return f"a word of {model}"
'''
SLOW = """
name: slow
steps:
  - {step_id: a, action: sleep, inputs: {seconds: 60}}
  - {step_id: b, action: echo, depends_on: [a], inputs: {text: x}}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "more_tools.py").write_text(TOOLS)
    env = {"GREENROOM_P2P__WORKFLOW_SCHEDULER__TOOLS": "true"}
    with started(folder / "data", "--tools", str(folder / "more_tools.py"), env=env) as running:
        running.folder = folder
        yield running


def verb(tree, *arguments, text=None, code=0):
    ended = subprocess.run(
        [GREENROOM, "workflow", *arguments, "--data-dir", tree.data_dir],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def shown(tree, *arguments, **more):
    return json.loads(verb(tree, *arguments, "--json", **more).stdout)


def execute(tree, tool, **arguments):
    return httpx.post(f"{tree.url}/tools/execute", json={"tool": tool, "args": arguments}, timeout=60).json()


def test_the_example_of_the_page_runs_as_it_says(tree):
    file = tree.folder / "example.yaml"
    file.write_text(EXAMPLE)
    lines = verb(tree, "submit", str(file)).stdout.splitlines()
    assert lines == ["submitted: example-1 (running, 6 steps)", "see: greenroom workflow watch example-1"]
    watched = verb(tree, "watch", "example-1").stdout.splitlines()
    assert watched[-1].endswith("  workflow example-1  completed")
    view = shown(tree, "show", "example-1", "--outputs")
    statuses = {step["step_id"]: step["status"] for step in view["steps"]}
    assert statuses == {
        "split": "completed", "say": "completed", "save": "completed", "many": "skipped", "mend": "skipped",
        "report": "completed",
    }  # fmt: skip
    outputs = {step["step_id"]: step["output"] for step in view["steps"]}
    assert outputs["say"] == [chunk["text"] for chunk in outputs["split"]["chunks"]]
    saved = (tree.data_dir / "files" / "report.jsonl").read_text()
    assert json.loads(saved) == {"step": "save", "literal": {"$from": "nobody"}}
    assert verb(tree, "submit", str(file)).stdout.startswith("submitted before: example-1 (completed")
    text = verb(tree, "show", "example-1").stdout
    assert "steps       4 completed, 2 skipped" in text
    car = tree.folder / "audit.car"
    verb(tree, "export", "example-1", "-o", str(car))
    for what in ("example-1", str(car)):
        assert "events of workflow example-1 are sound" in verb(tree, "verify", what).stdout


def test_the_tools_of_the_page_can_be_typed_as_they_stand(tree):
    commands = re.findall(r"^greenroom tools call (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        ended = tree.run("tools", "call", *shlex.split(command), "--json", check=False)
        assert ended.returncode == 0, (command, ended.stderr)
        answer = json.loads(ended.stdout)
        assert answer["_runtime"] == "p2p"
        assert answer["result"].get("success") or answer["result"]["status"] == "success"


def test_the_missions_own_call_over_rest(tree):
    answer = execute(
        tree, "submit_workflow", workflow_name="test-workflow", tasks=[{"task": "inference", "model": "gpt2"}]
    )
    assert (answer["status"], answer["_runtime"]) == ("success", "p2p")
    assert answer["workflow_id"] == answer["result"]["workflow_id"]
    assert answer["workflow_status"] == "running"
    told = execute(tree, "get_workflow_status", workflow_id=answer["workflow_id"], wait=30)
    assert (told["status"], told["workflow_status"], told["workflow_id"]) == (
        "success", "completed", answer["workflow_id"],
    )  # fmt: skip
    result = execute(tree, "workflow_result", workflow_id=answer["workflow_id"])["result"]
    assert result["outputs"] == [{"step_id": "task-1", "output": "a word of gpt2"}]


def test_who_submits_may_wait_for_the_end(tree):
    text = json.dumps({"name": "w", "steps": [{"step_id": "a", "action": "echo", "inputs": {"text": "hi"}}]})
    whole = shown(tree, "submit", "-", "--wait", text=text)
    assert (whole["status"], whole["steps"][0]["output"]) == ("completed", "hi")
    bad = text.replace('"echo"', '"hash_file"').replace('"text"', '"path"')
    ended = verb(tree, "submit", "-", "--wait", text=bad, code=1)
    assert "failed" in ended.stdout.splitlines()[-1]
    listed = shown(tree, "list", "--status", "failed")
    assert listed["total"] == 1
    assert "failed" in verb(tree, "list", "-n", "1").stdout


def test_a_workflow_is_stopped_continued_and_cancelled(tree):
    made = shown(tree, "submit", "-", "--id", "slow-1", text=SLOW)
    assert (made["workflow_id"], made["status"]) == ("slow-1", "running")
    wait_until(lambda: shown(tree, "show", "slow-1")["counts"].get("running"), 20, "a step that runs")
    assert verb(tree, "pause", "slow-1").stdout == "paused slow-1: no step begins; those that run go on\n"
    assert shown(tree, "show", "slow-1")["paused"] is True
    assert verb(tree, "resume", "slow-1").stdout == "resumed slow-1\n"
    metrics = httpx.get(f"{tree.url}/metrics").text
    assert "mcp_p2p_workflow_scheduler_up 1.0" in metrics
    assert re.search(r"^mcp_p2p_workflows_active [1-9]", metrics, re.MULTILINE)
    assert "slow-1" in verb(tree, "cancel", "slow-1", "--reason", "enough", "--yes").stdout
    watched = [json.loads(line) for line in verb(tree, "watch", "slow-1", "--json", code=1).stdout.splitlines()]
    assert (watched[-1]["status"], watched[-1]["note"]) == ("cancelled", "enough")
    assert "[INVALID_STATE]" in verb(tree, "cancel", "slow-1", "--yes", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "nothing"), 1, "[NOT_FOUND]"),
        (("watch", "nothing"), 1, "[NOT_FOUND]"),
        (("pause", "nothing"), 1, "[NOT_FOUND]"),
        (("submit", "/nowhere.yaml"), 1, "/nowhere.yaml can't be read: No such file"),
        (("list", "--status", "red"), 2, "'red' is not one of"),
        (("submt",), 2, "Did you mean 'submit'?"),
    ],
)
def test_what_can_not_be_done_says_why(tree, arguments, code, words):
    assert words in verb(tree, *arguments, code=code).stderr


def test_faults_come_with_the_lines_of_the_file(tree):
    text = "name: w\nsteps:\n  - step_id: a\n    action: ecko\n\n  - {step_id: b, action: echo, depends_on: [z]}\n"
    ended = verb(tree, "submit", "-", text=text, code=1)
    assert "  line 3: there is no tool `ecko`; did you mean `echo`? [UNKNOWN_TOOL]\n" in ended.stderr
    assert "  line 6: it depends on `z`" in ended.stderr


def test_switched_off_the_tools_say_so_and_the_verbs_work(tmp_path):
    with started(tmp_path / "data") as tree:
        answer = execute(tree, "submit_workflow", workflow_name="x", tasks=[{"task": "echo", "text": "x"}])
        assert answer["error"]["code"] == "RUNTIME_UNAVAILABLE"
        assert "p2p.workflow_scheduler.tools switches it on" in answer["error"]["message"]
        assert shown(tree, "list")["total"] == 0


def test_without_a_scheduler_the_reason_is_its_switch(tmp_path):
    with started(tmp_path / "data", env={"GREENROOM_P2P__WORKFLOW_SCHEDULER__ENABLED": "false"}) as tree:
        assert "p2p.workflow_scheduler.enabled is false" in verb(tree, "list", code=1).stderr
        assert "mcp_p2p_workflow_scheduler_up 0.0" in httpx.get(f"{tree.url}/metrics").text
