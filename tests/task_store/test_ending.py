# SPDX-License-Identifier: AGPL-3.0-or-later
"""How tasks end: failure, cancelling, time-outs; and what may be done with them afterwards."""

from __future__ import annotations

import msgspec
import pytest
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.task_messages import (
    AckCancel,
    Beat,
    Cancel,
    Clear,
    Complete,
    Expire,
    Fail,
    Release,
    Reprioritise,
    Retry,
    RetryTask,
)
from actors.task_views import GetTask, ScanTasks

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True, details={"n": [1, 2.5, None], "s": "x"})
HOPELESS = ErrorInfo(code="HOPELESS", message="it cannot work")


async def fail(box, id_, error=HOPELESS):
    lease = await box.take()
    return await box.do(Fail(id=id_, token=lease.token, error=error))


# --- attempts ------------------------------------------------------------------------------------------------------


async def test_waits_between_attempts_are_drawn_below_a_bound_that_grows_up_to_a_cap(box):
    await box.put("t", retry=Retry(max_attempts=0, base_s=1.0, factor=3.0, cap_s=20.0))
    waits = []
    for bound in (1, 3, 9, 20, 20, 20):
        ended = await fail(box, "t", BROKEN)
        waits.append(ended.run_at - box.clock.now)
        assert 0 < waits[-1] <= bound
        box.clock.now = ended.run_at
    assert len(set(waits)) == len(waits)


async def test_a_bound_beyond_all_numbers_is_the_cap(box):
    await box.put("t", retry=Retry(max_attempts=0, base_s=1e300, factor=1e300, cap_s=20.0))
    for _ in range(4):
        ended = await fail(box, "t", BROKEN)
        assert ended.run_at <= box.clock.now + 20
        box.clock.now = ended.run_at


async def test_a_failure_brings_its_last_lines(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Fail(id="t", token=lease.token, error=BROKEN, logs=["the end"]))
    await box.reopen()
    assert (await box.task("t")).logs == ["the end"]


@pytest.mark.parametrize("settled", [False, True])
async def test_a_final_failure_that_is_said_twice_is_a_repeat(box, settled):
    await box.put("t")
    lease = await box.take()
    await box.do(Fail(id="t", token=lease.token, error=HOPELESS))
    if settled:
        await box.settle()
    again = await box.do(Fail(id="t", token=lease.token, error=HOPELESS))
    assert (again.state, again.replayed) == ("failed", True)
    assert code(await box.do(Complete(id="t", token=lease.token))) == "INVALID_STATE"


@pytest.mark.parametrize("settled", [False, True])
async def test_a_final_failure_of_a_silent_holder_is_not_its_own(box, settled):
    await box.put("t", retry=Retry(max_attempts=1))
    lease = await box.take()
    box.later(30)
    await box.do(Expire())
    if settled:
        await box.settle()
    assert code(await box.do(Fail(id="t", token=lease.token, error=HOPELESS))) == "LEASE_EXPIRED"
    assert code(await box.do(Complete(id="t", token=lease.token))) == "LEASE_EXPIRED"


async def test_a_drawn_wait_is_the_same_after_a_crash(box):
    await box.put("t")
    ended = await fail(box, "t", BROKEN)
    await box.reopen()
    assert (await box.task("t")).run_at == ended.run_at


async def test_without_a_wait_the_next_attempt_may_start_at_once(box):
    await box.put("t", retry=Retry(base_s=0.0))
    assert (await fail(box, "t", BROKEN)).state == "ready"


async def test_attempts_without_end(box):
    await box.put("t", retry=Retry(max_attempts=0, base_s=0.0))
    for _ in range(10):
        assert (await fail(box, "t", BROKEN)).state == "ready"


async def test_an_error_is_kept_as_it_was_said(box):
    await box.put("t", retry=Retry(max_attempts=1))
    await fail(box, "t", BROKEN)
    await box.reopen()
    assert (await box.task("t")).error == BROKEN


