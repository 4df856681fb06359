# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which task a worker is given."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from task_boxes import BIG, code

from actors.p2p.task_queue.limits import Rate
from actors.task_messages import (
    BeatWorker,
    Claim,
    Claimed,
    Complete,
    Enqueue,
    Expire,
    Pause,
    RegisterWorker,
    Release,
    Resume,
)


async def ids(box, worker="w", **fields):
    return [lease.id for lease in await box.claim(worker, **fields)]


async def test_first_in_first_out(box):
    for id_ in "abc":
        await box.put(id_)
        box.later(1)
    assert await ids(box, n=3) == ["a", "b", "c"]


async def test_the_order_in_a_group_counts(box):
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in "cab"))
    assert await ids(box, n=3) == ["c", "a", "b"]


async def test_a_higher_priority_is_earlier(box):
    await box.put("low", priority=1.0)
    await box.put("high", priority=9.0)
    await box.put("middle", priority=5.0)
    assert await ids(box, n=3) == ["high", "middle", "low"]


async def test_waiting_makes_up_for_priority(make_box):
    box = await make_box(msgspec.structs.replace(BIG, ageing_s=10.0))
    await box.put("old", priority=4.0)
    box.later(9)
    await box.put("new", priority=5.0)
    assert (await box.take()).id == "new"
    box.later(2)
    await box.put("newer", priority=5.0)
    assert (await box.take()).id == "old"


async def test_the_order_is_the_same_after_a_crash(box):
    for id_, priority in (("a", 3.0), ("b", 7.0), ("c", 5.0), ("d", 5.0), ("e", 7.0)):
        await box.put(id_, priority=priority)
    await box.reopen()
    assert await ids(box, n=9) == ["b", "e", "c", "d", "a"]


async def test_each_task_is_given_once(box):
    await box.do_all(*(Enqueue(type="echo", id=str(n)) for n in range(20)))
    outcomes = await box.do_all(*(Claim(worker=f"w{n}", n=3) for n in range(10)))
    given = [lease.id for outcome in outcomes for lease in outcome.tasks]
    assert sorted(given, key=int) == [str(n) for n in range(20)]


async def test_a_worker_gets_the_types_that_it_asks_for(box):
    await box.put("a", "one")
    await box.put("b", "two")
    assert await ids(box, types=["two", "three"], n=5) == ["b"]
    assert await ids(box, without=["one"], n=5) == []
    assert await ids(box, n=5) == ["a"]


async def test_a_worker_without_what_a_task_needs_does_not_get_it(box):
    await box.put("a", needs=["gpu", "docker"])
    assert await ids(box, capabilities=["gpu"]) == []
    assert await ids(box, capabilities=["gpu", "docker", "more"]) == ["a"]


async def test_a_claim_may_want_only_tasks_that_need_something(box):
    await box.put("a")
    await box.put("b", needs=["p2p"])
    await box.put("c", needs=["gpu", "p2p"])
    assert await ids(box, needing="p2p") == []
    assert await ids(box, needing="p2p", capabilities=["p2p"], n=5) == ["b"]
    assert await ids(box, n=5) == ["a"]


async def test_a_claim_may_want_tasks_of_one_type_only(box):
    for id_, type_ in (("a", "one"), ("b", "two"), ("c", "one")):
        await box.put(id_, type_)
    assert await ids(box, n=5, same_type=True) == ["a", "c"]


async def test_a_sticky_task_waits_for_its_worker_while_that_one_is_alive(box):
    await box.do(RegisterWorker(worker="mine"))
    await box.put("t", sticky_worker="mine")
    assert await ids(box, "other") == []
    assert await ids(box, "mine") == ["t"]


async def test_a_sticky_task_goes_to_others_when_its_worker_is_silent_or_unknown(box):
    await box.put("a", sticky_worker="never seen")
    assert await ids(box, "other", lease_s=1000.0) == ["a"]
    await box.do(RegisterWorker(worker="mine"))
    await box.put("b", sticky_worker="mine")
    box.later(60)
    await box.do(BeatWorker(worker="mine"))
    box.later(89)
    assert await ids(box, "other") == []
    box.later(1)
    assert await ids(box, "other") == ["b"]


async def test_a_repeated_claim_is_answered_with_the_same_tasks(box):
    await box.put("a")
    await box.put("b")
    first = await box.do(Claim(worker="w", request="r1"))
    assert await box.do(Claim(worker="w", request="r1")) == first
    await box.reopen()
    [again] = (await box.do(Claim(worker="w", request="r1"))).tasks
    assert (again.id, again.token) == ("a", first.tasks[0].token)
    assert await ids(box, request="r2") == ["b"]


