# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Merkle clock: what is an event, what comes before what, and that all clocks come to agree."""

from __future__ import annotations

import random
import re

import libipld
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_clocks import cid, made, signer

from actors.p2p.workflow_scheduler import event_clock
from actors.p2p.workflow_scheduler import events as event_blocks
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import BadEventError, MissingParentsError

ANN, BOB = signer("ann"), signer("bob")


def blocks(clock):
    return [event.blocks for event in clock.ordered()]


def state(clock):
    """Everything that two clocks with the same events agree about."""
    return clock.heads, clock.ordered()


# --- one clock -----------------------------------------------------------------------------------------------------


def test_an_event_names_its_content_and_what_was_newest():
    clock = EventClock()
    first = clock.append("submitted", {"at": 5, "owner": "me"}, ANN)
    second = clock.append("begun", {"at": 6}, ANN)
    node = libipld.decode_dag_cbor(second.node)
    assert second.cid == cid(second.node)
    assert node["payload"] == cid(second.payload_block)
    assert node["parents"] == [first.cid]
    assert (node["v"], node["kind"], node["height"], node["seq"], node["peer"]) == (1, "begun", 2, 2, ANN.peer)
    assert (first.height, first.seq, first.parents, first.payload) == (1, 1, (), {"at": 5, "owner": "me"})
    assert clock.heads == {second.cid}
    assert clock.ordered() == [first, second]
    assert clock[first.cid] == first
    assert first.cid in clock
    assert b"other" not in clock


def test_equal_events_have_equal_names():
    one, other = EventClock(), EventClock()
    assert one.append("begun", {"at": 1, "b": 2}, ANN) == other.append("begun", {"b": 2, "at": 1}, ANN)


def test_links_are_written_as_links():
    event = EventClock().append("step_completed", {"at": 1, "result": cid(b"[]", 0x55)}, ANN)
    assert b"\xd8\x2a\x58\x25\x00" + cid(b"[]", 0x55) in event.payload_block
    assert event.payload["result"] == cid(b"[]", 0x55)


@pytest.mark.parametrize(
    "payload",
    [
        {"at": 1.5},
        {"deep": [{"er": [0.0]}]},
        {"key": b"free bytes"},
        {"key": b"\x01\x00\x00\x00"},  # would be written as a link
        {"key": b"\x12\x20" + bytes(32)},
        {"key": b"\x01\x70\x12\x20" + bytes(32)},
        {"at": 1 << 64},
        {"at": float("nan")},
        {"text": "\ud800"},
        {1: 2},
        {"at": object()},
        {"long": "x" * event_blocks.MAX_PAYLOAD_BYTES},
        ["no map"],
    ],
    ids=lambda payload: re.sub(r" at 0x.*", "", repr(payload)[:40]),
)
def test_a_payload_that_is_none_is_refused_and_nothing_changes(payload):
    clock = EventClock()
    clock.append("submitted", {"at": 1}, ANN)
    was = state(clock)
    with pytest.raises(BadEventError):
        clock.append("begun", payload, ANN)
    assert state(clock) == was


def test_a_payload_is_what_it_was_whatever_is_done_to_what_was_read():
    clock = EventClock()
    event = clock.append("submitted", {"at": 1}, ANN)
    event.payload["at"] = 2
    clock.ordered().clear()
    assert clock.ordered()[0].payload == {"at": 1}


# --- events of others ----------------------------------------------------------------------------------------------


def test_an_event_is_taken_over_once():
    clock, other = EventClock(), EventClock()
    event = clock.append("submitted", {"at": 1}, ANN)
    assert other.add(*event.blocks, cid=event.cid) == event
    assert other.add(*event.blocks) is None
    assert state(other) == state(clock)


def test_parents_come_first():
    clock, other = EventClock(), EventClock()
    first, second = (clock.append("made", {"at": at}, ANN) for at in (1, 2))
    with pytest.raises(MissingParentsError) as raised:
        other.add(*second.blocks)
    assert raised.value.missing == {first.cid}
    assert other.missing([first.cid, second.cid]) == [first.cid, second.cid]
    other.add(*first.blocks)
    assert other.missing([first.cid, second.cid]) == [second.cid]


