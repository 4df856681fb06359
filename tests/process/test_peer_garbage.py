# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever comes over a socket or a connection, a host lives, and nothing is left of who sent it.

GREENROOM_PEER_SEED sets what is drawn.
"""

from __future__ import annotations

import os
import random

import pytest
import trio
from peer_victims import at_rest, connected, frame, muxed, send, unharmed, victim

pytestmark = pytest.mark.process

FRAMES = 400
SEED = os.environ.get("GREENROOM_PEER_SEED", "")

MULTISTREAM = b"\x13/multistream/1.0.0\n"
GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(80),
    "no text": b"\x02\xff\x0a",
    "long name": b"\xff\xff\xff\x7f",
    "half": MULTISTREAM,
    "noise, then garbage": MULTISTREAM + b"\x07/noise\n" + b"\xff\xff" + bytes(100),
    "plaintext": MULTISTREAM + b"\x11/plaintext/2.0.0\n",
}


@pytest.fixture
def rng():
    seed = SEED or str(random.randrange(10**9))
    print(f"GREENROOM_PEER_SEED={seed}")
    return random.Random(seed)


async def test_garbage_instead_of_a_handshake_is_survived(tmp_path, rng):
    with trio.fail_after(40):
        async with victim(tmp_path, upgrade_s=1.0) as target:
            start = await at_rest(target)
            port = int(target.address.split("/")[4])
            for data in (*GARBAGE.values(), *(rng.randbytes(rng.randrange(1, 400)) for _ in range(8))):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(data)
                    if rng.random() < 0.5:
                        await stream.send_eof()
                    await trio.sleep(0.02)
            await unharmed(target, start)


async def test_garbage_from_whom_we_dial_is_survived(tmp_path):
    answers = iter(GARBAGE.values())

    async def speak(stream):
        async with stream:
            try:
                await stream.send_all(next(answers))
                await stream.receive_some()
            except trio.BrokenResourceError:
                pass

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, victim(tmp_path, upgrade_s=1.0) as target:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, speak, [listener])
            start = await at_rest(target)
            address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
            for _ in GARBAGE:
                with pytest.raises(AssertionError, match="PeerUnreachableError"):
                    await target.ask("dial", address, target.stranger, 0.5)
            await unharmed(target, start)
            nursery.cancel_scope.cancel()
    assert next(answers, None) is None


async def test_random_frames_are_survived(tmp_path, rng):
    with trio.fail_after(60):
        async with victim(tmp_path) as target:
            start = await at_rest(target)
            left = FRAMES
            while left > 0:
                async with connected(target) as attacker:
                    while left > 0 and await send(muxed(attacker), random_frame(rng)):
                        left -= 1
            await unharmed(target, start)


def random_frame(rng):
    """One that a parser takes, most of the time."""
    kind = rng.choice([0, 0, 0, 1, 1, 1, 2, 3, 4, 255] if rng.random() < 0.05 else [0, 0, 1, 1, 2])
    flags = rng.choice([0, 0, 1, 1, 2, 4, 8, 3, 5, 9, 0xFFFF])
    stream = rng.choice([0, 1, 2, 3, rng.randrange(20), rng.randrange(2**32)])
    body = rng.randbytes(rng.choice([0, 1, 12, 200, 5000])) if kind == 0 else b""
    length = len(body) if kind == 0 else rng.choice([0, 1, 1000, 2**31, 2**32 - 1])
    return frame(kind, flags, stream, length, body)
