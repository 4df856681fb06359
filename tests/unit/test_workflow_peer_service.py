# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps that run at peers, as the scheduler is told of them: the real service on a real file, with the real queue."""

from __future__ import annotations

import msgspec
import pytest
import trio
from peer_work import Peer
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked
from workflow_calls import step
from workflow_world import FakeCall, World

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, RuntimeUnavailableError, code_of
from actors.p2p.cids import cid_text, raw_link
from actors.p2p.peer_registry.link.messages import ClockPlace, Offer
from actors.p2p.peer_registry.sharing.statement import value_link
from actors.p2p.workflow_scheduler import service
from actors.p2p.workflow_scheduler.events import BadEventError
from actors.p2p.workflow_scheduler.methods import WorkflowMethods
from actors.p2p.workflow_scheduler.verify import verified
from actors.task_messages import Claim, Complete
from actors.workflow_messages import (
    MOST_PEER_EVENTS,
    ControlWorkflow,
    ExportWorkflow,
    MergeEvents,
    OfferStep,
    PeerEnded,
)


@pytest.fixture
async def world(nursery, tmp_path):
    made = World(nursery, tmp_path)
    with capture_logs() as made.logs:
        await made.open()
        yield made
        await made.close()


@pytest.fixture
async def bob():
    return Peer("bob")


async def claimed(world):
    answer = await world.queue.do(Claim(worker="peers", lease_s=1000.0, wait_s=10.0, capabilities=["p2p"]))
    return answer.tasks[0]


def asked(lease, bob, **more):
    fields = {
        "workflow_id": "w",
        "owner": lease.owner,
        "task_id": lease.id,
        "token": lease.token,
        "attempt": lease.attempt,
        "peer": bob.id,
        "input": raw_link(lease.payload.encode()),
    }
    return OfferStep(**fields | more)


async def offered(world, bob, lease):
    """What the peer is sent."""
    ask = asked(lease, bob)
    place = await world.service.offer(ask)
    return Offer(
        task_id=lease.id,
        token=lease.token,
        type=lease.type,
        payload=lease.payload,
        lease_s=1.0,
        attempt=lease.attempt,
        input_cid=cid_text(ask.input),
        clock=ClockPlace("w", cid_text(place.after), place.height, place.seq),
    )


def does(bob, offer, result='"done"'):
    """What the peer tells then."""
    bob.events.begin("home", offer)
    bob.events.end("home", offer, result, None)
    ended = PeerEnded(task_id=offer.task_id, token=offer.token, result=value_link(result))
    return msgspec.structs.replace(bob.tells(bob.events.untold("home", offer), ended), workflow_id="w")


async def running(world):
    """Until the news of the lease is there."""
    while (await world.get()).steps[0].status != "running":
        await trio.sleep(0.001)


async def complete(world, lease, result='"done"'):
    await world.queue.do(Complete(id=lease.id, token=lease.token, result=result))


async def export(world):
    return b"".join([piece async for piece in world.service.export(ExportWorkflow(workflow_id="w"))])


async def test_what_peers_did_is_in_the_export_whatever_life_it_was_told(world, bob):
    await world.submit(step("a", placement="p2p"), step("b", after=["a"], placement="p2p"))
    for _ in range(2):
        lease = await claimed(world)
        offer = await offered(world, bob, lease)
        await world.restart()
        told = does(bob, offer)
        await world.service.merge(told)
        await world.restart()
        await world.service.merge(told)  # the answer was lost
        await complete(world, lease)
    await world.ended()
    report = verified(await export(world))
    assert report.findings == []
    assert [row.peers for row in report.steps] == [[bob.id], [bob.id]]
    assert bob.id in report.peers


