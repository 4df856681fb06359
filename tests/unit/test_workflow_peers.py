# SPDX-License-Identifier: AGPL-3.0-or-later
"""What peers do for a workflow becomes part of its clock: all that is so, once, in its order, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_work import INPUT, OUTPUT, Home, Peer, one, with_payload
from workflow_clocks import signer

from actors.errors import BusyError, MCPServerError, NotFoundError, code_of
from actors.messages import ErrorInfo
from actors.p2p.cids import cid_of_text, raw_link
from actors.p2p.peer_registry.sharing import own_events
from actors.p2p.peer_registry.sharing.own_events import OwnEvents
from actors.p2p.workflow_scheduler import offering
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import BadEventError, made
from actors.p2p.workflow_scheduler.peer_work import MAX_EVENT_BYTES
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.workflow_messages import PeerEnded

RESULT = raw_link(b'{"x":1}')
ENDED = PeerEnded(task_id="wf:a", token=1, result=RESULT)


@pytest.fixture
def home():
    return Home()


@pytest.fixture
async def bob():
    return Peer("bob")


def state(home):
    return (home.clock.heads, home.clock.ordered(), home.rig.run.state.events, len(home.rig.stored))


# --- what is so ----------------------------------------------------------------------------------------------------


async def test_what_a_peer_did_is_in_the_clock_after_the_offer_and_before_all_that_follows(home, bob):
    offer, events = bob.does(home)
    home.merge(bob.tells(events, ENDED))
    assert home.kinds(bob.id) == ["peer_started", "peer_completed"]
    offered = home.clock[events[0].payload["offer"]]
    assert (offered.kind, offered.peer, offered.payload["peer"]) == ("step_offered", signer("ann").peer, bob.id)
    assert home.clock.heads == {events[1].cid}
    home.rig.control("pause")
    (head,) = home.clock.heads
    assert home.clock.before(events[1].cid, head)
    assert events[1].payload == {
        "at": 7000,
        "offer": offered.cid,
        "task": "wf:a",
        "attempt": 1,
        "token": offer.token,
        "input": INPUT,
        "result": RESULT,
    }


async def test_a_failure_is_told_as_one_and_its_text_is_cut(home, bob):
    offer = bob.offer(home)
    bob.events.begin("home", offer)
    bob.events.end("home", offer, "", ErrorInfo(code="C" * 64, message="\N{SNOWMAN}\ud800" * 2000))
    events = bob.events.untold("home", offer)
    assert len(events[1].node) + len(events[1].payload_block) <= MAX_EVENT_BYTES
    home.merge(bob.tells(events, PeerEnded(task_id="wf:a", token=1)))
    assert home.kinds(bob.id) == ["peer_started", "peer_failed"]


async def test_the_largest_event_is_not_too_large(bob):
    home = Home(one("a" * 60))
    offer = bob.offer(home, f"wf:{'a' * 60}", (1 << 53) - 1)
    bob.events.begin("home", offer)
    bob.events.end("home", offer, "", ErrorInfo(code="\N{SNOWMAN}" * 64, message="\N{SNOWMAN}" * 2000))
    home.merge(bob.tells(bob.events.untold("home", offer)))


async def test_the_same_offer_again_is_the_same_event(home, bob):
    first, again = home.offer(bob.ask()), home.offer(bob.ask())
    assert first == again
    assert home.offer(bob.ask(token=2)).after != first.after


async def test_events_about_peers_have_a_limit_of_their_own(monkeypatch, bob):
    home = Home(rules=Rules(max_events=5))
    monkeypatch.setattr(offering, "MAX_EVENTS", 10)
    for token in range(1, 11):
        home.offer(bob.ask(token=token))
    assert home.rig.run.status == "running"
    with pytest.raises(MCPServerError) as raised:
        home.offer(bob.ask(token=11))
    assert code_of(raised.value) == "LIMIT_EXCEEDED"
    for _ in range(2):
        home.rig.run.gone([], home.rig.now)
        home.rig.settle()
        assert not home.rig.run.state.cancelling
        home.rig.die()


async def test_an_offer_waits_for_the_news_of_what_comes_before_it(bob):
    home = Home(one("a"), one("b", "a"))
    was = state(home)
    assert home.rig.run.offer(bob.ask("wf:b"), home.rig.now) is None
    assert state(home) == was
    assert home.rig.settle().commands.look == ["wf:a"] or "wf:a" in [one for _, one in home.rig.commands]


@pytest.mark.parametrize(
    "ask", [{"task": "wf:nothing"}, {"task": "w:a"}, {"owner": "eve"}, {"task": "wf:a[0]"}, {"task": ""}]
)
async def test_only_its_own_tasks_are_offered(home, bob, ask):
    with pytest.raises(NotFoundError):
        home.offer(bob.ask(**ask))


async def test_what_is_not_wanted_any_more_is_not_offered(home, bob):
    home.rig.control("cancel")
    with pytest.raises(MCPServerError) as raised:
        home.offer(bob.ask())
    assert code_of(raised.value) == "INVALID_STATE"


async def test_told_twice_or_in_parts_it_is_there_once(home, bob):
    _, events = bob.does(home)
    home.merge(bob.tells(events[:1]))
    home.merge(bob.tells(events, ENDED))
    was = state(home)
    home.merge(bob.tells(events, ENDED))
    home.merge(bob.tells(events[1:], ENDED))
    home.merge(bob.tells([], ENDED))
    assert state(home) == was
    assert home.kinds(bob.id) == ["peer_started", "peer_completed"]


async def test_events_of_peers_decide_nothing_and_are_the_same_when_replayed(home, bob):
    status = home.rig.run.state.steps[0].status
    _, events = bob.does(home)
    home.merge(bob.tells(events))
    assert home.rig.run.state.steps[0].status == status
    assert home.rig.same_when_replayed()
    home.rig.die()
    was = state(home)
    home.merge(bob.tells(events, ENDED))
    assert state(home) == was
    _, more = bob.does(home, "wf:b", 2)
    home.merge(bob.tells(more, PeerEnded(task_id="wf:b", token=2, result=RESULT)))
    assert home.kinds(bob.id) == ["peer_started", "peer_completed"] * 2


# --- what is not ---------------------------------------------------------------------------------------------------


def forged(bob, event, kind=None, by=None, parents=None, height=None, seq=None, **payload):
    return made(
        kind or event.kind,
        with_payload(event, **payload),
        by or bob.signer,
        parents=event.parents if parents is None else parents,
        height=height or event.height,
        seq=seq or event.seq,
    )


OTHER = raw_link(b"other")
LIES = {
    "another input": {"input": OTHER},
    "another task": {"task": "wf:b"},
    "another token": {"token": 2},
    "another attempt": {"attempt": 2},
    "another offer": {"offer": OTHER},
    "no task": {"task": None},
    "a number that is none": {"token": "1"},
    "a kind that is the home's": {"kind": "step_completed"},
    "a kind that nobody knows": {"kind": "peer_danced"},
    "a gap": {"seq": 9},
    "a height of its own": {"height": 99},
    "somebody else's signature": {"by": signer("eve")},
    "an end instead of a beginning": {"kind": "peer_completed", "result": RESULT},
    "much": {"more": "x" * MAX_EVENT_BYTES},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_lie_about_the_beginning_changes_nothing(home, bob, lie):
    _, events = bob.does(home)
    was = state(home)
    with pytest.raises(BadEventError):
        home.merge(bob.tells([forged(bob, events[0], **lie)]))
    assert state(home) == was
    home.merge(bob.tells(events, ENDED))


@pytest.mark.parametrize("lie", [lie for lie in LIES.values() if lie.get("kind") != "peer_completed"])
async def test_a_lie_about_the_end_takes_nothing_over(home, bob, lie):
    _, events = bob.does(home)
    was = state(home)
    with pytest.raises(BadEventError):
        home.merge(bob.tells([events[0], forged(bob, events[1], **lie)]))
    assert state(home) == was
    home.merge(bob.tells(events, ENDED))


async def test_a_beginning_does_not_come_from_somewhere_else_than_the_offer(home, bob):
    offer, events = bob.does(home)
    root = home.clock.ordered()[0]
    was = state(home)
    for parents, height in (([root.cid], 2), ([OTHER], 2), ([], 1)):
        with pytest.raises(BadEventError):
            home.merge(bob.tells([forged(bob, events[0], parents=parents, height=height)]))
    assert state(home) == was
    assert offer.clock


async def test_nothing_ends_or_begins_twice(home, bob):
    _, (start, end) = bob.does(home)
    home.merge(bob.tells([start, end]))
    was = state(home)
    more = {"parents": [end.cid], "height": end.height + 1, "seq": 3}
    again = {"parents": sorted([end.cid, start.payload["offer"]]), "height": end.height + 1, "seq": 3}
    for lie in (forged(bob, end, **more), forged(bob, start, **again)):
        with pytest.raises(BadEventError, match="before"):
            home.merge(bob.tells([lie]))
    assert state(home) == was


async def test_a_peer_has_one_line(home, bob):
    """Two events that each claim to be its first."""
    one_, other = bob.does(home)[1], Peer("bob").does(home, "wf:b", 2)[1]
    home.merge(bob.tells(one_))
    was = state(home)
    with pytest.raises(BadEventError) as raised:
        home.merge(bob.tells(other))
    assert raised.value.fault == "SEQ"
    assert state(home) == was


async def test_a_line_does_not_go_around_what_the_peer_made_before(home, bob):
    """Its number is right, but it does not come after the event with the number before."""
    late = bob.offer(home, "wf:b", 2)
    _, events = bob.does(home)
    home.merge(bob.tells(events, ENDED))
    was = state(home)
    offered = home.clock[cid_of_text(late.clock.after)]
    fact = {"offer": offered.cid, "task": "wf:b", "token": 2, "result": None}
    lie = forged(bob, events[1], "peer_started", parents=[offered.cid], height=offered.height + 1, seq=3, **fact)
    with pytest.raises(BadEventError) as raised:
        home.merge(bob.tells([lie]))
    assert raised.value.fault == "SEQ"
    assert state(home) == was


async def test_a_peer_does_not_speak_of_another_one_s_work(home, bob):
    eve = Peer("eve")
    _, events = bob.does(home)
    was = state(home)
    with pytest.raises(BadEventError):
        home.merge(eve.tells(events))
    with pytest.raises(BadEventError, match="the offer was made to"):
        home.merge(eve.tells([forged(bob, events[0], by=eve.signer)]))
    assert state(home) == was


@pytest.mark.parametrize(
    "ended",
    [
        PeerEnded(task_id="wf:a", token=1, result=OTHER),
        PeerEnded(task_id="wf:a", token=1),
        PeerEnded(task_id="wf:a", token=2, result=RESULT),
        PeerEnded(task_id="wf:b", token=1, result=RESULT),
    ],
)
async def test_a_result_says_what_its_event_says(home, bob, ended):
    _, events = bob.does(home)
    was = state(home)
    with pytest.raises(BadEventError):
        home.merge(bob.tells(events, ended))
    assert state(home) == was


async def test_a_beginning_alone_is_no_end(home, bob):
    _, events = bob.does(home)
    with pytest.raises(BadEventError, match="has ended"):
        home.merge(bob.tells(events[:1], ENDED))


async def test_every_changed_byte_is_found(home, bob):
    _, events = bob.does(home)
    was = state(home)
    for number, event in enumerate(events):
        for part in (0, 1):
            blocks = [event.node, event.payload_block]
            for place in range(0, len(blocks[part]), 3):
                bad = [*blocks]
                bad[part] = bytes(b ^ (1 if at == place else 0) for at, b in enumerate(bad[part]))
                told = [(e.node, e.payload_block) for e in events]
                told[number] = (bad[0], bad[1])
                ask = bob.tells(events, ENDED)
                with pytest.raises(BadEventError):
                    home.merge(type(ask)(workflow_id="wf", peer=bob.id, events=told, ended=ENDED))
    assert state(home) == was


# --- a peer's line -------------------------------------------------------------------------------------------------


async def test_what_is_told_is_not_told_again(home, bob):
    offer, events = bob.does(home)
    bob.events.told("home", offer, events)
    assert bob.events.untold("home", offer) == []


async def test_tasks_that_overlap_are_one_line(home, bob):
    first, second = bob.offer(home, "wf:a"), bob.offer(home, "wf:b", 2)
    bob.events.begin("home", first)
    bob.events.begin("home", second)
    bob.events.end("home", second, OUTPUT, None)
    home.merge(bob.tells(bob.events.untold("home", second), PeerEnded(task_id="wf:b", token=2, result=RESULT)))
    bob.events.end("home", first, OUTPUT, None)
    home.merge(bob.tells(bob.events.untold("home", first), ENDED))
    assert home.kinds(bob.id) == ["peer_started", "peer_started", "peer_completed", "peer_completed"]


async def test_an_offer_from_before_its_last_events_were_known_goes_on_with_the_line(home, bob):
    late = bob.offer(home, "wf:b", 2)
    offer, events = bob.does(home)
    home.merge(bob.tells(events, ENDED))
    bob.events.told("home", offer, events)
    bob.events.leave("home", offer)
    bob.events.drop_idle()
    bob.events.begin("home", late)
    home.merge(bob.tells(bob.events.untold("home", late)))
    assert [event.seq for event in home.clock.ordered() if event.peer == bob.id] == [1, 2, 3]


async def test_an_idle_line_is_forgotten_and_the_next_offer_begins_where_the_home_is(home, bob, autojump_clock):
    offer, events = bob.does(home)
    home.merge(bob.tells(events, ENDED))
    bob.events.leave("home", offer)
    await trio.sleep(own_events.IDLE_S + 1)
    bob.events.drop_idle()
    assert len(bob.events) == 0
    _, more = bob.does(home, "wf:b", 2)
    home.merge(bob.tells(more))
    assert [event.seq for event in home.clock.ordered() if event.peer == bob.id] == [1, 2, 3, 4]


async def test_what_is_untold_is_bounded(monkeypatch, home, bob):
    monkeypatch.setattr(own_events, "MOST_UNTOLD", 6)
    offers = [bob.offer(home, "wf:a", token) for token in range(1, 5)]
    for offer in offers[:3]:
        bob.events.begin("home", offer)
    with pytest.raises(BusyError):
        bob.events.begin("home", offers[3])
    for offer in offers[:3]:
        bob.events.end("home", offer, OUTPUT, None)
        bob.events.leave("home", offer)
    assert len(bob.events.untold("home", offers[0])) == 6
    # Nobody tells it any more, and the origin has never heard of it.
    bob.events.begin("home", offers[3])
    home.merge(bob.tells(bob.events.untold("home", offers[3])))


async def test_there_are_only_so_many_lines(monkeypatch, home, bob):
    monkeypatch.setattr(own_events, "MOST_LINES", 1)
    bob.events.begin("another", bob.offer(home))
    with pytest.raises(BusyError):
        bob.events.begin("home", bob.offer(home))


# --- agreement -----------------------------------------------------------------------------------------------------


class Network:
    """A home and two peers. Offers are late or get lost, results are told late, in any order and more than once, their
    answers get lost, peers forget everything, and the home's scheduler begins anew."""

    def __init__(self, draw):
        self.draw = draw
        self.home = Home(*(one(name) for name in "abcd"))
        self.peers = [Peer("bob"), Peer("cid")]
        self.token = 0
        self.offers = []
        self.running = []
        self.results = []

    def pick(self, some):
        return some[self.draw(st.integers(0, len(some) - 1))]

    def step(self):
        what = self.draw(
            st.sampled_from(["offer", "offer", "begin", "begin", "end", "end", "tell", "tell", "lose", "die"])
        )
        if what == "offer":
            self.token += 1
            peer = self.pick(self.peers)
            self.offers.append((peer, peer.offer(self.home, f"wf:{self.pick('abcd')}", self.token)))
        elif what == "begin" and self.offers:
            peer, offer = self.offers.pop(self.offers.index(self.pick(self.offers)))
            peer.events.begin("home", offer)
            self.running.append((peer, offer))
        elif what == "end" and self.running:
            peer, offer = self.running.pop(self.running.index(self.pick(self.running)))
            peer.events.end("home", offer, OUTPUT, None)
            self.results.append((peer, offer))
        elif what == "tell" and self.results:
            self.tell(self.pick(self.results), lost=self.draw(st.booleans()))
        elif what == "lose" and self.offers:
            self.offers.pop()
        elif what == "die":
            self.home.rig.die()

    def tell(self, result, *, lost):
        peer, offer = result
        events = peer.events.untold("home", offer)
        self.home.merge(peer.tells(events, PeerEnded(task_id=offer.task_id, token=offer.token, result=RESULT)))
        if not lost:
            peer.events.told("home", offer, events)
            peer.events.leave("home", offer)
            self.results.remove(result)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_honest_peers_are_believed_whatever_gets_lost_and_all_agree_in_the_end(data):
    async def check():
        network = Network(data.draw)
        for _ in range(data.draw(st.integers(0, 30))):
            network.step()
        for peer, offer in network.running:
            peer.events.end("home", offer, OUTPUT, None)
        for result in [*network.results, *network.running]:
            if result not in network.results:
                network.results.append(result)
            network.tell(result, lost=False)
        home = network.home
        assert home.rig.same_when_replayed()
        for peer in network.peers:
            line = [event for event in home.clock.ordered() if event.peer == peer.id]
            assert [event.seq for event in line] == list(range(1, len(line) + 1))
            assert all(home.clock.before(a.cid, b.cid) for a, b in pairwise(line))
        # Somebody who hears of it in any order, in parcels, and more than once, has the same.
        told = [event.blocks for event in home.clock.ordered()]
        told = data.draw(st.permutations(told + told[: len(told) // 3]))
        other = EventClock()
        while told:
            size = data.draw(st.integers(1, 8))
            assert other.merge(told[:size]).refused == []
            told = told[size:]
        assert (other.heads, other.ordered()) == (home.clock.heads, home.clock.ordered())

    trio.run(check)


def test_ancestry_joins_two_peers_only_where_the_home_was_told(home):
    async def check():
        bob, cid = Peer("bob"), Peer("cid")
        cid_offer = cid.offer(home, "wf:b", 2)
        _, bobs = bob.does(home)
        home.merge(bob.tells(bobs, ENDED))
        cid.events.begin("home", cid_offer)
        cid.events.end("home", cid_offer, OUTPUT, None)
        cids = cid.events.untold("home", cid_offer)
        home.merge(cid.tells(cids))
        assert not home.clock.before(bobs[1].cid, cids[0].cid)
        assert not home.clock.before(cids[0].cid, bobs[1].cid)
        assert len(home.clock.heads) == 2
        _, later = cid.does(home, "wf:b", 3)
        home.merge(cid.tells(later))
        assert home.clock.before(bobs[1].cid, later[-2].cid)
        assert len(home.clock.heads) == 1

    trio.run(check)


def test_own_events_of_tasks_of_no_workflow_are_none():
    async def check():
        events = OwnEvents(signer("bob"))
        offer = Peer("bob").offer(Home())
        plain = type(offer)(task_id="t", token=1, type="mix", payload="{}", lease_s=1.0, input_cid=offer.input_cid)
        events.begin("home", plain)
        events.end("home", plain, OUTPUT, None)
        events.told("home", plain, [])
        assert events.untold("home", plain) == []
        events.leave("home", plain)
        assert len(events) == 0

    trio.run(check)
