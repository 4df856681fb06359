# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever the other side of a link sends or leaves out, the link ends with a reason that can be counted, those who
wait are told, and nothing grows."""

from __future__ import annotations

import contextlib
import struct

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_links import SECRET, Node, Stranger, echo, met
from peer_streams import A, B, pair
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import (
    BusyError,
    ForbiddenError,
    InvalidArgumentsError,
    MCPServerError,
    OutcomeUnknownError,
    PeerUnreachableError,
    UrlRequiredError,
)
from actors.p2p.peer_registry.link.frames import Op
from actors.p2p.peer_registry.link.hello import About, Limits, Proof, Ready
from actors.p2p.peer_registry.link.messages import Accepted, Echo, End, Heartbeat, Offer, Problem, Progress, TaskCancel
from actors.p2p.peer_registry.link.problems import error_of, problem_of
from actors.p2p.peer_registry.link.reasons import Cause, Ending, LinkEndError, LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.stream import StreamBrokenError

encode = msgspec.msgpack.encode
REQUEST = encode((1, Op.REQUEST, Echo()))


async def ending_of(node, stranger=None):
    """Wait for the end of the node's link; the stranger, if given, says nothing more."""
    with trio.fail_after(1000):
        if stranger is not None:
            await wait_all_tasks_blocked()
            with contextlib.suppress(StreamBrokenError):
                await stranger.stream.finish()
        await node.link.over.wait()
    return node.link.ending


# --- rules that a peer can break -----------------------------------------------------------------------------------

BROKEN = {
    "no msgpack": (Violation.FRAME, [b"\xc1"]),
    "no triple": (Violation.FRAME, [encode((1, Op.REQUEST))]),
    "more behind it": (Violation.FRAME, [REQUEST + b"\0"]),
    "unknown op": (Violation.FRAME, [encode((0, 99, None))]),
    "unknown message": (Violation.FRAME, [encode((1, Op.REQUEST, {"kind": "delete_all"}))]),
    "unknown field": (Violation.FRAME, [encode((1, Op.REQUEST, {"kind": "echo", "more": 1}))]),
    "field beyond its bound": (Violation.FRAME, [encode((0, Op.NOTE, Progress(task_id="x" * 201, token=1)))]),
    "not a number": (Violation.FRAME, [encode((0, Op.NOTE, Heartbeat(load=float("nan"))))]),
    "bad text": (Violation.FRAME, [b"\x93\x00\x07\x82\xa4kind\xa3end\xa6reason\xa1\xff"]),
    "nested deeply": (Violation.FRAME, [b"\x93\x01\x03" + b"\x91" * 100_000]),
    "an announced array without its elements": (Violation.FRAME, [b"\xdd\xff\xff\xff\xff"]),
    "request without body": (Violation.FRAME, [encode((1, Op.REQUEST, None))]),
    "a note as request": (Violation.FRAME, [encode((1, Op.REQUEST, TaskCancel("t", 1)))]),
    "a request as note": (Violation.FRAME, [encode((0, Op.NOTE, Echo()))]),
    "a note with an id": (Violation.FRAME, [encode((1, Op.NOTE, Heartbeat()))]),
    "an end with an id": (Violation.FRAME, [encode((1, Op.END, End()))]),
    "cancel with a body": (Violation.FRAME, [REQUEST, encode((1, Op.CANCEL, Echo()))]),
    "a problem as answer": (Violation.FRAME, [encode((1, Op.ANSWER, Problem("X", "x")))]),
    "an answer as problem": (Violation.FRAME, [encode((1, Op.FAILURE, Echo()))]),
    "a second hello": (Violation.ORDER, [encode((0, Op.PROOF, Proof(b"")))]),
    "a second ack": (Violation.ORDER, [encode((0, Op.READY, Ready(About(), Limits(4096, 1, 1.0))))]),
    "an answer to nothing": (Violation.ORDER, [encode((7, Op.ANSWER, Echo()))]),
    "a failure of nothing": (Violation.ORDER, [encode((7, Op.FAILURE, Problem("X", "x")))]),
    "a cancel of what was not asked": (Violation.ORDER, [encode((1, Op.CANCEL, None))]),
    "the same id twice": (Violation.REPLAY, [REQUEST, REQUEST]),
    "a lower id": (Violation.REPLAY, [encode((9, Op.REQUEST, Echo())), REQUEST]),
    "id 0": (Violation.REPLAY, [encode((0, Op.REQUEST, Echo()))]),
    "an id beyond all": (Violation.REPLAY, [encode((1 << 53, Op.REQUEST, Echo()))]),
}


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("name", list(BROKEN))
async def test_a_broken_rule_ends_the_link_with_its_name_and_the_peer_is_told(name, secret):
    violation, frames = BROKEN[name]
    async with met(secret=secret) as (stranger, node):
        await stranger.stream.write(stranger.sealed(*frames))
        while (frame := await stranger.receive())[1] != Op.END:
            assert frame[1] == Op.ANSWER
        assert frame[2].reason.startswith(f"violation: {violation}")
        ending = await ending_of(node, stranger)
        assert (ending.cause, ending.violation) == (Cause.VIOLATION, violation)
        assert node.stream.was_reset
        assert not node.errors


