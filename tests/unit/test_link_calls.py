# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls on a link between two honest nodes."""

from __future__ import annotations

import pytest
import trio
from peer_links import echo, linked
from peer_streams import A, B, pair
from trio.testing import wait_all_tasks_blocked

from actors.channel import FrameTooLargeError
from actors.errors import (
    BusyError,
    DeadlineExceededError,
    InvalidArgumentsError,
    MCPServerError,
    OutcomeUnknownError,
    PeerUnreachableError,
)
from actors.p2p.peer_registry.link.hello import About
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.messages import Describe, Echo, Heartbeat, PeerDescription, Progress
from actors.p2p.peer_registry.link.reasons import Cause
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.side import OwnSide


async def outcome_of(link, request=None, timeout_s=1e6):
    """What comes of a call: its answer or its error."""
    try:
        return await link.call(request or echo(), timeout_s)
    except MCPServerError as error:
        return error


async def begin(nursery, link, count, timeout_s=1e6):
    """Start calls in order, each until it waits; returns a list that their outcomes are put into as they end."""
    outcomes = []

    async def one(n):
        outcomes.append(await outcome_of(link, echo(n), timeout_s))

    for n in range(count):
        nursery.start_soon(one, n)
        await wait_all_tasks_blocked()
    return outcomes


@pytest.mark.parametrize("secret", [None, b"s" * 32])
async def test_both_sides_call_at_once_over_one_stream(secret):
    async with linked(left={"secret": secret}, right={"secret": secret}) as (left, right):
        answers = []

        async def call(link, n):
            answers.append((await link.call(echo(n), 1)).data)

        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(call, left.link, n)
                nursery.start_soon(call, right.link, n)
        assert sorted(answers) == sorted(2 * [echo(n).data for n in range(40)])


async def test_each_side_knows_the_other():
    about = About(agent="greenroom/1", capabilities=["gpu"])
    async with linked(LinkRules(max_serving=5), left={"about": lambda peer: about if peer == B else None}) as (
        left,
        right,
    ):
        peer = right.link.peer
        assert (peer.peer_id, peer.inbound, peer.about, peer.proven) == (A, True, about, True)
        assert peer.limits.max_serving == 5
        assert left.link.peer.peer_id == B
        assert left.link.peer.instance == right.side.instance.hex() != peer.instance


async def test_what_is_due_at_the_same_time_leaves_together():
    async with linked() as (left, right):
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(left.link.call, echo(n), 1)
        assert left.link.statistics().frames_out == 30
        assert left.link.statistics().writes == right.link.statistics().writes == 1


async def test_answers_that_are_ready_within_a_few_turns_leave_together():
    async with linked() as (left, right):

        async def soon(request):
            for _ in range(int(request.data) % 3):
                await trio.lowlevel.checkpoint()
            return request

        right.answer = soon
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(left.link.call, echo(n), 1)
        assert right.link.statistics().frames_out == 30
        assert right.link.statistics().writes == 1


async def test_a_handler_s_error_arrives_as_it_is():
    async with linked() as (left, right):

        async def wrong(request):
            raise InvalidArgumentsError("no such parameter", parameter="x")

        right.answer = wrong
        with pytest.raises(InvalidArgumentsError, match="no such parameter") as raised:
            await left.link.call(echo(), 1)
        assert raised.value.details == {"parameter": "x"}
        assert not right.errors


async def test_of_an_unexpected_error_the_peer_learns_the_type_only():
    async with linked() as (left, right):

        async def boom(request):
            raise ZeroDivisionError("secret 42")

        right.answer = boom
        with pytest.raises(MCPServerError) as raised:
            await left.link.call(echo(), 1)
        assert "ZeroDivisionError" in str(raised.value)
        assert "42" not in str(raised.value)
        ((what, error),) = right.errors
        assert (what, str(error)) == ("Echo", "secret 42")


async def test_an_answer_of_the_wrong_kind_is_a_defect_of_the_handler_not_of_the_link():
    async with linked() as (left, right):
        right.answer = right.echo
        outcome = await outcome_of(left.link, Describe())
        assert "TypeError" in str(outcome)

        async def describe(request):
            return PeerDescription(agent="x")

        right.answer = describe
        assert (await left.link.call(Describe(), 1)).agent == "x"


