# SPDX-License-Identifier: AGPL-3.0-or-later
"""A stream of MCP between nodes, in any dialect: how it begins, what goes on on it at once, and what ends it."""

from __future__ import annotations

import json

import pytest
import structlog.testing
import trio
from peer_mcp import CURRENT, HERE, META, OTHER, PEER, code, gives, only_token, open_rig
from trio.testing import wait_all_tasks_blocked

from actors.p2p.peer_registry.mcp import serving
from actors.p2p.peer_registry.mcp.serving import MOST_BAD_FRAMES


def call(id_, name, **arguments):
    params = {"_meta": CURRENT, "name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


def cancel(id_):
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}}


# --- the first message ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {}}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": [1]},
        {"jsonrpc": "1.0", "id": 1, "method": "initialize"},
        {"id": 1, "method": "initialize"},
        {"type": "request", "id": "1", "method": "echo", "params": {}},
        {},
        b"[]",
        b"5",
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
async def test_a_first_message_of_no_dialect_is_answered_and_ends_the_stream(first):
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(first)
        [answer] = await peer.all()
        assert answer["error"]["code"] == -32600
        assert not rig.violations


async def test_whoever_forgot_initialize_is_told_so_in_the_words_of_deployed_nodes():
    async with open_rig() as rig:
        assert "init_required" in (await rig.peer().ask("tools/list"))["error"]["message"]


async def test_a_version_in_the_meta_of_initialize_decides_for_the_current_binding():
    async with open_rig() as rig:
        answer = await rig.peer().current("initialize")
        assert answer["error"]["data"]["reason"] == "initialize_as_current_rejected"


