# SPDX-License-Identifier: AGPL-3.0-or-later
"""Leases and their tokens: whose word counts, and for how long."""

from __future__ import annotations

import pytest
from task_boxes import code

from actors.messages import ErrorInfo
from actors.task_messages import AckCancel, AskOwner, Beat, Cancel, Complete, Expire, Fail, Release, Retry

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True)


def all_of(id_, token):
    """Everything that a holder may say."""
    return [
        Beat(id=id_, token=token),
        Complete(id=id_, token=token, result='"mine"'),
        Fail(id=id_, token=token, error=BROKEN),
        Release(id=id_, token=token),
        AckCancel(id=id_, token=token),
        AskOwner(id=id_, token=token, questions={"k": "{}"}),
    ]


async def test_a_beat_extends_the_lease(box):
    await box.put("t")
    lease = await box.take()
    for _ in range(5):
        box.later(29)
        beaten = await box.do(Beat(id="t", token=lease.token))
        assert beaten.lease_until == box.clock.now + 30
    assert (await box.do(Expire())).leases == 0
    assert await box.state("t") == "leased"


async def test_a_beat_never_shortens_a_lease(box):
    await box.put("t")
    lease = await box.take()
    assert (await box.do(Beat(id="t", token=lease.token, lease_s=1.0))).lease_until == lease.lease_until


async def test_a_worker_may_ask_for_a_lease_of_its_own_length(box):
    await box.put("t")
    lease = await box.take(lease_s=5.0)
    assert lease.lease_until == box.clock.now + 5
    box.later(4)
    assert (await box.do(Beat(id="t", token=lease.token))).lease_until == box.clock.now + 5


async def test_a_beat_tells_progress_and_lines(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Beat(id="t", token=lease.token, progress=40.0, progress_text="so far", logs=["one", "two"]))
    await box.do(Beat(id="t", token=lease.token, progress=50.0))
    task = await box.task("t")
    assert (task.progress, task.progress_text, task.logs) == (50.0, "so far", ["one", "two"])
    assert code(await box.do(Beat(id="t", token=lease.token, progress=101.0))) == "INVALID_PARAMS"


async def test_of_a_log_the_latest_lines_are_kept(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Beat(id="t", token=lease.token, logs=[str(n) for n in range(150)]))
    await box.do(Complete(id="t", token=lease.token, logs=[str(n) for n in range(150, 300)]))
    assert (await box.task("t")).logs == [str(n) for n in range(100, 300)]


async def test_a_silent_task_is_given_to_another_at_the_end_of_its_lease_and_not_before(box):
    await box.put("t")
    await box.take()
    box.later(29.999)
    assert await box.claim("other") == []
    assert (await box.do(Expire())).leases == 0
    box.later(0.001)
    assert box.store.next_due() <= box.clock.now
    assert (await box.do(Expire())).leases == 1
    assert (await box.take("other")).attempt == 2


async def test_the_last_silent_attempt_is_a_failure(box):
    await box.put("t", retry=Retry(max_attempts=1))
    lease = await box.take()
    box.later(30)
    await box.do(Expire())
    task = await box.task("t")
    assert (task.state, task.error.code) == ("failed", "LEASE_EXPIRED")
    assert code(await box.do(Complete(id="t", token=lease.token))) == "LEASE_EXPIRED"


async def test_a_late_result_counts_while_nobody_else_was_given_the_task(box):
    await box.put("t")
    lease = await box.take()
    box.later(100)
    assert (await box.do(Complete(id="t", token=lease.token, result="1"))).state == "completed"
    assert await box.claim("other") == []


async def test_a_late_result_counts_even_after_the_lease_was_ended(box):
    await box.put("t")
    lease = await box.take()
    box.later(30)
    await box.do(Expire())
    assert await box.state("t") == "ready"
    assert (await box.do(Complete(id="t", token=lease.token, result="1"))).state == "completed"
    assert await box.claim("other") == []


async def test_after_its_lease_a_holder_has_no_say_but_for_the_result(box):
    await box.put("t")
    lease = await box.take()
    box.later(30)
    for op in all_of("t", lease.token):
        if not isinstance(op, Complete):
            assert code(await box.do(op)) == "LEASE_EXPIRED"
    await box.do(Expire())
    assert code(await box.do(Beat(id="t", token=lease.token))) == "LEASE_EXPIRED"