@pytest.mark.parametrize(
    "value", [msgspec.msgpack.Ext(1, b"x"), {None: 1}, object()], ids=["extension", "key", "object"]
)
async def test_an_error_with_details_that_are_no_json_is_refused(box, value):
    await box.put("t")
    lease = await box.take()
    strange = msgspec.structs.replace(BROKEN, details={"x": value})
    assert code(await box.do(Fail(id="t", token=lease.token, error=strange))) == "INVALID_PARAMS"
    assert await box.state("t") == "leased"


async def test_a_task_that_waits_again_has_no_worker(box):
    await box.put("t")
    await fail(box, "t", BROKEN)
    assert (await box.task("t")).worker == ""
    assert [event.worker for event in await box.store.history("t")] == ["", "w", "w"]


async def test_giving_back_the_last_attempt_is_a_failure(box):
    await box.put("t", retry=Retry(max_attempts=1))
    lease = await box.take()
    assert (await box.do(Release(id="t", token=lease.token))).state == "failed"


async def test_only_the_holder_gives_back(box):
    await box.put("t")
    lease = await box.take("me")
    assert code(await box.do(Release(id="t", token=lease.token, worker="you"))) == "NOT_OWNER"
    assert (await box.do(Release(id="t", token=lease.token, worker="me"))).state == "ready"


async def test_a_result_that_is_too_large_is_refused_and_the_lease_goes_on(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_result_bytes=100))
    await box.put("t")
    lease = await box.take()
    assert code(await box.do(Complete(id="t", token=lease.token, result="x" * 101))) == "LIMIT_EXCEEDED"
    assert code(await box.do(Beat(id="t", token=lease.token))) == ""


# --- cancelling ----------------------------------------------------------------------------------------------------


async def test_a_running_task_hears_of_it_with_its_next_beat(box):
    await box.put("t")
    lease = await box.take()
    assert not (await box.do(Beat(id="t", token=lease.token))).cancel_requested
    asked = await box.do(Cancel(id="t", reason="enough"))
    assert (asked.state, asked.cleanup_required) == ("leased", False)
    assert (await box.do(Beat(id="t", token=lease.token))).cancel_requested
    assert (await box.do(AckCancel(id="t", token=lease.token))).state == "cancelled"
    assert (await box.do(AckCancel(id="t", token=lease.token))).replayed
    assert (await box.task("t")).reason == "enough"


async def test_a_task_that_was_done_before_it_heard_of_it_is_done(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Cancel(id="t"))
    assert (await box.do(Complete(id="t", token=lease.token))).state == "completed"


@pytest.mark.parametrize(
    "how",
    [lambda token: Fail(id="t", token=token, error=BROKEN), lambda token: Release(id="t", token=token, counts=False)],
)
async def test_after_a_request_to_cancel_there_is_no_other_attempt(box, how):
    await box.put("t")
    lease = await box.take()
    await box.do(Cancel(id="t"))
    assert (await box.do(how(lease.token))).state == "cancelled"


async def test_the_end_of_its_lease_cancels_a_task_that_was_asked_to_stop(box):
    await box.put("t")
    await box.take()
    await box.do(Cancel(id="t"))
    box.later(30)
    await box.do(Expire())
    assert await box.state("t") == "cancelled"


async def test_force_ends_the_lease_and_refuses_the_late_result(box):
    await box.put("t")
    lease = await box.take()
    forced = await box.do(Cancel(id="t", force=True))
    assert (forced.state, forced.cleanup_required) == ("cancelled", True)
    assert code(await box.do(Complete(id="t", token=lease.token))) == "STALE_FENCE"
    assert await box.claim() == []


async def test_cancelling_twice_is_a_repeat(box):
    await box.put("t")
    await box.do(Cancel(id="t"))
    assert (await box.do(Cancel(id="t"))).replayed
    await box.settle()
    assert (await box.do(Cancel(id="t"))).replayed
    await box.put("u")
    await box.take()
    assert not (await box.do(Cancel(id="u"))).replayed
    assert (await box.do(Cancel(id="u"))).replayed


