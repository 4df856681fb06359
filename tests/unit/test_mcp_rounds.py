# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions at revision 2026-07-28: a call ends with `input_required` and is sent again with the answers."""

from __future__ import annotations

import pytest
import trio
from asking_tools import PoolBackend

from actors.settings import QuestionsSettings, Settings
from gateway.mcp.testing import SECRET, drain, modern, said
from gateway.mcp.testing import protocol as make_protocol
from gateway.types import Stream

ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "roses"}, "model": "test-model"}
ROOTS = {"roots": [{"uri": "file:///home/a", "name": "Test Root"}]}


def accept(**content):
    return {"action": "accept", "content": content}


@pytest.fixture
async def endpoint(tmp_path):
    made = make_protocol(PoolBackend(tmp_path))
    with trio.fail_after(2):
        async with made.running():
            yield made


async def call(endpoint, name, *, arguments=None, **more):
    """The JSON-RPC answer to a call of a tool, and its HTTP status."""
    return await request(endpoint, "tools/call", name=name, arguments=arguments or {}, **more)


async def request(endpoint, method, *, can=ALL, principal="", progress=False, **params):
    """The JSON-RPC answer to a request, and its HTTP status."""
    meta = {"io.modelcontextprotocol/clientCapabilities": can}
    if progress:
        meta["progressToken"] = 1
    answer = await endpoint.handle(modern(method, params, meta=meta, principal=principal))
    if isinstance(answer, Stream):
        return (await drain(answer))[-1], 200
    return said(answer), answer.status


async def result(endpoint, name, **more):
    answer, status = await call(endpoint, name, **more)
    assert "result" in answer, answer
    assert status == 200
    return answer["result"]


def text(result):
    assert result["resultType"] == "complete"
    return result["content"][0]["text"]


async def test_a_question_ends_the_call_and_its_answer_completes_it(endpoint):
    asked = await result(endpoint, "ask_name")
    assert asked["resultType"] == "input_required"
    assert asked["inputRequests"] == {
        "user_name": {
            "method": "elicitation/create",
            "params": {
                "mode": "form",
                "message": "What is your name?",
                "requestedSchema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "required": ["name"],
                },
            },
        }
    }
    assert "ttlMs" not in asked
    done = await result(
        endpoint, "ask_name", inputResponses={"user_name": accept(name="Alice")}, requestState=asked["requestState"]
    )
    assert text(done) == "Hello, Alice!"


async def test_a_client_that_knows_the_key_needs_no_first_round(endpoint):
    assert text(await result(endpoint, "ask_name", inputResponses={"user_name": accept(name="A")})) == "Hello, A!"


async def test_declining_is_an_answer(endpoint):
    assert text(await result(endpoint, "ask_name", inputResponses={"user_name": {"action": "decline"}})) == "decline"


@pytest.mark.parametrize(
    "responses",
    [
        {"wrong_key": accept(name="A")},
        {"user_name": 12345},
        {"user_name": {"action": "accept"}},
        {"user_name": {"action": "accept", "content": {"name": 1}}},
        {"user_name": {"action": "maybe"}},
        {"user_name": None},
        {},
        None,
    ],
)
async def test_without_a_usable_answer_the_client_is_asked_again(endpoint, responses):
    state = (await result(endpoint, "ask_name"))["requestState"]
    for extra in ({}, {"requestState": state}):
        asked = await result(endpoint, "ask_name", inputResponses=responses, **extra)
        assert list(asked["inputRequests"]) == ["user_name"]


async def test_unknown_keys_are_ignored_whatever_they_hold(endpoint):
    responses = {"user_name": accept(name="A"), "odd": 7, "odder": None}
    assert text(await result(endpoint, "ask_name", inputResponses=responses)) == "Hello, A!"


async def test_questions_that_follow_each_other_take_a_round_each(endpoint):
    one = await result(endpoint, "ask_twice")
    assert list(one["inputRequests"]) == ["q1"]
    two = await result(
        endpoint, "ask_twice", inputResponses={"q1": accept(name="Ada")}, requestState=one["requestState"]
    )
    assert list(two["inputRequests"]) == ["q2"]
    assert two["requestState"] != one["requestState"]
    done = await result(
        endpoint, "ask_twice", inputResponses={"q2": accept(name="blue")}, requestState=two["requestState"]
    )
    assert text(done) == "Ada blue"


async def test_questions_asked_at_once_are_one_round(endpoint):
    asked = await result(endpoint, "ask_everything")
    methods = {key: request["method"] for key, request in asked["inputRequests"].items()}
    assert methods == {"user_name": "elicitation/create", "poem": "sampling/createMessage", "roots": "roots/list"}
    partly = await result(
        endpoint, "ask_everything", inputResponses={"poem": SAMPLED}, requestState=asked["requestState"]
    )
    assert set(partly["inputRequests"]) == {"user_name", "roots"}


