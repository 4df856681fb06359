# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP tasks of both revisions in a real tree, while parts of it die in the middle of a task."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager

import pytest
from running import META, MODERN, started, wait_until
from stdio_client import stdio
from task_clients import CAN, Modern, Reader, Session

pytestmark = pytest.mark.process

ADA = {"action": "accept", "content": {"name": "Ada"}}
VICTIMS = ["gateway", "task_queue", "task_worker", "tools.general#0"]
TOOLS = '''
from typing import TypedDict

import msgspec
import trio

from actors.toolkit import ToolContext, tool


class Name(msgspec.Struct):
    name: str


class Report(TypedDict):
    label: str
    runs: int


def began(ctx: ToolContext, label: str) -> int:
    """Leave a mark that the tool runs; how many there are now."""
    folder = ctx.data_dir / "marks"
    folder.mkdir(exist_ok=True)
    (folder / f"{label}.{len(list(folder.glob(label + '.*')))}").touch()
    return len(list(folder.glob(label + ".*")))


@tool(read_only=True, task="optional", timeout=60)
async def slow(ctx: ToolContext, label: str) -> Report:
    """Work until it is let go."""
    runs = began(ctx, label)
    while not (ctx.data_dir / "marks" / f"let-go-{label}").exists():
        await trio.sleep(0.01)
    return {"label": label, "runs": runs}


@tool(task="optional")
async def greet(ctx: ToolContext, label: str) -> str:
    """Ask who is greeted. It may not run twice, but nothing happens before the answer."""
    answer = await ctx.elicit("Your name?", Name, key="name")
    began(ctx, label)
    return f"Hello, {answer.content.name}!"
'''


@contextmanager
def a_tree(folder, **settings):
    (folder / "tasks.py").write_text(TOOLS)
    # The tests kill more often than a tree would take for an accident.
    env = {"GREENROOM_SUPERVISOR__RESTARTS": "1000"} | settings
    with started(folder / "data", "--tools", str(folder / "tasks.py"), env=env) as running:
        yield running


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with a_tree(tmp_path_factory.mktemp("tasks")) as running:
        yield running


@pytest.fixture(params=[Modern, Session])
def client(request, tree):
    return request.param(tree)


@pytest.fixture
def label():
    return uuid.uuid4().hex


def runs(tree, label):
    return len(list((tree.data_dir / "marks").glob(f"{label}.*")))


def let_go(tree, label):
    """Let the tool come to its end."""
    folder = tree.data_dir / "marks"
    folder.mkdir(exist_ok=True)
    (folder / f"let-go-{label}").touch()


def kill(tree, victim):
    tree.wait_ready(victim, 0)
    tree.wait_ready(victim, tree.kill(victim))


def test_a_task_is_done_and_its_result_is_that_of_a_call(tree, client, label):
    let_go(tree, label)
    task_id = client.task("slow", label=label)
    done = client.result(task_id)
    assert done["structuredContent"] == {"label": label, "runs": 1}
    assert json.loads(done["content"][0]["text"]) == done["structuredContent"]
    assert done["_meta"]["greenroom/duration_ms"] > 0
    assert client.status(task_id) == "completed"


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_task_survives_a_death_in_its_middle(tree, client, victim, label):
    task_id = client.task("slow", label=label)
    wait_until(lambda: runs(tree, label), 30, "the tool runs")
    kill(tree, victim)
    let_go(tree, label)
    done = client.result(task_id)
    # It runs again where its run died, with its worker (which goes with the queue) or its pool.
    assert done["structuredContent"] == {"label": label, "runs": 1 if victim == "gateway" else 2}
    assert not done.get("isError")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_question_survives_a_death(tree, client, victim, label):
    task_id = client.task("greet", label=label)
    wait_until(lambda: client.status(task_id) == "input_required", 30, "the tool asks")
    kill(tree, victim)
    wait_until(lambda: client.status(task_id) == "input_required", 30, "the tool still asks")
    client.answer(task_id, ADA)
    done = client.result(task_id)
    assert done["content"][0]["text"] == "Hello, Ada!"
    assert runs(tree, label) == 1


