# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pauses of one fairness key: claims pass its tasks by, until it is resumed, and nothing else is changed."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.task_messages import Cancel, Claim, Claimed, Complete, Enqueue, Fail, Pause, Reprioritise, Resume
from actors.task_views import GetTask

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True)


async def ids(box, worker="w", **fields):
    return [lease.id for lease in await box.claim(worker, **fields)]


async def both(box):
    """Two tasks of a key that is going to be paused, and one of another, later and less urgent."""
    for id_ in ("a1", "a2"):
        await box.put(id_, fairness_key="a")
    await box.put("b1", fairness_key="b", priority=1.0)


async def test_claims_pass_by_the_tasks_of_a_paused_key(box):
    await both(box)
    lease = await box.take()
    paused = await box.do(Pause(fairness_key="a", reason="why not"))
    assert (lease.id, paused.paused, paused.queued, paused.running) == ("a1", True, 1, 1)
    assert await ids(box, n=9) == ["b1"]
    assert await box.do(Claim(worker="w", n=9)) == Claimed()
    assert (await box.do(Complete(id="a1", token=lease.token))).state == "completed"
    await box.put("a3", fairness_key="a", priority=9.0)
    assert await ids(box, n=9) == []
    resumed = await box.do(Resume(fairness_key="a"))
    assert (resumed.paused, resumed.queued, resumed.running) == (False, 2, 0)
    assert await ids(box, n=9) == ["a3", "a2"]


async def test_a_paused_key_says_so(box):
    await both(box)
    await box.do(Pause(fairness_key="a"))
    await box.do(Pause(type="other"))
    assert (await box.store.stats()).paused == ["other", "key:a"]
    assert (await box.store.get(GetTask(id="a1"))).why_waiting == "its fairness key is paused"
    assert (await box.store.get(GetTask(id="b1"))).why_waiting == "waits for a worker"
    await box.do(Resume(fairness_key="a"))
    assert (await box.store.stats()).paused == ["other"]
    assert (await box.store.get(GetTask(id="a1"))).why_waiting == "waits for a worker"


@pytest.mark.parametrize("before", ["claimed", "not claimed"])
async def test_a_pause_of_a_key_lasts_over_crashes(box, before):
    await both(box)
    await box.do(Pause(fairness_key="a"))
    await box.do(Pause(fairness_key="a", reason="again"))
    if before == "claimed":
        assert await ids(box, n=9) == ["b1"]
    for n in range(6):  # with a log that is begun anew in between
        await box.put(f"c{n}", fairness_key="a")
    await box.reopen()
    assert await ids(box, n=9) == ([] if before == "claimed" else ["b1"])
    await box.reopen()
    assert await ids(box, n=9) == []
    await box.do(Resume(fairness_key="a"))
    await box.reopen()
    assert len(await ids(box, n=9)) == 8


async def test_all_that_may_happen_to_a_task_may_happen_in_a_paused_key(box):
    await both(box)
    lease = await box.take()
    await box.do(Pause(fairness_key="a"))
    await box.do(Cancel(id="a2"))
    ended = await box.do(Fail(id="a1", token=lease.token, error=BROKEN))
    assert ended.state == "scheduled"
    await box.put("a4", fairness_key="a", depends_on=["a1"])
    box.clock.now = ended.run_at
    assert await ids(box, n=9) == ["b1"]
    assert [await box.state(id_) for id_ in ("a1", "a2", "a4")] == ["ready", "cancelled", "blocked"]
    await box.put("a5", fairness_key="a")
    await box.do(Reprioritise(id="a5", priority=9.0))
    await box.do(Resume(fairness_key="a"))
    assert await ids(box, n=9) == ["a5", "a1"]


async def test_a_key_that_has_no_tasks_may_be_paused_and_resumed(box):
    await box.do(Resume(fairness_key="a"))
    await box.do(Pause(fairness_key="a"))
    await both(box)
    assert await ids(box, n=9) == ["b1"]


async def test_a_pause_of_all_is_another_one(box):
    await both(box)
    await box.do(Pause())
    await box.do(Pause(fairness_key="a"))
    assert (await box.do(Resume(fairness_key="a"))).paused
    assert await ids(box, n=9) == []
    await box.do(Pause(fairness_key="a"))
    await box.do(Resume())
    assert await ids(box, n=9) == ["b1"]


async def test_a_key_at_its_limit_may_be_paused(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_running_per_key=1))
    await both(box)
    [a1, _] = await box.claim(n=9)
    await box.do(Pause(fairness_key="a"))
    assert await ids(box, n=9) == []
    await box.do(Complete(id="a1", token=a1.token))
    assert await ids(box, n=9) == []
    await box.do(Resume(fairness_key="a"))
    assert await ids(box, n=9) == ["a2"]


async def test_keys_that_are_paused_are_bounded(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_paused_keys=2))
    for key in ("a", "b"):
        await box.do(Pause(fairness_key=key))
    refused = await box.do(Pause(fairness_key="c"))
    assert (code(refused), refused.error.retryable) == ("LIMIT_EXCEEDED", True)
    assert (await box.do(Pause(fairness_key="a"))).paused
    await box.do(Resume(fairness_key="a"))
    assert (await box.do(Pause(fairness_key="c"))).paused


@pytest.mark.parametrize("kind", [Pause, Resume])
async def test_a_type_and_a_key_are_not_paused_or_resumed_at_once(box, kind):
    assert code(await box.do(kind(type="echo", fairness_key="a"))) == "INVALID_PARAMS"
    assert code(await box.do(kind(fairness_key="a" * 201))) == "LIMIT_EXCEEDED"
    assert (await box.store.stats()).paused == []


async def test_who_waits_is_woken_when_a_key_is_resumed(box):
    await box.do(Pause(fairness_key="a"))
    done = trio.Event()

    async def wait():
        await box.store.claim_later(Claim(worker="w"))
        done.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await box.do(Enqueue(type="echo", id="t", fairness_key="a"))
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            await box.do(Resume(fairness_key="a"))
            await done.wait()
