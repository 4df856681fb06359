# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow as an MCP task of both revisions, in a real tree whose parts die in its middle."""

from __future__ import annotations

import uuid

import jsonschema
import pytest
from running import McpClient, started, wait_until
from task_clients import Modern, Session

pytestmark = pytest.mark.process

TOOLS = '''
import trio
from actors.toolkit import ToolContext, tool

@tool(retry_safe=True, timeout=60)
async def gate(ctx: ToolContext, label: str) -> str:
    """Wait until it is let go."""
    folder = ctx.data_dir / "gates"
    folder.mkdir(exist_ok=True)
    (folder / f"{label}.begun").touch()
    while not (folder / label).exists():
        await trio.sleep(0.01)
    return f"through {label}"
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "gate_tools.py").write_text(TOOLS)
    # The tests kill more often than a tree would take for an accident.
    env = {"GREENROOM_SUPERVISOR__RESTARTS": "1000", "GREENROOM_P2P__WORKFLOW_SCHEDULER__TOOLS": "true"}
    with started(folder / "data", "--tools", str(folder / "gate_tools.py"), env=env) as running:
        yield running


@pytest.fixture(params=[Modern, Session])
def client(request, tree):
    return request.param(tree)


@pytest.fixture
def label():
    return uuid.uuid4().hex


def begun(tree, label):
    return (tree.data_dir / "gates" / f"{label}.begun").exists()


def let_go(tree, label):
    (tree.data_dir / "gates").mkdir(exist_ok=True)
    (tree.data_dir / "gates" / label).touch()


def submit(client, label, **more):
    steps = [
        {"step_id": "wait", "action": "gate", "inputs": {"label": label}},
        {"step_id": "say", "action": "echo", "depends_on": ["wait"], "inputs": {"text": {"$from": "wait"}}},
    ]
    return client.task("workflow_submit", **({"workflow_id": label, "name": "w", "steps": steps} | more))


def status_of(tree, label):
    with McpClient(tree.url) as other:
        return other.call("workflow_status", workflow_id=label)["structuredContent"]["status"]


def test_the_task_ends_with_the_workflow_and_has_its_outputs(tree, client, label):
    task_id = submit(client, label)
    wait_until(lambda: begun(tree, label), 30, "its first step runs")
    assert client.status(task_id) == "working"
    let_go(tree, label)
    done = client.result(task_id)
    told = done["structuredContent"]
    assert (told["success"], told["workflow_id"], told["status"]) == (True, label, "completed")
    assert told["result"]["outputs"] == [
        {"step_id": "wait", "output": f"through {label}"},
        {"step_id": "say", "output": f"through {label}"},
    ]
    assert client.status(task_id) == "completed"
    with McpClient(tree.url) as other:
        tools = {one["name"]: one for one in other.request("tools/list").json()["result"]["tools"]}
    jsonschema.validate(told, tools["workflow_submit"]["outputSchema"])


def test_tasks_of_the_missions_name_need_no_id(tree, client):
    task_id = client.task("submit_workflow", workflow_name="w", tasks=[{"task": "echo", "text": "hi"}])
    told = client.result(task_id)["structuredContent"]
    assert (told["status"], told["workflow_status"]) == ("success", "completed")
    assert told["result"]["outputs"] == [{"step_id": "task-1", "output": "hi"}]
    assert status_of(tree, told["workflow_id"]) == "completed"


@pytest.mark.parametrize("victim", ["workflow_scheduler", "task_queue", "task_worker", "gateway", "tools.general#0"])
def test_it_goes_on_whoever_dies(tree, client, victim, label):
    task_id = submit(client, label)
    wait_until(lambda: begun(tree, label), 30, "its first step runs")
    tree.wait_ready(victim, tree.kill(victim))
    let_go(tree, label)
    done = client.result(task_id)
    assert not done.get("isError"), done
    assert done["structuredContent"]["status"] == "completed"
    assert len(done["structuredContent"]["result"]["outputs"]) == 2


def test_cancelling_the_task_cancels_the_workflow(tree, client, label):
    task_id = submit(client, label)
    wait_until(lambda: begun(tree, label), 30, "its first step runs")
    client.ask("tasks/cancel", taskId=task_id)
    wait_until(lambda: client.status(task_id) == "cancelled", 20, "the task is cancelled")
    wait_until(lambda: status_of(tree, label) == "cancelled", 20, "the workflow is cancelled")


def test_a_workflow_that_fails_is_an_error_of_the_task(client, label):
    steps = [{"step_id": "a", "action": "hash_file", "inputs": {"path": "nowhere"}}]
    task_id = client.task("workflow_submit", workflow_id=label, name="w", steps=steps)
    done = client.result(task_id)
    assert done["isError"] is True
    told = done["structuredContent"]
    assert (told["success"], told["status"], told["result"]["result"]["failed_steps"]) == (False, "failed", ["a"])


def test_a_definition_with_faults_is_an_error_with_its_step(client, label):
    steps = [{"step_id": "a", "action": "ecko"}]
    done = client.result(client.task("workflow_submit", workflow_id=label, name="w", steps=steps))
    assert done["isError"] is True
    assert "`ecko`" in done["content"][0]["text"]