@pytest.mark.parametrize("victim", ["task_queue", "task_worker"])
def test_who_waits_for_the_result_is_not_troubled_by_a_death(tree, victim, label):
    client = Session(tree)
    task_id = client.task("greet", label=label)
    reader = client.waiting(task_id)
    question = reader.next()
    kill(tree, victim)
    assert client.post({"jsonrpc": "2.0", "id": question["id"], "result": ADA}).status_code == 202
    *_, last = iter(reader.next, None)
    assert last["result"]["content"][0]["text"] == "Hello, Ada!"


def test_who_waits_at_a_gateway_that_dies_asks_again(tree, label):
    client = Session(tree)
    task_id = client.task("greet", label=label)
    reader = client.waiting(task_id)
    assert reader.next()["method"] == "elicitation/create"
    kill(tree, "gateway")
    assert reader.next() is None
    client.answer(task_id, ADA)
    assert client.result(task_id)["content"][0]["text"] == "Hello, Ada!"


def test_a_listener_hears_of_changes_after_the_queue_was_killed(tree, label):
    client = Modern(tree)
    task_id = client.task("greet", label=label)
    meta = META | {"io.modelcontextprotocol/clientCapabilities": CAN}
    params = {"_meta": meta, "notifications": {"taskIds": [task_id]}}
    body = {"jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen", "params": params}
    reader = Reader(client.url, MODERN | {"mcp-method": "subscriptions/listen"}, body)
    assert reader.next()["params"]["notifications"] == {"taskIds": [task_id]}
    while reader.next()["params"]["status"] != "input_required":
        pass
    kill(tree, "task_queue")
    wait_until(lambda: client.status(task_id) == "input_required", 30, "the tool still asks")
    client.answer(task_id, ADA)
    while (told := reader.next()["params"])["status"] != "completed":
        pass
    assert told["result"]["content"][0]["text"] == "Hello, Ada!"


def test_a_running_task_is_cancelled(tree, client, label):
    task_id = client.task("slow", label=label)
    wait_until(lambda: runs(tree, label), 30, "the tool runs")
    client.ask("tasks/cancel", taskId=task_id)
    wait_until(lambda: client.status(task_id) == "cancelled", 10, "the task is cancelled")
    # Its number comes with the pool's beat, once a second.
    wait_until(lambda: tree.actors()["tools.general#0"]["open_calls"] == 0, 10, "the tool has stopped")


def test_the_worker_needs_no_client(tree, client, label):
    """Whoever knows the id may look, from another connection, later."""
    task_id = client.task("slow", label=label)
    other = type(client)(tree)
    let_go(tree, label)
    assert other.result(task_id)["structuredContent"] == {"label": label, "runs": 1}


@pytest.mark.parametrize("kind", [Modern, Session])
def test_any_gateway_of_a_node_serves_every_task(tmp_path, label, kind):
    with a_tree(tmp_path, GREENROOM_SERVER__GATEWAYS="3") as node:
        client = kind(node)
        # Each request has a connection of its own, which any gateway may get.
        for number in range(8):
            task_id = client.task("greet", label=f"{label}-{number}")
            wait_until(lambda task_id=task_id: client.status(task_id) == "input_required", 30, "the tool asks")
            client.answer(task_id, ADA)
            assert client.result(task_id)["content"][0]["text"] == "Hello, Ada!"


def test_tasks_of_a_client_on_pipes_outlive_a_gateway(tree, tmp_path, label):
    meta = {"io.modelcontextprotocol/clientCapabilities": CAN}
    with stdio(tmp_path, "--attach", "--data-dir", tree.data_dir) as client:
        call = {"name": "slow", "arguments": {"label": label}}
        made = client.answer(client.begin("tools/call", True, meta=meta, **call))["result"]
        task = {"taskId": made["taskId"]}
        client.begin("subscriptions/listen", True, meta=meta, notifications={"taskIds": [made["taskId"]]})
        assert client.notified("notifications/tasks")["params"]["status"] == "working"
        kill(tree, "gateway")
        let_go(tree, label)
        ended = client.wait_for(lambda one: one.get("params", {}).get("status") == "completed", "news of its end")
        seen = client.answer(client.begin("tasks/get", True, meta=meta, **task))["result"]
        assert seen["result"] == ended["params"]["result"]
        assert seen["result"]["structuredContent"] == {"label": label, "runs": 1}