async def test_a_repeated_claim_does_not_show_tasks_that_are_no_longer_held(box):
    await box.put("a")
    lease = await box.take(request="r1")
    await box.do(Complete(id="a", token=lease.token))
    assert await ids(box, request="r1") == []


async def test_a_repeated_claim_does_not_show_a_task_that_somebody_else_holds(box):
    await box.put("a")
    await box.take(request="r1")
    box.later(30)
    await box.take("other")
    assert await ids(box, request="r1") == []


async def test_a_claim_that_was_given_nothing_may_be_given_something_when_it_is_repeated(box):
    assert await ids(box, request="r1") == []
    await box.put("a")
    assert await ids(box, request="r1") == ["a"]


async def test_a_registered_worker_never_holds_more_than_it_said(box):
    await box.do(RegisterWorker(worker="w", max_tasks=2))
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in "abc"))
    assert await ids(box, n=5) == ["a", "b"]
    assert await ids(box) == []


async def test_a_registered_worker_that_names_no_types_gets_those_that_it_registered(box):
    await box.do(RegisterWorker(worker="w", types=["two"]))
    await box.put("a", "one")
    await box.put("b", "two")
    assert await ids(box, n=5) == ["b"]
    assert await ids(box, types=["one"]) == ["a"]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"worker": ""}, "INVALID_PARAMS"),
        ({"worker": "w" * 201}, "LIMIT_EXCEEDED"),
        ({"n": 0}, "INVALID_PARAMS"),
        ({"n": 129}, "INVALID_PARAMS"),
        ({"lease_s": -1.0}, "INVALID_PARAMS"),
        ({"lease_s": 1e9}, "INVALID_PARAMS"),
        ({"request": "r" * 201}, "LIMIT_EXCEEDED"),
    ],
)
async def test_a_claim_that_makes_no_sense_is_refused(box, fields, refusal):
    await box.put("t")
    assert code(await box.do(Claim(**{"worker": "w"} | fields))) == refusal
    assert await box.state("t") == "ready"


# --- fairness ------------------------------------------------------------------------------------------------------


async def flood(box, counts):
    for key, n in counts.items():
        await box.do_all(*(Enqueue(type="echo", id=f"{key}{i}", fairness_key=key) for i in range(n)))


async def served(box, n):
    """Fairness keys of the next tasks."""
    return [lease.id[0] for _ in range(n) for lease in await box.claim()]


async def test_fairness_keys_take_turns(box):
    await flood(box, {"a": 20, "b": 5, "c": 5})
    assert Counter(await served(box, 15)) == {"a": 5, "b": 5, "c": 5}


async def test_a_key_that_comes_later_does_not_claim_turns_that_it_did_not_use(box):
    await flood(box, {"a": 40})
    await served(box, 20)
    await flood(box, {"b": 20})
    counted = Counter(await served(box, 20))
    assert abs(counted["a"] - counted["b"]) <= 1


async def test_a_key_that_submits_one_task_at_a_time_does_not_starve_the_others(box):
    await flood(box, {"b": 30})
    turns = []
    for n in range(10):
        await box.put(f"a{n}", fairness_key="a")
        turns += await served(box, 2)
    assert Counter(turns) == {"a": 10, "b": 10}


async def test_keys_that_were_never_seen_do_not_overtake_those_that_wait(box):
    await flood(box, {"a": 20})
    turns = []
    for n in range(20):
        await box.put(f"n{n}", fairness_key=f"new {n}")
        turns += await served(box, 1)
    # It has one turn in each round; rounds become longer with the number of keys that wait.
    assert "a" in turns[:2]
    assert Counter(turns)["a"] >= 5
    assert "a" in turns[-6:]


async def test_among_keys_that_were_served_alike_the_older_task_is_first(box):
    for n in (3, 1, 2):
        await box.put(f"t{n}", fairness_key=f"k{n}")
    assert await ids(box, n=3) == ["t3", "t1", "t2"]


