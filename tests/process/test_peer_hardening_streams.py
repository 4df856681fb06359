# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one stream may do to a host. Each fault shows without its patch, and with it an honest peer doesn't notice."""

from __future__ import annotations

import pytest
import trio
from peer_victim import ECHO, HOLD, RAISE, WATCH
from peer_victims import (
    DATA,
    SYN,
    WINDOW_UPDATE,
    at_rest,
    closes,
    connected,
    exactly,
    frame,
    muxed,
    send,
    unharmed,
    victim,
)

from actors.p2p.peer_registry import hardening

pytestmark = pytest.mark.process

NO_TEXT = b"\x02\xff\x0a"
AN_ID = 101
NETS = ("B2", "B32")
"""Each of them catches what the other lets through."""


@pytest.fixture(params=["patched", "unpatched"])
def patched(request):
    return request.param == "patched"


async def stream_works(stream):
    await stream.write(b"still there?")
    return await exactly(stream, 12) == b"still there?"


async def test_b1_a_name_that_is_no_text_ends_its_stream_only(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B1", *NETS)) as target:
            start = await at_rest(target)
            async with connected(target) as attacker:
                await send(
                    muxed(attacker),
                    frame(WINDOW_UPDATE, SYN, AN_ID, 0),
                    frame(DATA, 0, AN_ID, len(NO_TEXT), NO_TEXT),
                )
                assert await target.survives(0.3 if patched else 5) == patched
            if patched:
                await unharmed(target, start)


async def test_b2_an_error_in_a_handler_ends_its_stream_only(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else NETS) as target:
            start = await at_rest(target)
            async with connected(target) as attacker:
                other = await attacker.open_stream(target.peer_id, ECHO, 5)
                for name in (b"StreamEOF", b"StreamReset", b"RuntimeError") if patched else (b"RuntimeError",):
                    stream = await attacker.open_stream(target.peer_id, RAISE, 5)
                    await stream.write(name)
                    assert not patched or await stream_works(other)
                assert await target.survives(0.3 if patched else 5) == patched
            if patched:
                await unharmed(target, start)


async def test_b32_an_error_in_libp2ps_own_tasks_ends_one_connection_only(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B32",)) as target:
            await target.ask("break_streams")
            async with connected(target) as attacker:
                await send(muxed(attacker), frame(WINDOW_UPDATE, SYN, AN_ID, 0))
                assert await closes(muxed(attacker), 5)
            assert await target.survives(0.3 if patched else 5) == patched


ODD_NAMES = (
    b"\xff" * 11,  # a length of more than 64 bits
    b"\xff\xff\xff\x7f",  # a length of 256 MiB
    b"\x05hello",  # no line end
    b"\x00",
    b"\x13/multistream/1.0.0\n\x03ls\n" * 3,
)


async def test_whatever_else_is_sent_instead_of_a_name_is_survived(tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path) as target:
            start = await at_rest(target)
            async with connected(target) as attacker:
                for number, data in enumerate(ODD_NAMES):
                    stream = AN_ID + 2 * number
                    syn = frame(WINDOW_UPDATE, SYN, stream, 0)
                    assert await send(muxed(attacker), syn, frame(DATA, 0, stream, len(data), data))
                await trio.sleep(0.2)
            await unharmed(target, start)


async def test_b33_a_handler_that_is_busy_ends_with_its_connection(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B33",)) as target:
            start = await at_rest(target)
            async with connected(target) as attacker:
                await attacker.open_stream(target.peer_id, HOLD, 5)
            await trio.sleep(1)
            left = (await target.ask("counters"))["tasks"] - start["tasks"]
            assert (left == 0) == patched
            if patched:
                await unharmed(target, start)


async def test_b37_a_stream_that_breaks_has_not_ended(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B37",)) as target:
            async with connected(target) as other:
                for way in ("finish", "reset"):
                    stream = await other.open_stream(target.peer_id, WATCH, 5)
                    await stream.read()
                    await getattr(stream, way)()
                await target.ask("ends", 2)
                stream = await other.open_stream(target.peer_id, WATCH, 5)
                await stream.read()
                await hardening.cut(muxed(other))
            ends = await target.ask("ends", 3)
            assert (ends == ["ended", "broken", "broken"]) == patched


async def test_b37_a_frame_that_comes_half_has_not_ended_the_stream(tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path) as target:
            async with connected(target) as other:
                stream = await other.open_stream(target.peer_id, WATCH, 5)
                await stream.read()
                number = stream._stream.muxed_stream.stream_id
                await send(muxed(other), frame(DATA, 0, number, 1000, bytes(500)))
                await hardening.cut(muxed(other))
            assert await target.ask("ends", 1) == ["broken"]


async def test_b37_nothing_is_kept_of_streams_that_have_ended(patched, tmp_path):
    with trio.fail_after(20):
        async with victim(tmp_path, without=() if patched else ("B37",)) as target, connected(target) as other:
            for _ in range(20):
                stream = await other.open_stream(target.peer_id, WATCH, 5)
                await stream.read()
                await stream.reset()
            await target.ask("ends", 20)
            assert (await target.ask("forgotten") == 0) == patched