async def test_a_stream_keeps_its_dialect():
    async with open_rig() as rig:
        legacy = rig.peer()
        await legacy.initialize()
        await legacy.send({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": CURRENT}})
        assert (await legacy.read())["error"]["code"] == -32601
        current = rig.peer()
        await current.current("server/discover")
        assert (await current.ask("initialize", {}, 2))["error"]["code"] == -32601


# --- several at once -----------------------------------------------------------------------------------------------


async def test_requests_of_one_stream_do_not_wait_for_each_other():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(call("slow", "wait"), call("quick", "echo"))
        assert (await peer.read())["id"] == "quick"
        rig.tools.go.set()
        assert (await peer.read())["id"] == "slow"


async def test_a_notification_cancels_the_request_that_it_names_and_no_other():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(call(1, "wait"), call(2, "wait"), call("1", "wait"))
        await wait_all_tasks_blocked()
        assert rig.tools.running == 3
        await peer.send(cancel(1), cancel("none"), cancel(None), cancel({}), cancel(1.5))
        await peer.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": 5})
        await wait_all_tasks_blocked()
        assert (rig.tools.running, rig.tools.cancelled) == (2, 1)
        rig.tools.go.set()
        assert {(await peer.read())["id"], (await peer.read())["id"]} == {2, "1"}


async def test_a_request_of_another_stream_is_not_cancelled():
    async with open_rig() as rig:
        one, other = rig.peer(), rig.peer()
        await one.send(call(1, "wait"))
        await other.send(call(2, "echo"), cancel(1))
        await other.read()
        await wait_all_tasks_blocked()
        assert (rig.tools.running, rig.tools.cancelled) == (1, 0)


async def test_an_id_counts_once_on_a_stream_of_the_current_binding():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(call(1, "wait"), call(1, "echo"))
        answer = await peer.read()
        assert (answer["id"], answer["error"]["code"]) == (1, -32600)
        rig.tools.go.set()
        assert "result" in await peer.read()
        await peer.send(call(1, "echo"))
        assert (await peer.read())["error"]["code"] == -32600
        assert [name for _, name, _ in rig.tools.calls] == ["wait"]


async def test_the_end_of_a_peers_writing_is_not_the_end_of_its_answers():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(call(1, "wait"))
        await peer.stream.finish()
        await wait_all_tasks_blocked()
        rig.tools.go.set()
        assert [answer["id"] for answer in await peer.all()] == [1]


async def test_nothing_runs_on_for_a_peer_whose_stream_broke():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send(call(1, "wait"))
        await wait_all_tasks_blocked()
        await peer.stream.reset()
        await wait_all_tasks_blocked()
        assert (rig.tools.running, rig.tools.cancelled, rig.ended, rig.use.requests) == (0, 1, 1, 0)


# --- limits --------------------------------------------------------------------------------------------------------


async def test_a_peer_may_open_so_many_streams():
    async with open_rig(max_streams=2) as rig:
        peers = []
        for _ in range(3):
            peers.append(rig.peer())
            await wait_all_tasks_blocked()
        assert await peers[2].gone()
        assert "result" in await peers[1].current("server/discover")
        assert "result" in await rig.peer(OTHER).current("server/discover")
        await peers[0].stream.finish()
        await peers[0].all()
        assert "result" in await rig.peer().current("server/discover")


async def test_a_peer_may_have_so_many_requests_open_on_all_its_streams():
    async with open_rig(max_requests=3) as rig:
        one, other = rig.peer(), rig.peer()
        await one.send(call(1, "wait"), call(2, "wait"))
        await other.send(call(1, "wait"))
        await wait_all_tasks_blocked()
        await other.send(call(2, "wait"))
        answer = await other.read()
        assert (answer["id"], code(answer)) == (2, (429, "RATE_LIMITED"))
        assert answer["error"]["data"]["retryable"] is True
        await one.send(cancel(1))
        await wait_all_tasks_blocked()
        await other.send(call(3, "echo"))
        assert "result" in await other.read()


async def test_all_peers_together_may_have_so_many_requests_open():
    async with open_rig(max_requests_in_all=2) as rig:
        one, other = rig.peer(), rig.peer(OTHER)
        await one.send(call(1, "wait"), call(2, "wait"))
        await wait_all_tasks_blocked()
        await other.send(call(1, "echo"))
        assert code(await other.read()) == (429, "RATE_LIMITED")


async def test_a_flood_is_refused_and_read_no_faster_than_it_may_come(autojump_clock):
    async with open_rig(burst=5, rate_per_s=10) as rig:
        peer = rig.peer()
        started = trio.current_time()
        await peer.send(*[call(number, "echo") for number in range(45)])
        await peer.stream.finish()
        answers = await peer.all()
        took_s = trio.current_time() - started
        answered = [answer for answer in answers if "result" in answer]
        refused = [answer for answer in answers if "error" in answer]
        assert len(answers) == 45
        assert {code(answer) for answer in refused} == {(429, "RATE_LIMITED")}
        assert len(answered) <= 5 + took_s * 10 + 1
        assert took_s >= len(refused) / 10 * 0.99
        assert 15 <= len(refused) <= 25
        await trio.sleep(1)
        assert "result" in await rig.peer().current("tools/list")


async def test_a_flood_of_one_peer_does_not_stand_in_the_way_of_another(autojump_clock):
    async with open_rig(burst=2, rate_per_s=1) as rig:
        await rig.peer().send(*[call(number, "echo") for number in range(30)])
        with trio.fail_after(0.01):
            assert "result" in await rig.peer(OTHER).current("tools/list")


async def test_notifications_are_never_answered_and_count_as_messages(autojump_clock):
    async with open_rig(burst=3, rate_per_s=1) as rig:
        peer = rig.peer()
        assert "result" in await peer.current("tools/list")
        note = {"jsonrpc": "2.0", "method": "notifications/odd", "params": {}}
        await peer.send(note, note, call(2, "echo"))
        assert code(await peer.read()) == (429, "RATE_LIMITED")


async def test_notifications_of_a_flood_are_dropped_without_a_word(autojump_clock):
    async with open_rig(burst=2, rate_per_s=1) as rig:
        peer = rig.peer()
        await peer.send(call(1, "echo"), *[cancel(9)] * 3)
        await peer.stream.finish()
        assert len(await peer.all()) == 1


async def test_only_the_latest_ids_are_remembered(monkeypatch):
    monkeypatch.setattr(serving, "_REMEMBERED_IDS", 2)
    async with open_rig() as rig:
        peer = rig.peer()
        for id_ in (1, 2, 3):
            await peer.current("tools/list", id_)
        assert "error" in await peer.current("tools/list", 3)
        assert "result" in await peer.current("tools/list", 1)


async def test_a_silent_stream_is_closed(autojump_clock):
    async with open_rig(idle_timeout_s=60) as rig:
        peer = rig.peer()
        started = trio.current_time()
        assert await peer.all() == []
        assert trio.current_time() - started == pytest.approx(60, abs=3)


async def test_drops_of_a_message_keep_no_stream_open(autojump_clock):
    async with open_rig(idle_timeout_s=60) as rig:
        peer = rig.peer()
        assert "result" in await peer.current("tools/list")
        await peer.send_bytes(b"\0\0\1\0")
        for _ in range(7):
            await trio.sleep(9)
            if rig.ended:
                break
            await peer.send_bytes(b" ")
        assert await peer.gone()


async def test_a_stream_with_an_open_request_is_not_silent(autojump_clock):
    async with open_rig(idle_timeout_s=10, request_timeout_s=25) as rig:
        peer = rig.peer()
        await peer.send(call(1, "wait"))
        assert code(await peer.read()) == (408, "TIMEOUT")
        started = trio.current_time()
        assert await peer.all() == []
        assert trio.current_time() - started == pytest.approx(10, abs=3)


async def test_a_peer_that_does_not_read_holds_no_more_than_so_much(autojump_clock):
    async with open_rig(burst=1000, idle_timeout_s=20) as rig:
        rig.tools.results["big"] = gives("x" * 500_000, "text")
        peer = rig.peer()
        await peer.send(*[call(number, "big") for number in range(100)])
        await wait_all_tasks_blocked()
        assert len(rig.tools.calls) <= 64
        assert rig.use.requests <= 64
        await trio.sleep(40)
        assert (rig.ended, rig.use.requests) == (1, 0)


# --- what is no message --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"", -32700),
        (b'{"params":' + b"[" * 5000, -32700),
        (b"[" * 5000, -32600),
        (b"[]", -32600),
        (b'"x"', -32600),
        ({"jsonrpc": "1.0", "id": 4, "method": "tools/list"}, -32600),
        ({"jsonrpc": "2.0", "id": 4, "method": 5}, -32600),
        ({"jsonrpc": "2.0", "id": 4}, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "tools/list"}, -32600),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "tools/list"}, -32600),
        ({"jsonrpc": "2.0", "id": "x" * 300, "method": "tools/list"}, -32600),
        ({"jsonrpc": "2.0", "id": [1], "method": "tools/list"}, -32600),
    ],
)
async def test_what_is_no_request_is_answered_and_the_stream_goes_on(message, number):
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.current("server/discover", 1)
        await peer.send(message)
        assert (await peer.read())["error"]["code"] == number
        assert "result" in await peer.current("tools/list", 2)


