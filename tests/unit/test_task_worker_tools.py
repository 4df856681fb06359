# SPDX-License-Identifier: AGPL-3.0-or-later
"""External workers by the tools: who may say what of a task, and what becomes of tasks whose worker goes."""

from __future__ import annotations

import pytest
import task_desk
import trio
from trio.testing import wait_all_tasks_blocked

from actors.errors import DrainingError, InvalidArgumentsError, MCPServerError, code_of
from actors.task_messages import Claim, Enqueue, RegisterWorker


@pytest.fixture
async def desk(tmp_path):
    async with task_desk.open_desk(tmp_path) as one:
        yield one


@pytest.fixture
async def named(tmp_path):
    """A queue whose callers have names; will and wanda may work."""
    async with task_desk.open_desk(tmp_path, operators=["olga"], workers=["will", "wanda"]) as one:
        await one.hire("w", by="will")
        await one.submit("a", by="ada")
        yield one


async def refused(call) -> str:
    with pytest.raises(MCPServerError) as caught:
        await call
    return code_of(caught.value)


# --- coming ----------------------------------------------------------------------------------------------------------


async def test_a_worker_registers_and_is_told_how_often_to_beat(desk):
    told = await desk.hire(resource_limits={"cpu_cores": 2, "memory_gb": 0.5}, metadata={"site": "x"})
    assert told == {
        "success": True, "worker_id": "w", "status": "active", "registered_at": desk.box.clock.now,
        "assigned_peers": [], "heartbeat_interval": 30, "lease_time": 300,
    }  # fmt: skip
    info = await desk.queue.worker("w")
    assert (info.types, info.max_tasks, info.limits) == (["dig"], 5, '{"cpu_cores":2.0,"memory_gb":0.5}')


@pytest.mark.parametrize("wrong", [{"capabilities": []}, {"max_concurrent_tasks": 0}, {"resource_limits": {"gpu": 1}}])
async def test_a_worker_that_can_nothing_is_refused(desk, wrong):
    with pytest.raises(InvalidArgumentsError):
        await desk.hire(**wrong)


async def test_a_worker_id_is_bound_to_its_caller(named):
    assert await refused(named.hire("w", by="wanda")) == "NOT_OWNER"
    assert await refused(named.take("w", by="wanda")) == "NOT_OWNER"
    assert await refused(named("worker_unregister", "wanda", worker_id="w")) == "NOT_OWNER"
    assert await refused(named("worker_status", "wanda", worker_id="w")) == "NOT_OWNER"
    assert await refused(named("worker_heartbeat", "wanda", worker_id="w")) == "NOT_OWNER"
    assert (await named("worker_status", "olga", worker_id="w"))["status"] == "idle"
    assert await refused(named.take("w", by="olga")) == "NOT_OWNER"


async def test_nobody_acts_for_the_systems_own_workers(desk):
    await desk.box.do(RegisterWorker(worker="own", internal=True, max_tasks=1))
    await desk.submit("a")
    await desk.box.do(Claim(worker="own"))
    token = (await desk.box.task("a")).token
    task = {"task_id": "a", "fencing_token": token, "assigned_worker": "own"}
    assert await refused(desk.end("task_complete", task)) == "NOT_OWNER"
    assert await refused(desk.hire("own")) == "NOT_OWNER"
    assert await refused(desk.take("own")) == "NOT_OWNER"
    assert await refused(desk("worker_unregister", worker_id="own")) == "NOT_OWNER"


# --- taking ----------------------------------------------------------------------------------------------------------


async def test_a_worker_that_nobody_knows_gets_no_task(desk):
    await desk.submit("a")
    assert await refused(desk.take()) == "NOT_FOUND"


async def test_a_claimed_task_comes_with_all_that_its_worker_needs(desk):
    await desk.submit("a", payload={"depth": 2}, priority=7, timeout=60)
    await desk.hire()
    task = await desk.take(lease=20)
    now = desk.box.clock.now
    assert task.pop("fencing_token") > 0
    assert task == {
        "task_id": "a", "task_type": "dig", "model_name": "", "payload": {"depth": 2}, "priority": 7, "created_at": now,
        "status": "running", "assigned_worker": "w", "attempt": 1, "lease_until": now + 20, "timeout": 60,
        "deadline": None,
    }  # fmt: skip


async def test_a_worker_gets_what_it_can_and_no_more_than_it_has_places(desk):
    await desk.hire(max_concurrent_tasks=2)
    await desk.submit("other", "fly")
    for name in "abc":
        await desk.submit(name)
    claimed = await desk("task_claim", worker_id="w", max_tasks=10)
    assert [task["task_id"] for task in claimed["tasks"]] == ["a", "b"]
    assert (await desk("worker_status", worker_id="w"))["status"] == "busy"
    assert (await desk("task_claim", worker_id="w"))["tasks"] == []


