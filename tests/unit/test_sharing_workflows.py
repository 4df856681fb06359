# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps of workflows that peers do: their events are in its clock, whatever gets lost, and lies are found."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio
from peer_work import Home
from sharing_nodes import Node

from actors.errors import ToolExecutionError
from actors.p2p.cids import cid_of_text, raw_link
from actors.p2p.peer_registry.link.messages import ClockPlace, Offer, TaskResult
from actors.p2p.peer_registry.sharing.statement import content_id
from actors.task_messages import TaskState


@pytest.fixture
async def nodes(nursery):
    """One with tasks, and two that would do them."""
    three = [Node(nursery) for _ in range(3)]
    yield three
    nursery.cancel_scope.cancel()


def runs(*nodes):
    return sum(len(node.runs) for node in nodes)


@pytest.fixture
def flow(nodes):
    """The nodes; the first one has a workflow with the tasks `wf:a` and `wf:b`."""
    nodes[0].home = Home()
    return nodes


async def put_step(here, name="a"):
    metadata = json.dumps({"workflow_id": "wf", "step_id": name})
    await here.put(f"wf:{name}", owner="ann", metadata=metadata)


async def test_what_a_peer_does_for_a_workflow_is_in_its_clock_before_the_queue_hears_of_it(flow, autojump_clock):
    here, there, _ = flow
    here.join(there)
    await put_step(here)
    task = await here.ended("wf:a")
    assert here.home.kinds(there.id) == ["peer_started", "peer_completed"]
    done = here.home.clock.ordered()[-1].payload
    assert (done["task"], done["token"]) == ("wf:a", task.token)
    assert done["result"] == raw_link(json.dumps({"of": "wf:a"}, separators=(",", ":")).encode())
    assert done["input"] == cid_of_text(content_id(b"{}"))
    assert here.lies == []


async def test_a_step_that_fails_at_a_peer_failed_there(flow, autojump_clock):
    here, there, _ = flow
    there.errors = [ToolExecutionError("work", "general", "no")]
    here.join(there)
    await put_step(here)
    await here.ended("wf:a")
    assert here.home.kinds(there.id) == ["peer_started", "peer_failed"]
    assert here.home.clock.ordered()[-1].payload["error"]["code"] == "TOOL_FAILED"


async def test_a_task_that_only_says_it_is_a_step_is_none(flow, autojump_clock):
    here, there, _ = flow
    here.join(there)
    for id_, owner, metadata in [("wf:a", "eve", '{"workflow_id": "wf"}'), ("t", "ann", '{"workflow_id": "wf"}')]:
        await here.put(id_, owner=owner, metadata=metadata)
        assert (await here.ended(id_)).state == TaskState.COMPLETED
    await here.put("u", metadata='{"workflow_id": 7}')
    assert (await here.ended("u")).state == TaskState.COMPLETED
    assert here.home.kinds(there.id) == []


async def test_after_a_cut_the_clock_gets_all_that_was_done_also_what_does_not_count(flow, autojump_clock):
    here, there, other = flow
    there.gate = trio.Event()
    here.join(there)
    await put_step(here)
    await here.until(lambda task: task.progress is not None, "wf:a")
    here.part(there)
    await here.until(lambda task: task.state == TaskState.READY, "wf:a")
    here.join(other)
    await here.ended("wf:a")
    there.gate.set()
    here.join(there)
    await trio.sleep(5)
    assert here.home.kinds(other.id) == here.home.kinds(there.id) == ["peer_started", "peer_completed"]
    assert here.lies == []
    assert not there.runner._jobs


async def test_a_lost_answer_leaves_nothing_twice(flow, autojump_clock):
    here, there, _ = flow
    there.gate = trio.Event()
    here.join(there)
    await put_step(here)
    await here.until(lambda task: task.progress is not None, "wf:a")
    there.lose_next_answer = True
    there.gate.set()
    await here.ended("wf:a")
    await trio.sleep(2)
    await put_step(here, "b")
    await here.ended("wf:b")
    assert here.home.kinds(there.id) == ["peer_started", "peer_completed"] * 2
    assert here.lies == []