ROOT = made()
ROOT_CID = cid(ROOT[0])
SECOND = made(parents=[ROOT_CID], height=2, seq=2)
CHILD = {"parents": [ROOT_CID], "height": 2, "seq": 2}
RAW = cid(b"{}", 0x55)


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (made(**CHILD | {"height": 1}), "HEIGHT"),
        (made(**CHILD | {"height": 3}), "HEIGHT"),
        (made(payload={"at": 2}, height=2), "HEIGHT"),
        (made(**CHILD | {"height": 0}), "MALFORMED"),
        (made(**CHILD | {"height": "2"}), "MALFORMED"),
        (made(**CHILD | {"height": True}), "MALFORMED"),
        (made(**CHILD | {"seq": 1}), "SEQ"),
        (made(**CHILD | {"seq": 3}), "SEQ"),
        (made(**CHILD, by="bob"), "SEQ"),
        (made(payload={"at": 2}, seq=0), "MALFORMED"),
        (made(parents=[ROOT_CID, ROOT_CID], height=2, seq=2), "PARENTS"),
        (made(parents=sorted([ROOT_CID, cid(SECOND[0])], reverse=True), height=3, seq=3), "PARENTS"),
        (made(parents=[bytes([1, 0x71, 0x12, 0x20]) + bytes(32)], height=2, seq=2), "PARENTS"),
        (made(parents=[RAW], height=2, seq=2), "MALFORMED"),
        (made(parents=["text"], height=2, seq=2), "MALFORMED"),
        (made(parents=[cid(bytes([n])) for n in range(101)], height=2, seq=2), "MALFORMED"),
        (made(**CHILD, v=2), "MALFORMED"),
        (made(**CHILD, extra=1), "MALFORMED"),
        (made(**CHILD | {"kind": ""}), "MALFORMED"),
        (made(**CHILD | {"kind": "k" * 41}), "MALFORMED"),
        (made(**CHILD, payload={"at": 1.0}), "MALFORMED"),
        (made(**CHILD, payload=[]), "MALFORMED"),
        (made(**CHILD, payload={"a": b"bytes"}), "MALFORMED"),
        (made(**CHILD, payload={"a": "x" * event_blocks.MAX_PAYLOAD_BYTES}), "TOO_LARGE"),
        (made(**CHILD, peer="x" * event_blocks.MAX_NODE_BYTES), "TOO_LARGE"),
        (made(**CHILD, peer="nobody"), "SIGNATURE"),
        (made(**CHILD, peer=BOB.peer), "SIGNATURE"),
        (made(**CHILD, sig=BOB.sign(b"")), "SIGNATURE"),
        (made(**CHILD, sig="short"), "MALFORMED"),
        ((made(**CHILD, kind="other")[0], made(payload={"at": 9})[1]), "PAYLOAD"),
        ((b"", SECOND[1]), "MALFORMED"),
        ((b"\xa0", SECOND[1]), "MALFORMED"),
        ((b"\x80", SECOND[1]), "MALFORMED"),
        ((b"\x81" * 8000, SECOND[1]), "MALFORMED"),
        ((SECOND[0] + b"\x00", SECOND[1]), "MALFORMED"),
    ],
)
def test_what_is_not_sound_is_refused_and_nothing_changes(event, fault):
    clock = EventClock()
    clock.merge([ROOT, SECOND])
    was = state(clock)
    with pytest.raises(BadEventError) as raised:
        clock.add(*event)
    assert raised.value.fault == fault
    assert state(clock) == was


def test_sound_events_are_not_refused():
    clock = EventClock()
    for event in (ROOT, SECOND, made(by="bob", parents=[cid(SECOND[0])], height=3, seq=1)):
        assert clock.add(*event) is not None


def test_other_bytes_for_the_same_map_are_refused():
    node, payload = made(payload={"at": 1})
    long_one = payload.replace(b"\x01", b"\x18\x01")
    assert libipld.decode_dag_cbor(long_one) == libipld.decode_dag_cbor(payload)
    fields = libipld.decode_dag_cbor(node) | {"payload": cid(long_one)}
    del fields["sig"]
    fields["sig"] = ANN.sign(libipld.encode_dag_cbor(fields))
    with pytest.raises(BadEventError) as raised:
        EventClock().add(libipld.encode_dag_cbor(fields), long_one)
    assert raised.value.fault == "NOT_CANONICAL"


def test_a_link_written_as_free_bytes_is_refused():
    payload = b"\xa1\x61a\x58\x24" + ROOT_CID
    assert libipld.decode_dag_cbor(payload) == {"a": ROOT_CID}
    fields = libipld.decode_dag_cbor(ROOT[0]) | {"payload": cid(payload)}
    del fields["sig"]
    fields["sig"] = ANN.sign(libipld.encode_dag_cbor(fields))
    with pytest.raises(BadEventError) as raised:
        EventClock().add(libipld.encode_dag_cbor(fields), payload)
    assert raised.value.fault == "NOT_CANONICAL"


