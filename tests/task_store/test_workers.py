# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workers: what the queue knows of them, and what becomes of their tasks when they go."""

from __future__ import annotations

import msgspec
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.task_messages import (
    Beat,
    BeatWorker,
    Cancel,
    Claim,
    Complete,
    Enqueue,
    Expire,
    Fail,
    RegisterWorker,
    Release,
    Retry,
    UnregisterWorker,
)

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True)


async def test_a_worker_is_known_as_it_registered_even_after_a_crash(box):
    op = RegisterWorker(worker="w", owner="ann", types=["a", "b"], max_tasks=3, limits='{"cpu":1}', metadata='{"m":2}')
    info = await box.do(op)
    assert (info.owner, info.types, info.max_tasks, info.limits, info.metadata) == (
        "ann",
        ["a", "b"],
        3,
        '{"cpu":1}',
        '{"m":2}',
    )
    assert (info.status, info.registered_at) == ("idle", box.clock.now)
    await box.reopen()
    assert await box.do(BeatWorker(worker="w")) == info


async def test_an_id_belongs_to_its_owner(box):
    await box.do(RegisterWorker(worker="w", owner="ann"))
    assert code(await box.do(RegisterWorker(worker="w", owner="bob"))) == "NOT_OWNER"
    assert code(await box.do(UnregisterWorker(worker="w", owner="bob"))) == "NOT_OWNER"
    assert (await box.do(RegisterWorker(worker="w", owner="ann", max_tasks=9))).max_tasks == 9


async def test_an_unknown_worker_is_not_found(box):
    assert code(await box.do(BeatWorker(worker="w"))) == "NOT_FOUND"
    assert code(await box.do(UnregisterWorker(worker="w"))) == "NOT_FOUND"


async def test_what_a_worker_does_is_counted(box):
    await box.do(RegisterWorker(worker="w"))
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in "abcd"))
    tokens = {lease.id: lease.token for lease in await box.claim(n=4)}
    box.later(2)
    await box.do(Complete(id="a", token=tokens["a"]))
    await box.do(Fail(id="b", token=tokens["b"], error=BROKEN))
    await box.do(Release(id="c", token=tokens["c"]))
    for _ in range(2):
        info = await box.do(BeatWorker(worker="w"))
        assert (info.completed, info.failed, info.released, info.run_s, info.running) == (1, 1, 1, 2.0, ["d"])
        await box.reopen()


async def test_how_a_worker_stands(box):
    async def standing():
        return next(one.status for one in (await box.store.stats()).workers if one.worker == "w")

    await box.do(RegisterWorker(worker="w", max_tasks=2))
    assert await standing() == "idle"
    await box.do_all(Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b"))
    lease = await box.take(lease_s=1000.0)
    assert await standing() == "active"
    await box.claim()
    assert await standing() == "busy"
    box.later(89)
    assert await standing() == "busy"
    box.later(1)
    assert await standing() == "offline"
    await box.do(Beat(id="a", token=lease.token))
    assert await standing() == "busy"
    await box.do(UnregisterWorker(worker="w"))
    assert await standing() == "unregistered"


async def test_a_claim_is_a_sign_of_life(box):
    await box.do(RegisterWorker(worker="w"))
    box.later(80)
    await box.claim()
    box.later(80)
    assert (await box.store.stats()).workers[0].status == "idle"


async def test_a_worker_that_goes_gives_its_tasks_back_without_using_an_attempt(box):
    await box.put("t", retry=Retry(max_attempts=1))
    lease = await box.take()
    info = await box.do(UnregisterWorker(worker="w"))
    assert (info.status, info.running, info.released) == ("unregistered", [], 1)
    assert code(await box.do(Complete(id="t", token=lease.token))) == "STALE_FENCE"
    again = await box.take("other")
    assert (again.id, again.attempt) == ("t", 1)
    assert again.token > lease.token


async def test_a_task_that_was_asked_to_stop_ends_when_its_worker_goes(box):
    await box.put("t")
    await box.put("after", depends_on=["t"])
    await box.take()
    await box.do(Cancel(id="t"))
    await box.do(UnregisterWorker(worker="w"))
    assert [await box.state(id_) for id_ in ("t", "after")] == ["cancelled", "skipped"]


async def test_a_worker_may_go_and_keep_what_it_has(box):
    await box.do_all(Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b"))
    lease = await box.take()
    info = await box.do(UnregisterWorker(worker="w", release=False))
    assert info.running == ["a"]
    assert await box.claim() == []
    assert (await box.do(Complete(id="a", token=lease.token))).state == "completed"


async def test_a_worker_that_went_may_come_back(box):
    await box.put("t")
    await box.do(RegisterWorker(worker="w"))
    await box.do(UnregisterWorker(worker="w"))
    await box.reopen()
    assert await box.claim() == []
    await box.do(RegisterWorker(worker="w"))
    assert (await box.take()).id == "t"


async def test_the_number_of_workers_is_limited(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_workers=2))
    await box.put("t")
    await box.do(RegisterWorker(worker="a"))
    await box.do(RegisterWorker(worker="b"))
    assert code(await box.do(RegisterWorker(worker="c"))) == "LIMIT_EXCEEDED"
    assert code(await box.do(Claim(worker="c"))) == "LIMIT_EXCEEDED"
    assert await box.state("t") == "ready"


async def test_a_worker_that_is_silent_for_long_is_forgotten_unless_it_holds_something(make_box):
    box = await make_box(msgspec.structs.replace(BIG, worker_keep_s=1000.0))
    await box.put("t")
    await box.take("holds", lease_s=3000.0)
    await box.do(RegisterWorker(worker="idle"))
    box.later(999)
    await box.do(Expire())
    assert {one.worker for one in (await box.store.stats()).workers} == {"holds", "idle"}
    box.later(1)
    await box.do(Expire())
    await box.reopen()
    assert {one.worker for one in (await box.store.stats()).workers} == {"holds"}


async def test_a_registration_that_makes_no_sense_is_refused(box):
    assert code(await box.do(RegisterWorker(worker=""))) == "INVALID_PARAMS"
    assert code(await box.do(RegisterWorker(worker="w", max_tasks=0))) == "INVALID_PARAMS"
    assert code(await box.do(RegisterWorker(worker="w", metadata="x" * 65_537))) == "LIMIT_EXCEEDED"
    assert (await box.store.stats()).workers == []