async def test_too_much_of_that_ends_the_stream():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.current("server/discover", 1)
        await peer.send(*[b"{"] * (MOST_BAD_FRAMES + 5))
        assert len(await peer.all()) == MOST_BAD_FRAMES
        assert rig.violations == [(PEER, f"{MOST_BAD_FRAMES} messages that are no JSON-RPC")]


async def test_answers_to_nothing_are_ignored():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.current("server/discover", 1)
        await peer.send({"jsonrpc": "2.0", "id": 7, "result": {}}, {"jsonrpc": "2.0", "id": 8, "error": {"code": 1}})
        assert "result" in await peer.current("tools/list", 2)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_message_that_is_too_large_ends_the_stream(begun):
    async with open_rig(max_frame_bytes=2000) as rig:
        peer = rig.peer()
        if begun:
            await peer.current("server/discover", 1)
        await peer.send_bytes(b"\0\0\x07\xd1")
        assert (await peer.read())["error"]["code"] == -32600
        assert await peer.gone()
        assert len(rig.violations) == 1


async def test_an_end_within_a_message_ends_the_stream():
    async with open_rig() as rig:
        peer = rig.peer()
        await peer.send_bytes(b"\0\0\0\x09abc")
        await peer.stream.finish()
        [answer] = await peer.all()
        assert answer["error"]["code"] == -32600