async def test_a_frame_beyond_the_limit_ends_the_link_before_it_has_come():
    async with met(LinkRules(max_frame_bytes=4096)) as (stranger, node):
        await stranger.stream.write(struct.pack(">I", 4096 + 17))
        assert (await ending_of(node, stranger)).violation is Violation.TOO_LARGE


async def test_a_frame_of_the_announced_size_is_taken():
    async with met(LinkRules(max_frame_bytes=4096)) as (stranger, _):
        body = Echo(data=bytes(4096 - len(encode((1, Op.REQUEST, Echo(data=b"x" * 300)))) + 300))
        assert len(encode((1, Op.REQUEST, body))) == 4096
        await stranger.send(1, Op.REQUEST, body)
        assert await stranger.receive() == (1, Op.ANSWER, body)


async def test_a_frame_that_was_not_sealed_sealed_otherwise_or_sent_again_is_forged():
    for attack in ("bare", "changed", "again"):
        async with met() as (stranger, node):
            good = stranger.sealed(REQUEST)
            bad = {
                "bare": struct.pack(">I", len(REQUEST)) + REQUEST,
                "changed": good[:-1] + bytes([good[-1] ^ 1]),
                "again": good + good,
            }[attack]
            await stranger.stream.write(bad)
            assert (await ending_of(node, stranger)).violation is Violation.FORGED
            assert len(node.requests) == (attack == "again")


async def test_an_answer_of_another_kind_than_was_asked_for_ends_the_link():
    async with met() as (stranger, node):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call():
                with pytest.raises(OutcomeUnknownError):
                    await node.link.call(echo(), 1e6)

            frame_id, _, _ = await stranger.receive()
            await stranger.send(frame_id, Op.ANSWER, Accepted())
        assert (await ending_of(node, stranger)).violation is Violation.FRAME


async def test_an_answer_to_a_call_that_still_stands_in_line_ends_the_link():
    async with met(stranger_rules=LinkRules(max_serving=1)) as (stranger, node):
        async with trio.open_nursery() as nursery:
            for error in (OutcomeUnknownError, PeerUnreachableError):

                async def call(error=error):
                    with pytest.raises(error):
                        await node.link.call(echo(), 1e6)

                nursery.start_soon(call)
                await wait_all_tasks_blocked()
            await stranger.send(2, Op.ANSWER, Echo())
        assert (await ending_of(node, stranger)).violation is Violation.ORDER


async def test_the_same_request_can_not_be_answered_twice():
    async with met() as (stranger, node):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.link.call, echo(), 1e6)
            frame_id, _, request = await stranger.receive()
            await stranger.send(frame_id, Op.ANSWER, request)
        await stranger.send(frame_id, Op.ANSWER, request)
        assert (await ending_of(node, stranger)).violation is Violation.ORDER


