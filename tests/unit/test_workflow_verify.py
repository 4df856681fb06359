# SPDX-License-Identifier: AGPL-3.0-or-later
"""An exported workflow is checked by its file alone: what is sound passes, everything else is found and named."""

from __future__ import annotations

import libipld
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_clocks import cid, made, signer
from workflow_exports import Story, begun, done, step

from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler.car import CarLimits, written
from actors.p2p.workflow_scheduler.findings import MAX_FINDINGS
from actors.p2p.workflow_scheduler.verify import verified

DONE = done()
FILE = DONE.file()


def codes(story):
    return [finding.code for finding in verified(story.file()).findings]


def one_finding(story):
    (finding,) = verified(story.file()).findings
    return finding.code, finding.step, finding.message


# --- what is sound -------------------------------------------------------------------------------------------------


def test_one_of_everything_is_sound():
    report = verified(FILE)
    assert (report.sound, report.findings) == (True, [])
    assert report.events == len(DONE.clock)
    assert report.peers == [signer("ann").peer]
    assert report.heads == [cid_text(head) for head in DONE.clock.heads]
    assert (report.workflow_id, report.owner, report.name, report.status) == ("wf", "me", "story", "completed")
    assert report.cid == cid_text(DONE.definition)
    assert (report.created_at, report.started_at, report.ended_at) == (1.0, 2.0, 17.0)
    assert (report.missing_outputs, report.unused_blocks) == ([], 0)


def test_it_is_replayed_to_a_table_of_its_steps():
    rows = {row.step_id: row for row in verified(FILE).steps}
    assert [(name, row.status, row.attempts, row.workers) for name, row in rows.items()] == [
        ("a", "completed", 2, ["worker 1", "worker 2"]),
        ("b", "completed", 1, ["worker 1"]),
        ("list", "completed", 2, ["worker 1"]),
        ("seldom", "skipped", 0, []),
        ("last", "completed", 0, []),
    ]
    assert (rows["a"].started_at, rows["a"].ended_at, rows["a"].result) == (3, 5, cid_text(cid(b'{"x": 1}', 0x55)))
    assert (rows["list"].items, rows["list"].items_ended) == (2, 2)
    assert rows["seldom"].reason == "its condition does not hold"
    assert rows["last"].memo


def test_a_failure_and_what_follows_from_it_are_sound():
    story = begun(step("a"), step("b", "a"), step("c"), step("d"))
    error = {"code": "TOOL_FAILED", "message": "no"}
    story.start("a")
    story.say("step_failed", step="a", task="wf:a", attempt=1, token=1, worker="worker 1", error=error)
    story.say("step_skipped", step="b", reason="step a failed")
    story.say("paused", reason="wait")
    story.say("resumed")
    story.say("step_failed", step="d", error=error)  # could not be begun
    story.say("cancelling", reason="enough", force=True)
    story.say("step_cancelled", step="c", reason="enough")
    story.end("failed", error={"code": "STEP_FAILED", "message": "step a failed"})
    report = verified(story.file())
    assert report.findings == []
    assert [row.status for row in report.steps] == ["failed", "skipped", "cancelled", "failed"]
    assert (report.status, report.error.code, report.steps[0].error.message) == ("failed", "STEP_FAILED", "no")


def test_what_runs_still_is_sound():
    story = begun(step("a"), step("b", "a"))
    story.start("a")
    report = verified(story.file())
    assert (report.sound, report.status, report.ended_at) == (True, "running", None)
    assert [row.status for row in report.steps] == ["running", "pending"]
    assert verified(Story(step("a")).file()).status == "submitted"


def test_what_had_not_ended_is_cancelled_with_the_whole():
    story = begun(step("a"), step("b", "a"))
    story.start("a")
    story.end("cancelled")
    report = verified(story.file())
    assert report.findings == []
    assert [(row.status, row.ended_at) for row in report.steps] == [("cancelled", 4), ("cancelled", 4)]


