# SPDX-License-Identifier: AGPL-3.0-or-later
"""Messages on a stream come out as they went in, whatever the pieces they travel in; what is no message ends it."""

from __future__ import annotations

import struct

import peer_streams
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.peer_registry.mcp.frames import FrameError, FrameReader, FrameWriter
from actors.p2p.peer_registry.stream import StreamBrokenError


class Pieces:
    """A stream that gives these pieces, then ends."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    async def read(self, most=65536):
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""


async def read_all(reader):
    found = []
    while (message := await reader.next()) is not None:
        found.append(message)
    return found


def framed(*messages):
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 40), min_size=1))
def test_messages_survive_any_cutting(messages, sizes):
    data, pieces, at, turn = framed(*messages), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    assert trio.run(read_all, FrameReader(Pieces(pieces), 50)) == messages


async def test_a_message_of_the_largest_size_is_taken_and_one_more_byte_is_not():
    assert await read_all(FrameReader(Pieces([framed(b"x" * 10)]), 10)) == [b"x" * 10]
    with pytest.raises(FrameError, match="11 bytes was announced; at most 10"):
        await FrameReader(Pieces([framed(b"x" * 11)]), 10).next()


async def test_a_length_alone_costs_nothing_and_is_refused_at_once():
    pieces = Pieces([b"\xff\xff\xff\xff", b"never read"])
    with pytest.raises(FrameError, match="4294967295"):
        await FrameReader(pieces, 1 << 20).next()
    assert pieces.pieces == [b"never read"]


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0", b"\0\0\0\5", b"\0\0\0\5abcd"])
async def test_an_end_within_a_message_is_a_fault(data):
    with pytest.raises(FrameError, match="within a message"):
        await FrameReader(Pieces([data]), 100).next()


async def test_what_is_due_together_leaves_in_one_write():
    written = []

    class Stream:
        async def write(self, data):
            await trio.lowlevel.checkpoint()
            written.append(data)

    writer = FrameWriter(Stream())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for message in (b"one", b"two", b"three"):
            await writer.send(message)
        writer.finish()
    assert written == [framed(b"one", b"two", b"three")]


async def test_whoever_sends_waits_while_the_other_side_does_not_read(autojump_clock):
    a, b = peer_streams.pair()
    writer, sent = FrameWriter(a), []

    async def send():
        for number in range(40):
            await writer.send(bytes(100_000))
            sent.append(number)
        writer.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.start_soon(send)
        await trio.sleep(1)
        assert len(sent) < 40
        reader = FrameReader(b, 100_000)
        for _ in range(40):
            assert len(await reader.next()) == 100_000
    assert len(sent) == 40


async def test_a_peer_that_takes_nothing_loses_the_stream_and_all_who_wait_hear_of_it(autojump_clock):
    class Stuck:
        async def write(self, data):
            await trio.sleep_forever()

    writer, heard = FrameWriter(Stuck()), []

    async def send():
        try:
            for _ in range(30):
                await writer.send(bytes(100_000))
        except StreamBrokenError:
            heard.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with pytest.raises(StreamBrokenError, match="took nothing for 30 seconds"):
            await writer.run()
    assert heard == [True]
    with pytest.raises(StreamBrokenError, match="took nothing"):
        await writer.send(b"more")


async def test_nothing_is_sent_after_the_end():
    a, _ = peer_streams.pair()
    writer = FrameWriter(a)
    writer.finish()
    await writer.run()
    with pytest.raises(StreamBrokenError):
        await writer.send(b"late")
    writer.send_now(b"late")  # is dropped