async def test_what_has_ended_is_not_cancelled(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Complete(id="t", token=lease.token))
    assert code(await box.do(Cancel(id="t"))) == "INVALID_STATE"
    await box.settle()
    assert code(await box.do(Cancel(id="t"))) == "INVALID_STATE"


async def test_nobody_stops_a_task_that_was_not_cancelled(box):
    await box.put("t")
    lease = await box.take()
    assert code(await box.do(AckCancel(id="t", token=lease.token))) == "INVALID_STATE"


# --- time-outs -----------------------------------------------------------------------------------------------------


async def test_a_task_that_nobody_claims_in_time_fails(box):
    await box.put("t", queue_timeout_s=10.0)
    box.later(9.9)
    assert (await box.do(Expire())).timeouts == 0
    box.later(0.1)
    assert (await box.do(Expire())).timeouts == 1
    assert (await box.do(Expire())).timeouts == 0
    assert (await box.task("t")).error.code == "QUEUE_TIMEOUT"


async def test_the_time_in_the_queue_begins_when_a_task_may_start(box):
    await box.put("t", queue_timeout_s=10.0, run_at=box.clock.now + 100)
    box.later(100)
    await box.do(Expire())
    box.later(9.9)
    assert (await box.do(Expire())).timeouts == 0
    box.later(0.1)
    assert (await box.do(Expire())).timeouts == 1


async def test_a_task_that_was_claimed_once_has_no_time_in_the_queue(box):
    await box.put("t", queue_timeout_s=10.0)
    lease = await box.take()
    await box.do(Release(id="t", token=lease.token, counts=False))
    box.later(100)
    assert (await box.do(Expire())).timeouts == 0


async def test_a_deadline_ends_a_waiting_task(box):
    await box.put("t", deadline=box.clock.now + 10, run_at=box.clock.now + 100)
    box.later(10)
    assert await box.claim() == []
    assert (await box.task("t")).error.code == "DEADLINE_EXCEEDED"


async def test_a_deadline_ends_a_running_task_and_refuses_its_late_result(box):
    await box.put("t", deadline=box.clock.now + 10)
    lease = await box.take()
    box.later(10)
    await box.do(Expire())
    assert await box.state("t") == "failed"
    assert code(await box.do(Complete(id="t", token=lease.token))) == "STALE_FENCE"


async def test_a_claim_gives_no_task_whose_deadline_has_passed(box):
    await box.put("t", deadline=box.clock.now + 10)
    box.later(10)
    assert await box.claim() == []


async def test_time_outs_are_kept_over_a_crash(box):
    await box.put("a", deadline=box.clock.now + 10)
    await box.put("b", queue_timeout_s=10.0)
    await box.put("c", run_at=box.clock.now + 10)
    await box.reopen()
    assert box.store.next_due() == box.clock.now + 10
    box.later(10)
    assert (await box.do(Expire())).timeouts == 2
    assert (await box.take()).id == "c"


async def test_expiry_does_no_more_than_it_is_asked_to(box):
    for n in range(5):
        await box.put(str(n), queue_timeout_s=1.0)
    box.later(1)
    first = await box.do(Expire(most=3))
    assert first.timeouts == 3
    assert first.next_at <= box.clock.now
    assert code(await box.do(Expire(most=0))) == "INVALID_PARAMS"
    assert (await box.do(Expire(most=3))).timeouts == 2


# --- doing it again ------------------------------------------------------------------------------------------------


async def test_a_failed_task_is_done_again_as_a_new_one(box):
    await box.put("t", payload='{"a":1}', tags=["x"], priority=7.0, key="k", owner="ann")
    await fail(box, "t")
    again = await box.do(RetryTask(id="t", new_id="u", max_attempts=1, timeout_s=9.0))
    assert (again.id, again.state, again.retry_count, again.replayed) == ("u", "ready", 1, False)
    task = await box.task("u")
    assert (task.retry_of, task.payload, task.tags, task.priority, task.owner) == ("t", '{"a":1}', ["x"], 7.0, "ann")
    assert (task.retry.max_attempts, task.timeout_s, task.attempt) == (1, 9.0, 0)
    assert await box.state("t") == "failed"