def test_two_peers_that_told_each_other_are_sound():
    story = begun(step("a"), step("b"))
    other = begun(step("a"), step("b"))
    story.do("a")
    other.start("b", by="bob")
    other.complete("b", by="bob")
    story.clock.merge(event.blocks for event in other.clock.ordered())
    assert len(story.clock.heads) == 2
    assert verified(story.file()).findings == []
    story.clock.merged(signer("ann"), at=9)
    story.end()
    report = verified(story.file())
    assert report.findings == []
    assert report.peers == sorted([signer("ann").peer, signer("bob").peer])


def test_an_output_that_is_not_in_the_file_is_said_to_be_missing():
    story = begun(step("a"))
    story.start("a")
    result = story.output({"old": True}, kept=False)
    story.say("step_completed", step="a", task="wf:a", attempt=1, token=1, worker="worker 1", result=result)
    story.end()
    report = verified(story.file())
    assert (report.sound, report.missing_outputs, report.missing_outputs_total) == (True, [cid_text(result)], 1)


def test_blocks_that_nothing_names_are_counted():
    story = begun(step("a"))
    story.output("nobody's")
    assert verified(story.file()).unused_blocks == 1


@st.composite
def stories(draw):
    """A workflow that is done one step at a time, in an order that its dependencies allow, with retries."""
    count = draw(st.integers(1, 6))
    some = [draw(st.sets(st.sampled_from(range(number)))) if number else set() for number in range(count)]
    story = begun(
        *(step(f"s{number}", *(f"s{before}" for before in before_it)) for number, before_it in enumerate(some))
    )
    ended, failed = set(), False
    while len(ended) < count:
        ready = [number for number in range(count) if number not in ended and some[number] <= ended]
        number = draw(st.sampled_from(ready))
        for attempt in range(1, draw(st.integers(1, 2)) + 1):
            story.start(f"s{number}", attempt=attempt)
        story.complete(f"s{number}", number, attempt=attempt)
        ended.add(number)
        if draw(st.integers(0, 9)) == 0:
            failed = True
            story.say("cancelling", reason="enough")
            break
    story.end("cancelled" if failed else "completed")
    return story


@settings(max_examples=40, deadline=None)
@given(stories())
def test_whatever_is_done_in_order_is_sound(story):
    assert verified(story.file()).findings == []


# --- tampering -----------------------------------------------------------------------------------------------------


def test_every_changed_byte_is_found():
    story = begun(step("a"))
    story.do("a")
    file = story.file()
    for place in range(0, len(file), 5):
        bad = bytearray(file)
        bad[place] ^= 1 << (place % 8)
        assert not verified(bytes(bad)).sound, place


@pytest.mark.parametrize("link", DONE.all_blocks(), ids=cid_text)
def test_every_block_that_is_left_out_is_missed(link):
    report = verified(DONE.file(without=link))
    if link[1] == 0x55:
        assert (report.sound, report.missing_outputs) == (True, [cid_text(link)])
    else:
        assert "MISSING" in [finding.code for finding in report.findings]
        assert cid_text(link) in [finding.event for finding in report.findings]


def test_the_newest_events_cant_be_left_out_unseen_by_who_knows_the_heads():
    """A beginning of the workflow is sound in itself: its heads are others. That is why they are shown."""
    shorter = DONE.clock.ordered()[-2].cid
    report = verified(DONE.file(roots=[shorter]))
    assert (report.sound, report.heads, report.unused_blocks) == (True, [cid_text(shorter)], 2)
    assert report.heads != verified(FILE).heads


def test_roots_that_are_not_the_newest_events():
    older = DONE.clock.ordered()[3].cid
    report = verified(DONE.file(roots=sorted([*DONE.clock.heads, older])))
    assert [finding.code for finding in report.findings] == ["ROOTS"]
    report = verified(DONE.file(roots=[]))
    assert [finding.code for finding in report.findings] == ["ROOTS", "SUBMITTED"]
    report = verified(DONE.file(roots=[cid(b"elsewhere")]))
    assert [finding.code for finding in report.findings] == ["MISSING", "SUBMITTED"]


