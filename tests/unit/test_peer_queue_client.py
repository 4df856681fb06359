# SPDX-License-Identifier: AGPL-3.0-or-later
"""The client of the queue protocol: against our server both ways, and against servers as deployed nodes are."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial

import peer_queue
import peer_streams
import pytest
import trio
from peer_mcp import FakeTools
from peer_mcp import open_rig as open_mcp
from peer_old_servers import OldServer, accelerate
from peer_queue import ADA, BOB, HERE, SECRET
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    DeadlineExceededError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    OutcomeUnknownError,
    RuntimeUnavailableError,
    UnavailableError,
    code_of,
)
from actors.p2p.peer_registry.mcp.client import open_client
from actors.p2p.peer_registry.mcp.opening import ClientFace, open_legacy
from actors.p2p.peer_registry.queue_protocol.client import QueueClient, first_of, over_mcp, over_streams

FACE = ClientFace(name="greenroom", version="1", profiles={}, most_bytes=1 << 20)


@asynccontextmanager
async def by_stream(rig):
    yield QueueClient(over_streams(rig.open_stream), SECRET)


@asynccontextmanager
async def by_mcp(rig):
    """The same queue as a tool, for a peer that takes the legacy binding."""
    async with open_mcp(queue=rig.answering.reply) as mcp:

        async def open_stream(timeout_s):
            return mcp.stream(ADA)

        async with open_client(open_stream, FACE) as client:
            client._opened = partial(client._begin, open_legacy)
            yield QueueClient(over_mcp(client), SECRET)


@pytest.fixture(params=[by_stream, by_mcp])
def way(request):
    return request.param


async def test_a_task_goes_through_the_whole_of_it(tmp_path, way):
    async with peer_queue.open_rig(tmp_path) as rig, way(rig) as client:
        task_id = await client.submit("dig", {"a": 1}, model_name="m", priority=7, idempotency_key="k")
        assert await client.submit("dig", {"a": 1}, model_name="m", priority=7, idempotency_key="k") == task_id
        assert [row["task_id"] for row in await client.list_tasks(status="queued", task_types=["dig"])] == [task_id]
        task = await client.claim("w", types=["dig"], request_id="c1")
        assert (task["task_id"], task["payload"], task["priority"]) == (task_id, {"a": 1}, 7)
        beaten = await client.beat(task_id, "w", task["fencing_token"])
        assert beaten["cancel_requested"] is False
        await client.complete(task_id, result={"b": 2}, worker_id="w", fencing_token=task["fencing_token"])
        assert (await client.get(task_id))["result"] == {"b": 2}
        assert (await client.wait(task_id, 5))["status"] == "completed"
        assert await client.claim("w") is None
        assert await client.get("none") is None


async def test_tasks_are_taken_together_given_back_and_cancelled(tmp_path, way):
    async with peer_queue.open_rig(tmp_path) as rig, way(rig) as client:
        for _ in range(3):
            await client.submit("dig", {})
        first, second = await client.claim_many("w", 2, types=["dig"])
        await client.release(first["task_id"], "w", reason="rain", fencing_token=first["fencing_token"])
        assert await client.cancel(first["task_id"]) is True
        assert await client.cancel(second["task_id"]) is False
        await client.complete(second["task_id"], status="failed", error="sad")
        assert (await client.get(second["task_id"]))["error"] == "sad"
        assert (await client.status(detail=True))["queue"]["queued"] == 1
        assert (await client.peer_heartbeat(ADA))["peer"] == ADA


async def test_the_end_of_a_task_is_waited_for(tmp_path, way):
    async with peer_queue.open_rig(tmp_path) as rig, way(rig) as client:
        task_id = await client.submit("dig", {})
        seen = []

        async def wait():
            seen.append((await client.wait(task_id, 30))["status"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.005)
            task = await client.claim("w")
            await client.complete(task_id, fencing_token=task["fencing_token"])
        assert seen == ["completed"]


async def test_tools_and_values(tmp_path, way):
    async with peer_queue.open_rig(tmp_path, tools=FakeTools(), cache_entries=5) as rig, way(rig) as client:
        assert await client.call_tool("echo", {"a": 1}) == {"a": 1}
        assert await client.cache_get("k") == (False, None)
        await client.cache_set("k", [1], ttl_s=5)
        assert await client.cache_get("k") == (True, [1])
        assert await client.cache_has("k") is True
        assert await client.cache_delete("k") is True
        assert await client.cache_has("k") is False


async def test_what_is_refused_is_an_error_of_its_kind(tmp_path, way):
    async with peer_queue.open_rig(tmp_path) as rig, way(rig) as client:
        for ask, kind, code in (
            (client.complete("none"), NotFoundError, "NOT_FOUND"),
            (client.call_tool("echo", {}), MCPServerError, "FORBIDDEN"),
            (client.cache_get("k"), UnavailableError, "UNAVAILABLE"),
            (client.submit("dig", {}, priority=99), InvalidArgumentsError, "INVALID_ARGUMENTS"),
            (client.submit("docker.execute", {}), MCPServerError, "UNAUTHORIZED"),
            (client.ask("odd", 5), UnavailableError, "UNAVAILABLE"),
            (client.claim(""), InvalidArgumentsError, "INVALID_ARGUMENTS"),
        ):
            with pytest.raises(kind) as caught:
                await ask
            assert code_of(caught.value) == code
        task_id = await client.submit("dig", {})
        with pytest.raises(MCPServerError) as caught:
            await client.complete(task_id)
        assert code_of(caught.value) == "STALE_FENCE"
        client._secret = "wrong"
        with pytest.raises(MCPServerError) as caught:
            await client.get(task_id)
        assert code_of(caught.value) == "UNAUTHORIZED"


async def test_a_flood_is_a_reason_to_wait(tmp_path):
    limits = peer_queue.UseLimits(burst=1, per_s=0.01)
    async with peer_queue.open_rig(tmp_path, use=limits) as rig, by_stream(rig) as client:
        await client.status()
        with pytest.raises(MCPServerError) as caught:
            await client.status()
        assert (code_of(caught.value), caught.value.retryable) == ("RATE_LIMITED", True)


# --- servers of other makes ----------------------------------------------------------------------------------------


class Scripted:
    """A stream to a server that answers each line so; None = it ends the stream instead."""

    peer_id, address, inbound = BOB, "", False

    def __init__(self, reply, wait):
        self.pieces = [] if reply is None else [reply]
        self.wait = wait
        self.written = b""
        self.was_reset = False

    async def read(self, most=65536):
        await trio.lowlevel.checkpoint()
        if self.wait:
            await trio.sleep_forever()
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data):
        await trio.lowlevel.checkpoint()
        self.written += data

    async def finish(self):
        await trio.lowlevel.checkpoint()

    async def reset(self):
        self.was_reset = True


def answering(reply, *, wait=False):
    """A client, and the streams that it has opened."""
    opened = []

    async def open_stream(timeout_s):
        opened.append(Scripted(reply, wait))
        return opened[-1]

    return QueueClient(over_streams(open_stream), SECRET), opened


async def test_a_reply_of_an_older_node_is_read():
    row = {"task_id": "t", "status": "queued"}
    client, opened = answering(json.dumps({"ok": True, "peer_id": BOB, "task": row}).encode() + b"\n")
    assert await client.get("t") == row
    [stream] = opened
    assert json.loads(stream.written) == {"op": "get", "token": SECRET, "task_id": "t"}
    assert stream.written.endswith(b"\n")
    assert stream.was_reset


async def test_a_claim_without_a_fence_is_read():
    task = {"task_id": "t", "task_type": "dig", "payload": {}, "status": "running", "assigned_worker": "w"}
    client, _ = answering(json.dumps({"ok": True, "task": task}).encode())
    assert await client.claim("w") == task


@pytest.mark.parametrize("reply", [b"no JSON\n", b"5\n", b"{}\n", b'{"ok":1}\n', b'{"ok":true}\n', b"[" * 3000 + b"\n"])
async def test_a_reply_that_is_none_is_an_error(reply):
    client, _ = answering(reply)
    with pytest.raises(UnavailableError):
        await client.submit("dig", {})


async def test_a_reply_that_never_ends_is_not_read():
    async def open_stream(timeout_s):
        theirs, ours = peer_streams.pair(HERE, BOB)
        await ours.write(b"x" * 3000)
        return theirs

    client = QueueClient(over_streams(open_stream, most_bytes=2000), SECRET)
    with pytest.raises(MCPServerError) as caught:
        await client.get("t")
    assert code_of(caught.value) == "LIMIT_EXCEEDED"


async def test_a_request_that_is_too_large_is_not_sent():
    client = QueueClient(over_streams(None, most_bytes=2000), SECRET)
    with pytest.raises(MCPServerError) as caught:
        await client.submit("dig", {"x": "y" * 2000})
    assert code_of(caught.value) == "LIMIT_EXCEEDED"


async def test_without_a_reply_the_outcome_is_open_but_for_what_changes_nothing():
    client, _ = answering(None)
    with pytest.raises(OutcomeUnknownError):
        await client.submit("dig", {})
    with pytest.raises(OutcomeUnknownError):
        await client.claim("w")
    with pytest.raises(RuntimeUnavailableError) as caught:
        await client.get("t")
    assert caught.value.retryable


async def test_a_stream_that_breaks_leaves_it_open_too():
    async def open_stream(timeout_s):
        theirs, ours = peer_streams.pair(HERE, BOB)
        ours.break_now()
        return theirs

    with pytest.raises(OutcomeUnknownError):
        await QueueClient(over_streams(open_stream), SECRET).submit("dig", {})


async def test_a_silent_server_is_given_up(autojump_clock):
    client, opened = answering(None, wait=True)
    with pytest.raises(DeadlineExceededError, match="within 30 seconds"):
        await client.submit("dig", {})
    started = trio.current_time()
    with pytest.raises(DeadlineExceededError):
        await client.wait("t", 20)
    assert trio.current_time() - started == pytest.approx(25)
    assert all(stream.was_reset for stream in opened)


@pytest.mark.parametrize("reply", [{"ok": False}, {"ok": False, "error": 5}, {"ok": False, "error": "x" * 900}])
async def test_a_refusal_in_unknown_words_is_one(reply):
    client, _ = answering(json.dumps(reply).encode() + b"\n")
    with pytest.raises(MCPServerError) as caught:
        await client.get("t")
    assert code_of(caught.value) == "REMOTE_ERROR"
    assert len(str(caught.value)) < 600


async def test_a_deployed_node_has_the_queue_as_a_tool_with_any_json_for_content():
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server = OldServer(nursery, accelerate)
            async with open_client(server.open, FACE) as mcp:
                client = QueueClient(over_mcp(mcp), SECRET)
                assert (await client.ask("status", 5, detail=True))["echo"]["op"] == "status"
                sent = next(one for one in server.seen if one["method"] == "tools/call")["params"]
                assert sent == {
                    "name": "task_queue.rpc", "arguments": {"op": "status", "token": SECRET, "detail": True},
                }  # fmt: skip
            nursery.cancel_scope.cancel()


# --- which way -----------------------------------------------------------------------------------------------------


async def test_a_peer_without_the_tool_is_asked_by_the_protocol_of_its_own_from_then_on(tmp_path):
    async with peer_queue.open_rig(tmp_path) as rig, open_mcp() as mcp:
        opened = []

        async def open_stream(timeout_s):
            opened.append(timeout_s)
            return mcp.stream(ADA)

        async with open_client(open_stream, FACE) as client:
            queue = QueueClient(first_of(over_mcp(client), over_streams(rig.open_stream)), SECRET)
            task_id = await queue.submit("dig", {})
            assert (await queue.get(task_id))["task_id"] == task_id
            assert len(opened) == 1
        assert not mcp.tools.calls


async def test_an_open_outcome_is_no_reason_for_another_way(tmp_path):
    async def lost(request, timeout_s):
        raise OutcomeUnknownError("who knows")

    async def never(request, timeout_s):
        raise AssertionError

    queue = QueueClient(first_of(lost, never), SECRET)
    with pytest.raises(OutcomeUnknownError):
        await queue.submit("dig", {})


async def test_the_last_way_says_why_it_is_none():
    async def none(request, timeout_s):
        raise UnavailableError("not here")

    with pytest.raises(UnavailableError, match="not here"):
        await QueueClient(first_of(none, none), SECRET).status()
