# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue under the names of other MCP++ servers keeps the same rules."""

from __future__ import annotations

import json

import pytest
import task_desk
import trio
from trio.testing import wait_all_tasks_blocked

from actors.errors import MCPServerError, UnavailableError, code_of
from actors.p2p_names import TASK_ALIASES
from actors.task_messages import Enqueue

_NEEDED = {
    "p2p_taskqueue_submit": {"task_type": "dig", "model_name": "m", "payload": {}},
    "p2p_taskqueue_claim_next": {"worker_id": "w"},
    "p2p_taskqueue_get_task": {"task_id": "t"},
    "p2p_taskqueue_wait_task": {"task_id": "t"},
    "p2p_taskqueue_complete_task": {"task_id": "t"},
}


class Aliases:
    """`await aliases("get_task", ...)`."""

    def __init__(self, desk) -> None:
        self.desk = desk

    async def __call__(self, name, by="", **arguments):
        return await self.desk(f"p2p_taskqueue_{name}", by, **arguments)

    async def submit(self, type_="dig", by="", **payload):
        return (await self("submit", by, task_type=type_, model_name="m", payload=payload))["task_id"]


@pytest.fixture
async def aliases(tmp_path):
    async with task_desk.open_desk(tmp_path, aliases=True) as desk:
        yield Aliases(desk)


async def test_a_task_is_submitted_taken_and_completed(aliases):
    task_id = await aliases.submit(depth=2)
    taken = (await aliases("claim_next", worker_id="w", supported_task_types=["dig"], clock={"vector": {}}))["task"]
    assert (taken["task_id"], taken["payload"], taken["model_name"]) == (task_id, {"depth": 2}, "m")
    assert taken["fencing_token"] > 0
    ended = await aliases("complete_task", task_id=task_id, result={"ok": 1})
    assert ended == {"ok": True, "task_id": task_id, "error": None}
    row = (await aliases("get_task", task_id=task_id))["task"]
    assert (row["status"], row["result"], row["assigned_worker"]) == ("completed", {"ok": 1}, "w")


async def test_what_a_payload_names_is_in_it_when_it_is_claimed(aliases):
    first = await aliases.submit()
    await aliases("claim_next", worker_id="w")
    await aliases("complete_task", task_id=first, result={"ok": 1})
    payload = json.dumps({"x": {"$task": first, "path": "/ok"}})
    await aliases.desk.queue.do(Enqueue(type="dig", payload=payload, links=True))
    assert (await aliases("claim_next", worker_id="w"))["task"]["payload"] == {"x": 1}


@pytest.mark.parametrize(("status", "then"), [("failed", "failed"), ("odd", "failed"), ("cancelled", "cancelled")])
async def test_what_is_not_completed_has_failed_unless_it_was_cancelled(aliases, status, then):
    task_id = await aliases.submit()
    await aliases("claim_next", worker_id="w")
    assert (await aliases("complete_task", task_id=task_id, status=status, error="rain"))["ok"] is True
    assert (await aliases("get_task", task_id=task_id))["task"]["status"] == then


async def test_without_a_live_lease_nothing_is_completed(aliases):
    task_id = await aliases.submit()
    stale = {"ok": False, "task_id": task_id, "error": "stale_fence"}
    assert await aliases("complete_task", task_id=task_id) == stale
    await aliases("claim_next", worker_id="w")
    aliases.desk.box.later(31)
    assert await aliases("complete_task", task_id=task_id) == stale
    assert (await aliases("complete_task", task_id="none"))["error"] == "task_missing"


async def test_there_may_be_no_task(aliases):
    assert await aliases("claim_next", worker_id="w") == {"ok": True, "task": None}
    assert await aliases("get_task", task_id="none") == {"ok": True, "task": None}
    assert await aliases("wait_task", task_id="none", timeout_s=60) == {"ok": True, "task": None}


async def test_the_end_of_a_task_is_waited_for(aliases):
    task_id = await aliases.submit()
    async with trio.open_nursery() as nursery:
        seen = []

        async def wait():
            seen.append((await aliases("wait_task", task_id=task_id))["task"]["status"])

        nursery.start_soon(wait)
        await aliases("claim_next", worker_id="w")
        await wait_all_tasks_blocked(0.005)
        assert seen == []
        await aliases("complete_task", task_id=task_id)
    assert seen == ["completed"]


async def test_lists_are_oldest_first_with_payloads(aliases):
    first = await aliases.submit(n=1)
    aliases.desk.box.later(1)
    second = await aliases.submit("fly", n=2)
    tasks = (await aliases("list_tasks"))["tasks"]
    assert [(task["task_id"], task["payload"]) for task in tasks] == [(first, {"n": 1}), (second, {"n": 2})]
    assert [task["task_id"] for task in (await aliases("list_tasks", task_types=["fly"]))["tasks"]] == [second]
    assert (await aliases("list_tasks", status="running"))["tasks"] == []


async def test_the_status_counts_by_type(aliases):
    await aliases.submit()
    await aliases.submit("fly")
    await aliases("claim_next", worker_id="w", supported_task_types=["fly"])
    assert (await aliases("status"))["queue"] is None
    assert (await aliases("status", detail=True))["queue"] == {
        "queued": 1, "running": 1, "queued_by_type": {"dig": 1}, "running_by_type": {"fly": 1},
    }  # fmt: skip


@pytest.mark.parametrize("name", TASK_ALIASES)
async def test_the_queue_of_another_node_is_out_of_reach_and_not_taken_for_this_one(aliases, name):
    with pytest.raises(UnavailableError, match="can't be reached"):
        await aliases.desk(name, remote_multiaddr="/ip4/192.0.2.1/tcp/9710/p2p/x", **_NEEDED.get(name, {}))


async def test_owners_and_workers_are_told_apart(tmp_path):
    async with task_desk.open_desk(tmp_path, aliases=True, workers=["will", "wanda"]) as desk:
        aliases = Aliases(desk)
        task_id = await aliases.submit(by="ada")
        with pytest.raises(MCPServerError) as caught:
            await aliases("claim_next", "ada", worker_id="w")
        assert code_of(caught.value) == "FORBIDDEN"
        with pytest.raises(MCPServerError) as caught:
            await aliases("get_task", "bob", task_id=task_id)
        assert code_of(caught.value) == "NOT_OWNER"
        await aliases("claim_next", "will", worker_id="w")
        assert (await aliases("complete_task", "wanda", task_id=task_id))["error"] == "stale_fence"
        assert (await aliases("complete_task", "will", task_id=task_id))["ok"] is True
