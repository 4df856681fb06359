# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions in legacy sessions, and streams that a client comes back to."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
import trio
from asking_tools import PoolBackend
from trio.testing import wait_all_tasks_blocked

from actors.settings import QuestionsSettings, Settings, StreamsSettings
from actors.tool_messages import SessionNote
from gateway.mcp.streams import EventId, StreamStore
from gateway.mcp.testing import HEADERS, legacy, messages, post, said
from gateway.mcp.testing import protocol as make_protocol
from gateway.types import Request, Stream

A, B, C, D = "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"
ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "roses"}, "model": "test-model"}


def accept(**content):
    return {"action": "accept", "content": content}


class Client:
    """A session, and what it does with the questions that it is asked."""

    def __init__(self, endpoint, session, answers=()):
        self.endpoint = endpoint
        self.session = session
        self.answers = list(answers)
        """One for each question: a result, an exception's text, or None for silence."""
        self.seen = []
        self.frames = b""

    @classmethod
    async def connect(cls, endpoint, version=D, can=ALL, answers=()):
        params = {"protocolVersion": version, "capabilities": can, "clientInfo": {"name": "t", "version": "1"}}
        answer = await endpoint.handle(legacy("initialize", params))
        session = {"mcp-session-id": dict(answer.headers)["mcp-session-id"], "mcp-protocol-version": version}
        return cls(endpoint, session, answers)

    async def call(self, name, **fields):
        """The response to a call; questions are answered on the way."""
        return await self.request("tools/call", {"name": name}, **fields)

    async def request(self, method, params, **fields):
        answer = await self.endpoint.handle(legacy(method, params, self.session, **fields))
        if not isinstance(answer, Stream):
            self.seen.append(said(answer))
            return self.seen[-1]
        return await self.read(answer)

    async def read(self, stream):
        last = None
        async for frames in stream.events:
            self.frames += frames
            for message in messages(frames):
                self.seen.append(last := message)
                if "method" in message and "id" in message:
                    await self.reply(message["id"], self.answers.pop(0))
        return last

    async def reply(self, id_, answer, endpoint=None):
        if answer is None:
            return
        part = {"error": {"code": -1, "message": answer}} if isinstance(answer, str) else {"result": answer}
        body = {"jsonrpc": "2.0", "id": id_, **part}
        assert (await (endpoint or self.endpoint).handle(post(body, self.session))).status == 202

    async def resume(self, event_id):
        headers = {**HEADERS, **self.session, "last-event-id": event_id}
        answer = await self.endpoint.handle(Request("GET", headers))
        assert isinstance(answer, Stream)
        return answer

    @property
    def event_ids(self):
        lines = self.frames.decode().splitlines()
        return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]

    @property
    def asked(self):
        return [message for message in self.seen if "method" in message and "id" in message]


@pytest.fixture
async def endpoint(tmp_path):
    made = make_protocol(PoolBackend(tmp_path), gateway=7)
    with trio.fail_after(2):
        async with made.running():
            yield made


def text(response):
    return response["result"]["content"][0]["text"]


def code(response):
    assert response["result"]["isError"]
    return response["result"]["_meta"]["greenroom/code"]


@pytest.mark.parametrize("version", [C, D])
async def test_the_client_is_asked_on_the_stream_of_the_call(endpoint, version):
    client = await Client.connect(endpoint, version, answers=[accept(name="Alice")])
    assert text(await client.call("ask_name")) == "Hello, Alice!"
    (question,) = client.asked
    assert question["method"] == "elicitation/create"
    assert question["params"]["message"] == "What is your name?"
    assert question["params"].get("mode") == ("form" if version == D else None)
    assert endpoint.statistics().questions == 0


@pytest.mark.parametrize("version", [A, B, C, D])
async def test_sampling_and_roots_are_as_old_as_the_protocol(endpoint, version):
    client = await Client.connect(endpoint, version, {"sampling": {}}, [SAMPLED])
    assert text(await client.call("needs_sampling")) == "roses"


async def test_questions_asked_at_once_are_answered_in_any_order(endpoint):
    client = await Client.connect(endpoint)
    answer = await endpoint.handle(legacy("tools/call", {"name": "ask_everything"}, client.session))
    results = {
        "elicitation/create": accept(name="A"),
        "sampling/createMessage": SAMPLED,
        "roots/list": {"roots": [{"uri": "file:///a"}]},
    }
    asked, last = [], None
    async for frames in answer.events:
        for message in messages(frames):
            last = message
            if "method" in message:
                asked.append(message)
                if len(asked) == 3:
                    for question in reversed(asked):
                        await client.reply(question["id"], results[question["method"]])
    assert text(last) == "accept roses ['file:///a']"
    assert len({question["id"] for question in asked}) == 3