async def test_within_a_key_the_order_holds_over_all_types_and_needs(box):
    for n, (type_, more) in enumerate((("b", {}), ("a", {"needs": ["gpu"]}), ("c", {}), ("a", {}), ("b", {}))):
        await box.put(f"t{n}", type_, fairness_key="k", **more)
        await box.put(f"u{n}", type_, fairness_key="other", **more)
    given = await ids(box, n=10, capabilities=["gpu"])
    for which in "tu":
        assert [id_ for id_ in given if id_[0] == which] == [f"{which}{n}" for n in range(5)]


async def test_turns_follow_weights(make_box):
    box = await make_box(msgspec.structs.replace(BIG, weights={"a": 3.0}))
    await flood(box, {"a": 40, "b": 40})
    counted = Counter(await served(box, 40))
    assert 29 <= counted["a"] <= 31


async def test_turns_are_remembered_over_a_crash(box):
    await flood(box, {"a": 9})
    await served(box, 1)
    await flood(box, {"b": 9})
    before = await served(box, 3)
    await box.reopen()
    assert Counter(before + await served(box, 6)) in ({"a": 4, "b": 5}, {"a": 5, "b": 4})


# --- limits --------------------------------------------------------------------------------------------------------


async def test_no_more_tasks_of_a_type_run_than_may(make_box):
    box = await make_box(msgspec.structs.replace(BIG, concurrency={"echo": 2}))
    await flood(box, {"a": 4})
    await box.put("other", "free")
    leases = await box.claim(n=5, types=["echo"])
    assert len(leases) == 2
    assert await ids(box, n=5) == ["other"]
    await box.do(Complete(id=leases[0].id, token=leases[0].token))
    assert len(await box.claim(n=5)) == 1


async def test_no_more_tasks_of_a_fairness_key_run_than_may(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_running_per_key=2))
    await flood(box, {"a": 5, "b": 1})
    leases = await box.claim(n=9)
    assert Counter(lease.id[0] for lease in leases) == {"a": 2, "b": 1}
    assert await box.claim() == []
    held = next(lease for lease in leases if lease.id[0] == "a")
    await box.do(Release(id=held.id, token=held.token))
    assert len(await box.claim(n=9)) == 1


async def test_limits_hold_after_a_crash(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_running_per_key=2, concurrency={"echo": 3}))
    await flood(box, {"a": 5, "b": 5})
    assert len(await box.claim(n=9)) == 3
    await box.reopen()
    assert await box.claim(n=9) == []


async def test_tasks_of_a_type_start_no_faster_than_may(make_box):
    box = await make_box(msgspec.structs.replace(BIG, rates={"echo": Rate(per_s=2.0, burst=3)}))
    await flood(box, {"a": 9})
    assert len(await box.claim(n=9)) == 3
    assert await box.claim(n=9) == []
    box.later(0.5)
    assert len(await box.claim(n=9)) == 1
    await box.reopen()
    assert await box.claim(n=9) == []
    box.later(10)
    assert len(await box.claim(n=9)) == 3


# --- pause ---------------------------------------------------------------------------------------------------------


async def test_a_pause_stops_claims_and_nothing_else(box):
    await box.put("a")
    lease = await box.take()
    await box.put("b")
    paused = await box.do(Pause(reason="maintenance"))
    assert (paused.paused, paused.queued, paused.running) == (True, 1, 1)
    assert await box.do(Claim(worker="w")) == Claimed(paused=True)
    assert (await box.do(Complete(id="a", token=lease.token))).state == "completed"
    assert (await box.put("c")).state == "ready"
    resumed = await box.do(Resume())
    assert (resumed.paused, resumed.queued) == (False, 2)
    assert await ids(box, n=5) == ["b", "c"]


async def test_a_pause_lasts_over_a_crash(box):
    await box.put("a")
    await box.do(Pause())
    await box.reopen()
    assert await ids(box) == []
    await box.do(Resume())
    assert await ids(box) == ["a"]


async def test_one_type_may_be_paused(box):
    await box.put("a", "one")
    await box.put("b", "two")
    await box.do(Pause(type="one"))
    assert (await box.do(Claim(worker="w", types=["one"]))).paused
    assert await ids(box, n=5) == ["b"]
    await box.do(Resume(type="one"))
    assert await ids(box, n=5) == ["a"]


async def test_a_claim_first_ends_leases_that_have_run_out(box):
    await box.put("t")
    await box.take("dead")
    box.later(30)
    lease = await box.take("alive")
    assert lease.attempt == 2
    assert [event.what for event in await box.store.history("t")] == ["submitted", "claimed", "expired", "claimed"]
    assert (await box.do(Expire())).leases == 0