async def test_a_claim_whose_answer_was_lost_is_answered_again(desk):
    await desk.hire()
    for name in "ab":
        await desk.submit(name)
    first = await desk.take(request_id="r1")
    assert await desk.take(request_id="r1") == first
    assert (await desk.take(request_id="r2"))["task_id"] == "b"


async def test_a_claim_waits_for_a_task(desk):
    await desk.hire()
    async with trio.open_nursery() as nursery:
        taken = []

        async def wait():
            taken.append(await desk.take(wait=60))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.005)
        assert taken == []
        await desk.submit("a")
    assert taken[0]["task_id"] == "a"


async def test_tasks_that_one_answer_can_not_carry_are_given_back(tmp_path):
    async with task_desk.open_desk(tmp_path, max_result_bytes=4096) as desk:
        await desk.hire()
        for name in "abc":
            await desk.submit(name, payload={"text": "x" * 1200})
        claimed = await desk("task_claim", worker_id="w", max_tasks=3)
        assert [task["task_id"] for task in claimed["tasks"]] == ["a"]
        assert [(await desk.box.task(name)).attempt for name in "bc"] == [0, 0]
        assert (await desk.take())["task_id"] == "b"


async def test_what_a_payload_names_is_in_it_when_it_is_claimed(desk):
    await desk.hire()
    await desk.ended("first", result={"a": [1, 2]})
    payload = '{"x": {"$task": "first", "path": "/a/1"}, "y": {"$literal": {"$task": "z"}}}'
    await desk.queue.do(Enqueue(type="dig", id="second", payload=payload, links=True))
    claimed = [await desk.take(request_id="r") for _ in range(2)]
    assert [task["payload"] for task in claimed] == [{"x": 2, "y": {"$task": "z"}}] * 2
    await desk.end("task_complete", claimed[1])


async def test_a_task_whose_payload_can_not_be_made_whole_fails_and_is_given_to_nobody(tmp_path):
    async with task_desk.open_desk(tmp_path, max_result_bytes=4096) as desk:
        await desk.hire()
        await desk.ended("first", result="x" * 2000)
        for name, payload in {
            "lost": '{"x": {"$task": "nobody"}}',
            "large": '{"x": {"$task": "first"}, "y": {"$task": "first"}}',
            "good": '{"x": {"$task": "first"}}',
        }.items():
            await desk.queue.do(Enqueue(type="dig", id=name, payload=payload, links=True))
        claimed = await desk("task_claim", worker_id="w", max_tasks=3)
        assert [task["task_id"] for task in claimed["tasks"]] == ["good"]
        ends = [await desk.box.task(name) for name in ("lost", "large")]
        assert [(task.state, task.error.code) for task in ends] == [
            ("failed", "REFERENCE_MISSING"),
            ("failed", "LIMIT_EXCEEDED"),
        ]


# --- ending ----------------------------------------------------------------------------------------------------------


async def test_a_task_is_completed_once_and_again_is_harmless(desk):
    await desk.hire()
    await desk.submit("a")
    task = await desk.take()
    assert await desk.end("task_complete", task, result=[1]) == {
        "success": True, "task_id": "a", "status": "completed", "next_attempt_at": None, "replayed": False,
    }  # fmt: skip
    assert (await desk.end("task_complete", task, result=[1]))["replayed"] is True
    assert await refused(desk.end("task_complete", task, result=[2])) == "ID_CONFLICT"


async def test_a_worker_whose_task_went_to_another_is_refused(desk):
    await desk.hire("w")
    await desk.hire("v")
    await desk.submit("a")
    old = await desk.take("w", lease=10)
    desk.box.later(11)
    new = await desk.take("v")
    assert new["fencing_token"] > old["fencing_token"]
    held = [{"task_id": "a", "fencing_token": old["fencing_token"]}]
    beaten = (await desk("worker_heartbeat", worker_id="w", tasks=held))["tasks"][0]
    assert (beaten["error_code"], beaten["lease_until"]) == ("STALE_FENCE", None)
    for how, more in (("task_complete", {}), ("task_fail", {"error": "x"}), ("task_release", {})):
        assert await refused(desk.end(how, old, **more)) == "STALE_FENCE"
    assert (await desk.end("task_complete", new))["status"] == "completed"


async def test_a_token_is_of_no_use_to_another_worker(named):
    task = await named.take("w", by="will")
    await named.hire("v", by="wanda")
    stolen = task | {"assigned_worker": "v"}
    for how, more in (("task_complete", {}), ("task_fail", {"error": "x"}), ("task_release", {})):
        assert await refused(named.end(how, stolen, by="wanda", **more)) == "NOT_OWNER"
    held = [{"task_id": "a", "fencing_token": task["fencing_token"]}]
    assert await refused(named("worker_heartbeat", "wanda", worker_id="v", tasks=held)) == "NOT_OWNER"
    assert (await named.box.task("a")).worker == "w"