async def test_tasks_that_ask_at_once_keep_their_own_answers(endpoint):
    asked = await result(endpoint, "ask_in_parallel")
    requests = asked["inputRequests"]
    answers = {key: accept(name=request["params"]["message"][0].upper()) for key, request in requests.items()}
    assert len(answers) == 3
    for _ in range(5):
        done = await result(endpoint, "ask_in_parallel", inputResponses=answers, requestState=asked["requestState"])
        assert text(done) == "a=A b=B c=C"


async def test_a_plain_tool_asks_as_an_async_one_does(endpoint):
    one = await result(endpoint, "ask_in_a_thread")
    two = await result(
        endpoint, "ask_in_a_thread", inputResponses={"q1": accept(name="Ada")}, requestState=one["requestState"]
    )
    done = await result(endpoint, "ask_in_a_thread", inputResponses={"q2": SAMPLED}, requestState=two["requestState"])
    assert text(done) == "Ada: roses"


async def test_a_state_is_good_for_its_own_call_only(endpoint):
    state = (await result(endpoint, "ask_name", principal="ada"))["requestState"]
    answers = {"user_name": accept(name="A")}
    right = {"inputResponses": answers, "requestState": state, "principal": "ada"}
    assert text(await result(endpoint, "ask_name", **right)) == "Hello, A!"
    for wrong in (
        {"requestState": state + "-TAMPERED"},
        {"requestState": state + "="},
        {"requestState": state[:-2]},
        {"requestState": ""},
        {"principal": "eve"},
        {"arguments": {"greeting": "Bye"}},
    ):
        answer, status = await call(endpoint, "ask_name", **(right | wrong))
        assert (answer["error"]["code"], status) == (-32602, 400), wrong
    answer, status = await call(endpoint, "ask_twice", **right)
    assert (answer["error"]["code"], status) == (-32602, 400)


async def test_arguments_may_be_written_in_another_way(endpoint):
    state = (await result(endpoint, "ask_name"))["requestState"]
    again = await result(
        endpoint, "ask_name", inputResponses={"user_name": accept(name="A")}, requestState=state, arguments={}
    )
    assert text(again) == "Hello, A!"


async def test_a_state_grows_old(tmp_path):
    now = [1_000_000.0]
    made = make_protocol(PoolBackend(tmp_path), now=lambda: now[0])
    async with made.running():
        state = (await result(made, "ask_name"))["requestState"]
        now[0] += QuestionsSettings().state_max_age_s + 1
        answer, _ = await call(made, "ask_name", inputResponses={"user_name": accept(name="A")}, requestState=state)
    assert answer["error"]["code"] == -32602
    assert "too old" in answer["error"]["message"]


async def test_another_gateway_with_the_same_key_goes_on(endpoint, tmp_path):
    asked = await result(endpoint, "ask_name")
    other = make_protocol(PoolBackend(tmp_path))
    assert SECRET
    async with other.running():
        done = await result(
            other, "ask_name", inputResponses={"user_name": accept(name="A")}, requestState=asked["requestState"]
        )
    assert text(done) == "Hello, A!"


async def test_a_tool_that_asks_for_ever_is_stopped(tmp_path):
    made = make_protocol(PoolBackend(tmp_path), Settings(questions=QuestionsSettings(max_rounds=3)))
    async with made.running():
        asked = await result(made, "ask_for_ever")
        for _ in range(2):
            key = next(iter(asked["inputRequests"]))
            asked = await result(
                made, "ask_for_ever", inputResponses={key: accept(name="x")}, requestState=asked["requestState"]
            )
        key = next(iter(asked["inputRequests"]))
        end = await result(
            made, "ask_for_ever", inputResponses={key: accept(name="x")}, requestState=asked["requestState"]
        )
    assert end["isError"]
    assert end["_meta"]["greenroom/code"] == "NO_ANSWER"
    assert "max_rounds" in text(end)


async def test_answers_that_are_too_large_are_refused(tmp_path):
    made = make_protocol(PoolBackend(tmp_path), Settings(questions=QuestionsSettings(max_state_bytes=1024)))
    async with made.running():
        asked = await result(made, "ask_twice")
        answer, status = await call(
            made, "ask_twice", inputResponses={"q1": accept(name="x" * 2000)}, requestState=asked["requestState"]
        )
    assert (answer["error"]["code"], status) == (-32602, 400)
    assert "max_state_bytes" in answer["error"]["message"]


