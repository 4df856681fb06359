# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a channel promises, rule by rule, over a real socket pair."""

from __future__ import annotations

import os
import struct
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.channel import Channel, ChannelClosedError, ChannelLimits, FrameTooLargeError
from actors.errors import (
    ActorDiedError,
    BusyError,
    DeadlineExceededError,
    DrainingError,
    InvalidArgumentsError,
    MCPServerError,
    ToolExecutionError,
)
from actors.messages import PROTOCOL_VERSION, Call, ErrorInfo, Failure, Hello, Item, Reply

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


class Text(msgspec.Struct):
    text: str


class Recorder:
    """Answers calls by the method's name and remembers what it saw."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()
        self.release = trio.Event()
        self.events: list[Text] = []

    async def handle(self, call):
        return await getattr(self, call.method)(call)

    async def echo(self, call):
        return msgspec.msgpack.decode(call.body, type=Text)

    async def hang(self, call):
        self.started.set()
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Text("released")

    async def wrong(self, call):
        raise InvalidArgumentsError("no such parameter", parameter="x")

    async def boom(self, call):
        raise ZeroDivisionError("secret 42")

    async def tool_failed(self, call):
        raise ToolExecutionError("t", "general", "disk full")

    async def odd(self, call):
        return object()

    async def big(self, call):
        return Text("x" * 100_000)

    async def count(self, call):
        for i in range(3):
            call.item(Text(str(i)))
        return Text("done")

    async def question(self, call):
        answer = await call.ask("name?", Text("who"))
        return Text("hello " + decode(answer, type=Text).text)

    async def question_then_hang(self, call):
        self.ended = trio.Event()
        await call.ask("name?", Text("who"))
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    def on_event(self, body):
        self.events.append(decode(body, type=Text))
        self.started.set()


def hello(name="a", version=PROTOCOL_VERSION):
    return Hello(version, name, 7)


@asynccontextmanager
async def pair(**options):
    """A caller's channel and the recorder behind the other end."""
    limits = options.pop("limits", None)
    recorder = Recorder()
    left, right = trio.socket.socketpair()
    caller = Channel(left, me=hello("caller"), limits=limits)
    callee = Channel(
        right, me=hello("callee"), handler=recorder.handle, on_event=recorder.on_event, limits=limits, **options
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callee.run)
        await nursery.start(caller.run)
        recorder.callee = callee
        yield caller, recorder
        nursery.cancel_scope.cancel()


async def call(channel, method, text="", timeout_s=5.0, **more):
    return decode(await channel.call(method, Text(text), timeout_s=timeout_s, **more), type=Text).text


async def test_a_call_is_answered():
    async with pair() as (channel, _):
        assert await call(channel, "echo", "hi") == "hi"
        assert channel.peer.actor == "callee"
        assert channel.peer.incarnation == 7


async def test_many_calls_are_in_flight_at_once_and_answers_find_their_callers():
    async with pair() as (channel, recorder):
        answers = {}

        async def one(i):
            answers[i] = await call(channel, "echo", str(i))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel, "hang")
            for i in range(200):
                nursery.start_soon(one, i)
            await wait_all_tasks_blocked()
            assert answers == {i: str(i) for i in range(200)}
            recorder.release.set()


async def test_an_error_arrives_with_its_type_and_fields():
    async with pair() as (channel, _):
        with pytest.raises(InvalidArgumentsError, match="no such parameter") as caught:
            await call(channel, "wrong")
        assert caught.value.details == {"parameter": "x"}
        with pytest.raises(ToolExecutionError) as failed:
            await call(channel, "tool_failed")
        assert (failed.value.tool_name, failed.value.runtime, failed.value.cause) == ("t", "general", "disk full")


async def test_an_unexpected_error_hides_its_text_and_is_reported_here():
    seen = []
    async with pair(on_error=lambda method, error: seen.append((method, str(error)))) as (channel, _):
        with pytest.raises(MCPServerError) as caught:
            await call(channel, "boom")
        assert "secret" not in str(caught.value)
        assert seen == [("boom", "secret 42")]