async def test_a_worker_that_drains_uses_no_attempt(desk):
    await desk.hire()
    await desk.submit("a")
    given = await desk.end("task_release", await desk.take(), draining=True, reason="night")
    assert given["status"] == "queued"
    assert (await desk.take())["attempt"] == 1


# --- living and going ------------------------------------------------------------------------------------------------


async def test_a_heartbeat_moves_the_lease(desk):
    await desk.hire()
    await desk.submit("a")
    task = await desk.take()
    desk.box.later(20)
    held = [{"task_id": "a", "fencing_token": task["fencing_token"], "progress": 10}]
    beaten = await desk("worker_heartbeat", worker_id="w", tasks=held)
    assert (beaten["status"], beaten["tasks"][0]["lease_until"]) == ("active", desk.box.clock.now + 30)


async def test_the_state_of_a_worker_is_what_it_holds_and_when_it_was_heard_of(desk):
    await desk.hire(max_concurrent_tasks=2)

    async def status():
        return (await desk("worker_status", worker_id="w"))["status"]

    assert await status() == "idle"
    for name in "ab":
        await desk.submit(name)
    first = await desk.take()
    assert await status() == "active"
    second = await desk.take()
    assert await status() == "busy"
    desk.box.later(3)
    await desk.end("task_complete", first)
    await desk.end("task_fail", second, error="x", retryable=False)
    told = await desk("worker_status", worker_id="w", include_tasks=True, include_metrics=True)
    assert (told["running_tasks"], told["completed_tasks"], told["failed_tasks"], told["tasks"]) == (0, 1, 1, [])
    assert (told["metrics"]["average_execution_time"], told["metrics"]["last_seen"]) == (3, desk.box.clock.now)
    desk.box.later(90)
    assert await status() == "offline"
    await desk("worker_heartbeat", worker_id="w")
    assert await status() == "idle"


async def test_the_tasks_of_a_worker_are_shown(desk):
    await desk.hire()
    await desk.submit("a")
    task = await desk.take()
    [shown] = (await desk("worker_status", worker_id="w", include_tasks=True))["tasks"]
    assert (shown["task_id"], shown["task_type"], shown["lease_until"]) == ("a", "dig", task["lease_until"])


async def test_a_worker_that_goes_at_once_leaves_its_tasks_to_others(desk):
    await desk.hire()
    await desk.submit("a")
    await desk.take()
    gone = await desk("worker_unregister", worker_id="w", graceful=False)
    assert (gone["status"], gone["completed_tasks"], gone["abandoned_tasks"]) == ("unregistered", 0, 1)
    assert (await desk.box.task("a")).attempt == 0
    assert (await desk("task_claim", worker_id="w"))["tasks"] == []
    assert (await desk("worker_status", worker_id="w"))["status"] == "unregistered"
    await desk.hire("v")
    assert (await desk.take("v"))["task_id"] == "a"


async def test_a_worker_that_goes_gracefully_is_waited_for(desk):
    await desk.hire()
    for name in "abc":
        await desk.submit(name)
    first, second = await desk.take(), await desk.take()
    gone = {}
    async with trio.open_nursery() as nursery:

        async def leave():
            gone.update(await desk("worker_unregister", worker_id="w"))

        nursery.start_soon(leave)
        await wait_all_tasks_blocked(0.005)
        assert (await desk("task_claim", worker_id="w"))["tasks"] == []
        await desk.end("task_complete", first)
        await wait_all_tasks_blocked(0.005)
        assert gone == {}
        await desk.end("task_release", second)
    assert (gone["completed_tasks"], gone["abandoned_tasks"]) == (1, 0)


async def test_what_a_worker_still_holds_when_its_time_is_over_is_queued_again(desk):
    await desk.hire()
    await desk.submit("a")
    await desk.take()
    gone = await desk("worker_unregister", worker_id="w", timeout=0.01)
    assert gone["abandoned_tasks"] == 1
    assert await desk.box.state("a") == "ready"


async def test_a_queue_that_ends_gives_nothing_back_before_its_time(desk):
    await desk.hire()
    await desk.submit("a")
    await desk.take()
    async with trio.open_nursery() as nursery:

        async def leave():
            with pytest.raises(DrainingError):
                await desk("worker_unregister", worker_id="w")

        nursery.start_soon(leave)
        await wait_all_tasks_blocked(0.005)
        desk.queue.leave()
    assert await desk.box.state("a") == "leased"


async def test_a_worker_that_never_was_can_not_go(desk):
    assert await refused(desk("worker_unregister", worker_id="w")) == "NOT_FOUND"