async def test_those_above_the_link_can_call_something_a_violation():
    abuse = LinkViolation(Violation.ABUSE, "forty offers of one task")

    async def object_to(request):
        raise abuse

    async with met() as (stranger, node):
        node.answer = object_to
        await stranger.send(1, Op.REQUEST, Echo())
        assert await ending_of(node, stranger) == abuse.ending

    def object_to_note(link, note):
        raise abuse

    async with met(on_note=object_to_note) as (stranger, node):
        await stranger.send(0, Op.NOTE, Heartbeat())
        assert await ending_of(node, stranger) == abuse.ending


# --- too much ------------------------------------------------------------------------------------------------------


async def test_more_requests_than_are_worked_on_are_answered_busy_at_once():
    async with met(LinkRules(max_serving=2)) as (stranger, node):
        node.answer = node.hang
        for n in range(1, 5):
            await stranger.send(n, Op.REQUEST, echo(n))
        for n in (3, 4):
            frame_id, op, problem = await stranger.receive()
            assert (frame_id, op, problem.code, problem.retryable) == (n, Op.FAILURE, BusyError.code, True)
        assert sorted(request.data for request in node.requests) == [b"1", b"2"]
        await stranger.send(2, Op.CANCEL)
        assert (await stranger.receive())[:2] == (2, Op.FAILURE)
        await stranger.send(5, Op.REQUEST, echo(5))
        await wait_all_tasks_blocked()
        assert node.requests[-1] == echo(5)


async def test_requests_that_are_large_together_are_busy_but_a_single_one_is_not():
    async with met(LinkRules(max_serving_bytes=1000)) as (stranger, node):
        node.answer = node.hang
        for n in (1, 2):
            await stranger.send(n, Op.REQUEST, Echo(data=bytes(2000)))
        frame_id, _, problem = await stranger.receive()
        assert (frame_id, problem.code) == (2, BusyError.code)
        assert len(node.requests) == 1


async def test_what_was_answered_does_not_count_any_more():
    async with met(LinkRules(max_serving_bytes=5000, max_queued_bytes=5000)) as (stranger, node):
        for n in range(1, 10):
            await stranger.send(n, Op.REQUEST, Echo(data=bytes(2000)))
            assert (await stranger.receive())[:2] == (n, Op.ANSWER)
        await stranger.stream.write(stranger.sealed(*(encode((n, Op.REQUEST, Echo())) for n in (10, 11))))
        assert [(await stranger.receive())[1] for _ in range(2)] == [Op.ANSWER] * 2
        assert node.link.statistics().queued_bytes == node.link.statistics().serving == 0


async def test_a_peer_that_asks_on_and_on_and_reads_nothing_is_ended():
    rules = LinkRules(max_serving=1, outbox=8)
    async with met(rules) as (stranger, node):
        node.answer = node.hang
        node.stream.stall()
        most = 0
        with trio.fail_after(30):
            for n in range(1, 10_000):
                if node.link.ending is not None:
                    break
                await stranger.send(n, Op.REQUEST, Echo())
                await wait_all_tasks_blocked()
                most = max(most, node.link.statistics().queued_bytes)
        assert node.link.ending.violation is Violation.FLOOD
        assert most < 4 * rules.outbox * 200
        assert node.cancelled == 1


async def test_answers_that_are_not_read_keep_their_requests_place():
    """So a peer can't pile up answers: what is worked on and not taken is bounded."""
    async with met(LinkRules(max_serving=4, outbox=2)) as (stranger, node):
        node.stream.stall()
        for n in range(1, 13):
            await stranger.send(n, Op.REQUEST, Echo(data=bytes(100)))
            await wait_all_tasks_blocked()
        statistics = node.link.statistics()
        assert statistics.serving == 4
        assert len(node.requests) <= 4 + 2 + 1  # at work, in the outbox, in the writer's hand
        assert statistics.refused


async def test_cancelling_again_and_again_is_harmless(autojump_clock):
    async with met(LinkRules(max_serving=2)) as (stranger, node):
        node.answer = node.hang
        for n in range(1, 50):
            await stranger.send(n, Op.REQUEST, Echo())
            for _ in range(3):
                await stranger.send(n, Op.CANCEL)
            assert (await stranger.receive())[:2] == (n, Op.FAILURE)
        assert node.link.statistics().serving == node.running == 0
        assert node.most_running <= 2