async def test_a_plain_tool_asks_too(endpoint):
    client = await Client.connect(endpoint, answers=[accept(name="Ada"), SAMPLED])
    assert text(await client.call("ask_in_a_thread")) == "Ada: roses"


async def test_a_client_without_the_capability_is_not_asked(endpoint):
    for version, can in ((D, {}), (B, ALL), (D, {"elicitation": {"url": {}}})):
        client = await Client.connect(endpoint, version, can)
        assert code(await client.call("ask_name")) == "CANNOT_ASK"
        assert client.asked == []
    client = await Client.connect(endpoint, D, {"elicitation": {}})
    assert code(await client.call("needs_sampling")) == "CANNOT_ASK"


async def test_a_request_that_takes_no_stream_can_carry_no_question(endpoint):
    client = await Client.connect(endpoint)
    client.session["accept"] = "application/json"
    assert code(await client.call("ask_name")) == "CANNOT_ASK"


@pytest.mark.parametrize(
    "answer", ["User rejected", {"action": "maybe"}, accept(name=3), accept(), {"content": {}}, {"action": "accept"}]
)
async def test_a_useless_answer_is_told_to_the_tool(endpoint, answer):
    client = await Client.connect(endpoint, answers=[answer])
    assert code(await client.call("ask_name")) == "NO_ANSWER"


async def test_a_client_that_does_not_answer_is_told_and_so_is_the_tool(tmp_path, autojump_clock):
    endpoint = make_protocol(PoolBackend(tmp_path), Settings(questions=QuestionsSettings(timeout_s=40)))
    async with endpoint.running():
        client = await Client.connect(endpoint, answers=[None])
        assert code(await client.call("ask_name")) == "NO_ANSWER"
        withdrawn = next(m for m in client.seen if m.get("method") == "notifications/cancelled")
        assert withdrawn["params"]["requestId"] == client.asked[0]["id"]
        assert endpoint.statistics().questions == 0


async def test_cancelling_the_call_withdraws_its_question(endpoint):
    client = await Client.connect(endpoint, answers=[None])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "ask_name")
        await wait_all_tasks_blocked()
        assert len(client.asked) == 1
        await endpoint.handle(legacy("notifications/cancelled", {"requestId": 1}, client.session, id=None))
    assert endpoint.statistics().questions == 0
    assert client.seen[-1]["method"] == "notifications/cancelled"


async def test_only_the_session_that_was_asked_can_answer(endpoint):
    client = await Client.connect(endpoint, answers=[None])
    stranger = await Client.connect(endpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "ask_name")
        await wait_all_tasks_blocked()
        question = client.asked[0]["id"]
        await stranger.reply(question, accept(name="Eve"))
        await stranger.reply("7-nothing", accept(name="Eve"))
        await wait_all_tasks_blocked()
        assert "result" not in client.seen[-1]
        await client.reply(question, accept(name="Ada"))
    assert text(client.seen[-1]) == "Hello, Ada!"


async def test_a_session_has_a_bounded_number_of_questions(tmp_path):
    endpoint = make_protocol(PoolBackend(tmp_path), Settings(questions=QuestionsSettings(max_open=2)))
    async with endpoint.running():
        client = await Client.connect(endpoint, answers=[None, None])
        assert code(await client.call("ask_everything")) == "BUSY"
        assert endpoint.statistics().questions == 0


async def test_an_answer_finds_its_question_through_another_gateway(tmp_path):
    class Way:
        async def pass_on(self, gateway, session, answer):
            assert gateway == 1
            await one.take_answer(session, answer)

    one = make_protocol(PoolBackend(tmp_path), gateway=1)
    two = make_protocol(PoolBackend(tmp_path), gateway=2, siblings=Way())
    async with one.running(), two.running():
        client = await Client.connect(one, answers=[None])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "ask_name")
            await wait_all_tasks_blocked()
            await client.reply(client.asked[0]["id"], accept(name="Ada"), two)
        assert text(client.seen[-1]) == "Hello, Ada!"


async def test_what_a_client_says_of_its_session_reaches_all_gateways(tmp_path):
    class Way:
        async def spread(self, note):
            await one.take_note(msgspec.msgpack.decode(msgspec.msgpack.encode(note), type=SessionNote))

        async def pass_on(self, *_):
            raise AssertionError

    one = make_protocol(PoolBackend(tmp_path), gateway=1)
    two = make_protocol(PoolBackend(tmp_path), gateway=2, siblings=Way())
    async with one.running(), two.running():
        client = await Client.connect(one, answers=[None, None])
        assert "result" in said(await two.handle(legacy("logging/setLevel", {"level": "info"}, client.session)))
        async with trio.open_nursery() as nursery:
            big = 10**200
            nursery.start_soon(partial(client.call, "reports", id=big))
            await wait_all_tasks_blocked()
            assert [message["method"] for message in client.seen] == ["notifications/message", "elicitation/create"]
            await two.handle(legacy("notifications/cancelled", {"requestId": big}, client.session, id=None))
        assert client.seen[-1]["method"] == "notifications/cancelled"
        assert (await two.handle(Request("DELETE", {**HEADERS, **client.session}))).status == 200
        assert (await one.handle(legacy("ping", headers=client.session))).status == 404