async def test_an_answer_that_cant_be_encoded_is_an_error_and_the_channel_lives():
    async with pair() as (channel, _):
        with pytest.raises(MCPServerError):
            await call(channel, "odd")
        assert await call(channel, "echo", "still here") == "still here"


async def test_an_answer_over_the_frame_limit_is_an_error_and_the_channel_lives():
    async with pair(limits=ChannelLimits(max_frame_bytes=10_000)) as (channel, _):
        with pytest.raises(MCPServerError, match="limit is 10000"):
            await call(channel, "big")
        with pytest.raises(FrameTooLargeError):
            await call(channel, "echo", "x" * 20_000)
        assert await call(channel, "echo", "still here") == "still here"


async def test_cancelling_the_caller_cancels_the_handler():
    async with pair() as (channel, recorder):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, channel, "hang")
            await recorder.started.wait()
            nursery.cancel_scope.cancel()
        await recorder.cancelled.wait()
        await wait_all_tasks_blocked()
        assert channel.statistics().open_outgoing == 0
        assert recorder.callee.open_calls == 0


async def test_the_deadline_ends_a_call_on_both_sides(autojump_clock):
    async with pair() as (channel, recorder):
        with pytest.raises(DeadlineExceededError):
            await call(channel, "hang", timeout_s=3)
        await recorder.cancelled.wait()
        assert 3 <= trio.current_time() < 4


async def test_a_stream_of_items_comes_before_the_answer():
    async with pair() as (channel, _):
        items = []
        assert await call(channel, "count", on_item=lambda raw: items.append(decode(raw, type=Text).text)) == "done"
        assert items == ["0", "1", "2"]


async def test_a_calls_time_stands_still_while_its_question_is_open():
    async def slow(method, body):
        await trio.sleep(0.2)
        return Text("name")

    async def never(method, body):
        await trio.sleep(0.01)
        raise BusyError("later")

    async with pair() as (channel, recorder):
        assert await call(channel, "question", on_ask=slow, timeout_s=0.1) == "hello name"
        with pytest.raises(BusyError):
            await call(channel, "question", on_ask=never, timeout_s=0.1)
        with pytest.raises(DeadlineExceededError):
            await call(channel, "question_then_hang", on_ask=slow, timeout_s=0.1)
        await recorder.ended.wait()


async def test_the_callee_can_ask_its_caller_inside_the_call():
    async def on_ask(method, body):
        return Text(f"{method}{decode(body, type=Text).text}")

    async with pair() as (channel, _):
        assert await call(channel, "question", on_ask=on_ask) == "hello name?who"
        with pytest.raises(MCPServerError, match="answers no questions"):
            await call(channel, "question")


async def test_a_question_is_cancelled_with_its_call():
    asked, cancelled = trio.Event(), trio.Event()

    async def on_ask(method, body):
        asked.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    async with pair() as (channel, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call(channel, "question", on_ask=on_ask))
            await asked.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()


async def test_events_go_one_way():
    async with pair() as (channel, recorder):
        channel.post(Text("news"))
        await recorder.started.wait()
        assert recorder.events == [Text("news")]


async def test_calls_over_the_limit_are_refused_at_once():
    async with pair(limits=ChannelLimits(max_calls_at_once=2)) as (channel, recorder), trio.open_nursery() as nursery:
        nursery.start_soon(call, channel, "hang")
        nursery.start_soon(call, channel, "hang")
        await wait_all_tasks_blocked()
        with pytest.raises(BusyError):
            await call(channel, "echo")
        recorder.release.set()


