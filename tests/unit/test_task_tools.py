# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools about tasks and about the queue tell what is so, and nothing else."""

from __future__ import annotations

import pytest
import task_desk
from msgspec.structs import replace
from task_boxes import BIG

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, code_of
from actors.p2p_names import TASK_ALIASES, TASK_TOOLS


@pytest.fixture
async def desk(tmp_path):
    async with task_desk.open_desk(tmp_path) as one:
        await one.hire()
        yield one


async def refused(call) -> str:
    with pytest.raises(MCPServerError) as caught:
        await call
    return code_of(caught.value)


# --- which there are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"tools": False}, ()),
        ({"tools": False, "aliases": True}, ()),
        ({}, TASK_TOOLS),
        ({"aliases": True}, TASK_TOOLS + TASK_ALIASES),
    ],
)
async def test_the_names_that_are_known_elsewhere_are_those_of_the_tools(tmp_path, settings, names):
    async with task_desk.open_desk(tmp_path, **settings) as desk:
        assert sorted(desk.tools) == sorted(names)


# --- submitting ------------------------------------------------------------------------------------------------------


async def test_a_submitted_task_is_queued_and_knows_its_place(desk):
    first = await desk.submit("a")
    assert first == {
        "success": True, "task_id": "a", "status": "queued", "queue_position": 1, "estimated_start_time": None,
        "assigned_worker": None, "replayed": False,
    }  # fmt: skip
    assert (await desk.submit("b"))["queue_position"] == 2
    assert (await desk.submit("c", priority=9.5))["queue_position"] == 1


async def test_a_start_is_estimated_from_those_that_were_measured(desk):
    for name in ("a", "b", "c"):
        await desk.ended(name)
    desk.box.later(30)
    told = await desk.submit("d")
    assert told["estimated_start_time"] == pytest.approx(desk.box.clock.now + 1 / (3 / 30))