@pytest.mark.parametrize("what", ["the end", "a log level"])
async def test_what_a_client_said_is_known_everywhere_when_it_is_answered(tmp_path, what):
    known = trio.Event()
    answered = []

    class Way:
        async def spread(self, _note):
            await known.wait()

    endpoint = make_protocol(PoolBackend(tmp_path), siblings=Way())
    async with endpoint.running(), trio.open_nursery() as nursery:
        session = (await Client.connect(endpoint)).session
        level = legacy("logging/setLevel", {"level": "info"}, session)
        request = Request("DELETE", {**HEADERS, **session}) if what == "the end" else level

        async def say():
            answered.append((await endpoint.handle(request)).status)

        nursery.start_soon(say)
        await wait_all_tasks_blocked()
        assert not answered
        known.set()
        await wait_all_tasks_blocked()
        assert answered == [200]


async def test_forms_in_the_words_of_2025_06_18(endpoint):
    client = await Client.connect(endpoint, C, answers=[accept(size="l")])
    response = await client.call("ask_order")
    assert response["result"]["structuredContent"]["result"]["size"] == "l"
    assert client.asked[0]["params"]["requestedSchema"]["properties"] == {
        "size": {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "wrapped": {"type": "boolean", "default": True},
        "colour": {"type": "string", "enum": ["green", "red"]},
    }
    assert code(await client.call("ask_toppings")) == "CANNOT_ASK"
    newer = await Client.connect(endpoint, D, answers=[accept(toppings=["nuts"])])
    assert text(await newer.call("ask_toppings")) == "nuts"


async def test_a_visit_and_its_end(endpoint):
    client = await Client.connect(endpoint, answers=[{"action": "accept"}])
    assert text(await client.call("visit")) == "accept"
    assert client.asked[0]["params"]["elicitationId"] == "visit-1"
    complete = next(m for m in client.seen if m.get("method") == "notifications/elicitation/complete")
    assert complete["params"] == {"elicitationId": "visit-1"}


async def test_a_visit_that_is_needed_first_is_an_error_of_its_own(endpoint):
    client = await Client.connect(endpoint)
    error = (await client.call("visit_first"))["error"]
    assert error["code"] == -32042
    assert error["data"]["elicitations"] == [
        {"mode": "url", "elicitationId": "visit-2", "url": "https://example.com/in", "message": "Sign in first"}
    ]
    older = await Client.connect(endpoint, C)
    assert code(await older.call("visit_first")) == "URL_REQUIRED"


# --- streams that can be resumed --------------------------------------------------------------------------------------


async def test_a_tool_ends_the_connection_and_the_client_comes_back_for_the_answer(endpoint, autojump_clock):
    client = await Client.connect(endpoint)
    assert await client.call("long_work") is None
    assert client.frames == f"id: {client.event_ids[0]}\nretry: 500\ndata:\n\n".encode()
    response = await client.read(await client.resume(client.event_ids[0]))
    assert text(response) == "done"
    # Again, although everything was read: a client can't know what it missed.
    assert text(await client.read(await client.resume(client.event_ids[0]))) == "done"
    assert await client.read(await client.resume(client.event_ids[-1])) is None


async def test_older_sessions_know_no_empty_event(endpoint):
    client = await Client.connect(endpoint, C, answers=[accept(name="A")])
    await client.call("ask_name")
    assert b"data:\n" not in client.frames
    assert b"retry" not in client.frames
    older = await Client.connect(endpoint, C)
    assert text(await older.call("long_work")) == "done"


async def test_only_what_was_missed_is_sent_again(endpoint):
    client = await Client.connect(endpoint, answers=[accept(name="A")])
    await client.call("ask_name")
    primer, question, _ = client.event_ids
    assert len(messages(b"".join([f async for f in (await client.resume(primer)).events]))) == 2
    assert len(messages(b"".join([f async for f in (await client.resume(question)).events]))) == 1


async def test_a_question_that_was_not_read_is_read_later(endpoint):
    client = await Client.connect(endpoint, answers=[accept(name="A")])
    answer = await endpoint.handle(legacy("tools/call", {"name": "ask_name"}, client.session))
    first = await anext(aiter(answer.events))
    await answer.events.aclose()
    client.frames += first
    response = await client.read(await client.resume(client.event_ids[0]))
    assert text(response) == "Hello, A!"


@pytest.mark.parametrize("id_", [1, "a b", -5])
async def test_a_stream_of_a_gateway_that_died_has_an_honest_end(endpoint, tmp_path, id_, autojump_clock):
    client = await Client.connect(endpoint)
    await client.call("long_work", id=id_)
    client.endpoint = make_protocol(PoolBackend(tmp_path), gateway=8)
    async with client.endpoint.running():
        end = await client.read(await client.resume(client.event_ids[0]))
    assert end["id"] == id_
    assert end["error"]["data"]["code"] == "OUTCOME_UNKNOWN"


async def test_a_stream_belongs_to_its_session(endpoint, autojump_clock):
    client = await Client.connect(endpoint)
    await client.call("long_work")
    stranger = await Client.connect(endpoint)
    end = await stranger.read(await stranger.resume(client.event_ids[0]))
    assert "error" in end


@pytest.mark.parametrize("event_id", ["x", "", "1-1.1.", "1-1.1.!!", "9-9.9.bnVsbA", "1" * 2000])
async def test_an_event_id_that_is_none_of_ours_opens_an_ordinary_stream(endpoint, event_id):
    client = await Client.connect(endpoint)
    stream = await client.resume(event_id)
    assert endpoint.statistics().listeners == 1
    await stream.events.aclose()


async def test_what_is_kept_is_bounded_in_time_and_bytes(tmp_path, autojump_clock):
    settings = Settings(streams=StreamsSettings(keep_s=10, max_kept_bytes=1024))
    endpoint = make_protocol(PoolBackend(tmp_path), settings)
    async with endpoint.running():
        client = await Client.connect(endpoint)
        for _ in range(20):
            await client.call("long_work")
            await trio.sleep(0.5)
        kept = endpoint.statistics().kept_streams
        assert 1 <= kept < 10
        await trio.sleep(11)
        end = await client.read(await client.resume(client.event_ids[-1]))
        assert "error" in end
        assert endpoint.statistics().kept_streams == 0


@pytest.mark.parametrize(("most", "left"), [(1, 1), (3, 3), (2000, 2000), (3000, 2001)])
async def test_of_one_stream_a_bounded_number_of_events_is_kept_the_latest(most, left):
    store = StreamStore(StreamsSettings(max_events=most), gateway=7)
    journal = store.open(b"session", b"1", primed=True)
    journal.attach()
    for number in range(2000):
        journal.put(b'{"n":%d}' % number)
    journal.put(b'{"answer":true}')
    again = store.resume(b"session", EventId(7, journal.stream, 0, b"1"))
    kept = await anext(again.events)
    assert kept.count(b"data: ") == left
    assert kept.endswith(b'data: {"answer":true}\n\n')
    assert store.kept_bytes == len(kept)


async def test_a_call_that_takes_long_becomes_a_stream_that_can_be_resumed(tmp_path, autojump_clock):
    endpoint = make_protocol(PoolBackend(tmp_path), Settings(streams=StreamsSettings(stream_after_s=0.1)))
    async with endpoint.running():
        client = await Client.connect(endpoint, C)
        assert text(await client.call("long_work")) == "done"
        assert msgspec.json.encode(client.seen)
        assert client.event_ids == []
        client = await Client.connect(endpoint, D)
        answer = await endpoint.handle(legacy("tools/call", {"name": "long_work"}, client.session))
        assert isinstance(answer, Stream)


# --- resources and prompts -------------------------------------------------------------------------------------------

ASKING = [
    ("resources/read", {"uri": "greeting://me"}, "Hello, Ada!"),
    ("resources/read", {"uri": "greeting://in/german"}, "german: Ada"),
    ("prompts/get", {"name": "ask_name", "arguments": {"greeting": "Hi"}}, "Hi, Ada!"),
]


@pytest.mark.parametrize("version", [C, D])
@pytest.mark.parametrize(("method", "params", "outcome"), ASKING)
async def test_resources_and_prompts_ask_on_the_stream_of_their_request(endpoint, version, method, params, outcome):
    client = await Client.connect(endpoint, version, answers=[accept(name="Ada")])
    result = (await client.request(method, params))["result"]
    found = result["contents"][0] if "contents" in result else result["messages"][0]["content"]
    assert found["text"] == outcome
    assert [question["method"] for question in client.asked] == ["elicitation/create"]


@pytest.mark.parametrize(("method", "params"), [*(one[:2] for one in ASKING), ("prompts/get", {"name": "poem"})])
async def test_what_would_ask_fails_for_a_client_that_can_not_be_asked(endpoint, method, params):
    client = await Client.connect(endpoint, can={})
    error = (await client.request(method, params))["error"]
    assert (error["code"], error["data"]["greenroom/code"]) == (-32603, "CANNOT_ASK")
    assert client.asked == []