# --- time ----------------------------------------------------------------------------------------------------------


async def test_heartbeats_say_how_much_there_is_to_do(autojump_clock):
    rules = LinkRules(heartbeat_s=5)
    async with met(rules, beat=lambda: Heartbeat(free_slots=3, running=1, load=0.5)) as (stranger, node):
        await stranger.send(0, Op.NOTE, Heartbeat(free_slots=9))
        for n in (1, 2):
            assert await stranger.receive() == (0, Op.NOTE, Heartbeat(free_slots=3, running=1, load=0.5))
            assert trio.current_time() == pytest.approx(5 * n)
        assert node.link.heartbeat == Heartbeat(free_slots=9)
        assert node.notes == [Heartbeat(free_slots=9)]


async def test_a_heartbeat_that_can_not_be_made_is_sent_without_content(autojump_clock):
    async with met(beat=lambda: 1 / 0) as (stranger, node):
        assert await stranger.receive() == (0, Op.NOTE, Heartbeat())
        assert len(node.errors) == 1


async def test_a_silent_peer_is_given_up_and_calls_with_it(autojump_clock):
    async with met(LinkRules(dead_after_s=15)) as (stranger, node):
        await trio.sleep(10)
        await stranger.send(0, Op.NOTE, Heartbeat())
        with pytest.raises(OutcomeUnknownError, match="nothing came for 15 s"):
            await node.link.call(echo(), 1e6)
        assert trio.current_time() == pytest.approx(25)
        assert node.link.ending.cause is Cause.SILENT


async def test_a_peer_whose_heart_beats_slowly_may_be_silent_for_longer(autojump_clock):
    async with met(LinkRules(dead_after_s=15), stranger_rules=LinkRules(heartbeat_s=20)) as (_, node):
        assert (await ending_of(node)).cause is Cause.SILENT
        assert trio.current_time() == pytest.approx(60)


async def test_after_a_pause_of_this_process_the_peer_gets_time_to_be_heard(mock_clock):
    async with met(LinkRules(dead_after_s=15, heartbeat_s=5)) as (stranger, node):
        await wait_all_tasks_blocked()
        mock_clock.jump(1000)
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert node.link.ending is None
        await stranger.send(0, Op.NOTE, Heartbeat())
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert node.link.ending is None


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock):
    async with met(LinkRules(stalled_after_s=20, heartbeat_s=1)) as (stranger, node):
        node.stream.stall()

        async def live():
            while True:
                await trio.sleep(1)
                await stranger.send(0, Op.NOTE, Heartbeat())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            assert (await ending_of(node)).cause is Cause.STALLED
            nursery.cancel_scope.cancel()
        assert trio.current_time() == pytest.approx(22, abs=1.5)


async def test_a_frame_that_trickles_in_must_be_whole_in_time(autojump_clock):
    async with met(LinkRules(frame_timeout_s=60)) as (stranger, node):
        await trio.sleep(5)
        with trio.move_on_after(1000):
            await stranger.stream.write(struct.pack(">I", 100_000))
            while node.link.ending is None:
                await stranger.stream.write(b"x")
                await trio.sleep(1)
        assert (await ending_of(node)).cause is Cause.SILENT
        assert 60 <= trio.current_time() <= 75


@pytest.mark.parametrize("sends", [b"", struct.pack(">I", 100) + b"x"])
async def test_a_hello_must_be_done_in_time(autojump_clock, sends):
    async with met(LinkRules(hello_timeout_s=5), greet=False) as (stranger, node):
        await stranger.stream.write(sends)
        with pytest.raises(PeerUnreachableError, match="hello is not done"):
            await node.link.call(echo(), 1)
        ending = await ending_of(node)
        assert (ending.cause, ending.text) == (Cause.SILENT, "no hello within 5 s")
        assert trio.current_time() == pytest.approx(5)
        assert not node.link.ready.is_set()


# --- hello ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_answered_before_the_hello_is_done():
    async with met(greet=False) as (stranger, node):
        await stranger.stream.write(stranger.sealed(REQUEST))
        assert (await ending_of(node, stranger)).violation is Violation.FRAME
        assert not node.requests


