# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue's tools in a real tree: over MCP and REST, from the disk, across the death of their actor."""

from __future__ import annotations

import json
import re
import shlex
import threading
from functools import partial
from pathlib import Path

import httpx
import pytest
from running import NO_SPARES, McpClient, started, wait_until

from actors.p2p_names import TASK_TOOLS
from actors.tool_messages import ToolDescriptor
from supervisor.client import parse_arguments

pytestmark = pytest.mark.process

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()

TOOLS_ON = NO_SPARES | {"GREENROOM_P2P__TASK_QUEUE__TOOLS": "true", "GREENROOM_P2P__TASK_QUEUE__ALIASES": "true"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with started(tmp_path_factory.mktemp("task_tools") / "data", env=TOOLS_ON) as running:
        yield running


@pytest.fixture
def client(tree):
    with McpClient(tree.url, timeout_s=70) as mcp:
        yield mcp
        mcp.call("queue_resume")
        mcp.call("queue_clear", confirm=True)


def ask(client, tool, **arguments):
    """What a tool answers; its error fails the test."""
    result = client.call(tool, **arguments)
    assert not result.get("isError"), result
    assert result["structuredContent"]["success"] is True
    return result["structuredContent"]


def refused(client, tool, **arguments):
    """The code of a tool's error."""
    result = client.call(tool, **arguments)
    assert result["isError"] is True, result
    return result["_meta"]["greenroom/code"]


def submit(client, task_id, type_="dig", **more):
    return ask(client, "task_submit", task_id=task_id, task_type=type_, **({"payload": {}} | more))


def hire(client, worker_id, *types):
    return ask(client, "worker_register", worker_id=worker_id, capabilities=list(types))


def take(client, worker_id, **more):
    [task] = ask(client, "task_claim", worker_id=worker_id, **more)["tasks"]
    return task


def end(client, how, task, **more):
    key = {name: task[name] for name in ("task_id", "fencing_token")}
    return ask(client, how, worker_id=task["assigned_worker"], **key, **more)


def test_the_tools_are_listed_and_run_in_the_queues_actor(tree, client):
    tools = {tool["name"]: tool for tool in client.request("tools/list").json()["result"]["tools"]}
    assert set(TASK_TOOLS) <= set(tools)
    assert tools["task_submit"]["inputSchema"]["required"] == ["task_id", "task_type", "payload"]
    assert tools["task_submit"]["_meta"]["greenroom/category"] == "task_queue_tools"
    result = client.call("queue_stats")
    assert result["_meta"]["greenroom/runtime"] == "p2p"
    answer = httpx.post(f"{tree.url}/tools/execute", json={"tool": "queue_stats", "args": {}}).json()
    assert (answer["result"]["success"], answer["_runtime"]) == (True, "p2p")


def test_an_external_worker_takes_a_task_and_completes_it(client):
    hire(client, "digger", "dig")
    assert submit(client, "one", payload={"depth": 2}, tags=["deep"])["queue_position"] == 1
    task = take(client, "digger")
    assert task["payload"] == {"depth": 2}
    held = [{"task_id": "one", "fencing_token": task["fencing_token"], "progress": 50, "logs": ["half way"]}]
    ask(client, "worker_heartbeat", worker_id="digger", tasks=held)
    assert ask(client, "task_status", task_id="one")["progress"] == 50
    assert end(client, "task_complete", task, result={"found": "bone"})["status"] == "completed"
    told = ask(client, "task_result", task_id="one", include_logs=True)
    assert (told["output"], told["logs"]) == ({"found": "bone"}, ["half way"])
    assert told["execution_time"] > 0


def test_a_task_that_is_named_like_a_tool_is_done_by_that_tool(client):
    submit(client, "say", "echo", payload={"text": "hello"})
    assert client.call("p2p_taskqueue_wait_task", task_id="say")["structuredContent"]["task"]["status"] == "completed"
    told = ask(client, "task_result", task_id="say")
    assert (told["output"], told["result"]["worker_id"]) == ("hello", "task_worker")
    submit(client, "wrong", "echo", payload={"txt": "hello"})
    assert client.call("p2p_taskqueue_wait_task", task_id="wrong")["structuredContent"]["task"]["status"] == "failed"
    error = ask(client, "task_result", task_id="wrong")["result"]["error"]
    assert (error["code"], "did you mean `text`?" in error["message"]) == ("INVALID_ARGUMENTS", True)


def test_a_claim_over_http_waits_for_a_task(tree, client):
    hire(client, "waiter", "serve")
    taken = []

    def wait():
        with McpClient(tree.url, timeout_s=70) as other:
            taken.append(take(other, "waiter", wait=60))

    waiting = threading.Thread(target=wait)
    waiting.start()
    submit(client, "dish", "serve")
    waiting.join(30)
    assert taken[0]["task_id"] == "dish"
    end(client, "task_complete", taken[0])


def test_a_task_is_cancelled_retried_and_listed(client):
    hire(client, "flyer", "fly")
    submit(client, "f1", "fly", tags=["air"], retry_policy={"max_retries": 0})
    submit(client, "f2", "fly", tags=["air", "night"], priority=9)
    assert ask(client, "task_cancel", task_id="f2", reason="fog")["status"] == "cancelled"
    assert end(client, "task_fail", take(client, "flyer"), error="storm")["status"] == "failed"
    again = ask(client, "task_retry", task_id="f1")["retry_task_id"]
    listed = ask(client, "task_list", tag_filter=["air"], status_filter="failed")
    assert [task["task_id"] for task in listed["tasks"]] == ["f1"]
    assert listed["tasks"][0]["error"] == "TASK_FAILED: storm"
    assert ask(client, "task_list", tag_filter=["air"], priority_min=6)["tasks"][0]["task_id"] == "f2"
    task = take(client, "flyer")
    assert task["task_id"] == again
    end(client, "task_complete", task)
    assert refused(client, "task_retry", task_id=again) == "INVALID_STATE"
    assert refused(client, "task_result", task_id="nothing") == "NOT_FOUND"


def test_a_paused_queue_stays_paused_when_its_actor_dies(tree, client):
    hire(client, "sleeper", "sleep_well")
    submit(client, "nap", "sleep_well")
    ask(client, "queue_pause", reason="night")
    tree.wait_ready("task_queue", tree.kill("task_queue"))
    assert ask(client, "task_claim", worker_id="sleeper")["paused"] is True
    assert ask(client, "queue_resume")["status"] == "active"
    end(client, "task_complete", take(client, "sleeper"))


def test_what_was_claimed_is_completed_in_the_next_life_of_the_queue(tree, client):
    hire(client, "survivor", "survive")
    submit(client, "long", "survive")
    task = take(client, "survivor")
    tree.wait_ready("task_queue", tree.kill("task_queue"))
    assert ask(client, "task_status", task_id="long")["status"] == "running"
    assert end(client, "task_complete", task, result=1)["replayed"] is False
    assert submit(client, "long", "survive")["status"] == "completed"


def test_a_worker_that_goes_leaves_its_tasks_to_others(client):
    for name in ("old", "new"):
        hire(client, name, "carry")
    submit(client, "box", "carry")
    task = take(client, "old")
    gone = ask(client, "worker_unregister", worker_id="old", graceful=False)
    assert gone["abandoned_tasks"] == 1
    assert ask(client, "worker_status", worker_id="old")["status"] == "unregistered"
    moved = take(client, "new")
    assert (moved["task_id"], moved["attempt"]) == ("box", 1)
    key = {"task_id": "box", "fencing_token": task["fencing_token"]}
    assert refused(client, "task_complete", worker_id="old", **key) == "STALE_FENCE"
    end(client, "task_complete", moved)
    stats = ask(client, "queue_stats", include_worker_stats=True)
    workers = {worker["worker_id"]: worker for worker in stats["worker_stats"]}
    assert (workers["old"]["completed_tasks"], workers["new"]["completed_tasks"]) == (0, 1)


def test_the_names_of_other_servers_reach_the_same_queue(client):
    made = client.call("p2p_taskqueue_submit", task_type="alias", model_name="", payload={"n": 1})
    task_id = made["structuredContent"]["task_id"]
    assert ask(client, "task_status", task_id=task_id)["status"] == "queued"
    claimed = client.call("p2p_taskqueue_claim_next", worker_id="alias-worker", supported_task_types=["alias"])
    assert claimed["structuredContent"]["task"]["task_id"] == task_id
    done = client.call("p2p_taskqueue_complete_task", task_id=task_id, result={"n": 2})
    assert done["structuredContent"]["ok"] is True
    assert ask(client, "task_result", task_id=task_id)["output"] == {"n": 2}


def test_without_the_switch_the_tools_are_unavailable_and_not_unknown(tmp_path):
    with started(tmp_path / "data", env=NO_SPARES) as tree, McpClient(tree.url) as client:
        result = client.call("task_submit", task_id="a", task_type="b", payload={})
        assert result["_meta"]["greenroom/code"] == "RUNTIME_UNAVAILABLE"
        assert "p2p.task_queue.tools switches it on" in result["content"][0]["text"]


def test_the_examples_of_the_page_work_one_after_the_other(tree, client):
    catalogue = {tool["name"]: tool for tool in client.request("tools/list").json()["result"]["tools"]}
    task = {}
    for line in re.findall(r"^greenroom tools call (.+)$", PAGE, re.MULTILINE):
        for word, key in (("TOKEN", "fencing_token"), ("TASK", "task_id")):
            line = line.replace(word, str(task.get(key)))
        name, *arguments = shlex.split(line)
        values = parse_arguments(described(catalogue[name]), tuple(arguments))
        call = partial(ask, client, name, **json.loads(values))
        answer = wait_until(partial(finished, client, call), 20, line) if name == "task_result" else call()
        if name == "task_claim":
            [task] = answer["tasks"]
        if name == "task_result":
            assert answer["output"] == "hello"
    ended = {shown["task_id"]: shown["status"] for shown in ask(client, "task_list")["tasks"]}
    assert ended["dig-1"] == "completed"
    assert ended[task["task_id"]] == "failed"


def finished(client, call):
    return ask(client, "task_status", task_id="sum-1")["status"] == "completed" and call()


def described(tool):
    """A listed tool as the command line knows it."""
    schema = json.dumps(tool["inputSchema"]).encode()
    return ToolDescriptor(
        name=tool["name"], title="", description="", category="", runtime="p2p", pool="", input_schema=schema
    )