def test_an_event_that_another_peer_made_up_is_found_when_the_signers_are_known():
    story = begun(step("a"))
    story.say("step_cancelled", by="eve", step="a", reason="ha")
    assert verified(story.file()).sound
    report = verified(story.file(), signers=[signer("ann").peer])
    assert [(finding.code, finding.event) for finding in report.findings] == [
        ("SIGNER", cid_text(next(iter(story.clock.heads))))
    ]


@pytest.mark.parametrize(
    "event",
    [
        lambda parent: made("begun", parents=[parent], height=3, by="bob", sig=signer("eve").sign(b"")),
        lambda parent: made("begun", parents=[parent], height=7, by="bob"),
        lambda parent: made("begun", parents=[parent], height=3, by="ann", seq=1),
        lambda parent: (b"\x80", made()[1]),
        lambda parent: (libipld.encode_dag_cbor({"payload": cid(b"x"), "parents": []}), b"x"),
    ],
    ids=["signature", "height", "number", "no map", "payload"],
)
def test_an_event_that_is_none_is_found(event):
    story = begun(step("a"))
    node, payload = event(next(iter(story.clock.heads)))
    blocks = story.all_blocks() | {cid(node): node, cid(payload): payload}
    report = verified(b"".join(written([cid(node)], blocks.items())))
    assert ("EVENT", cid_text(cid(node))) in [(finding.code, finding.event) for finding in report.findings]


def test_a_peer_that_made_two_events_with_one_number_is_found():
    story, other = begun(step("a")), begun(step("a"))
    story.say("paused", reason="one")
    other.say("paused", reason="other")
    story.clock.merge(event.blocks for event in other.clock.ordered())
    assert codes(story) == ["FORK"]


def test_a_file_that_is_none_is_one_finding():
    for data in (b"", b"PK\x03\x04 something else", FILE[:-1]):
        report = verified(data)
        assert not report.sound
        assert [finding.code for finding in report.findings] == ["FILE"]
    report = verified(FILE, limits=CarLimits(blocks=2))
    assert [finding.message for finding in report.findings] == ["it has more than 2 blocks"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report(data):
    assert not verified(data).sound


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_any_damage_is_a_report(places):
    bad = bytearray(FILE)
    for place, mask in dict(places).items():
        bad[place] ^= mask
    assert not verified(bytes(bad)).sound


def test_only_the_first_findings_are_kept():
    story = begun(step("a"))
    for _ in range(MAX_FINDINGS + 20):
        story.say("step_ready", step="unknown")
    report = verified(story.file())
    assert (len(report.findings), report.findings_total) == (MAX_FINDINGS, MAX_FINDINGS + 20)


# --- what the events say -------------------------------------------------------------------------------------------


def test_it_begins_with_one_submission():
    story = Story(step("a"), submitted=False)
    story.say("begun")
    assert codes(story) == ["SUBMITTED", "SUBMITTED"]
    story = begun(step("a"))
    story.say("submitted", workflow=story.definition, workflow_id="wf", owner="eve")
    assert one_finding(story) == ("SUBMITTED", "", "it is submitted a second time")
    story = begun(step("a"))
    story.clock.add(*made("begun", by="bob"))
    assert one_finding(story) == ("SUBMITTED", "", "begun comes after nothing")


@pytest.mark.parametrize("block", [{"v": 1}, [], {"name": "x", "steps": [{"step_id": "a"}], "v": 1}])
def test_the_definition_has_to_be_one(block):
    story = Story(step("a"), submitted=False)
    data = libipld.encode_dag_cbor(block)
    story.blocks = {cid(data): data}
    story.say("submitted", workflow=cid(data), workflow_id="wf", owner="me")
    story.say("begun")
    story.start("a")
    report = verified(story.file())
    assert [finding.code for finding in report.findings] == ["DEFINITION"]
    assert [(row.step_id, row.status) for row in report.steps] == [("a", "running")]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("danced", {}),
        ("begun", {"at": "now"}),
        ("begun", {"at": -1}),
        ("step_ready", {}),
        ("step_ready", {"step": "a", "index": -1}),
        ("step_completed", {"step": "a"}),
        ("step_completed", {"step": "a", "result": "text"}),
        ("step_failed", {"step": "a", "error": "text"}),
        ("ended", {"status": "happy"}),
    ],
)
def test_an_event_says_what_its_kind_says(kind, payload):
    story = begun(step("a"))
    story.say(kind, **payload)
    assert codes(story) == ["PAYLOAD"]