async def test_what_was_not_declared_is_not_asked(endpoint):
    asked = await result(endpoint, "ask_what_can_be", can={"sampling": {}})
    assert [request["method"] for request in asked["inputRequests"].values()] == ["sampling/createMessage"]
    for name, can, wanted in (
        ("ask_name", {}, {"elicitation": {}}),
        ("ask_name", {"elicitation": {"url": {}}}, {"elicitation": {}}),
        ("needs_sampling", {"elicitation": {}}, {"sampling": {}}),
        ("visit", {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ("ask_everything", {"elicitation": {}, "roots": {}}, {"sampling": {}}),
    ):
        answer, status = await call(endpoint, name, can=can)
        assert status == 400
        assert answer["error"]["code"] == -32021
        assert answer["error"]["data"] == {"requiredCapabilities": wanted}


async def test_a_visit_has_no_id_at_this_revision(endpoint):
    asked = await result(endpoint, "visit")
    assert asked["inputRequests"]["q1"]["params"] == {
        "mode": "url",
        "message": "Please sign in",
        "url": "https://example.com/sign-in",
    }
    done = await result(
        endpoint, "visit", inputResponses={"q1": {"action": "accept"}}, requestState=asked["requestState"]
    )
    assert text(done) == "accept"


async def test_a_tool_that_needs_a_visit_has_the_user_sent_there(endpoint):
    asked = await result(endpoint, "visit_first")
    assert asked["inputRequests"]["url"]["params"]["url"] == "https://example.com/in"
    refused = await result(endpoint, "visit_first", can={})
    assert refused["isError"]
    assert refused["_meta"]["greenroom/code"] == "URL_REQUIRED"


async def test_what_a_tool_logs_comes_before_its_question(endpoint):
    meta = {
        "io.modelcontextprotocol/clientCapabilities": ALL,
        "io.modelcontextprotocol/logLevel": "info",
    }
    answer = await endpoint.handle(modern("tools/call", {"name": "reports", "arguments": {}}, meta=meta))
    log, end = await drain(answer)
    assert log["method"] == "notifications/message"
    assert end["result"]["resultType"] == "input_required"


@pytest.mark.parametrize("responses", [[], "x", 7])
async def test_responses_that_are_no_object_are_refused(endpoint, responses):
    answer, status = await call(endpoint, "ask_name", inputResponses=responses)
    assert (answer["error"]["code"], status) == (-32602, 400)


# --- resources and prompts -------------------------------------------------------------------------------------------

ASKING = [
    ("resources/read", {"uri": "greeting://me"}, "Hello, Ada!"),
    ("resources/read", {"uri": "greeting://in/german"}, "german: Ada"),
    ("prompts/get", {"name": "ask_name", "arguments": {"greeting": "Hi"}}, "Hi, Ada!"),
]


def said_of(result):
    assert result["resultType"] == "complete"
    return result["contents"][0]["text"] if "contents" in result else result["messages"][0]["content"]["text"]


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(("method", "params", "outcome"), ASKING)
async def test_resources_and_prompts_ask_as_tools_do(endpoint, method, params, outcome, progress):
    first, status = await request(endpoint, method, **params, progress=progress)
    asked = first["result"]
    assert (asked["resultType"], status) == ("input_required", 200)
    assert list(asked["inputRequests"]) == ["user_name"]
    assert not asked.keys() & {"contents", "messages", "ttlMs"}
    answers = {"inputResponses": {"user_name": accept(name="Ada")}, "requestState": asked["requestState"]}
    done, _ = await request(endpoint, method, **params, **answers, progress=progress)
    assert said_of(done["result"]) == outcome


async def test_a_state_is_bound_to_the_kind_and_the_uri_too(endpoint):
    answers = {"user_name": accept(name="Ada")}
    targets = [
        ("tools/call", {"name": "ask_name"}),
        ("prompts/get", {"name": "ask_name"}),
        ("resources/read", {"uri": "greeting://in/german"}),
        ("resources/read", {"uri": "greeting://in/french"}),
    ]
    states = [(await request(endpoint, method, **params))[0]["result"]["requestState"] for method, params in targets]
    for at, (method, params) in enumerate(targets):
        for of, state in enumerate(states):
            answer, status = await request(endpoint, method, **params, inputResponses=answers, requestState=state)
            assert ("result" in answer, status) == ((True, 200) if at == of else (False, 400)), (at, of)


@pytest.mark.parametrize(("method", "params", "_"), ASKING)
async def test_a_client_that_can_not_be_asked_learns_what_is_missing(endpoint, method, params, _):
    answer, status = await request(endpoint, method, can={}, **params)
    assert (answer["error"]["code"], status) == (-32021, 400)
    assert answer["error"]["data"]["requiredCapabilities"] == {"elicitation": {}}


async def test_a_prompt_may_require_a_client_that_can(endpoint):
    answer, status = await request(endpoint, "prompts/get", can={"elicitation": {}}, name="poem")
    assert (answer["error"]["code"], status) == (-32021, 400)
    asked, _ = await request(endpoint, "prompts/get", can={"sampling": {}}, name="poem")
    responses = {"q1": SAMPLED}
    done, _ = await request(endpoint, "prompts/get", can={"sampling": {}}, name="poem", inputResponses=responses,
                            requestState=asked["result"]["requestState"])  # fmt: skip
    assert said_of(done["result"]) == "roses"