async def test_the_callee_refuses_what_is_over_its_own_limit():
    left, right = trio.socket.socketpair()
    recorder = Recorder()
    callee = Channel(right, me=hello(), handler=recorder.handle, limits=ChannelLimits(max_calls_at_once=1))
    async with trio.open_nursery() as nursery:
        caller = Channel(left, me=hello())
        nursery.start_soon(callee.run)
        await nursery.start(caller.run)
        nursery.start_soon(call, caller, "hang")
        await recorder.started.wait()
        with pytest.raises(BusyError):
            await call(caller, "echo")
        recorder.release.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_side_that_leaves_has_read_every_call_before_it_ends():
    async with pair() as (channel, recorder), trio.open_nursery() as nursery:
        callee = recorder.callee
        read = []
        handle = callee._handler

        async def handler(one):
            read.append(one.method)
            return await handle(one)

        callee._handler = handler
        # It lies in the socket, or is not even written, when the other side decides to leave.
        for _ in range(3):
            nursery.start_soon(call, channel, "echo")
        nursery.start_soon(callee.leave)
        await wait_all_tasks_blocked()
        assert read == ["echo"] * 3
        with pytest.raises(DrainingError):
            await call(channel, "echo")
        assert read == ["echo"] * 3


async def test_a_side_that_leaves_does_not_wait_for_one_that_is_gone():
    async with pair() as (channel, recorder), trio.open_nursery() as nursery:
        nursery.start_soon(recorder.callee.leave)
        channel.close()
        recorder.callee.close()
        with trio.fail_after(1):
            await recorder.callee.leave()


async def test_open_calls_end_when_the_other_side_goes():
    left, right = trio.socket.socketpair()
    caller = Channel(left, me=hello())
    async with trio.open_nursery() as nursery:
        await right.send(frame(hello("dying")))
        await nursery.start(caller.run)
        nursery.start_soon(close_when_blocked, right)
        with pytest.raises(ActorDiedError) as died:
            await call(caller, "echo")
        assert (died.value.actor, died.value.incarnation, died.value.sent) == ("dying", 7, True)
        with pytest.raises(ActorDiedError) as later:
            await call(caller, "echo")
        assert later.value.sent is False
    right.close()


async def test_a_late_answer_is_dropped_and_counted():
    left, right = trio.socket.socketpair()
    caller = Channel(left, me=hello())
    async with trio.open_nursery() as nursery:
        await right.send(frame(hello()) + frame(Reply(99, msgspec.Raw(encode(None)))))
        await nursery.start(caller.run)
        await wait_all_tasks_blocked()
        assert caller.statistics().late_frames == 1
        nursery.cancel_scope.cancel()
    right.close()


async def close_when_blocked(sock):
    await wait_all_tasks_blocked()
    sock.close()


def frame(value) -> bytes:
    data = encode(value)
    return struct.pack(">I", len(data)) + data


BAD_STREAMS = {
    "a 2 GiB length prefix": (frame(hello()) + b"\x7f\xff\xff\xff", "the limit is"),
    "random bytes": (frame(hello()) + struct.pack(">I", 8) + os.urandom(8), "bad frame"),
    "an unknown frame": (frame(hello()) + struct.pack(">I", 2) + b"\x91\x63", "bad frame"),
    "a second hello": (frame(hello()) + frame(hello()), "second hello"),
    "half a frame": (frame(hello()) + b"\0\0\0\x08ab", "mid-frame"),
    "deep nesting": (frame(hello()) + struct.pack(">I", 100_000) + b"\x91" * 100_000, "bad frame"),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
async def test_a_bad_stream_ends_its_connection_with_a_reason(case):
    data, reason = BAD_STREAMS[case]
    left, right = trio.socket.socketpair()
    channel = Channel(left, me=hello(), handler=Recorder().handle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.sendall if hasattr(right, "sendall") else right.send, data)
        await wait_all_tasks_blocked()
        right.shutdown(trio.socket.SHUT_WR)
        assert reason in await channel.run()
    right.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(hello(version=99)), "speaks version 99"),
        (frame(Call(1, "echo", 1.0, msgspec.Raw(b"\xc0"))), "no hello"),
        (b"GET / HTTP/1.1\r\n\r\n", "the limit is"),
        (b"", "closed"),
    ],
)
async def test_a_wrong_greeting_is_refused(data, reason):
    left, right = trio.socket.socketpair()
    await right.send(data)
    right.shutdown(trio.socket.SHUT_WR)
    with pytest.raises(ChannelClosedError, match=reason):
        await Channel(left, me=hello()).run()
    right.close()


