# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever a peer sends to the queue protocol, the handler of its stream ends without an exception, with a reply that
is one line, and holds nothing afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import peer_queue
import structlog.testing
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer_mcp import FakeTools
from peer_queue import SECRET

from actors.p2p.peer_registry.queue_protocol.answering import OTHER_NAMES

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_ops = st.sampled_from([*OTHER_NAMES, *OTHER_NAMES.values(), "submit", "get", "wait", "task.heartbeat"])
_FIELDS = (
    "task_type", "model_name", "payload", "priority", "idempotency_key", "task_id", "worker_id", "fencing_token",
    "supported_task_types", "session_id", "max_tasks", "same_type", "status", "result", "error", "reason", "peer_id",
    "clock", "limit", "detail", "tool", "args", "key", "value", "ttl_s", "replicate",
)  # fmt: skip
_known = {
    "task_id": st.just("t"),
    "worker_id": st.just("w"),
    "fencing_token": st.integers(1, 3),
    "tool": st.just("echo"),
}
_requests = st.fixed_dictionaries(
    {"op": _ops | _values, "token": st.just(SECRET)},
    optional={name: _known.get(name, st.nothing()) | _values for name in _FIELDS} | {"timeout_s": st.just(0) | _values},
)


async def serve(data, times):
    async with peer_queue.open_rig(Path("unused"), tools=FakeTools(), cache_entries=5) as rig:
        await rig.submit()
        await rig.take()
        said = [await rig.raw(data) for _ in range(times)]
        while rig.ended < times + 2:
            await trio.lowlevel.checkpoint()
        assert rig.use.requests == 0
        return said


def outcome(data, times=1):
    with structlog.testing.capture_logs() as logged:
        said = trio.run(serve, data, times)
    assert [entry for entry in logged if entry["log_level"] == "error"] == []
    return said


_quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_quick
@given(st.binary(max_size=60))
def test_any_bytes(data):
    [said] = outcome(data)
    if said:
        assert json.loads(said)["ok"] is False
        assert said.count(b"\n") == 1


@_quick
@given(_requests)
def test_any_requests(request):
    for said in outcome(json.dumps(request).encode() + b"\n", times=2):
        assert said.count(b"\n") == 1
        reply = json.loads(said)
        assert reply["peer_id"] == peer_queue.HERE
        assert reply["ok"] is ("error" not in reply)
        assert reply.get("error") != "internal_error" or "detail" in reply
