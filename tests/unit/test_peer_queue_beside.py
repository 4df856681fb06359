# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue protocol beside the queue: signs of life, status, tools, values for peers, limits, and faults of ours."""

from __future__ import annotations

import hashlib
import json

import peer_queue
import pytest
import trio
from peer_mcp import FakeTools, gives
from peer_queue import ADA, BOB, HERE, SECRET
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    BusyError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentsError,
    RuntimeUnavailableError,
    ToolExecutionError,
)
from actors.p2p.peer_registry.queue_protocol import seen, server
from actors.p2p.peer_registry.queue_protocol.answering import OTHER_NAMES
from actors.p2p.peer_registry.queue_protocol.cache import SharedCache
from actors.p2p.peer_registry.queue_protocol.clock import OwnClock, root_of
from actors.p2p.peer_registry.queue_protocol.seen import SeenPeers
from actors.p2p.peer_registry.stream_use import UseLimits
from actors.task_messages import Cancel, RegisterWorker


@pytest.fixture
async def rig(tmp_path):
    async with peer_queue.open_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
async def caching(tmp_path):
    async with peer_queue.open_rig(tmp_path, cache_entries=3, cache_bytes=4000) as rig:
        yield rig


# --- signs of life -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["peer.heartbeat", "heartbeat", "peer"])
async def test_a_sign_of_life_is_that_of_the_peer_at_the_other_end(rig, op):
    for fields in ({}, {"peer_id": BOB}, {"peer": BOB, "clock": {"node_id": BOB, "vector": {BOB: 9}}}):
        reply = await rig(op, **fields)
        assert reply["peer"] == ADA
        assert reply["scheduler"]["known_peers"] == [{"peer_id": ADA, "last_seen": rig.box.clock.now}]
        assert reply["scheduler"]["clock"]["vector"] == {HERE: 0}
    await rig(op, BOB)
    assert [one["peer_id"] for one in (await rig(op))["scheduler"]["known_peers"]] == [BOB, ADA]


@pytest.mark.parametrize("fields", [{"peer_id": ""}, {"peer": 5}, {"peer": " "}])
async def test_a_peer_that_is_named_has_a_name(rig, fields):
    assert (await rig("heartbeat", **fields))["error"] == "missing_peer_id"


async def test_the_silent_are_forgotten(rig):
    await rig("heartbeat")
    rig.box.later(301)
    assert (await rig("heartbeat", BOB))["scheduler"]["known_peers"] == [
        {"peer_id": BOB, "last_seen": rig.box.clock.now}
    ]


def test_no_more_than_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(seen, "MOST_PEERS", 2)
    peers = SeenPeers(lambda: 1.0)
    for name in "abca":
        peers.add(name)
    assert [one["peer_id"] for one in peers.shown()] == ["c", "a"]


def test_the_root_of_a_clock_is_a_hash_of_its_entries_in_order():
    text = '[["a", 1], ["b", 22]]'
    assert root_of({"b": 22, "a": 1}) == hashlib.sha256(text.encode()).hexdigest()
    clock = OwnClock("me")
    clock.tick()
    assert clock.shown() == {"node_id": "me", "vector": {"me": 1}, "merkle_root": root_of({"me": 1})}


@pytest.mark.parametrize("name", OTHER_NAMES)
async def test_every_other_name_is_that_of_an_operation(rig, name):
    assert (await rig(name)).get("error") != "unknown_op"


# --- status --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["status", "capabilities", "describe"])
async def test_status_says_what_the_node_can(rig, op):
    assert await rig(op) == {
        "ok": True, "peer_id": HERE,
        "capabilities": ["submit", "claim", "claim_many", "complete", "release", "task.heartbeat", "peer.heartbeat",
                         "list", "cancel", "get", "wait", "status"],
        "nat": {"autonat": None}, "session": None,
    }  # fmt: skip


async def test_what_is_switched_on_is_among_it(tmp_path):
    async with peer_queue.open_rig(tmp_path, tools=FakeTools(), cache_entries=1) as rig:
        capabilities = (await rig("status"))["capabilities"]
        assert capabilities[-5:] == ["call_tool", "cache.get", "cache.has", "cache.set", "cache.delete"]


async def test_in_detail_it_says_what_is_in_the_queue_and_who_works(rig):
    await rig.submit()
    await rig.submit("fly")
    await rig.take(supported_task_types=["fly"])
    await rig.desk.queue.do(RegisterWorker(worker="local", types=["dig"], internal=True))
    await rig.desk.queue.do(RegisterWorker(worker="secret-host", types=["x"]))
    reply = await rig("status", detail=True)
    assert reply["queue"] == {
        "queued": 1, "running": 1, "queued_by_type": {"dig": 1}, "running_by_type": {"fly": 1},
    }  # fmt: skip
    assert reply["local_worker"] == {"enabled": True, "docker_enabled": False, "supported_task_types": ["dig"]}
    scheduler = reply["scheduler"]
    assert scheduler["known_workers"] == ["w"]
    assert (scheduler["counts"]["queued"], scheduler["clock"]["vector"]) == (1, {HERE: 3})
    assert (await rig("status", BOB, detail=True))["scheduler"]["known_workers"] == []