async def test_a_message_that_fits_into_no_frame_is_refused_before_it_is_sent():
    async with linked(LinkRules(max_frame_bytes=8192), LinkRules(max_frame_bytes=4096)) as (left, right):
        with pytest.raises(FrameTooLargeError, match="4096"):
            await left.link.call(Echo(data=bytes(5000)), 1)
        with pytest.raises(FrameTooLargeError):
            left.link.note(Progress(task_id="x" * 200, token=1, text="\U0001f600" * 2000))

        async def much(request):
            return Echo(data=bytes(5000))

        left.answer = much
        with pytest.raises(MCPServerError, match="the limit between these peers is 4096") as raised:
            await right.link.call(echo(), 1)
        assert raised.value.remote_code == "FRAME_TOO_LARGE"
        assert len((await left.link.call(Echo(data=bytes(4000)), 1)).data) == 4000


# --- deadlines and cancelling --------------------------------------------------------------------------------------


async def test_the_deadline_ends_a_call_on_both_sides(autojump_clock):
    async with linked() as (left, right):
        right.answer = right.hang
        with pytest.raises(DeadlineExceededError):
            await left.link.call(echo(), 3)
        assert trio.current_time() == pytest.approx(3)
        await wait_all_tasks_blocked()
        assert right.cancelled == 1
        assert left.link.statistics().late_answers == 1
        assert left.link.statistics().open_calls == 0
        right.answer = right.echo
        assert await left.link.call(echo(1), 1) == echo(1)


async def test_a_later_call_with_an_earlier_deadline_ends_first(autojump_clock):
    async with linked() as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            long = await begin(nursery, left.link, 1, timeout_s=4)
            with pytest.raises(DeadlineExceededError):
                await left.link.call(echo(), 2)
            assert trio.current_time() == pytest.approx(2)
            assert not long
        assert trio.current_time() == pytest.approx(4)


async def test_cancelling_the_caller_cancels_the_handler_and_nothing_else():
    async with linked() as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.link.call, echo(), 1e6)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert (right.cancelled, right.running) == (1, 0)
        right.answer = right.echo
        assert await left.link.call(echo(1), 1) == echo(1)


async def test_a_handler_that_takes_too_long_is_cancelled(autojump_clock):
    async with linked(LinkRules(serve_timeout_s=20, heartbeat_s=5)) as (left, right):
        right.answer = right.hang
        with pytest.raises(DeadlineExceededError, match="longer than 20 s"):
            await left.link.call(echo(), 1000)
        assert trio.current_time() <= 25
        right.answer = right.echo
        assert await left.link.call(echo(1), 1) == echo(1)


async def test_a_handler_that_fails_while_it_is_cancelled_is_answered_all_the_same():
    async with linked() as (left, right):

        async def fail_late(request):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while going")

        right.answer = fail_late
        with trio.move_on_after(0.001):
            await left.link.call(echo(), 1e6)
        with trio.fail_after(5):
            while left.link.statistics().open_calls:
                await wait_all_tasks_blocked()
        assert right.errors
        right.answer = right.echo
        assert await left.link.call(echo(1), 1) == echo(1)


# --- places --------------------------------------------------------------------------------------------------------


async def test_no_more_calls_are_sent_than_the_peer_takes():
    async with linked(LinkRules(max_serving=3)) as (left, right):
        go = trio.Event()
        right.answer_when(go)
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 10)
            assert len(right.requests) == right.running == 3
            go.set()
        assert len(outcomes) == 10
        assert right.most_running == 3
        assert right.link.statistics().refused == 0


async def test_calls_that_stand_in_line_are_sent_in_their_order():
    async with linked(LinkRules(max_serving=1)) as (left, right):
        go = trio.Event()
        right.answer_when(go)
        async with trio.open_nursery() as nursery:
            await begin(nursery, left.link, 10)
            go.set()
        assert right.requests == [echo(n) for n in range(10)]