async def test_doing_it_again_twice_with_the_same_new_id_is_a_repeat(box):
    await box.put("t")
    await fail(box, "t")
    await box.do(RetryTask(id="t", new_id="u"))
    again = await box.do(RetryTask(id="t", new_id="u"))
    assert (again.id, again.replayed, again.retry_count) == ("u", True, 1)
    await box.put("other")
    assert code(await box.do(RetryTask(id="t", new_id="other"))) == "ID_CONFLICT"


async def test_how_often_a_task_was_done_again_is_counted_through_the_history(box):
    await box.put("t0")
    for n in range(3):
        await fail(box, f"t{n}")
        await box.settle()
        again = await box.do(RetryTask(id=f"t{n}", new_id=f"t{n + 1}"))
        assert again.retry_count == n + 1


async def test_how_often_a_task_was_done_again_is_counted_among_live_tasks(box):
    await box.put("t0")
    for n in range(3):
        await fail(box, f"t{n}")
        assert (await box.do(RetryTask(id=f"t{n}", new_id=f"t{n + 1}"))).retry_count == n + 1
    await box.settle()
    await box.do(Cancel(id="t3"))
    assert (await box.do(RetryTask(id="t3"))).retry_count == 4


async def test_only_failed_and_cancelled_tasks_are_done_again(box):
    await box.put("t")
    assert code(await box.do(RetryTask(id="t"))) == "INVALID_STATE"
    lease = await box.take()
    await box.do(Complete(id="t", token=lease.token))
    assert code(await box.do(RetryTask(id="t"))) == "INVALID_STATE"
    await box.put("u")
    await box.do(Cancel(id="u"))
    assert (await box.do(RetryTask(id="u"))).state == "ready"
    assert code(await box.do(RetryTask(id="nobody"))) == "NOT_FOUND"


async def test_what_started_once_waits_for_nothing_when_it_is_done_again(box):
    await box.put("parent", keep_s=0.0)
    await box.put("t", depends_on=["parent"])
    lease = await box.take()
    await box.do(Complete(id="parent", token=lease.token))
    await fail(box, "t")
    await box.settle()
    await box.do(Expire())
    assert await box.store.get(GetTask(id="parent")) is None
    assert (await box.do(RetryTask(id="t"))).state == "ready"


@pytest.mark.parametrize("settled", [False, True])
async def test_what_never_started_waits_again_when_it_is_done_again(box, settled):
    await box.put("done")
    lease = await box.take()
    await box.do(Complete(id="done", token=lease.token))
    await box.put("parent", run_at=box.clock.now + 100)
    await box.put("t", depends_on=["parent", "done"])
    await box.do(Cancel(id="t"))
    if settled:
        await box.settle()
    again = await box.do(RetryTask(id="t", new_id="u"))
    assert again.state == "blocked"
    assert (await box.task("u")).blocked_by == 1


async def test_what_is_done_again_is_checked_like_anything_else(box):
    await box.put("t")
    await fail(box, "t")
    assert code(await box.do(RetryTask(id="t", max_attempts=-1))) == "INVALID_PARAMS"
    assert code(await box.do(RetryTask(id="t", timeout_s=-1.0))) == "INVALID_PARAMS"
    assert code(await box.do(RetryTask(id="t", new_id="x" * 201))) == "LIMIT_EXCEEDED"


# --- priorities ----------------------------------------------------------------------------------------------------


async def test_a_waiting_task_is_moved_ahead(box):
    await box.put("a")
    await box.put("b")
    moved = await box.do(Reprioritise(id="b", priority=9.0))
    assert (moved.old, moved.new, moved.position) == (5.0, 9.0, 1)
    await box.reopen()
    assert [lease.id for lease in await box.claim(n=2)] == ["b", "a"]


