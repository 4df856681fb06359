# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks that peers do: they count once, only when the right one says so rightly, and none is lost with a peer."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio
from sharing_nodes import Node
from trio.testing import wait_all_tasks_blocked

from actors.errors import DeadlineExceededError, OutcomeUnknownError, RuntimeUnavailableError, ToolExecutionError
from actors.p2p.peer_registry.link.messages import Offer, Refused, TaskResult
from actors.p2p.peer_registry.sharing.statement import content_id, made_result
from actors.task_messages import Cancel, Expire, TaskState
from actors.tool_tasks import result_of


@pytest.fixture
async def nodes(nursery):
    """One with tasks, and two that would do them."""
    three = [Node(nursery) for _ in range(3)]
    yield three
    nursery.cancel_scope.cancel()


def counted(whose):
    """What became of tasks, without what did not happen."""
    return {outcome: count for outcome, count in whose.counts.items() if count}


def runs(*nodes):
    return sum(len(node.runs) for node in nodes)


async def test_a_task_that_has_to_go_to_peers_is_done_by_one(nodes, autojump_clock):
    here, there, _ = nodes
    here.join(there)
    await here.put(payload='{"n": 1}')
    task = await here.ended()
    assert (task.state, task.worker, task.attempt) == (TaskState.COMPLETED, "peers", 1)
    assert json.loads(result_of(task.result).value) == {"of": "t"}
    assert there.runs == [(here.id, "t", task.token)]
    assert here.outcomes == [(there.id, True)]
    await wait_all_tasks_blocked()
    assert counted(here.sender) == {"accepted": 1, "completed": 1}
    assert counted(there.runner) == {"accepted": 1, "told": 1}


async def test_an_offer_of_the_longest_id_fits_the_rules_of_a_link(nodes, autojump_clock):
    """A peer that is sent anything else bans whoever sends it."""
    here, there, _ = nodes
    here.join(there)
    longest = "t" * 200
    await here.put(longest)
    assert (await here.ended(longest)).state == TaskState.COMPLETED
    (offer,) = [one for one in here.asked if isinstance(one, Offer)]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(offer), type=Offer) == offer


@pytest.mark.parametrize("lie", [False, True])
async def test_what_became_of_each_task_is_counted_once(nodes, autojump_clock, lie):
    here, there, _ = nodes
    there.forge = lambda request: no_signature(request) if lie and isinstance(request, TaskResult) else request
    there.gate = trio.Event()
    here.join(there)
    await here.put("first")
    await here.until(lambda task: task.progress is not None, "first")
    if lie:
        there.gate.set()
    else:
        here.part(there)
    await here.until(lambda task: task.state == TaskState.READY, "first")
    assert counted(here.sender) == {"accepted": 1, "lied" if lie else "lost": 1}


async def test_what_nobody_takes_and_who_does_not_is_counted(nodes, autojump_clock):
    here, there, _ = nodes
    there.refuses = ("work",)
    here.join(there)
    await here.put()
    await here.until(lambda task: task.state == TaskState.READY and task.token > 0)
    await wait_all_tasks_blocked()
    assert here.asked
    assert counted(there.runner) == {"refused": len(here.asked)}
    assert counted(here.sender).keys() == {"not_accepted"}
    assert here.sender.counts["not_accepted"] >= len(here.asked), "leases that found no peer at all count, too"