async def test_a_call_that_finds_no_place_in_time_is_busy_and_was_not_sent(autojump_clock):
    async with linked(LinkRules(max_serving=1, place_wait_s=2)) as (left, right):
        go = trio.Event()
        right.answer_when(go)
        async with trio.open_nursery() as nursery:
            first = await begin(nursery, left.link, 1)
            with pytest.raises(BusyError, match="nothing was sent"):
                await left.link.call(echo(1), 100)
            assert trio.current_time() == pytest.approx(2)
            with pytest.raises(DeadlineExceededError):
                await left.link.call(echo(2), 1)
            go.set()
        assert first == [echo(0)]
        assert right.requests == [echo(0)]
        assert await left.link.call(echo(3), 1) == echo(3)


async def test_the_line_is_bounded():
    async with linked(LinkRules(max_serving=1, max_waiting=2)) as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            await begin(nursery, left.link, 3)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyError, match="2 calls"):
                await left.link.call(echo(), 100)
            nursery.cancel_scope.cancel()


async def test_a_place_is_free_again_when_the_peer_s_handler_has_ended_not_sooner(autojump_clock):
    async with linked(LinkRules(max_serving=1, place_wait_s=5)) as (left, right):

        async def slow_to_go(request):
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            return request

        right.answer = slow_to_go
        with pytest.raises(DeadlineExceededError):
            await left.link.call(echo(), 1)
        assert await left.link.call(echo(1), 100) == echo(1)
        assert right.most_running == 1
        assert right.link.statistics().refused == 0


async def test_two_whose_handlers_call_each_other_do_not_stand_still(autojump_clock):
    rules = LinkRules(max_serving=2, place_wait_s=1)
    async with linked(rules) as (left, right):

        def call_back(link):
            async def answer(request):
                await trio.sleep(0)
                if request.data == b"back":
                    return request
                return await link.call(Echo(data=b"back"), 1000)

            return answer

        left.answer, right.answer = call_back(left.link), call_back(right.link)
        async with trio.open_nursery() as nursery:
            outcomes = [await begin(nursery, node.link, 4, timeout_s=1000) for node in (left, right)]
        assert all(len(some) == 4 for some in outcomes)
        assert trio.current_time() < 10


# --- too much ------------------------------------------------------------------------------------------------------


async def test_a_peer_that_takes_nothing_makes_callers_wait_and_notes_be_dropped(autojump_clock):
    rules = LinkRules(outbox=4, max_serving=100)
    async with linked(rules) as (left, right):
        left.stream.stall()
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 10, timeout_s=1000)
            assert left.link.statistics().queued_bytes <= 4 * 50
            assert not left.link.note(Heartbeat())
            assert left.link.statistics().dropped_notes == 1
            with pytest.raises(BusyError, match="too much waits"):
                await left.link.call(echo(), 1)
            left.stream.stall(False)
        assert len(outcomes) == len(right.requests) == 10
        assert left.link.note(Heartbeat())


async def test_few_tasks_are_made_and_those_that_nobody_needs_end(autojump_clock):
    async with linked(LinkRules(max_serving=100, place_wait_s=50)) as (left, right):
        go = trio.Event()
        right.answer_when(go)
        await trio.sleep(0.01)
        alone = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            await begin(nursery, left.link, 50)
            await wait_all_tasks_blocked()
            go.set()
        assert trio.lowlevel.current_statistics().tasks_living == alone + 50
        for n in range(50):
            await left.link.call(echo(n), 1)
        assert trio.lowlevel.current_statistics().tasks_living == alone + 50
        await trio.sleep(15)
        assert trio.lowlevel.current_statistics().tasks_living == alone


# --- notes ---------------------------------------------------------------------------------------------------------


async def test_notes_arrive_in_order_and_their_handler_s_faults_do_no_harm():
    seen = []

    def on_note(link, note):
        seen.append(note)
        raise RuntimeError("oops")

    async with linked(right={"on_note": on_note}) as (left, right):
        notes = [Progress(task_id="t", token=1, percent=n) for n in range(5)]
        assert all(left.link.note(note) for note in notes)
        await left.link.call(echo(), 1)
        assert seen == notes
        assert len(right.errors) == 5


