# SPDX-License-Identifier: AGPL-3.0-or-later
"""What may be submitted, and what a repeat is answered with."""

from __future__ import annotations

import math

import msgspec
import pytest
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.task_messages import Complete, Enqueue, Fail, Retry, RetryTask
from actors.task_views import ScanTasks

HOPELESS = ErrorInfo(code="HOPELESS", message="it cannot work")


async def test_the_same_id_again_is_answered_with_the_task_that_is_there(box):
    first = await box.put("t", payload='{"a":1}', tags=["x"])
    box.later(5)
    again = await box.put("t", payload='{"a":1}', tags=["x"])
    assert (again.replayed, again.created_at) == (True, first.created_at)
    assert (await box.store.scan(ScanTasks())).total == 1


@pytest.mark.parametrize(
    "other",
    [
        {"type_": "other"},
        {"payload": '{"a":2}'},
        {"owner": "somebody"},
        {"tags": ["x"]},
        {"metadata": '{"b":1}'},
        {"fairness_key": "k"},
        {"timeout_s": 5.0},
        {"links": True},
        {"retry": Retry(max_attempts=7)},
    ],
)
async def test_the_same_id_with_other_content_is_a_conflict(box, other):
    await box.put("t")
    assert code(await box.put("t", **other)) == "ID_CONFLICT"
    assert (await box.store.scan(ScanTasks())).total == 1


async def test_that_a_payload_names_results_is_known_all_its_life(box):
    await box.put("t", links=True)
    await box.put("plain")
    lease, plain = await box.claim(n=2)
    assert (lease.links, plain.links) == (True, False)
    await box.reopen()
    assert (await box.put("t", links=True)).replayed
    assert (await box.task("t")).links
    await box.do(Fail(id="t", token=lease.token, error=HOPELESS))
    await box.settle()
    await box.reopen()
    assert (await box.task("t")).links
    assert code(await box.put("t")) == "ID_CONFLICT"
    await box.do(RetryTask(id="t", new_id="again"))
    again = await box.take(request="r")
    assert (again.id, again.links) == ("again", True)
    await box.reopen()
    assert [one.links for one in await box.claim(request="r")] == [True]


async def test_how_urgent_a_task_is_is_no_content(box):
    await box.put("t", priority=5.0)
    assert (await box.put("t", priority=9.0)).replayed
    assert (await box.task("t")).priority == 5.0


async def test_a_key_is_unique_per_owner(box):
    first = await box.do(Enqueue(type="echo", key="k", owner="ann"))
    assert (await box.do(Enqueue(type="echo", key="k", owner="ann"))).id == first.id
    other = await box.do(Enqueue(type="echo", key="k", owner="bob"))
    assert other.id != first.id
    assert not other.replayed


async def test_a_key_counts_more_than_the_id_that_a_client_made_up(box):
    await box.put("one", key="k")
    again = await box.put("two", key="k")
    assert (again.id, again.replayed) == ("one", True)


async def test_the_same_key_with_other_content_is_a_conflict(box):
    await box.put("one", key="k")
    assert code(await box.put("two", key="k", payload='{"other":1}')) == "ID_CONFLICT"


async def test_an_id_and_a_key_of_two_tasks_are_a_conflict(box):
    await box.put("one", key="k")
    await box.put("two")
    assert code(await box.put("two", key="k")) == "ID_CONFLICT"


async def test_a_repeat_in_the_same_group_is_a_repeat(box):
    one, two = await box.do_all(Enqueue(type="echo", id="t"), Enqueue(type="echo", id="t"))
    assert (one.replayed, two.replayed) == (False, True)


async def test_a_repeat_is_known_after_the_task_has_ended_and_after_a_crash(box):
    await box.put("t", key="k")
    lease = await box.take()
    await box.do(Complete(id="t", token=lease.token))
    assert (await box.put("t", key="k")).state == "completed"
    await box.settle()
    assert (await box.put("t", key="k")).replayed
    assert (await box.put("other", key="k")).id == "t"
    assert code(await box.put("t", key="k", payload='{"x":1}')) == "ID_CONFLICT"
    await box.reopen()
    assert (await box.put("t", key="k")).replayed


@pytest.mark.parametrize(
    "fields",
    [
        {"type_": ""},
        {"priority": 0.9},
        {"priority": 10.1},
        {"priority": math.nan},
        {"timeout_s": 0.0},
        {"timeout_s": math.inf},
        {"queue_timeout_s": -1.0},
        {"keep_s": -1.0},
        {"deadline": math.nan},
        {"run_at": math.inf},
        {"tags": [""]},
        {"depends_on": ["nobody"]},
        {"depends_on": ["t"]},
        {"retry": Retry(max_attempts=-1)},
        {"retry": Retry(max_attempts=10**6)},
        {"retry": Retry(factor=0.5)},
        {"retry": Retry(base_s=math.inf)},
    ],
)
async def test_nonsense_is_refused_and_nothing_is_stored(box, fields):
    assert code(await box.put("t", **fields)) == "INVALID_PARAMS"
    assert (await box.store.scan(ScanTasks())).total == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": "x" * 101},
        {"payload": "\N{SNOWMAN}" * 50},
        {"metadata": "x" * 101},
        {"type_": "x" * 201},
        {"owner": "x" * 201},
        {"key": "x" * 201},
        {"fairness_key": "x" * 201},
        {"tags": ["x"] * 51},
        {"needs": ["x" * 201]},
    ],
)
async def test_what_is_too_large_is_refused(make_box, fields):
    box = await make_box(msgspec.structs.replace(BIG, max_payload_bytes=100, max_metadata_bytes=100))
    assert code(await box.put("t", **fields)) == "LIMIT_EXCEEDED"


async def test_a_full_queue_refuses_until_there_is_room(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_queue_size=2))
    await box.put("a")
    await box.put("b", run_at=box.clock.now + 100)
    refused = await box.put("c")
    assert code(refused) == "QUEUE_FULL"
    assert refused.error.retryable
    assert (await box.put("a")).replayed
    await box.take()
    assert code(await box.put("c")) == ""


async def test_the_place_in_the_queue_is_told_when_it_is_asked_for(box):
    assert (await box.put("a", position=True)).position == 1
    assert (await box.put("b", position=True)).position == 2
    assert (await box.put("c", position=True, priority=9.0)).position == 1
    assert (await box.put("d")).position is None


async def test_a_start_is_estimated_once_starts_were_measured(box):
    assert (await box.put("a", position=True)).estimated_start is None
    await box.take()
    assert (await box.put("b", position=True)).estimated_start > box.clock.now


async def test_a_task_that_starts_later_is_not_claimed_before(box):
    assert (await box.put("t", run_at=box.clock.now + 10)).state == "scheduled"
    box.later(9.9)
    assert await box.claim() == []
    assert box.store.next_due() == box.clock.now + 10 - 9.9
    box.later(0.1)
    assert (await box.take()).id == "t"


async def test_a_start_in_the_past_is_now(box):
    assert (await box.put("t", run_at=1.0)).state == "ready"