async def test_an_offer_comes_after_the_news_of_the_steps_before_it(world, bob):
    await world.submit(step("a", placement="p2p"), step("b", after=["a"], placement="p2p"))
    await world.until(lambda view: view.status == "running")
    first = await claimed(world)
    world.side.away = True  # the scheduler does not hear that it completes
    await complete(world, first)
    second = await claimed(world)
    places = []

    async def offer():
        places.append(await world.service.offer(asked(second, bob)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer)
        await wait_all_tasks_blocked()
        assert places == []
        world.side.away = False
    clock = world.scheduler.engine.lives["w"].run.clock
    (ended,) = [event for event in clock.ordered() if event.kind == "step_completed"]
    assert clock.before(ended.cid, places[0].after)


async def test_news_that_do_not_come_are_not_waited_for_long(world, bob, monkeypatch):
    monkeypatch.setattr(service, "_NEWS_WITHIN_S", 0.01)
    await world.submit(step("a", placement="p2p"), step("b", after=["a"], placement="p2p"))
    await world.until(lambda view: view.status == "running")
    first = await claimed(world)
    world.side.away = True
    await complete(world, first)
    with pytest.raises(RuntimeUnavailableError, match="try again"):
        await world.service.offer(asked(await claimed(world), bob))
    world.side.away = False


async def test_only_what_is_known_and_goes_on_is_offered(world, bob):
    await world.submit(step("a", placement="p2p"))
    lease = await claimed(world)
    for more in ({"workflow_id": "no"}, {"owner": "eve"}, {"task_id": "w:no"}):
        with pytest.raises(NotFoundError):
            await world.service.offer(asked(lease, bob, **more))
    for more in ({"input": b"x"}, {"peer": ""}, {"peer": "x" * 101}, {"token": -1}):
        with pytest.raises(InvalidArgumentsError):
            await world.service.offer(asked(lease, bob, **more))
    await world.service.control(ControlWorkflow(workflow_id="w", what="cancel"))
    with pytest.raises(MCPServerError) as raised:
        await world.service.offer(asked(lease, bob))
    assert code_of(raised.value) == "INVALID_STATE"
    assert not [log for log in world.logs if log["log_level"] == "error"]


async def test_bad_events_change_nothing_and_the_workflow_goes_on(world, bob):
    await world.submit(step("a", placement="p2p"))
    lease = await claimed(world)
    told = does(bob, await offered(world, bob, lease))
    await running(world)
    before = (await world.get()).version
    for bad in (
        msgspec.structs.replace(told, peer="somebody"),
        msgspec.structs.replace(told, events=told.events[:1]),
        msgspec.structs.replace(told, events=told.events[1:]),
        msgspec.structs.replace(told, events=[(b"x", b"y")]),
        msgspec.structs.replace(told, events=told.events * MOST_PEER_EVENTS),
    ):
        with pytest.raises(BadEventError):
            await world.service.merge(bad)
    assert (await world.get()).version == before
    await world.service.merge(told)
    await complete(world, lease)
    assert (await world.ended()).status == "completed"
    assert verified(await export(world)).sound
    assert not [log for log in world.logs if log["log_level"] == "error"]


async def test_what_is_told_of_a_workflow_that_has_ended_or_that_nobody_knows_is_refused(world, bob):
    await world.submit(step("a", placement="p2p"))
    lease = await claimed(world)
    told = does(bob, await offered(world, bob, lease))
    with pytest.raises(NotFoundError):
        await world.service.merge(msgspec.structs.replace(told, workflow_id="no"))
    await complete(world, lease)
    await world.ended()
    file = await export(world)
    with pytest.raises(MCPServerError) as raised:
        await world.service.merge(told)
    assert code_of(raised.value) == "INVALID_STATE"
    assert await export(world) == file


async def test_the_channel_takes_what_is_right_and_refuses_the_rest(world, bob):
    await world.submit(step("a", placement="p2p"))
    lease = await claimed(world)
    methods = WorkflowMethods(world.service).all()
    place = await methods["workflows/offer"](FakeCall("workflows/offer", asked(lease, bob)))
    assert (place.seq, place.height > 1) == (1, True)
    told = MergeEvents(workflow_id="w", peer=bob.id, events=[])
    assert await methods["workflows/merge"](FakeCall("workflows/merge", told)) is None
    for name in ("workflows/offer", "workflows/merge"):
        for bad in (None, {}, {"workflow_id": 7}, [1]):
            with pytest.raises(InvalidArgumentsError):
                await methods[name](FakeCall(name, bad))