def test_what_later_versions_add_is_passed_over():
    story = begun(step("a"))
    story.do("a", more=1)
    assert codes(story) == []


@pytest.mark.parametrize("kind", ["step_ready", "step_started", "step_completed"])
def test_nothing_begins_before_what_it_depends_on_has_completed(kind):
    story = begun(step("a"), step("b", "a"))
    story.start("a")
    if kind == "step_completed":
        story.complete("b")
    else:
        story.say(kind, step="b")
    assert one_finding(story) == ("ORDER", "b", f"{kind} before step a had completed")


def test_a_time_that_fits_is_no_order():
    """Concurrent with the completion is not after it, whatever the times and heights say."""
    story, other = begun(step("a"), step("b", "a")), begun(step("a"), step("b", "a"))
    story.do("a")
    for _ in range(5):
        other.say("resumed", by="bob")
    other.start("b", by="bob")
    story.clock.merge(event.blocks for event in other.clock.ordered())
    assert one_finding(story) == ("ORDER", "b", "step_started before step a had completed")


def test_nothing_begins_after_a_failure_unless_it_is_for_failures():
    for when, found in (("on_success", ["ORDER", "ORDER"]), ("always", []), ("on_failure", [])):
        story = begun(step("a"), step("b", "a", when=when))
        story.say("step_failed", step="a", error={"code": "TOOL_FAILED", "message": ""})
        story.do("b")
        assert codes(story) == found


@pytest.mark.parametrize("when", ["on_success", "always"])
def test_nothing_is_skipped_without_a_cause(when):
    story = begun(step("a"), step("b", "a", when=when))
    story.start("a")
    story.say("step_skipped", step="b", reason="so")
    assert codes(story) == ["ORDER"]


def test_nothing_begins_before_the_workflow_has():
    story = Story(step("a"))
    story.start("a")
    assert one_finding(story) == ("ORDER", "a", "step_started before the workflow had begun")


def test_nothing_happens_after_the_end():
    story = begun(step("a"))
    story.do("a")
    story.end()
    story.say("paused", reason="late")
    assert one_finding(story) == ("AFTER_END", "", "paused after the workflow's end")
    story = begun(step("a"))
    story.do("a")
    story.end()
    story.end("failed")
    assert codes(story) == ["TWICE", "AFTER_END"]
    assert verified(story.file()).status == "completed"


def test_to_put_heads_together_is_no_event_after_the_end():
    story, other = begun(step("a")), begun(step("a"))
    story.do("a")
    story.end()
    other.say("paused", by="bob", reason="just then")
    story.clock.merge(event.blocks for event in other.clock.ordered())
    story.clock.merged(signer("ann"), at=99)
    assert codes(story) == []


def test_a_step_ends_once():
    story = begun(step("a"))
    story.do("a", 1)
    story.complete("a", 2)
    report = verified(story.file())
    assert [(finding.code, finding.step) for finding in report.findings] == [("TWICE", "a"), ("AFTER_END", "a")]
    assert report.steps[0].result == cid_text(cid(b"1", 0x55))


def test_a_step_that_two_peers_completed_at_once_ended_twice():
    story, other = begun(step("a")), begun(step("a"))
    story.do("a", 1)
    other.do("a", 2, by="bob")
    story.clock.merge(event.blocks for event in other.clock.ordered())
    assert codes(story) == ["TWICE"]