async def test_a_large_frame_is_refused_before_the_hello_is_done():
    async with met(greet=False) as (stranger, node):
        await stranger.stream.write(struct.pack(">I", LinkRules().max_hello_bytes + 1))
        assert (await ending_of(node, stranger)).violation is Violation.TOO_LARGE


async def test_who_does_not_know_the_secret_is_told_and_counted():
    async with met(greet=False) as (stranger, node):
        stranger.handshake._secret = b"another"
        with pytest.raises(LinkEndError, match="unproven"):
            await stranger.greet()
        assert (await ending_of(node, stranger)).violation is Violation.UNPROVEN


async def test_who_has_no_secret_is_incompatible():
    left, right = pair()
    node = Node(right, B, secret=SECRET)
    stranger = Stranger(left, A, B, LinkRules(), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.link.run)
        with pytest.raises(LinkEndError, match="only one side has a shared secret"):
            await stranger.greet()
        assert (await ending_of(node, stranger)).cause is Cause.INCOMPATIBLE


async def test_a_peer_that_is_not_accepted_is_told_the_code_only():
    def refuse(peer):
        raise ForbiddenError(f"{peer.peer_id} is not on the list, which has 3 entries")

    async with met(greet=False, accept=refuse) as (stranger, node):
        await stranger.greet()
        assert await stranger.receive() == (0, Op.END, End("refused (FORBIDDEN)", 0))
        assert (await ending_of(node, stranger)).cause is Cause.REFUSED
        assert not node.link.ready.is_set()


async def test_a_defect_on_this_side_ends_the_link_and_is_reported():
    async with met(greet=False, about=lambda _: 1 / 0) as (stranger, node):
        assert (await ending_of(node, stranger)).cause is Cause.FAULT
        assert isinstance(node.errors[0][1], ZeroDivisionError)


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_calls_that_the_peer_did_not_take_before_it_ended_were_not_begun():
    async with met() as (stranger, node):
        async with trio.open_nursery() as nursery:
            outcomes = {}

            async def call(n):
                try:
                    await node.link.call(echo(n), 1e6)
                except MCPServerError as error:
                    outcomes[n] = type(error)

            for n in range(2):
                nursery.start_soon(call, n)
                await wait_all_tasks_blocked()
            await stranger.send(0, Op.END, End("going", last_id=1))
        assert outcomes == {0: OutcomeUnknownError, 1: PeerUnreachableError}
        assert str(node.link.ending) == "ended (going)"


async def test_this_side_says_which_requests_it_took():
    async with met() as (stranger, node):
        node.answer = node.hang
        await stranger.send(3, Op.REQUEST, Echo())
        await wait_all_tasks_blocked()
        node.link.end(Ending(Cause.CLOSED, "enough"))
        assert await stranger.receive() == (0, Op.END, End("enough", last_id=3))
        assert await stranger.receive() is None


async def test_a_peer_that_broke_a_rule_gets_none_of_what_waited_for_it():
    async with met() as (stranger, node):
        node.stream.stall()
        for n in range(1, 10):
            await stranger.send(n, Op.REQUEST, echo(n))
            await wait_all_tasks_blocked()
        await stranger.send(1, Op.REQUEST, echo(1))
        await wait_all_tasks_blocked()
        node.stream.stall(False)
        said = [(await stranger.receive())[1] for _ in range(2)]
        assert said == [Op.ANSWER, Op.END]  # the answer was in the writer's hand


async def test_who_reads_late_hears_of_the_end_all_the_same(autojump_clock):
    async with met(LinkRules(linger_s=1)) as (stranger, node), trio.open_nursery() as nursery:
        nursery.start_soon(node.link.close, "enough")
        await trio.sleep(0.9)
        assert await stranger.receive() == (0, Op.END, End("enough", last_id=0))
        await stranger.stream.finish()


# --- errors that a peer makes up -----------------------------------------------------------------------------------

HOSTILE_DETAILS = [
    "",
    "[]",
    "{",
    '{"message": "x", "retryable": true, "self": 1}',
    '{"cause": 1, "tool_name": 2, "tool": [], "runtime": {}}',
    '{"url": "https://evil.example", "elicitation_id": 7}',
    '{"a":' * 600 + "1" + "}" * 600,
]