def test_an_event_is_not_what_it_is_said_to_be():
    with pytest.raises(BadEventError) as raised:
        EventClock().add(*ROOT, cid=cid(b"other"))
    assert raised.value.fault == "CID"


def test_what_comes_from_the_own_store_is_only_spared_the_signature():
    unsigned = made(sig=ANN.sign(b""))
    assert EventClock().add(*unsigned, trusted=True) is not None
    with pytest.raises(BadEventError):
        EventClock().add(*made(height=2), trusted=True)


def small_graph():
    """Two peers that went on for themselves, and one that put it together."""
    left, right = EventClock(), EventClock()
    left.append("submitted", {"at": 1, "workflow": cid(b"")}, ANN)
    right.merge(blocks(left))
    left.append("step_ready", {"at": 2, "step": "a"}, ANN)
    right.append("step_ready", {"at": 2, "step": "b"}, BOB)
    left.merge(blocks(right))
    left.merged(ANN, at=3)
    return left


def test_every_changed_byte_is_found():
    """A block that was changed is refused, or is another one, which is not among what the others name: then they miss
    it. So nobody who begins at the heads takes it for the old one."""
    whole = small_graph()
    events = whole.ordered()
    for changed, event in enumerate(events):
        others = [other.blocks for number, other in enumerate(events) if number != changed]
        for part, block in enumerate(event.blocks):
            for place in range(len(block)):
                bad = bytearray(block)
                bad[place] ^= 1 << (place % 8)
                forged = (bytes(bad), event.payload_block) if part == 0 else (event.node, bytes(bad))
                with pytest.raises(BadEventError):
                    EventClock().add(*forged, cid=event.cid)
                if place % 16 == 0:
                    clock = EventClock()
                    found = clock.merge([*others, forged])
                    assert event.cid not in clock
                    assert found.refused or found.missing
                    assert clock.heads != whole.heads


# --- merging -------------------------------------------------------------------------------------------------------


def test_a_merge_says_what_is_missing_and_goes_on_when_it_comes():
    clock, other = EventClock(), EventClock()
    events = [clock.append("made", {"at": at}, ANN) for at in range(4)]
    found = other.merge([events[3].blocks, events[1].blocks, events[2].blocks])
    assert (found.added, found.missing, found.refused) == ([], {events[0].cid}, [])
    found = other.merge([events[0].blocks])
    assert (found.added, found.missing, found.refused) == (events, set(), [])
    assert state(other) == state(clock)


def test_a_parent_may_come_by_another_way():
    clock, other = EventClock(), EventClock()
    first, second = (clock.append("made", {"at": at}, ANN) for at in (1, 2))
    other.merge([second.blocks])
    other.add(*first.blocks)
    assert other.merge([]).added == [second]


def test_one_bad_event_does_not_keep_the_others_out():
    bad = made(payload={"at": 2}, sig=BOB.sign(b""))
    clock = EventClock()
    found = clock.merge([bad, SECOND, made(height=7), ROOT])
    assert [event.blocks for event in found.added] == [ROOT, SECOND]
    assert sorted(error.fault for error in found.refused) == ["HEIGHT", "SIGNATURE"]
    assert found.missing == set()


def test_an_event_that_says_it_is_older_than_its_parent_is_refused_in_any_order():
    forged = made(parents=[cid(SECOND[0])], height=2, seq=3)
    for order in ([forged, ROOT, SECOND], [SECOND, ROOT, forged], [ROOT, forged, SECOND]):
        clock = EventClock()
        found = clock.merge(order)
        assert [error.fault for error in found.refused] == ["HEIGHT"]
        assert (len(clock), found.missing) == (2, set())


def test_only_so_many_wait_for_their_parents(monkeypatch):
    monkeypatch.setattr(event_clock, "MAX_WAITING", 2)
    clock, other = EventClock(), EventClock()
    events = [clock.append("made", {"at": at}, ANN) for at in range(5)]
    found = other.merge(event.blocks for event in events[1:])
    assert [error.fault for error in found.refused] == ["TOO_MANY"] * 2
    assert found.missing == {events[0].cid}
    other.merge(event.blocks for event in events)
    assert state(other) == state(clock)


def test_a_clock_holds_only_so_many_events(monkeypatch):
    monkeypatch.setattr(event_clock, "MAX_EVENTS", 2)
    clock = EventClock()
    clock.merge([ROOT, SECOND])
    with pytest.raises(BadEventError) as raised:
        clock.append("made", {"at": 1}, ANN)
    assert raised.value.fault == "TOO_MANY"
    with pytest.raises(BadEventError) as raised:
        clock.add(*made(by="bob"))
    assert raised.value.fault == "TOO_MANY"


