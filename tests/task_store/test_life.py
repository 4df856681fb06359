# SPDX-License-Identifier: AGPL-3.0-or-later
"""A task's way through the queue."""

from __future__ import annotations

import trio
from task_boxes import code

from actors.messages import ErrorInfo
from actors.task_messages import Cancel, Claim, Complete, Enqueue, Fail, Release

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True)
HOPELESS = ErrorInfo(code="HOPELESS", message="it cannot work")


async def test_a_task_is_submitted_claimed_and_completed(box):
    submitted = await box.put("t", payload='{"a":1}')
    assert (submitted.id, submitted.state, submitted.replayed) == ("t", "ready", False)
    lease = await box.take()
    assert (lease.id, lease.payload, lease.attempt, lease.lease_until) == ("t", '{"a":1}', 1, box.clock.now + 30)
    assert await box.state("t") == "leased"
    ended = await box.do(Complete(id="t", token=lease.token, result="42"))
    assert (ended.state, ended.replayed) == ("completed", False)
    task = await box.task("t")
    assert (task.state, task.result, task.worker, task.ended_at) == ("completed", "42", "w", box.clock.now)


async def test_a_task_without_an_id_is_given_one(box):
    one, two = await box.do_all(Enqueue(type="echo"), Enqueue(type="echo"))
    assert len(one.id) == len(two.id) == 44
    assert one.id != two.id


async def test_a_failed_attempt_is_tried_again_until_there_are_none_left(box):
    await box.put("t")
    for attempt in (1, 2):
        lease = await box.take()
        ended = await box.do(Fail(id="t", token=lease.token, error=BROKEN))
        assert ended.state == "scheduled"
        assert box.clock.now < ended.run_at <= box.clock.now + 2.0**attempt
        assert await box.claim() == []
        box.clock.now = ended.run_at
    lease = await box.take()
    assert lease.attempt == 3
    ended = await box.do(Fail(id="t", token=lease.token, error=BROKEN))
    assert ended.state == "failed"
    assert (await box.task("t")).error == BROKEN


async def test_an_error_that_another_attempt_would_not_help_is_final(box):
    await box.put("t")
    lease = await box.take()
    assert (await box.do(Fail(id="t", token=lease.token, error=HOPELESS))).state == "failed"


async def test_a_task_that_is_given_back_is_ready_again(box):
    await box.put("t")
    lease = await box.take()
    assert (await box.do(Release(id="t", token=lease.token))).state == "ready"
    assert (await box.take()).attempt == 2


async def test_a_draining_worker_uses_no_attempt(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Release(id="t", token=lease.token, counts=False))
    assert (await box.task("t")).attempt == 0
    assert (await box.take()).attempt == 1


async def test_a_waiting_task_is_cancelled_at_once(box):
    await box.put("t")
    assert (await box.do(Cancel(id="t", reason="why not"))).state == "cancelled"
    assert await box.claim() == []
    assert (await box.task("t")).reason == "why not"


async def test_a_refused_operation_does_not_harm_its_neighbours(box):
    outcomes = await box.do_all(
        Enqueue(type="echo", id="a"),
        Complete(id="nobody", token=1),
        Enqueue(type="", id="b"),
        Enqueue(type="echo", id="c"),
        Claim(worker="w", n=0),
    )
    assert [code(outcome) for outcome in outcomes] == ["", "NOT_FOUND", "INVALID_PARAMS", "", "INVALID_PARAMS"]
    assert [lease.id for lease in await box.claim(n=5)] == ["a", "c"]


async def test_what_was_acknowledged_is_there_after_a_crash(box):
    await box.put("waits")
    await box.put("done", priority=9.0)
    lease = await box.take()
    await box.do(Complete(id="done", token=lease.token, result="1"))
    await box.put("runs", priority=9.0)
    lease = await box.take()
    before = [await box.task(id_) for id_ in ("waits", "done")]
    recovery = await box.reopen()
    assert (recovery.tasks, recovery.leased, recovery.epoch) == (2, 1, 2)
    assert [await box.task(id_) for id_ in ("waits", "done")] == before
    assert (await box.do(Complete(id="runs", token=lease.token, result="2"))).state == "completed"


async def test_calls_may_overlap_and_none_takes_another_ones_task(box):
    done = []

    async def live(worker):
        for n in range(4):
            await box.put(f"{worker}-{n}")
            [lease] = await box.claim(worker)
            if n:
                await box.do(Complete(id=lease.id, token=lease.token, result=f'"{worker}"'))
                done.append((lease.id, worker))
            assert (await box.task(lease.id)).worker == worker

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(live, f"w{number}")
    assert len(dict(done)) == 24
    await box.reopen()
    assert sum((await box.store.stats()).counts.values()) == 32
    for id_, worker in done:
        assert (await box.task(id_)).result == f'"{worker}"'