def test_nothing_happens_to_a_step_after_its_end():
    story = begun(step("a"))
    story.do("a")
    story.start("a", attempt=2)
    report = verified(story.file())
    assert [finding.message for finding in report.findings] == ["step_started after its end"]
    assert report.steps[0].attempts == 1


def test_only_the_newest_attempt_is_accepted():
    story = begun(step("a"))
    story.start("a", attempt=1)
    story.start("a", attempt=2)
    story.complete("a", attempt=1)
    assert one_finding(story) == ("TOKEN", "a", "attempt 1 ended it after attempt 2 had begun")
    story = begun(step("a"))
    story.start("a", attempt=2)
    story.start("a", attempt=1)
    assert one_finding(story) == ("TOKEN", "a", "attempt 1 began after attempt 2")


@pytest.mark.parametrize("kind", ["step_ready", "step_started"])
def test_there_are_only_the_steps_of_the_definition(kind):
    story = begun(step("a"))
    story.say(kind, step="b")
    assert one_finding(story) == ("STEP", "b", "the workflow has no such step")
    story = begun(step("a"))
    story.say(kind, step="a", index=0)
    assert one_finding(story) == ("STEP", "a[0]", "the step has no items")


def listed(*ended, result, count=2, expanded=True, complete=True):
    story = begun(step("list", for_each=[1, 2]))
    if expanded:
        story.say("step_expanded", step="list", items=story.output([1, 2]), count=count)
    for index in ended:
        story.do("list", index, index=index)
    if complete:
        story.complete("list", result, task="", attempt=0)
    return story


def test_items_are_known_before_they_begin_and_end_before_their_list():
    assert codes(listed(0, 1, result=[0, 1])) == []
    assert codes(listed(1, 0, result=[0, 1])) == []
    assert one_finding(listed(0, result=[0])) == ("ORDER", "list", "it completed when 1 of its items had ended")
    assert codes(listed(0, result=None, expanded=False, complete=False)) == ["ORDER", "ORDER"]


def test_there_are_only_so_many_items():
    story = listed(0, result=None, complete=False)
    story.start("list", index=2)
    assert one_finding(story) == ("STEP", "list[2]", "there are not so many items")


def test_a_list_does_not_complete_with_a_failed_item():
    story = listed(0, result=None, complete=False)
    story.say("step_failed", step="list", index=1, error={"code": "TOOL_FAILED", "message": ""})
    story.complete("list", [0], task="", attempt=0)
    assert one_finding(story) == ("ORDER", "list", "it completed before its item [1] had")


def test_a_list_is_made_of_its_items():
    assert one_finding(listed(0, 1, result=[1, 0]))[::2] == (
        "OUTPUT",
        "its output is not the list of its items' outputs",
    )
    assert one_finding(listed(0, 1, 2, result=[0, 1, 2], count=3))[::2] == ("OUTPUT", "its items are no list of 3")


def test_outputs_are_json():
    story = begun(step("a"))
    story.start("a")
    story.blocks[cid(b"{no", 0x55)] = b"{no"
    story.say("step_completed", step="a", result=cid(b"{no", 0x55))
    assert one_finding(story) == ("OUTPUT", "a", "its output is not JSON")
    story = begun(step("a"))
    story.say("step_completed", step="a", result=story.definition)
    assert one_finding(story) == ("OUTPUT", "a", "its link is not one to an output")


@pytest.mark.parametrize("ended", ["failed", "cancelled", None])
def test_a_workflow_does_not_complete_without_its_steps(ended):
    story = begun(step("a"))
    if ended == "failed":
        story.say("step_failed", step="a", error={"code": "TOOL_FAILED", "message": ""})
    elif ended == "cancelled":
        story.say("step_cancelled", step="a", reason="so")
    story.end("completed")
    now = ended or "pending"
    assert one_finding(story) == ("STATUS", "", f"it ended as completed, and step a is {now}")


def test_a_report_is_json():
    assert msgspec.json.decode(msgspec.json.encode(verified(FILE)))["sound"] is True