async def test_progress_at_the_peer_is_seen_in_the_queue(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    task = await here.until(lambda task: task.progress is not None)
    assert (task.progress, task.progress_text) == (50.0, "half")


async def test_a_task_that_may_run_anywhere_stays_here(nodes, autojump_clock):
    here, there, _ = nodes
    here.join(there)
    here.full = True
    await here.put(needs=())
    await trio.sleep(30)
    assert (await here.until(lambda _: True)).state == TaskState.READY
    assert runs(there) == 0


async def test_a_shared_type_goes_to_peers_when_there_is_no_room_here(nursery, autojump_clock):
    here, there = Node(nursery, shared=("work",)), Node(nursery)
    here.join(there)
    await here.put(needs=())
    await trio.sleep(30)
    there.tell_capacity(here)
    assert runs(there) == 0
    here.full = True
    assert (await here.ended()).worker == "peers-spare"
    nursery.cancel_scope.cancel()


async def test_what_one_refuses_the_next_does(nodes, autojump_clock):
    here, there, other = nodes
    there.refuses = ("work",)
    here.join(there)
    here.join(other)
    await here.put()
    await here.ended()
    assert (runs(there), runs(other)) == (0, 1)


async def test_what_nobody_takes_goes_back_with_its_attempts(nodes, autojump_clock):
    here, there, _ = nodes
    there.refuses = ("work",)
    here.join(there)
    await here.put()
    task = await here.until(lambda task: task.state == TaskState.READY and task.token > 0)
    assert task.attempt == 0
    await wait_all_tasks_blocked()
    assert len([one for one in here.asked if isinstance(one, Offer)]) == 1, "it is not asked again and again"


async def test_no_more_is_offered_than_a_peer_has_room_for(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    for n in range(5):
        await here.put(f"t{n}")
    await trio.sleep(1)
    assert runs(there) == 2
    there.gate.set()
    for n in range(5):
        assert (await here.ended(f"t{n}")).state == TaskState.COMPLETED
    assert runs(there) == 5


async def test_the_same_offer_runs_once(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    (offer,) = [one for one in here.asked if isinstance(one, Offer)]
    await here.wires[there.id].call(offer, 1.0)
    await wait_all_tasks_blocked()
    assert runs(there) == 1


async def test_after_an_offer_whose_answer_was_lost_nobody_else_has_its_token(nodes, autojump_clock):
    here, there, other = nodes
    there.gate = trio.Event()
    here.lose_next_answer = True
    here.join(there)
    here.join(other)
    await here.put()
    while not there.cancelled:
        await trio.sleep(0.1)
    there.gate.set()
    await here.ended()
    tokens = [token for node in (there, other) for _, _, token in node.runs]
    assert len(tokens) == len(set(tokens)) >= 2
    assert "t" in there.cancelled, "it was told to stop"


async def test_a_peer_that_is_gone_costs_the_lease_and_no_attempt(nodes, autojump_clock):
    here, there, other = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    here.part(there)
    assert (await here.until(lambda task: task.state == TaskState.READY)).attempt == 0
    here.join(other)
    task = await here.ended()
    assert (task.attempt, other.runs) == (1, [(here.id, "t", task.token)])


async def test_a_peer_that_comes_back_in_time_has_lost_nothing(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    task = await here.until(lambda task: task.progress is not None)
    here.part(there)
    there.gate.set()
    await trio.sleep(5)
    here.join(there)
    ended = await here.ended()
    assert (ended.state, ended.token, runs(there)) == (TaskState.COMPLETED, task.token, 1)


async def test_a_result_that_comes_too_late_changes_nothing(nodes, autojump_clock):
    here, there, other = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    here.part(there)
    await here.until(lambda task: task.state == TaskState.READY)
    here.join(other)
    first = await here.ended()
    there.gate.set()
    here.join(there)
    await trio.sleep(5)
    assert here.lies == []
    assert (await here.ended()).result == first.result
    assert there.runner.running == 0
    assert not there.runner._jobs, "it was told, and forgot it"


def other_output(request):
    return msgspec.structs.replace(request, output=request.output.replace("of", "to"))


def other_token(request):
    return msgspec.structs.replace(request, token=request.token + 1)


def other_input(request):
    return msgspec.structs.replace(request, input_cid=content_id(b"{}, but another"))


def no_signature(request):
    return msgspec.structs.replace(request, signature="A" * 86)


@pytest.mark.parametrize("lie", [other_output, other_input, no_signature])
async def test_a_peer_that_lies_is_told_on_and_the_task_goes_to_another(nodes, lie, autojump_clock):
    here, there, other = nodes
    there.forge = lambda request: lie(request) if isinstance(request, TaskResult) else request
    here.join(there)
    await here.put()
    task = await here.until(lambda task: task.state == TaskState.READY and task.token > 0)
    assert [peer for peer, _ in here.lies] == [there.id]
    assert task.attempt == 0
    here.part(there)
    here.join(other)
    assert (await here.ended()).state == TaskState.COMPLETED


async def test_a_result_under_another_token_is_not_taken(nodes, autojump_clock):
    here, there, _ = nodes
    there.forge = lambda request: other_token(request) if isinstance(request, TaskResult) else request
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    await wait_all_tasks_blocked()
    assert (await here.until(lambda _: True)).state == TaskState.LEASED


async def never(*_):
    await trio.sleep_forever()


async def back_off(whose):
    """Its queue's, of all tasks, is over."""
    whose.queue.machine.now += 1000.0
    await whose.queue.do(Expire(), object)
    whose.queue.wake()


@pytest.mark.parametrize("answers", ["never", "under another token"])
async def test_who_takes_a_task_and_does_not_answer_for_it_has_it_for_its_time_only(nodes, answers, autojump_clock):
    here, there, other = nodes
    if answers == "never":
        there.runner._attempt = never
    there.forge = lambda request: other_token(request) if isinstance(request, TaskResult) else request
    here.join(there)
    await here.put(timeout_s=5.0)
    await here.taken()
    began = trio.current_time()
    task = await here.until(lambda task: task.state != TaskState.LEASED)
    assert 15 < trio.current_time() - began < 25
    assert (task.attempt, task.error.code) == (1, "OUTCOME_UNKNOWN")
    assert here.outcomes == [(there.id, False)]
    there.tell_capacity(here)
    here.join(other)
    await back_off(here)
    task = await here.ended()
    assert (task.state, task.attempt, runs(other)) == (TaskState.COMPLETED, 2, 1)


async def test_a_result_that_this_node_can_not_take_yet_is_not_overdue(nodes, autojump_clock):
    here, there, _ = nodes
    merge, down = here.sender._clocks.merge, trio.current_time() + 60

    async def away(*ask, **more):
        if trio.current_time() < down:
            raise RuntimeUnavailableError("the scheduler is down")
        return await merge(*ask, **more)

    here.sender._clocks.merge = away
    here.join(there)
    await here.put(timeout_s=5.0)
    task = await here.ended()
    assert (task.state, task.attempt, runs(there)) == (TaskState.COMPLETED, 1, 1)


async def test_only_who_was_asked_may_answer(nodes, autojump_clock):
    here, there, other = nodes
    there.gate = trio.Event()
    here.join(there)
    here.join(other, types=())
    await here.put()
    task = await here.until(lambda task: task.progress is not None)
    (offer,) = [one for one in here.asked if isinstance(one, Offer)]
    stolen = made_result(other.signer, here.id, offer, '"mine"', None)
    assert not (await other.wires[here.id].call(stolen, 1.0)).accepted
    assert (await here.until(lambda _: True)).state == task.state == TaskState.LEASED


async def test_cancelling_a_task_cancels_it_at_the_peer(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    await here.queue.do(Cancel(id="t"), object)
    assert (await here.ended()).state == TaskState.CANCELLED
    await wait_all_tasks_blocked()
    assert there.cancelled == ["t"]
    assert there.runner.free_slots == 2


async def test_the_work_of_an_origin_that_is_gone_for_a_lease_is_stopped(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put(timeout_s=1000.0)
    await here.until(lambda task: task.progress is not None)
    here.part(there)
    await trio.sleep(50)
    assert there.cancelled == []
    await trio.sleep(20)
    assert there.cancelled == ["t"]
    assert there.runner.free_slots == 2


async def test_results_that_nobody_hears_are_bounded(nursery, autojump_clock):
    here, there = Node(nursery), Node(nursery, slots=2, max_untold=2)
    there.gate = trio.Event()
    here.join(there)
    await here.put("a")
    await here.put("b")
    for id_ in "ab":
        await here.until(lambda task: task.progress is not None, id_)
    here.part(there)
    there.gate.set()
    await wait_all_tasks_blocked()
    assert there.runner.free_slots == 0
    nursery.cancel_scope.cancel()


async def test_a_result_that_is_too_large_is_an_error(nursery, autojump_clock):
    here, there = Node(nursery), Node(nursery, max_result_bytes=10)
    here.join(there)
    await here.put()
    task = await here.ended()
    assert (task.state, task.error.code) == (TaskState.FAILED, "LIMIT_EXCEEDED")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [OutcomeUnknownError("its process died"), DeadlineExceededError("too slow")])
async def test_what_has_no_answer_at_the_peer_is_another_attempt(nodes, error, autojump_clock):
    here, there, _ = nodes
    there.errors = [error]
    here.join(there)
    await here.put()
    await here.until(lambda task: task.state == TaskState.SCHEDULED or task.attempt > 1)
    assert (await here.until(lambda _: True)).error.code == error.code
    here.queue.machine.now += 1000.0  # the back-off is over
    await here.queue.do(Expire(), object)
    here.queue.wake()
    assert (await here.ended()).attempt == 2


async def test_an_error_of_the_tool_ends_the_task(nodes, autojump_clock):
    here, there, _ = nodes
    there.errors = [ToolExecutionError("work", "general", "no")]
    here.join(there)
    await here.put()
    task = await here.ended()
    assert (task.state, task.error.code, task.attempt) == (TaskState.FAILED, "TOOL_FAILED", 1)


async def test_a_payload_that_is_too_large_is_not_sent(nodes, autojump_clock):
    here, there, _ = nodes
    here.join(there)
    await here.put(payload=json.dumps({"x": "y" * 900_000}))
    task = await here.ended()
    assert (task.state, task.error.code, runs(there)) == (TaskState.FAILED, "LIMIT_EXCEEDED", 0)


async def test_an_offer_that_contradicts_itself_is_refused(nodes, autojump_clock):
    here, there, _ = nodes
    here.join(there)
    offer = Offer(task_id="x", token=1, type="work", payload="{}", input_cid="bad", lease_s=60.0, timeout_s=1.0)
    answer = await here.wires[there.id].call(offer, 1.0)
    assert isinstance(answer, Refused)
    assert answer.code == "INVALID_PARAMS"
    assert runs(there) == 0


async def test_a_node_that_stops_gives_its_tasks_back(nodes, autojump_clock):
    here, there, _ = nodes
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    here.sender.leave()
    with trio.fail_after(5):
        await here.sender.give_back()
    task = await here.until(lambda _: True)
    assert (task.state, task.attempt) == (TaskState.READY, 0)
    await wait_all_tasks_blocked()
    assert there.cancelled == ["t"]