async def test_detail_is_true_or_false(rig):
    assert (await rig("status", detail="yes"))["error"] == "invalid_message"


# --- tools ---------------------------------------------------------------------------------------------------------


async def test_without_tools_there_are_none(rig):
    assert (await rig("call_tool", tool="echo"))["error"] == "tools_disabled"


@pytest.mark.parametrize("op", ["tool", "call_tool", "tool.call"])
@pytest.mark.parametrize("name", ["tool", "tool_name", "name"])
@pytest.mark.parametrize("args", ["args", "arguments", "params"])
async def test_a_tool_is_called_by_any_of_its_names(tmp_path, op, name, args):
    tools = FakeTools()
    async with peer_queue.open_rig(tmp_path, tools=tools) as rig:
        reply = await rig(op, **{name: "echo", args: {"a": 1}})
        assert reply == {"ok": True, "peer_id": HERE, "tool": "echo", "result": {"a": 1}}
        assert tools.calls == [(ADA, "echo", {"a": 1})]


@pytest.mark.parametrize(("given", "arguments"), [(5, {"value": 5}), ([1], {"value": [1]}), (None, {})])
async def test_arguments_that_are_no_object_become_one(tmp_path, given, arguments):
    tools = FakeTools()
    async with peer_queue.open_rig(tmp_path, tools=tools) as rig:
        await rig("call_tool", tool="echo", args=given)
    assert tools.calls == [(ADA, "echo", arguments)]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ForbiddenError("no"), "unauthorized"),
        (DeadlineExceededError("late"), "timeout"),
        (RuntimeUnavailableError("off"), "mcp_registry_unavailable"),
        (ToolExecutionError("fail", "general", "no paper"), "internal_error"),
        (InvalidArgumentsError("a is missing"), "internal_error"),
        (BusyError("later"), "internal_error"),
    ],
)
async def test_a_tool_that_fails_has_a_word_and_a_detail(tmp_path, failure, error):
    tools = FakeTools()
    tools.failure = failure
    async with peer_queue.open_rig(tmp_path, tools=tools) as rig:
        reply = await rig("call_tool", tool="fail")
        assert (reply["ok"], reply["error"], reply["detail"]) == (False, error, str(failure))


async def test_a_tool_may_say_that_it_failed(tmp_path):
    tools = FakeTools()
    tools.results["it"] = gives({"why": "rain"}, is_error=True)
    async with peer_queue.open_rig(tmp_path, tools=tools) as rig:
        reply = await rig("call_tool", tool="it")
        assert (reply["error"], reply["detail"]) == ("internal_error", '{"why": "rain"}')


async def test_a_tool_has_a_name_and_its_time(tmp_path, autojump_clock):
    tools = FakeTools()
    async with peer_queue.open_rig(tmp_path, running=False, tools=tools) as rig:
        assert (await rig("call_tool"))["error"] == "missing_tool_name"
        assert (await rig("call_tool", tool="none"))["error"] == "internal_error"
        assert (await rig("call_tool", tool="echo", timeout_s="1"))["error"] == "invalid_message"
        started = trio.current_time()
        assert (await rig("call_tool", tool="wait", timeout_s=3))["error"] == "timeout"
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)
        assert (await rig("call_tool", tool="wait", timeout_s=1000))["error"] == "timeout"
        assert trio.current_time() - started == pytest.approx(63, abs=0.1)
        assert tools.cancelled == 2


# --- values --------------------------------------------------------------------------------------------------------


async def test_without_a_cache_there_is_none(rig):
    for op in ("cache.get", "cache.has", "cache.set", "cache.delete"):
        assert (await rig(op, key="k"))["error"] == "cache_disabled"


@pytest.mark.parametrize(
    ("set_", "get", "has", "delete"),
    [("cache.set", "cache.get", "cache.has", "cache.delete"), ("cache_set", "cache_get", "cache_has", "cache_del"),
     ("cache_set", "cache", "cache_has", "cache_delete")],
)  # fmt: skip
async def test_values_are_kept_found_and_forgotten(caching, set_, get, has, delete):
    base = {"ok": True, "peer_id": HERE, "key": "k"}
    assert await caching(get, key="k") == base | {"hit": False, "value": None}
    assert await caching(has, key="k") == base | {"hit": False}
    assert await caching(set_, key="k", value={"a": [1, None]}, replicate=False) == base
    assert await caching(get, BOB, key="k") == base | {"hit": True, "value": {"a": [1, None]}}
    assert await caching(has, key="k") == base | {"hit": True}
    assert await caching(delete, key="k") == base | {"deleted": True}
    assert await caching(delete, key="k") == base | {"deleted": False}


async def test_a_value_may_have_a_time_to_live(caching):
    await caching("cache.set", key="k", value=1, ttl_s=10)
    caching.box.later(9)
    assert (await caching("cache.has", key="k"))["hit"] is True
    caching.box.later(1)
    assert (await caching("cache.has", key="k"))["hit"] is False
    assert (await caching("cache.delete", key="k"))["deleted"] is False