async def test_a_stale_token_changes_nothing(box):
    await box.put("t")
    old = await box.take()
    box.later(30)
    new = await box.take("other")
    before = await box.task("t")
    for op in all_of("t", old.token):
        assert code(await box.do(op)) == "STALE_FENCE"
    assert await box.task("t") == before
    assert (await box.do(Complete(id="t", token=new.token, result="1"))).state == "completed"
    for op in all_of("t", old.token):
        assert code(await box.do(op)) == "STALE_FENCE"


@pytest.mark.parametrize("token", [0, -1, 1, 2**63])
async def test_a_made_up_token_is_stale(box, token):
    await box.put("waits")
    for op in all_of("waits", token):
        assert code(await box.do(op)) == "STALE_FENCE"


async def test_an_unknown_task_is_not_found(box):
    for op in all_of("nobody", 1):
        assert code(await box.do(op)) == "NOT_FOUND"


async def test_an_equal_result_again_is_a_repeat_and_another_one_a_conflict(box):
    await box.put("t")
    lease = await box.take()
    first = await box.do(Complete(id="t", token=lease.token, result="1"))
    for settled in (False, True):
        if settled:
            await box.settle()
        again = await box.do(Complete(id="t", token=lease.token, result="1"))
        assert (again.replayed, again.at) == (True, first.at)
        assert code(await box.do(Complete(id="t", token=lease.token, result="2"))) == "ID_CONFLICT"
    assert (await box.task("t")).result == "1"


@pytest.mark.parametrize("how", [lambda t: Fail(id="t", token=t, error=BROKEN), lambda t: Release(id="t", token=t)])
async def test_giving_back_twice_is_a_repeat_even_after_somebody_else_was_given_the_task(box, how):
    await box.put("t")
    lease = await box.take()
    first = await box.do(how(lease.token))
    again = await box.do(how(lease.token))
    assert (again.replayed, again.state) == (True, first.state)
    box.later(100)
    await box.take("other")
    assert (await box.do(how(lease.token))).replayed
    assert await box.state("t") == "leased"


async def test_who_gave_a_task_back_cannot_complete_it(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Release(id="t", token=lease.token))
    assert code(await box.do(Complete(id="t", token=lease.token))) == "STALE_FENCE"
    assert code(await box.do(Beat(id="t", token=lease.token))) == "STALE_FENCE"


async def test_tokens_of_a_task_grow_over_everything(box):
    await box.put("t", retry=Retry(max_attempts=0, base_s=0.0))
    tokens = []
    for n in range(8):
        tokens.append((await box.take(f"w{n}")).token)
        if n % 4 == 0:
            await box.do(Fail(id="t", token=tokens[-1], error=BROKEN))
        elif n % 4 == 1:
            await box.do(Release(id="t", token=tokens[-1]))
        elif n % 4 == 2:
            box.later(30)
        else:
            await box.reopen()
            box.later(100)
    await box.take()
    await box.do(Cancel(id="t", force=True))
    tokens.append((await box.task("t")).token)
    assert tokens == sorted(set(tokens))
    assert max(tokens) < 2**53


async def test_a_crash_ends_no_lease_early(box):
    await box.put("t")
    lease = await box.take()
    box.later(9)
    promised = (await box.do(Beat(id="t", token=lease.token))).lease_until
    await box.reopen()
    box.clock.now = promised - 0.001
    assert (await box.do(Expire())).leases == 0
    assert code(await box.do(Beat(id="t", token=lease.token))) == ""


async def test_a_crash_does_not_shorten_a_lease_that_a_beat_made_longer(box):
    await box.put("t")
    lease = await box.take()
    promised = (await box.do(Beat(id="t", token=lease.token, lease_s=1000.0))).lease_until
    await box.reopen()
    box.clock.now = promised - 0.001
    assert (await box.do(Expire())).leases == 0


async def test_after_a_long_outage_holders_have_time_to_say_that_they_live(box):
    await box.put("t")
    lease = await box.take()
    box.later(1000)
    await box.reopen()
    box.later(9.9)
    assert code(await box.do(Beat(id="t", token=lease.token))) == ""


async def test_a_clock_that_is_put_back_ends_no_lease_and_holds_up_none_for_ever(box):
    await box.put("t")
    await box.take()
    box.later(-3600)
    assert (await box.do(Expire())).leases == 0
    await box.reopen()
    box.later(41)
    assert (await box.do(Expire())).leases == 1


async def test_a_lease_that_somebody_lets_run_out_again_and_again_ends_in_failure(box):
    await box.put("t")
    for attempt in (1, 2, 3):
        assert (await box.take(f"w{attempt}")).attempt == attempt
        box.later(30)
        await box.do(Expire())
    assert await box.state("t") == "failed"