# --- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["break_now", "finish", "reset"])
async def test_when_the_stream_ends_without_a_word_what_was_sent_is_unknown(how):
    async with linked(LinkRules(max_serving=1)) as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 2)
            if how == "break_now":
                right.stream.break_now()
            else:
                await getattr(right.stream, how)()
        sent, in_line = sorted(outcomes, key=lambda error: type(error).__name__)
        assert type(sent) is OutcomeUnknownError
        assert type(in_line) is PeerUnreachableError
        assert left.link.ending.cause is Cause.LOST
        await left.link.over.wait()
        assert left.stream.was_reset
        with pytest.raises(PeerUnreachableError):
            await left.link.call(echo(), 1)
        assert not left.link.note(Heartbeat())


async def test_what_was_not_written_yet_when_the_stream_broke_was_not_sent():
    async with linked() as (left, _):
        left.stream.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, left.link)  # the writer holds it
            await wait_all_tasks_blocked()
            outcomes = await begin(nursery, left.link, 1)
            left.stream.break_now()
        assert type(outcomes[0]) is PeerUnreachableError


async def test_a_closed_link_says_so_and_ends_what_runs_on_both_sides():
    async with linked() as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 1)
            with trio.fail_after(0.5):
                await right.link.close("going home")
        assert type(outcomes[0]) is OutcomeUnknownError
        assert right.cancelled == 1
        assert (right.link.ending.cause, right.link.ending.text) == (Cause.CLOSED, "going home")
        assert (left.link.ending.cause, left.link.ending.text) == (Cause.ENDED, "going home")


async def test_answers_that_are_due_leave_before_the_end():
    async with linked() as (left, right):
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 1)
            while not right.link.statistics().served:
                await trio.lowlevel.checkpoint()
            await right.link.close()
        assert outcomes == [echo(0)]


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing(autojump_clock):
    async with linked(LinkRules(linger_s=1)) as (left, _):
        left.stream.stall()
        left.link.note(Heartbeat())
        await left.link.close()
        assert trio.current_time() <= 1.1
        assert left.stream.was_reset


async def test_cancelling_the_task_of_a_link_ends_its_calls_and_its_stream():
    stream, _ = pair()
    link = Link(stream, OwnSide(peer_id=A))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (link.ending.cause, stream.was_reset) == (Cause.CANCELLED, True)
    async with linked() as (left, right):
        right.answer = right.hang
        outcomes = []

        async def call():
            with trio.CancelScope(shield=True):
                outcomes.append(await outcome_of(left.link))

        left.nursery.start_soon(call)
        await wait_all_tasks_blocked()
        left.nursery.cancel_scope.cancel()
    assert type(outcomes[0]) is OutcomeUnknownError


async def test_a_link_that_retires_finishes_the_calls_of_both_sides_first(autojump_clock):
    async with linked() as (left, right):
        go, back = trio.Event(), trio.Event()
        right.answer_when(go)
        left.answer_when(back)
        async with trio.open_nursery() as nursery:
            there = await begin(nursery, left.link, 1)
            here = await begin(nursery, right.link, 1)
            left.link.retire("another link is used")
            with pytest.raises(PeerUnreachableError, match="another link is used"):
                await left.link.call(echo(), 1)
            go.set()
            await wait_all_tasks_blocked()
            assert left.link.ending is None
            here += await begin(nursery, right.link, 1)
            assert left.link.ending is None
            back.set()
            await wait_all_tasks_blocked()
        assert (there, here) == ([echo(0)], [echo(0)])
        await left.link.over.wait()
        assert str(right.link.ending) == "ended (another link is used)"


async def test_a_link_that_retires_does_not_wait_for_ever(autojump_clock):
    async with linked(LinkRules(drain_s=4)) as (left, right):
        right.answer = right.hang
        async with trio.open_nursery() as nursery:
            outcomes = await begin(nursery, left.link, 1)
            left.link.retire("old")
        assert trio.current_time() == pytest.approx(4)
        assert type(outcomes[0]) is OutcomeUnknownError