async def test_while_the_scheduler_is_away_no_step_goes_and_no_result_is_taken(flow, autojump_clock):
    here, there, _ = flow
    there.gate = trio.Event()
    here.join(there)
    here.scheduler_is_down = True
    await put_step(here)
    await trio.sleep(5)
    assert runs(there) == 0
    here.scheduler_is_down = False
    task = await here.until(lambda task: task.progress is not None, "wf:a")
    here.scheduler_is_down = True
    there.gate.set()
    await trio.sleep(5)
    assert (await here.until(lambda _: True, "wf:a")).state == TaskState.LEASED
    here.scheduler_is_down = False
    ended = await here.ended("wf:a")
    assert (ended.token, ended.attempt, here.lies) == (task.token, 1, [])


def without_events(request):
    return msgspec.structs.replace(request, events=[])


def without_workflow(request):
    return msgspec.structs.replace(request, workflow_id="", events=[])


def bad_event(request):
    *others, last = request.events
    node = bytes([*last.node[:-1], last.node[-1] ^ 1])
    return msgspec.structs.replace(request, events=[*others, msgspec.structs.replace(last, node=node)])


def no_end(request):
    return msgspec.structs.replace(request, events=request.events[:-1])


@pytest.mark.parametrize("lie", [without_events, without_workflow, bad_event, no_end])
async def test_a_peer_that_lies_in_its_events_is_told_on_and_they_change_nothing(flow, lie, autojump_clock):
    here, there, other = flow
    there.forge = lambda request: lie(request) if isinstance(request, TaskResult) else request
    here.join(there)
    await put_step(here)
    task = await here.until(lambda task: task.state == TaskState.READY and task.token > 0, "wf:a")
    assert [peer for peer, _ in here.lies] == [there.id]
    assert task.attempt == 0
    assert here.home.kinds(there.id) == []
    here.part(there)
    here.join(other)
    assert (await here.ended("wf:a")).state == TaskState.COMPLETED


async def test_a_lie_in_what_came_too_late_is_one_too(flow, autojump_clock):
    here, there, _ = flow
    there.gate = trio.Event()
    here.join(there)
    await put_step(here)
    await here.until(lambda task: task.progress is not None, "wf:a")
    here.part(there)
    await here.until(lambda task: task.state == TaskState.READY, "wf:a")
    there.forge = lambda request: bad_event(request) if isinstance(request, TaskResult) else request
    there.gate.set()
    here.join(there, types=())
    await trio.sleep(2)
    assert [peer for peer, _ in here.lies] == [there.id]
    assert here.home.kinds(there.id) == []


async def test_an_offer_without_a_place_in_the_clock_is_refused(flow, autojump_clock):
    here, there, _ = flow
    here.join(there)
    offer = Offer(
        task_id="wf:a",
        token=1,
        type="work",
        payload="{}",
        input_cid=content_id(b"{}"),
        lease_s=60.0,
        clock=ClockPlace("wf", "none", 1, 1),
    )
    answer = await here.wires[there.id].call(offer, 1.0)
    assert (answer.code, runs(there), there.runner.running) == ("INVALID_PARAMS", 0, 0)


async def test_no_more_is_claimed_than_peers_have_room_for_while_offers_are_on_their_way(flow, autojump_clock):
    here, there, _ = flow
    there.gate = trio.Event()
    here.scheduler_takes_s = 0.5
    here.join(there)
    for n in range(5):
        await here.put(f"wf:{n}", metadata='{"workflow_id": "wf"}')
        await trio.sleep(0.01)
    await trio.sleep(2)
    assert runs(there) == 2
    assert len([one for one in here.asked if isinstance(one, Offer)]) == 2