def test_many_heads_become_one(monkeypatch):
    monkeypatch.setattr(event_clock, "MAX_PARENTS", 3)
    clock = EventClock()
    clock.merge(made(payload={"at": at}, by=f"peer {at}") for at in range(8))
    assert len(clock.heads) == 8
    last = clock.merged(ANN, at=9)
    assert clock.heads == {last.cid}
    assert all(clock.before(event.cid, last.cid) for event in clock.ordered() if event != last)
    assert {len(event.parents) for event in clock.ordered() if event.kind == "merged"} <= {2, 3}
    assert clock.merged(ANN, at=10) == last


def test_there_is_nothing_to_merge_in_an_empty_clock():
    with pytest.raises(BadEventError, match="no event yet"):
        EventClock().merged(ANN, at=1)


def test_a_peer_that_forked_its_own_line_is_the_same_everywhere():
    """As after a restore from an older copy: both lines stay, and the next event of the peer comes after both."""
    one, other = EventClock(), EventClock()
    for clock in (one, other):
        clock.append("submitted", {"at": 1}, ANN)
    for _ in range(3):
        one.append("one", {"at": 2}, ANN)
    other.append("other", {"at": 3}, ANN)
    one.merge(blocks(other))
    other.merge(blocks(one))
    assert state(one) == state(other)
    assert len(one.heads) == 2
    assert one.append("next", {"at": 4}, ANN).seq == 5
    other.merge(blocks(one))
    assert state(one) == state(other)


# --- agreement, as properties --------------------------------------------------------------------------------------

PEERS = ["ann", "bob", "cid"]
few = settings(max_examples=40, deadline=None)


@st.composite
def histories(draw):
    """Clocks of three peers that made events and told each other some of them, in any order and again and again."""
    clocks = {peer: EventClock() for peer in PEERS}
    root = clocks["ann"].append("submitted", {"at": 0}, signer("ann"))
    for clock in clocks.values():
        clock.merge([root.blocks])
    for at in range(draw(st.integers(0, 14))):
        peer = draw(st.sampled_from(PEERS))
        if draw(st.booleans()):
            clocks[peer].append("made", {"at": at, "by": peer}, signer(peer))
        else:
            told = blocks(clocks[draw(st.sampled_from(PEERS))])
            clocks[peer].merge(draw(st.lists(st.sampled_from(told), max_size=6)))
    return clocks


def shuffled(draw, events):
    order = random.Random(draw(st.integers(0, 99)))
    events = [*events, *order.choices(events, k=len(events) // 3)]
    order.shuffle(events)
    return events


def folded(clock):
    """A fold in which the order matters."""
    value: list = []
    for event in clock.ordered():
        value = [event.kind, event.payload, value]
    return value


@few
@given(histories(), st.data())
def test_clocks_that_were_told_everything_agree(clocks, data):
    told = [event for clock in clocks.values() for event in blocks(clock)]
    for clock in clocks.values():
        events = shuffled(data.draw, told)
        while events:  # in parcels, some of which come before what they need
            size = data.draw(st.integers(1, 8))
            found = clock.merge(events[:size])
            assert found.refused == []
            events = events[size:]
        assert clock.merge([]).missing == set()
    first, *others = clocks.values()
    for other in others:
        assert state(other) == state(first)
        assert folded(other) == folded(first)


@few
@given(histories(), st.data())
def test_merge_is_commutative_associative_and_idempotent(clocks, data):
    every = [event for clock in clocks.values() for event in blocks(clock)]
    some = st.lists(st.sampled_from(every), max_size=8)
    a, b, c = data.draw(some), data.draw(some), data.draw(some)

    def after(*merges):
        clock = EventClock()
        for events in merges:
            found = clock.merge(events)
        return state(clock), found.missing

    assert after(a, b, c) == after(c, b, a) == after(b, a, c) == after(a + b, c) == after(a, b + c)
    assert after(a) == after(a, a) == after(a, [])


@few
@given(histories())
def test_happened_before_is_ancestry_and_the_order_keeps_it(clocks):
    whole = EventClock()
    for clock in clocks.values():
        whole.merge(blocks(clock))
    ancestors: dict[bytes, set[bytes]] = {}
    events = whole.ordered()
    for event in events:
        ancestors[event.cid] = set(event.parents).union(*(ancestors[parent] for parent in event.parents))
    for b in events:
        assert {a.cid for a in events if whole.before(a.cid, b.cid)} == ancestors[b.cid]
    assert whole.heads == {event.cid for event in events} - {one for event in events for one in event.parents}


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_any_bytes_are_refused(node, payload):
    with pytest.raises(BadEventError):
        EventClock().add(node, payload)