async def test_a_peer_may_be_refused_by_its_hello():
    def accept(peer):
        raise MCPServerError("wrong token")

    left, right = trio.socket.socketpair()
    await right.send(frame(hello()))
    with pytest.raises(ChannelClosedError, match="wrong token"):
        await Channel(left, me=hello(), accept=accept).run()
    right.close()


async def test_a_silent_peer_is_given_up(autojump_clock):
    left, right = trio.socket.socketpair()
    with pytest.raises(ChannelClosedError, match="no hello in time"):
        await Channel(left, me=hello()).run()
    right.close()


async def test_a_peer_that_never_reads_is_given_up(autojump_clock):
    left, right = trio.socket.socketpair()
    await right.send(frame(hello()))
    channel = Channel(left, me=hello())
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run)
        for _ in range(8):
            channel.post(Text("x" * 1_000_000))
        with trio.fail_after(60):
            while not channel.closed:
                await trio.sleep(1)
        assert "took nothing" in channel.closed_reason
    right.close()


async def test_frames_that_arrive_byte_by_byte_are_put_together():
    left, right = trio.socket.socketpair()
    recorder = Recorder()
    channel = Channel(left, me=hello(), handler=recorder.handle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        for byte in frame(hello()) + frame(Call(1, "echo", 5.0, msgspec.Raw(encode(Text("bit by bit"))))):
            await right.send(bytes([byte]))
            await wait_all_tasks_blocked()
        received = await right.recv(65536)
        expected = frame(hello("a")) + frame(Reply(1, msgspec.Raw(encode(Text("bit by bit")))))
        while len(received) < len(expected):
            received += await right.recv(65536)
        assert received == expected
        nursery.cancel_scope.cancel()
    right.close()


async def test_large_values_pass_whole():
    async with pair() as (channel, _):
        text = "y" * 3_000_000
        assert await call(channel, "echo", text) == text


async def test_a_call_without_a_handler_fails_plainly():
    left, right = trio.socket.socketpair()
    channel = Channel(left, me=hello())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        await right.send(frame(hello()) + frame(Call(1, "echo", 5.0, msgspec.Raw(b"\xc0"))))
        data = b""
        while frame(hello("a")) == data or len(data) < 60:
            data += await right.recv(65536)
        answer = msgspec.msgpack.decode(data[len(frame(hello("a"))) + 4 :], type=Failure)
        assert "answers no calls" in answer.error.message
        nursery.cancel_scope.cancel()
    right.close()


async def test_a_doubled_answer_counts_once():
    """A callee that speaks wrongly: the same reply twice, then a failure, then an item, all of one call."""
    left, right = trio.socket.socketpair()
    caller = Channel(left, me=hello())
    answers = []

    async def ask():
        answers.append(await caller.call("echo", Text("a"), timeout_s=5))

    async with trio.open_nursery() as nursery:
        await right.send(frame(hello()))
        await nursery.start(caller.run)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        reply = frame(Reply(1, msgspec.Raw(encode(Text("a")))))
        wrong = [Failure(1, ErrorInfo(code="BUSY", message="no")), Item(1, msgspec.Raw(encode(None)))]
        await right.send(reply + reply + b"".join(frame(one) for one in wrong))
        await wait_all_tasks_blocked()
        assert [decode(answer, type=Text).text for answer in answers] == ["a"]
        assert caller.statistics().late_frames == 3
        assert caller.in_flight == 0
        nursery.cancel_scope.cancel()
    right.close()