async def test_a_fault_in_the_handler_breaks_the_stream_and_nothing_else(monkeypatch):
    async with open_rig() as rig:
        peer = rig.peer()
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logged:
            patch.setattr(serving, "parse", None)
            await peer.send(b"{}")
            assert await peer.gone()
        assert [entry["log_level"] for entry in logged] == ["error"]
        assert "result" in await rig.peer().current("server/discover")


# --- the oldest dialect --------------------------------------------------------------------------------------------


def old(method="echo", type_="request", **params):
    return {"type": type_, "id": "q1", "method": method, "params": params, "sender": "somebody", "timestamp": 1.5}


async def test_a_p2p_message_calls_a_tool_where_that_is_switched_on():
    async with open_rig(p2p_messages=True) as rig:
        peer = rig.peer()
        await peer.send(old(a=1))
        [answer] = await peer.all()
        assert answer.pop("timestamp") > 0
        assert answer == {"type": "response", "id": "q1", "result": {"a": 1}, "error": None, "sender": HERE}
        assert rig.tools.calls == [(PEER, "echo", {"a": 1})]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (old("fail"), "FORBIDDEN: not for you"),
        (old("none"), "UNKNOWN_TOOL: there is no tool 'none'"),
        (old(""), "params.name must be the name of a tool"),
        (old() | {"method": 5}, "params.name must be the name of a tool"),
        (old() | {"params": [1]}, "params: Expected `object`, got `array`"),
        (old("sad"), '{"why": "rain"}'),
    ],
)
async def test_what_fails_there_has_a_text_for_an_error(message, error):
    async with open_rig(p2p_messages=True) as rig:
        rig.tools.results["sad"] = gives({"why": "rain"}, is_error=True)
        peer = rig.peer()
        await peer.send(message)
        [answer] = await peer.all()
        assert (answer["result"], answer["error"]) == (None, error)


@pytest.mark.parametrize("kind", ["response", "notification", "event", "odd"])
async def test_what_is_no_request_there_is_not_answered(kind):
    async with open_rig(p2p_messages=True) as rig:
        peer = rig.peer()
        await peer.send(old(type_=kind))
        assert await peer.all() == []
        assert not rig.tools.calls


async def test_one_message_of_it_is_answered_on_a_stream():
    async with open_rig(p2p_messages=True) as rig:
        peer = rig.peer()
        await peer.send(old(), old())
        assert len(await peer.all()) == 1


async def test_a_token_is_needed_there_too_and_is_no_argument():
    async with open_rig(p2p_messages=True, check_token=only_token("good")) as rig:
        peer = rig.peer()
        await peer.send(old())
        [answer] = await peer.all()
        assert answer["error"].startswith("UNAUTHORIZED")
        peer = rig.peer()
        await peer.send(old(a=1, _meta={"io.greenroom/callToken": "good"}))
        [answer] = await peer.all()
        assert answer["result"] == {"a": 1}


async def test_ids_are_text_there():
    async with open_rig(p2p_messages=True) as rig:
        for given, echoed in ((7, "7"), (None, ""), ([1], ""), ("x", "x")):
            peer = rig.peer()
            await peer.send(old() | {"id": given})
            [answer] = await peer.all()
            assert answer["id"] == echoed


async def test_a_json_rpc_message_with_a_type_is_json_rpc():
    async with open_rig(p2p_messages=True) as rig:
        answer = await rig.peer().current("server/discover", meta={META + "clientCapabilities": {}})
        assert "result" in json.loads(json.dumps(answer))