@given(
    st.sampled_from(["BUSY", "TOOL_FAILED", "URL_REQUIRED", "CANNOT_ASK", "ACTOR_DIED", "INVALID_ARGUMENTS", "x"]),
    st.text(max_size=100),
    st.booleans(),
    st.sampled_from(HOSTILE_DETAILS),
)
def test_whatever_problem_a_peer_tells_of_becomes_an_error(code, message, retryable, details):
    error = error_of(Problem(code, message, retryable, details))
    assert isinstance(error, MCPServerError)
    assert error.retryable == retryable or code == "TOOL_FAILED"
    assert not isinstance(error, UrlRequiredError)


@given(st.text(max_size=50), st.dictionaries(st.text(max_size=5), st.integers(-5, 5), max_size=3))
def test_an_error_comes_over_as_it_was(message, details):
    error = InvalidArgumentsError("x")
    error.args, error.details = (message,), details
    back = error_of(problem_of(error))
    assert (type(back), back.message, back.details) == (InvalidArgumentsError, message, details)


def test_an_error_that_is_too_long_is_cut():
    problem = problem_of(InvalidArgumentsError("x" * 5000, more="y" * 5000))
    assert (len(problem.message), problem.details) == (2000, "")
    assert problem_of(InvalidArgumentsError("x", more=object())).details == ""


# --- all of it: whatever comes -------------------------------------------------------------------------------------

VALID = [
    (1, Op.REQUEST, Echo(data=b"x")),
    (2, Op.REQUEST, Offer(task_id="t", token=1, type="x", payload="{}", lease_s=1)),
    (1, Op.CANCEL, None),
    (1, Op.ANSWER, Echo()),
    (2, Op.FAILURE, Problem("BUSY", "x")),
    (0, Op.NOTE, Heartbeat()),
    (0, Op.END, End("bye", 1)),
]
ids = st.integers(-1, 4) | st.integers()
some_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
frames = st.one_of(
    st.sampled_from(VALID).map(encode),
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from([body for _, _, body in VALID])).map(encode),
    st.tuples(st.integers(0, 5), st.integers(0, 9), some_values).map(encode),
    st.binary(min_size=1, max_size=60),
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([None, SECRET]),
    st.booleans(),
    st.lists(st.tuples(frames, st.sampled_from(["sealed", "sealed", "sealed", "bare", "raw"])), max_size=8),
    st.sampled_from(["finish", "reset", "wait"]),
)
def test_whatever_bytes_arrive_the_link_ends_with_a_reason_and_calls_fail(secret, greet, pieces, last):
    async def main():
        async with met(secret=secret, greet=greet) as (stranger, node):
            outcomes = []

            async def call():
                try:
                    outcomes.append(await node.link.call(echo(), 1e6))
                except MCPServerError as error:
                    outcomes.append(error)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
                await wait_all_tasks_blocked()
                try:
                    for frame, how in pieces:
                        head = struct.pack(">I", len(frame))
                        data = {"sealed": stranger.sealed(frame), "bare": head + frame, "raw": frame}[how]
                        await stranger.stream.write(data)
                    if last != "wait":
                        await getattr(stranger.stream, last)()
                except Exception as error:  # the node may have reset the stream by now
                    assert node.stream.was_reset, error  # noqa: PT017
                await node.link.over.wait()
            assert len(outcomes) == 3
            assert all(
                isinstance(outcome, (OutcomeUnknownError, PeerUnreachableError, BusyError, Echo))
                for outcome in outcomes
            )
            ending = node.link.ending
            assert ending.cause in (Cause.ENDED, Cause.LOST, Cause.SILENT, Cause.VIOLATION)
            assert (ending.violation is None) == (ending.cause is not Cause.VIOLATION)
            assert node.stream.was_reset
            assert node.running == 0
            with pytest.raises(PeerUnreachableError):
                await node.link.call(echo(), 1)

    trio.run(main, clock=MockClock(autojump_threshold=0))