async def test_the_same_submission_again_is_replayed_and_another_is_a_conflict(desk):
    await desk.submit("a", payload={"x": 1, "y": 2})
    again = await desk.submit("a", payload={"y": 2, "x": 1})
    assert (again["replayed"], again["queue_position"]) == (True, 1)
    assert await refused(desk.submit("a", payload={"x": 3})) == "ID_CONFLICT"
    task = await desk.take()
    assert (await desk.submit("a", payload={"x": 1, "y": 2}))["assigned_worker"] == "w"
    await desk.end("task_complete", task)
    assert (await desk.submit("a", payload={"x": 1, "y": 2}))["status"] == "completed"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"priority": 11}, "priority"),
        ({"payload": [1]}, "payload"),
        ({"timeout": 0}, "timeout"),
        ({"retry_policy": {"max_retry": 1}}, "max_retries"),
        ({"deadline": 1}, "deadline"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(desk, wrong, named):
    with pytest.raises(InvalidArgumentsError, match=named):
        await desk.submit("a", **wrong)


async def test_a_full_queue_says_so(tmp_path):
    async with task_desk.open_desk(tmp_path, replace(BIG, max_queue_size=1)) as desk:
        await desk.submit("a")
        assert await refused(desk.submit("b")) == "QUEUE_FULL"


# --- one task --------------------------------------------------------------------------------------------------------


async def test_the_status_follows_the_task(desk):
    await desk.submit("a", tags=["x"])
    queued = await desk("task_status", task_id="a")
    assert (queued["status"], queued["queue_position"], queued["why_waiting"]) == ("queued", 1, "waits for a worker")
    assert (queued["progress"], queued["worker_id"], queued["start_time"]) == (None, None, None)
    assert (queued["logs"], queued["metrics"]) == (None, None)
    desk.box.later(4)
    task = await desk.take()
    started = desk.box.clock.now
    desk.box.later(2)
    held = {"task_id": "a", "fencing_token": task["fencing_token"], "progress": 40, "logs": ["half"]}
    await desk("worker_heartbeat", worker_id="w", tasks=[held])
    running = await desk("task_status", task_id="a", include_logs=True, include_metrics=True)
    assert (running["status"], running["progress"], running["worker_id"]) == ("running", 40, "w")
    assert (running["start_time"], running["end_time"], running["attempt"]) == (started, None, 1)
    assert (running["logs"], running["queue_position"]) == (["half"], None)
    desk.box.later(1)
    await desk.end("task_complete", task)
    metrics = (await desk("task_status", task_id="a", include_metrics=True))["metrics"]
    assert (metrics["wait_time"], metrics["execution_time"], metrics["attempts"]) == (4, 3, 1)
    assert metrics["last_heartbeat"] == started + 2
    assert [event["what"] for event in metrics["events"]] == ["submitted", "claimed", "completed"]


async def test_a_task_that_never_was_is_not_found(desk):
    for tool in ("task_status", "task_cancel", "task_result", "task_retry"):
        with pytest.raises(NotFoundError, match="'a'"):
            await desk(tool, task_id="a")


async def test_a_queued_task_is_cancelled_at_once_and_a_running_one_when_its_worker_stops(desk):
    await desk.submit("a")
    gone = await desk("task_cancel", task_id="a", reason="not needed")
    assert (gone["status"], gone["cancelled_at"], gone["cleanup_required"]) == (
        "cancelled", desk.box.clock.now, False,
    )  # fmt: skip
    assert (await desk("task_cancel", task_id="a"))["replayed"] is True
    await desk.submit("b")
    task = await desk.take()
    asked = await desk("task_cancel", task_id="b")
    assert (asked["status"], asked["cancelled_at"]) == ("running", None)
    held = [{"task_id": "b", "fencing_token": task["fencing_token"]}]
    assert (await desk("worker_heartbeat", worker_id="w", tasks=held))["tasks"][0]["cancel_requested"] is True
    assert (await desk.end("task_release", task))["status"] == "cancelled"
    assert await refused(desk("task_cancel", task_id="c")) == "NOT_FOUND"


async def test_force_takes_a_task_from_its_worker(desk):
    await desk.submit("a")
    task = await desk.take()
    gone = await desk("task_cancel", task_id="a", force=True)
    assert (gone["status"], gone["cleanup_required"]) == ("cancelled", True)
    assert await refused(desk.end("task_complete", task)) == "STALE_FENCE"


async def test_what_has_ended_otherwise_can_not_be_cancelled(desk):
    await desk.ended("a")
    assert await refused(desk("task_cancel", task_id="a")) == "INVALID_STATE"


async def test_a_result_is_there_after_the_end_only(desk):
    await desk.submit("a")
    assert await refused(desk("task_result", task_id="a")) == "NOT_FINISHED"
    task = await desk.take()
    assert await refused(desk("task_result", task_id="a")) == "NOT_FINISHED"
    desk.box.later(5)
    await desk.end("task_complete", task, result={"depth": 3}, logs=["dug"])
    told = await desk("task_result", task_id="a", include_logs=True)
    assert (told["status"], told["output"], told["logs"], told["execution_time"]) == (
        "completed", {"depth": 3}, ["dug"], 5,
    )  # fmt: skip
    ended = {
        "ended_at": desk.box.clock.now,
        "worker_id": "w",
        "attempt": 1,
        "error": None,
        "is_error": False,
        "reason": "",
    }
    assert told["result"] == ended
    assert (await desk("task_result", task_id="a", include_output=False))["output"] is None


async def test_a_failed_task_says_why_and_can_be_done_again_as_a_new_one(desk):
    await desk.submit("a", retry_policy={"max_retries": 0})
    failed = await desk.end("task_fail", await desk.take(), error="rock", error_code="TOO_HARD")
    assert (failed["status"], failed["next_attempt_at"]) == ("failed", None)
    told = await desk("task_result", task_id="a")
    assert (told["result"]["error"]["code"], told["result"]["error"]["message"]) == ("TOO_HARD", "rock")
    assert told["execution_time"] is None
    again = await desk("task_retry", "", "call-x", task_id="a", retry_config={"max_retries": 4, "timeout": 60})
    assert (again["retry_count"], again["queue_position"]) == (1, 1)
    assert again["retry_task_id"] != "a"
    assert await desk("task_retry", "", "call-x", task_id="a", retry_config={"max_retries": 4, "timeout": 60}) == again
    new = await desk.box.task(again["retry_task_id"])
    assert (new.retry_of, new.retry.max_attempts, new.timeout_s) == ("a", 5, 60)
    assert await refused(desk("task_retry", task_id=new.id)) == "INVALID_STATE"


async def test_a_failed_attempt_is_followed_by_another_while_there_are_retries(desk):
    await desk.submit("a", retry_policy={"max_retries": 1, "backoff_factor": 3})
    failed = await desk.end("task_fail", await desk.take(), error="rain")
    assert failed["status"] == "queued"
    assert failed["next_attempt_at"] > desk.box.clock.now
    assert (await desk("task_status", task_id="a"))["why_waiting"] == "waits for its next attempt"


async def test_a_priority_is_changed_now_or_from_the_next_attempt_on(desk):
    await desk.submit("a")
    await desk.submit("b")
    changed = await desk("task_priority", task_id="b", new_priority=8)
    assert (changed["old_priority"], changed["new_priority"], changed["new_queue_position"]) == (5, 8, 1)
    task = await desk.take()
    assert task["task_id"] == "b"
    assert await refused(desk("task_priority", task_id="b", new_priority=2)) == "INVALID_STATE"
    assert (await desk("task_priority", task_id="b", new_priority=2, requeue=False))["new_priority"] == 2
    await desk.end("task_release", task)
    assert (await desk.box.task("b")).priority == 2


# --- many ------------------------------------------------------------------------------------------------------------


async def test_lists_are_filtered_and_come_in_pages(desk):
    await desk.ended("done", tags=["x"])
    for number in range(3):
        desk.box.later(1)
        await desk.submit(f"t{number}", tags=["x", "y"] if number else ["x"], priority=number + 5)
    await desk.take()

    async def listed(**filters):
        told = await desk("task_list", **filters)
        assert told["returned_count"] == len(told["tasks"])
        return [task["task_id"] for task in told["tasks"]], told["total_count"], told["has_more"]

    assert await listed() == (["t2", "t1", "t0", "done"], 4, False)
    assert await listed(limit=2) == (["t2", "t1"], 4, True)
    assert await listed(limit=2, offset=2) == (["t0", "done"], 4, False)
    assert await listed(status_filter="queued") == (["t1", "t0"], 2, False)
    assert await listed(worker_filter="w") == (["t2", "done"], 2, False)
    assert await listed(tag_filter=["x", "y"]) == (["t2", "t1"], 2, False)
    assert await listed(priority_min=6) == (["t2", "t1"], 2, False)
    for wrong in ({"limit": 1001}, {"offset": -1}, {"status_filter": "lost"}):
        with pytest.raises(InvalidArgumentsError):
            await desk("task_list", **wrong)


async def test_statistics_are_measured(desk):
    empty = await desk("queue_stats")
    assert (empty["average_wait_time"], empty["average_execution_time"], empty["throughput"]) == (None, None, None)
    await desk.submit("a")
    desk.box.later(4)
    task = await desk.take()
    desk.box.later(6)
    await desk.end("task_complete", task)
    await desk.submit("b")
    told = await desk("queue_stats", include_worker_stats=True, include_historical=True)
    assert (told["queued_count"], told["running_count"], told["completed_count"]) == (1, 0, 1)
    assert (told["average_wait_time"], told["average_execution_time"]) == (4, 6)
    assert told["throughput"] == pytest.approx(0.1)
    [worker] = told["worker_stats"]
    assert (worker["worker_id"], worker["completed_tasks"], worker["metrics"]["average_execution_time"]) == ("w", 1, 6)
    assert [(hour["submitted"], hour["completed"]) for hour in told["historical"]] == [(2, 1)]


async def test_a_paused_queue_gives_no_tasks(desk):
    await desk.submit("a")
    paused = await desk("queue_pause", reason="repairs")
    assert (paused["status"], paused["queued_tasks"], paused["running_tasks"]) == ("paused", 1, 0)
    assert await desk("task_claim", worker_id="w") == {"success": True, "tasks": [], "paused": True}
    assert (await desk("queue_stats"))["paused"] is True
    assert (await desk("task_status", task_id="a"))["why_waiting"] == "paused"
    resumed = await desk("queue_resume")
    assert (resumed["status"], resumed["queued_tasks"], resumed["reordered"]) == ("active", 1, False)
    assert (await desk.take())["task_id"] == "a"


async def test_clearing_needs_a_word_and_leaves_what_runs_or_is_completed(desk):
    await desk.ended("done")
    await desk.submit("running")
    await desk.take()
    await desk.submit("gone")
    await desk("task_cancel", task_id="gone")
    await desk.submit("queued")
    assert await refused(desk("queue_clear")) == "INVALID_PARAMS"
    cleared = await desk("queue_clear", status_filter="cancelled", confirm=True)
    assert (cleared["cleared_count"], cleared["remaining_count"]) == (1, 2)
    cleared = await desk("queue_clear", confirm=True)
    assert (cleared["cleared_count"], cleared["remaining_count"]) == (1, 1)
    left = (await desk("task_list"))["tasks"]
    assert sorted(task["task_id"] for task in left) == ["done", "running"]


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def named(tmp_path):
    """A queue whose callers have names."""
    async with task_desk.open_desk(tmp_path, operators=["olga"], workers=["will"]) as one:
        yield one


async def test_a_task_is_its_owners_and_the_operators(named):
    await named.submit("a", by="ada")
    await named.submit("b", by="bob")
    for tool in ("task_status", "task_cancel", "task_result", "task_retry"):
        assert await refused(named(tool, "bob", task_id="a")) == "NOT_OWNER", tool
    assert await refused(named("task_priority", "bob", task_id="a", new_priority=9)) == "NOT_OWNER"
    assert [task["task_id"] for task in (await named("task_list", "bob"))["tasks"]] == ["b"]
    assert (await named("task_status", "ada", task_id="a"))["status"] == "queued"
    assert (await named("task_list", "olga"))["total_count"] == 2
    assert (await named("task_cancel", "olga", task_id="a"))["status"] == "cancelled"
    assert await refused(named.submit("a", by="bob")) == "ID_CONFLICT"


async def test_the_queue_itself_is_for_operators(named):
    for tool, arguments in (("queue_pause", {}), ("queue_resume", {}), ("queue_clear", {"confirm": True})):
        assert await refused(named(tool, "ada", **arguments)) == "FORBIDDEN"
        await named(tool, "olga", **arguments)


async def test_work_is_for_named_workers(named):
    assert await refused(named.hire(by="ada")) == "FORBIDDEN"
    await named.hire(by="will")
    await named.submit("a", by="ada")
    assert await refused(named.take(by="ada")) == "FORBIDDEN"
    assert (await named.take(by="will"))["payload"] == {"n": 1}
