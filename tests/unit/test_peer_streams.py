# SPDX-License-Identifier: AGPL-3.0-or-later
"""The streams in memory keep the rules of `PeerStream`, so that what is tested over them can be believed."""

from __future__ import annotations

import pytest
import trio
from peer_streams import WINDOW, A, B, pair
from trio.testing import wait_all_tasks_blocked

from actors.p2p.peer_registry.stream import StreamBrokenError


async def test_each_end_names_the_other_one_and_who_dialled():
    left, right = pair()
    assert (left.peer_id, left.inbound, right.peer_id, right.inbound) == (B, False, A, True)


async def test_bytes_arrive_in_order_and_the_end_after_them():
    left, right = pair()
    left.cut(3)
    await left.write(b"hello")
    await left.finish()
    assert [await right.read() for _ in range(3)] == [b"hel", b"lo", b""]
    await right.write(b"back")
    assert await left.read(2) == b"ba"


async def test_a_writer_waits_while_the_other_side_reads_nothing_or_is_stalled(nursery):
    left, right = pair()
    nursery.start_soon(left.write, bytes(WINDOW + 1))
    await wait_all_tasks_blocked()
    assert left.unread == left.written == WINDOW
    left.stall()
    assert len(await right.read(WINDOW)) == WINDOW
    await wait_all_tasks_blocked()
    assert left.unread == 0
    left.stall(False)
    assert await right.read() == b"\0"


async def test_a_reset_ends_both_sides_also_those_that_wait():
    left, right = pair()
    await left.write(b"lost")
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait():
                with pytest.raises(StreamBrokenError):
                    await left.read()

            await wait_all_tasks_blocked()
            await right.reset()
    for use in (right.read(), right.write(b"x"), left.write(b"x"), left.finish()):
        with pytest.raises(StreamBrokenError):
            await use
    await left.reset()


async def test_what_was_written_before_a_break_can_be_read():
    left, right = pair()
    left.break_after(3)
    with pytest.raises(StreamBrokenError):
        await left.write(b"abcdef")
    assert await right.read() == b"abc"
    with pytest.raises(StreamBrokenError):
        await right.read()
