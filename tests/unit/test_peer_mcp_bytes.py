# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever a peer sends, the handler of its stream ends without an exception, holds nothing afterwards, and what it
answered is well-formed."""

from __future__ import annotations

import json
import struct

import structlog.testing
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer_mcp import CURRENT, META, open_rig

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_methods = st.sampled_from(
    ["initialize", "server/discover", "tools/list", "tools.list", "tools/call", "ping", "notifications/cancelled"]
)
_metas = st.sampled_from([CURRENT, CURRENT | {META + "protocolVersion": "1"}, {}]) | _values
_params = st.fixed_dictionaries(
    {},
    optional={
        "_meta": _metas,
        "name": st.sampled_from(["echo", "fail", "wait", "task_queue.rpc"]) | _values,
        "arguments": _values,
        "cursor": _values,
        "requestId": st.integers(0, 3) | _values,
        "capabilities": st.fixed_dictionaries({}, optional={"mcp++": _values, "experimental": _values}) | _values,
        "profiles": _values,
        "profile": _values,
    },
)
_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | _values,
        "id": st.integers(0, 3) | _values,
        "method": _methods | _values,
        "params": _params | _values,
        "type": st.just("request") | _values,
        "result": _values,
        "error": _values,
    },
)
_frames = st.one_of(
    _messages.map(lambda message: json.dumps(message).encode()),
    _values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
)


def framed(texts):
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


async def serve(data, pieces):
    async def queue(peer_id, request, timeout_s):
        return {"ok": True}

    async with open_rig(p2p_messages=True, queue=queue, max_frame_bytes=5000, burst=20) as rig:
        peer = rig.peer()

        async def send():
            size = max(1, len(data) // pieces)
            for at in range(0, len(data), size):
                await peer.stream.write(data[at : at + size])
                await trio.lowlevel.checkpoint()
            await peer.stream.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answers = await peer.all()
        while not rig.ended:
            await trio.lowlevel.checkpoint()
        assert (rig.use.requests, rig.tools.running) == (0, 0)
        return answers


def outcome(data, pieces=1):
    with structlog.testing.capture_logs() as logged:
        answers = trio.run(serve, data, pieces, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [entry for entry in logged if entry["log_level"] == "error"] == []
    return answers


_quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_quick
@given(st.binary(max_size=60), st.integers(1, 5))
def test_any_bytes(data, pieces):
    outcome(data, pieces)


@_quick
@given(st.lists(_frames, min_size=1, max_size=6))
def test_any_messages(frames):
    for answer in outcome(framed(frames)):
        assert isinstance(answer, dict)
        assert ("result" in answer) or ("error" in answer)


_discover = json.dumps({"jsonrpc": "2.0", "id": "d", "method": "server/discover", "params": {"_meta": CURRENT}})
_initialize = json.dumps({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": {}})


@_quick
@given(st.sampled_from([_discover, _initialize]), st.lists(_frames, min_size=1, max_size=6))
def test_any_messages_on_a_stream_that_has_begun(first, frames):
    answers = outcome(framed([first.encode(), *frames]))
    assert any(answer["id"] in ("d", "i") and "result" in answer for answer in answers if "id" in answer)
    for answer in answers:
        assert answer["jsonrpc"] == "2.0"
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            assert type(answer["error"]["code"]) is int
            assert type(answer["error"]["message"]) is str
