# SPDX-License-Identifier: AGPL-3.0-or-later
"""An export in which peers say what they did: that is held against what they were offered and what was accepted."""

from __future__ import annotations

import pytest
from workflow_clocks import cid, signer
from workflow_exports import Story, begun, step

from actors.p2p.cids import raw_link
from actors.p2p.workflow_scheduler.verify import verified

ANN, BOB = signer("ann").peer, signer("bob").peer
INPUT = raw_link(b"{}")
OUTPUT = raw_link(b"1")
WORK = {"task": "wf:a", "attempt": 1, "token": 1, "input": INPUT}
ERROR = {"code": "TOOL_FAILED", "message": "no"}


def offered(*steps, to="bob", **more) -> tuple[Story, bytes]:
    """A step was offered; the event."""
    story = begun(*(steps or (step("a"), step("b", "a"))))
    return story, offer(story, to=to, **more)


def offer(story, to="bob", **more) -> bytes:
    return story.say("step_offered", peer=signer(to).peer, step="a", **WORK | more).cid


def at_peer(story, what, link, by="bob", **more):
    return story.say(f"peer_{what}", by=by, offer=link, **WORK | more)


def done() -> Story:
    """A step that a peer did, and one that was done here after it."""
    story, link = offered()
    at_peer(story, "started", link)
    at_peer(story, "completed", link, result=OUTPUT)
    story.complete("a")
    story.do("b", attempt=2)
    story.end()
    return story


def found(story):
    return [(finding.code, finding.step, finding.message) for finding in verified(story.file()).findings]


def test_who_did_what_is_told():
    report = verified(done().file())
    assert report.findings == []
    assert report.peers == sorted([ANN, BOB])
    assert [(row.step_id, row.status, row.peers) for row in report.steps] == [
        ("a", "completed", [BOB]),
        ("b", "completed", []),
    ]
    assert verified(done().file(), signers=[ANN, BOB]).sound


def test_what_a_peer_did_in_vain_is_sound_too():
    story, first = offered()
    at_peer(story, "started", first)
    second = offer(story, to="cid", token=2)
    at_peer(story, "started", second, by="cid", token=2)
    at_peer(story, "failed", second, by="cid", token=2, error=ERROR)
    third = offer(story, token=3)
    at_peer(story, "started", third, token=3)
    at_peer(story, "completed", third, token=3, result=OUTPUT)
    story.complete("a", token=3)
    at_peer(story, "completed", first, result=raw_link(b"late"))
    report = verified(story.file())
    assert report.findings == []
    assert report.steps[0].peers == [BOB, signer("cid").peer]


def test_every_changed_byte_is_found():
    file = done().file()
    for place in range(0, len(file), 11):
        bad = bytearray(file)
        bad[place] ^= 1 << (place % 8)
        assert not verified(bytes(bad)).sound, place


def test_every_event_of_a_peer_that_is_left_out_is_missed():
    story = done()
    for event in story.clock.ordered():
        if event.peer == BOB:
            for link in (event.cid, cid(event.payload_block)):
                assert "MISSING" in [finding.code for finding in verified(story.file(without=link)).findings]


@pytest.mark.parametrize(
    "lie",
    [{"token": 2}, {"attempt": 2}, {"task": "wf:b"}, {"input": OUTPUT}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_peer_speaks_of_what_it_was_offered(lie):
    story, link = offered()
    at_peer(story, "started", link, **lie)
    assert found(story) == [("PEER", "a", "it speaks of something else than what was offered")]


def test_a_peer_speaks_of_no_offer_that_does_not_exist():
    story, _ = offered()
    at_peer(story, "started", cid(b"nowhere"))
    assert found(story) == [("PEER", "", "it names no offer")]


def test_a_peer_does_not_speak_for_another_one():
    story, link = offered(to="eve")
    at_peer(story, "started", link)
    assert found(story) == [("PEER", "a", f"the offer was made to {signer('eve').peer}")]


def test_a_peer_begins_right_after_the_offer():
    story, link = offered()
    story.say("paused")
    at_peer(story, "started", link)
    assert found(story) == [("PEER", "a", "it does not come right after the offer")]


def test_a_peer_ends_what_it_began_once():
    story, link = offered()
    at_peer(story, "failed", link, error=ERROR)
    assert found(story) == [("PEER", "a", "the peer had not begun it")]
    story, link = offered()
    at_peer(story, "started", link)
    at_peer(story, "completed", link, result=OUTPUT)
    at_peer(story, "failed", link, error=ERROR)
    assert found(story) == [("PEER", "a", "the peer ended it before")]


def test_what_was_offered_is_completed_by_the_word_of_the_peer():
    story, link = offered()
    at_peer(story, "started", link)
    story.complete("a")
    assert found(story) == [("PEER", "a", "no peer that it was offered to says that it completed")]


def test_what_is_accepted_is_what_the_peer_gave():
    story, link = offered()
    at_peer(story, "started", link)
    at_peer(story, "completed", link, result=raw_link(b"2"))
    story.complete("a")
    assert found(story) == [("PEER", "a", "the peer says that it has another output")]


def test_the_word_of_the_peer_comes_first():
    story, link = offered()
    at_peer(story, "started", link)
    story.complete("a")
    at_peer(story, "completed", link, result=OUTPUT)
    assert found(story) == [("PEER", "a", "no peer that it was offered to says that it completed")]


def test_nothing_is_offered_too_early_or_too_late():
    story = begun(step("a"), step("b", "a"))
    story.say("step_offered", peer=BOB, step="b", **WORK | {"task": "wf:b"})
    assert [(code, of) for code, of, _ in found(story)] == [("ORDER", "b")]
    story = begun(step("a"))
    story.do("a")
    offer(story, token=2)
    assert [(code, of) for code, of, _ in found(story)] == [("AFTER_END", "a")]
    story = begun(step("a"))
    story.start("a", attempt=2)
    offer(story)
    assert found(story) == [("TOKEN", "a", "attempt 1 was offered after attempt 2 had begun")]


@pytest.mark.parametrize("payload", [{"result": "text"}, {}, {"result": OUTPUT, "token": -1}])
def test_an_event_says_what_its_kind_says(payload):
    story, link = offered()
    at_peer(story, "started", link)
    at_peer(story, "completed", link, **payload)
    assert [code for code, _, _ in found(story)] == ["PAYLOAD"]