async def test_moving_back_and_forth_gives_a_task_once(box):
    await box.put("a")
    await box.put("b")
    for priority in (9.0, 1.0, 5.0, 1.0):
        await box.do(Reprioritise(id="a", priority=priority))
    assert [lease.id for lease in await box.claim(n=5)] == ["b", "a"]


async def test_a_priority_may_count_from_the_next_attempt_on(box):
    await box.put("t", retry=Retry(base_s=0.0))
    await box.do(Reprioritise(id="t", priority=9.0, requeue=False))
    lease = await box.take()
    assert lease.priority == 5.0
    await box.do(Release(id="t", token=lease.token))
    assert (await box.take()).priority == 9.0


async def test_the_priority_of_a_running_task_can_only_be_changed_for_the_next_attempt(box):
    await box.put("t")
    lease = await box.take()
    assert code(await box.do(Reprioritise(id="t", priority=9.0))) == "INVALID_STATE"
    assert code(await box.do(Reprioritise(id="t", priority=9.0, requeue=False))) == ""
    await box.do(Complete(id="t", token=lease.token))
    assert code(await box.do(Reprioritise(id="t", priority=9.0, requeue=False))) == "INVALID_STATE"
    assert code(await box.do(Reprioritise(id="t", priority=0.0))) == "INVALID_PARAMS"


# --- removing ------------------------------------------------------------------------------------------------------


async def one_of_each(box):
    """Tasks named after their state."""
    for id_ in ("completed", "failed", "cancelled", "leased"):
        await box.put(id_)
    leases = {lease.id: lease.token for lease in await box.claim(n=9)}
    await box.do(Complete(id="completed", token=leases["completed"]))
    await box.do(Fail(id="failed", token=leases["failed"], error=HOPELESS))
    await box.do(Cancel(id="cancelled", force=True))
    await box.put("ready")
    await box.put("scheduled", run_at=box.clock.now + 9)
    await box.put("blocked", depends_on=["ready"])


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("statuses", "gone", "remaining"),
    [
        ([], {"ready", "scheduled", "blocked", "failed", "cancelled"}, 1),
        (["queued"], {"ready", "scheduled", "blocked"}, 1),
        (["failed"], {"failed"}, 4),
        (["cancelled", "failed"], {"failed", "cancelled"}, 4),
    ],
)
async def test_clearing_removes_what_is_named_and_never_running_or_completed_tasks(
    box, statuses, gone, remaining, settled
):
    await one_of_each(box)
    if settled:
        await box.settle()
    before = {task.id for task in (await box.store.scan(ScanTasks())).tasks}
    cleared = await box.do(Clear(statuses=statuses))
    assert (cleared.cleared, cleared.remaining) == (len(gone), remaining)
    await box.reopen()
    assert {task.id for task in (await box.store.scan(ScanTasks())).tasks} == before - gone
    for id_ in gone:
        assert await box.store.get(GetTask(id=id_)) is None
    assert (await box.do(Clear(statuses=statuses))).cleared == 0


async def test_the_id_and_key_of_a_removed_task_are_free(box):
    await box.put("t", key="k")
    await box.do(Clear())
    submitted = await box.put("t", key="k", payload='{"other":1}')
    assert not submitted.replayed


async def test_an_ended_task_is_kept_as_long_as_it_said_and_no_longer(make_box):
    box = await make_box(msgspec.structs.replace(BIG, keep_s=1000.0))
    await box.put("short", keep_s=100.0)
    await box.put("usual")
    for _ in range(2):
        lease = await box.take()
        await box.do(Complete(id=lease.id, token=lease.token, result="1"))
    assert box.store.next_due() is None
    await box.settle()
    assert box.store.next_due() is not None, "somebody has to ask what was kept long enough"
    box.later(99)
    assert (await box.do(Expire())).dropped == 0
    assert box.store.next_due() <= box.clock.now + 60
    assert (await box.task("short")).result == "1"
    box.later(61)
    assert (await box.do(Expire())).dropped == 1
    assert await box.store.get(GetTask(id="short")) is None
    assert (await box.task("usual")).result == "1"
    assert not (await box.put("short")).replayed