@pytest.mark.parametrize("op", ["cache.get", "cache.has", "cache.set", "cache.delete"])
async def test_a_value_has_a_key(caching, op):
    assert (await caching(op))["error"] == "missing_key"
    assert (await caching(op, key=" "))["error"] == "missing_key"
    assert (await caching(op, key=5))["error"] == "invalid_message"
    assert (await caching(op, key="x" * 501))["error"] == "invalid_message"


@pytest.mark.parametrize("fields", [{"ttl_s": -1}, {"ttl_s": "5"}, {"replicate": 1}, {"value": "x" * 2000}])
async def test_odd_values_are_refused(caching, fields):
    assert (await caching("cache.set", key="k", **fields))["error"] == "invalid_message"
    assert (await caching("cache.has", key="k"))["hit"] is False


async def test_a_key_may_be_closed_to_a_peer(caching):
    caching.forbidden.add(("cache", "secret"))
    assert (await caching("cache.get", key="secret"))["error"] == "unauthorized"
    assert (await caching("cache.get", key="open"))["ok"] is True


def test_the_longest_unused_goes_first():
    cache = SharedCache(3, 10_000, lambda: 0.0)
    for key in "abc":
        assert cache.set(key, key, None)
    assert cache.get("a") == (True, "a")
    cache.set("d", "d", None)
    assert [cache.get(key)[0] for key in "abcd"] == [True, False, True, True]


def test_all_values_together_take_no_more_than_so_many_bytes():
    cache = SharedCache(1000, 4000, lambda: 0.0)
    for number in range(100):
        assert cache.set(f"k{number}", "x" * 700, None)
        assert len(cache) <= 4
    assert not cache.set("big", "x" * 1000, None)
    for _ in range(100):
        assert cache.set("same", "x" * 700, None)
    assert len(cache) == 4


# --- limits --------------------------------------------------------------------------------------------------------


async def test_a_peer_may_open_so_many_streams(tmp_path):
    async with peer_queue.open_rig(tmp_path, use=UseLimits(streams=2)) as rig:
        streams = [rig.stream() for _ in range(2)]
        await wait_all_tasks_blocked()
        assert await rig.raw(b"{}\n") == b"<broken>"
        assert (await rig("status", BOB))["ok"] is True
        for stream in streams:
            await stream.finish()
            assert await stream.read() == b""
        assert (await rig("status"))["ok"] is True


async def test_a_flood_is_refused_in_a_word(tmp_path):
    async with peer_queue.open_rig(tmp_path, use=UseLimits(burst=3, per_s=0.01)) as rig:
        said = [(await rig("status")).get("error") for _ in range(5)]
        assert said == [None, None, None, "rate_limited", "rate_limited"]
        assert (await rig("status", BOB))["ok"] is True


async def test_a_peer_may_have_so_many_requests_open(tmp_path):
    async with peer_queue.open_rig(tmp_path, use=UseLimits(requests=1, burst=1000)) as rig:
        task_id = await rig.submit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: rig("wait", task_id=task_id))
            await wait_all_tasks_blocked(0.005)
            assert (await rig("status"))["error"] == "rate_limited"
            assert rig.use.requests == 1
            await rig.desk.queue.do(Cancel(id=task_id))
        assert rig.use.requests == 0


async def test_a_peer_that_does_not_read_is_given_up(tmp_path, autojump_clock):
    async with peer_queue.open_rig(tmp_path, running=False, max_message_bytes=1 << 21) as rig:
        stream = rig.stream()
        stream._other.stall()
        await stream.write(json.dumps({"op": "status", "token": SECRET}).encode() + b"\n")
        await trio.sleep(31)
        assert (rig.ended, rig.use.requests) == (1, 0)


async def test_a_request_that_takes_too_long_is_ended(tmp_path, autojump_clock):
    async with peer_queue.open_rig(tmp_path, running=False) as rig:
        started = trio.current_time()
        assert (await rig("submit", task_type="dig"))["error"] == "timeout"
        assert trio.current_time() - started == pytest.approx(90, abs=0.1)


# --- faults of ours ------------------------------------------------------------------------------------------------


async def test_a_fault_of_ours_is_told_without_its_text_and_the_next_request_is_answered(rig):
    rig.desk.failure = ValueError("secret")
    reply = await rig("submit", task_type="dig")
    assert reply == {"ok": False, "peer_id": HERE, "error": "internal_error", "detail": "ValueError"}
    assert (await rig("submit", task_type="dig"))["ok"] is True


async def test_a_fault_in_the_handler_breaks_the_stream_and_nothing_else(rig, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(server, "read_line", None)
        assert await rig.raw(b"{}\n") == b"<broken>"
    assert (await rig("status"))["ok"] is True


@pytest.mark.parametrize(
    ("failure", "error"),
    [(RuntimeUnavailableError("the queue is off"), "internal_error"), (DeadlineExceededError("late"), "timeout")],
)
async def test_a_queue_that_is_away_has_a_word(rig, failure, error):
    rig.desk.failure = failure
    assert (await rig("submit", task_type="dig"))["error"] == error
