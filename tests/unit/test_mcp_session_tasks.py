# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks in sessions of 2025-11-25."""

from __future__ import annotations

import pytest
import trio
from asking_tools import PoolBackend
from task_bench import QueueHere, Worker
from task_tools import TOOLS
from trio.testing import wait_all_tasks_blocked

from actors.errors import RuntimeUnavailableError
from actors.settings import QuestionsSettings, Settings
from gateway.mcp import task_news
from gateway.mcp.testing import CLIENT, HEADERS, legacy, messages, post, protocol, said
from gateway.types import Request, Stream

RELATED = "io.modelcontextprotocol/related-task"
ALL = {"elicitation": {"form": {}}, "sampling": {}}
D = "2025-11-25"
ADA = {"action": "accept", "content": {"name": "Ada"}}


class Client:
    """A session."""

    def __init__(self, world, headers):
        self.world = world
        self.headers = headers

    async def ask(self, method, **params):
        """The response; a stream is returned as it is."""
        answer = await self.world.endpoint.handle(legacy(method, params, self.headers, principal=self.world.principal))
        return answer if isinstance(answer, Stream) else said(answer)

    async def result(self, method, **params):
        answer = await self.ask(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method, **params):
        return (await self.ask(method, **params))["error"]["code"]

    async def task(self, name, arguments=None, **task):
        """What is told of the task that a call becomes."""
        made = await self.result("tools/call", name=name, arguments=arguments or {}, task=task)
        assert set(made) == {"task"}
        return made["task"]

    async def get(self, task_id):
        return await self.result("tasks/get", taskId=task_id)

    async def reply(self, id_, **answer):
        body = {"jsonrpc": "2.0", "id": id_, **answer}
        assert (await self.world.endpoint.handle(post(body, self.headers))).status == 202

    async def listen(self):
        """Its GET stream."""
        return await self.world.endpoint.handle(Request("GET", {**HEADERS, **self.headers}))


class World:
    """A gateway, the queue and a worker."""

    def __init__(self, tmp_path, **settings):
        self.queue = QueueHere()
        self.backend = PoolBackend(tmp_path, TOOLS)
        self.endpoint = protocol(self.backend, Settings(**settings), tasks=self.queue)
        self.worker = Worker(self.queue, self.backend)
        self.principal = ""

    async def connect(self, version=D, can=ALL):
        params = {"protocolVersion": version, "capabilities": can, "clientInfo": CLIENT}
        answer = await self.endpoint.handle(legacy("initialize", params, principal=self.principal))
        self.capabilities = said(answer)["result"]["capabilities"]
        session = dict(answer.headers)["mcp-session-id"]
        return Client(self, {"mcp-session-id": session, "mcp-protocol-version": version})


class Reading:
    """A stream, read in a task of its own."""

    def __init__(self, stream):
        assert isinstance(stream, Stream)
        self.stream = stream
        self.seen = []
        self.more = trio.Event()
        self.ended = trio.Event()

    async def run(self):
        async for frames in self.stream.events:
            self.seen += messages(frames)
            self.more.set()
            self.more = trio.Event()
        self.ended.set()

    async def until(self, fits):
        """The first message that fits."""
        while True:
            for message in self.seen:
                if fits(message):
                    return message
            await self.more.wait()


def is_question(message):
    return "method" in message and "id" in message


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    with trio.fail_after(5):
        async with made.endpoint.running():
            yield made


@pytest.fixture
async def client(world):
    return await world.connect()


# --- what is offered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", D])
async def test_one_revision_has_the_capability(world, version):
    client = await world.connect(version)
    offered = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
    assert world.capabilities.get("tasks") == (offered if version == D else None)
    listed = {tool["name"]: tool for tool in (await client.result("tools/list"))["tools"]}
    shown = {name: tool["execution"]["taskSupport"] for name, tool in listed.items() if "execution" in tool}
    if version == D:
        assert (shown["text"], shown["must"], shown.get("never")) == ("optional", "required", None)
    else:
        assert shown == {}
        assert "must" not in listed  # it could not be called
        assert await client.error("tools/call", name="must") == -32601


async def test_without_a_queue_nothing_is_offered_and_wishes_mean_nothing(world):
    world.queue.there = False
    client = await world.connect()
    assert "tasks" not in world.capabilities
    assert not any("execution" in tool for tool in (await client.result("tools/list"))["tools"])
    for name in ("text", "never"):
        done = await client.result("tools/call", name=name, arguments={"text": "now"}, task={})
        assert done["content"][0]["text"] == "now"
    assert await client.error("tasks/get", taskId="x") == -32601
    assert await client.error("tools/call", name="must", task={}) == -32603


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"])
async def test_older_sessions_have_no_tasks(world, method):
    client = await world.connect("2025-06-18")
    assert await client.error(method, taskId="x") == -32601


async def test_the_other_form_has_a_method_of_its_own(client):
    assert await client.error("tasks/update", taskId="x", inputResponses={}) == -32601


# --- creation --------------------------------------------------------------------------------------------------------


async def test_the_client_decides_where_the_tool_allows_it(world, client):
    task = await client.task("text", {"text": "later"})
    assert set(task) == {"taskId", "status", "createdAt", "lastUpdatedAt", "ttl", "pollInterval"}
    assert (task["status"], task["pollInterval"]) == ("working", 1000)
    assert task["taskId"] in world.queue.machine.state.tasks
    done = await client.result("tools/call", name="text", arguments={"text": "now"})
    assert done["content"][0]["text"] == "now"


async def test_what_a_tool_does_not_allow_is_refused(client):
    assert await client.error("tools/call", name="never", arguments={"text": "x"}, task={}) == -32601
    assert await client.error("tools/call", name="must") == -32601


@pytest.mark.parametrize(("ttl", "kept_s"), [(60_000, 60.0), (1, 0.001), (10**400, 86_400.0), (None, 86_400.0)])
async def test_the_client_may_have_its_task_kept_for_less(world, client, ttl, kept_s):
    task = await client.task("text", ttl=ttl)
    assert world.queue.machine.state.tasks[task["taskId"]].task.keep_s == kept_s
    assert task["ttl"] == pytest.approx(kept_s * 1000, abs=2000)


@pytest.mark.parametrize("task", [7, "x", {"ttl": "x"}, {"ttl": 0}, {"ttl": -1}, {"ttl": 1.5}])
async def test_a_wish_that_is_none(client, task):
    assert await client.error("tools/call", name="text", task=task) == -32602


async def test_a_tool_that_needs_more_of_the_client_makes_no_task(world):
    client = await world.connect(can={})
    refused = await client.result("tools/call", name="needs_sampling", task={})
    assert refused["_meta"]["greenroom/code"] == "CANNOT_ASK"
    assert world.queue.ops == []


async def test_a_client_that_leaves_cancels_nothing(world, client):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.task, "text")
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(world.queue.machine.state.tasks) == 1


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("text", {"text": "ü\n"}, "completed"),
        ("add", {"a": 1, "b": 2}, "completed"),
        ("blocks", {}, "completed"),
        ("fails", {}, "failed"),
        ("add", {}, "failed"),
    ],
)
async def test_the_result_is_what_the_call_would_have_had(world, client, name, arguments, status):
    direct = await client.result("tools/call", name=name, arguments=arguments)
    task = await client.task(name, arguments)
    await world.worker.work()
    assert (await client.get(task["taskId"]))["status"] == status
    done = await client.result("tasks/result", taskId=task["taskId"])
    assert done["_meta"].pop(RELATED) == {"taskId": task["taskId"]}
    for result in (direct, done):
        assert result["_meta"].pop("greenroom/duration_ms") >= 0
    assert done == direct


async def test_the_result_is_waited_for(world, client, nursery):
    task = await client.task("text", {"text": "at last"})
    answers = []

    async def wait():
        answers.append(await client.result("tasks/result", taskId=task["taskId"]))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert answers == []
    await world.worker.work()
    await wait_all_tasks_blocked()
    assert answers[0]["content"][0]["text"] == "at last"
    assert world.endpoint.statistics().live_calls == 0


async def test_a_cancelled_task_has_no_result(client):
    task = await client.task("text")
    gone = await client.result("tasks/cancel", taskId=task["taskId"])
    assert (gone["taskId"], gone["status"]) == (task["taskId"], "cancelled")
    answer = await client.ask("tasks/result", taskId=task["taskId"])
    assert answer["error"]["message"] == "the task was cancelled: its owner cancelled it"


async def test_a_running_task_is_cancelled_when_that_is_answered(world, client):
    task = await client.task("text")
    await world.worker.claim()
    assert (await client.result("tasks/cancel", taskId=task["taskId"]))["status"] == "cancelled"
    assert await client.error("tasks/cancel", taskId=task["taskId"]) == -32602


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel"])
@pytest.mark.parametrize("task_id", ["nope", "", 7, None])
async def test_an_unknown_task(client, method, task_id):
    assert await client.error(method, taskId=task_id) == -32602


# --- questions -------------------------------------------------------------------------------------------------------


async def test_the_client_is_asked_while_it_waits_for_the_result(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    while (await client.get(task["taskId"]))["status"] != "input_required":
        await wait_all_tasks_blocked()
    reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
    nursery.start_soon(reading.run)
    question = await reading.until(is_question)
    assert question["method"] == "elicitation/create"
    assert question["params"]["message"] == "What is your name?"
    assert question["params"]["_meta"] == {RELATED: {"taskId": task["taskId"]}}
    await client.reply(question["id"], result=ADA)
    await reading.ended.wait()
    last = reading.seen[-1]["result"]
    assert (last["content"][0]["text"], last["_meta"][RELATED]) == ("Hello, Ada!", {"taskId": task["taskId"]})
    assert world.endpoint.statistics().questions == 0


async def test_questions_that_come_while_it_waits_are_asked_too(world, client, nursery):
    task = await client.task("asks_two")
    results = []

    async def wait():
        results.append(Reading(await client.ask("tasks/result", taskId=task["taskId"])))
        await results[0].run()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    nursery.start_soon(world.worker.work)
    while not results:
        await wait_all_tasks_blocked()
    for message, answer in (("Name?", ADA), ("Sure?", {"action": "accept", "content": {"sure": True}})):
        question = await results[0].until(lambda one, m=message: is_question(one) and one["params"]["message"] == m)
        await client.reply(question["id"], result=answer)
    await results[0].ended.wait()
    assert results[0].seen[-1]["result"]["content"][0]["text"] == "Ada True"


async def test_what_a_client_answers_with_an_error_the_tool_is_told(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
    nursery.start_soon(reading.run)
    question = await reading.until(is_question)
    await client.reply(question["id"], error={"code": -1, "message": "no window to show it"})
    await reading.ended.wait()
    last = reading.seen[-1]["result"]
    assert last["_meta"]["greenroom/code"] == "NO_ANSWER"
    assert "no window to show it" in last["content"][0]["text"]


async def test_a_question_that_was_answered_elsewhere_is_withdrawn(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    readings = [Reading(await client.ask("tasks/result", taskId=task["taskId"])) for _ in range(2)]
    for reading in readings:
        nursery.start_soon(reading.run)
    questions = [await reading.until(is_question) for reading in readings]
    await client.reply(questions[0]["id"], result=ADA)
    for reading in readings:
        await reading.ended.wait()
        assert reading.seen[-1]["result"]["content"][0]["text"] == "Hello, Ada!"
    withdrawn = [
        one["params"]["requestId"] for one in readings[1].seen if one.get("method") == "notifications/cancelled"
    ]
    assert withdrawn == [questions[1]["id"]]
    assert world.endpoint.statistics().questions == 0


async def test_a_question_stays_when_nobody_answers_on_one_stream(tmp_path, autojump_clock):
    world = World(tmp_path, questions=QuestionsSettings(timeout_s=5.0))
    with trio.fail_after(10_000):
        async with world.endpoint.running(), trio.open_nursery() as nursery:
            client = await world.connect()
            task = await client.task("asks")
            nursery.start_soon(lambda: world.worker.work(timeout_s=3600.0))
            first = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
            nursery.start_soon(first.run)
            await trio.sleep(10)
            assert (await client.get(task["taskId"]))["status"] == "input_required"
            second = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
            nursery.start_soon(second.run)
            question = await second.until(is_question)
            await client.reply(question["id"], result=ADA)
            await first.ended.wait()
    assert first.seen[-1]["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_an_answer_that_can_not_be_stored_is_none(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
    nursery.start_soon(reading.run)
    question = await reading.until(is_question)
    await client.reply(question["id"], result={"action": "accept", "content": {"name": "x" * 100_000}})
    await reading.ended.wait()
    assert "could not be stored" in reading.seen[-1]["result"]["content"][0]["text"]


async def test_an_answer_waits_for_a_queue_that_is_away(tmp_path, autojump_clock):
    world = World(tmp_path)
    with trio.fail_after(1000):
        async with world.endpoint.running(), trio.open_nursery() as nursery:
            client = await world.connect()
            task = await client.task("asks")
            nursery.start_soon(world.worker.work)
            reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
            nursery.start_soon(reading.run)
            question = await reading.until(is_question)
            world.queue.go_away()
            await client.reply(question["id"], result=ADA)
            await trio.sleep(20)
            world.queue.failing = None
            await reading.ended.wait()
    assert reading.seen[-1]["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_who_waits_for_a_result_hears_that_the_queue_is_gone(world, client, nursery):
    task = await client.task("text")
    answers = []

    async def wait():
        answers.append(await client.ask("tasks/result", taskId=task["taskId"]))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    world.queue.failing = RuntimeUnavailableError("the task queue was not back before the deadline; try again")
    world.queue.wake()
    await wait_all_tasks_blocked()
    assert answers[0]["error"]["data"]["greenroom/code"] == "RUNTIME_UNAVAILABLE"


async def test_a_client_that_takes_no_stream_waits_without_being_asked(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    request = legacy("tasks/result", {"taskId": task["taskId"]}, client.headers | {"accept": "application/json"})
    answers = []

    async def wait():
        answers.append(said(await world.endpoint.handle(request)))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert answers == []
    reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
    nursery.start_soon(reading.run)
    await client.reply((await reading.until(is_question))["id"], result=ADA)
    await reading.ended.wait()
    await wait_all_tasks_blocked()
    assert answers[0]["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_a_cancelled_request_for_the_result_leaves_the_task(world, client, nursery):
    task = await client.task("asks")
    nursery.start_soon(world.worker.work)
    reading = Reading(await client.ask("tasks/result", taskId=task["taskId"]))
    nursery.start_soon(reading.run)
    await reading.until(is_question)
    note = legacy("notifications/cancelled", {"requestId": 1}, client.headers, id=None)
    await world.endpoint.handle(note)
    await reading.ended.wait()
    assert (await client.get(task["taskId"]))["status"] == "input_required"
    nursery.cancel_scope.cancel()


async def test_a_tool_that_begins_its_task_asks_before_there_is_one(world, client, nursery):
    request = {"name": "begins", "arguments": {}, "task": {"ttl": 60_000}}
    reading = Reading(await client.ask("tools/call", **request))
    nursery.start_soon(reading.run)
    question = await reading.until(is_question)
    assert world.queue.ops == []
    await client.reply(question["id"], result=ADA)
    await reading.ended.wait()
    task_id = reading.seen[-1]["result"]["task"]["taskId"]
    await world.worker.work()
    done = await client.result("tasks/result", taskId=task_id)
    assert done["content"][0]["text"] == "Hello, Ada!"


# --- lists and notifications -----------------------------------------------------------------------------------------


async def test_a_session_lists_its_own_tasks(world, client):
    other = await world.connect()
    theirs = (await other.task("text"))["taskId"]
    ids = [(await client.task(name))["taskId"] for name in ("text", "fails", "text")]
    await world.worker.work()
    await world.worker.work()
    await world.worker.work()
    listed = (await client.result("tasks/list"))["tasks"]
    states = {task["taskId"]: task["status"] for task in listed}
    assert list(states) == ids[::-1]
    assert states[ids[1]] == "failed"
    assert states[ids[0]] == "completed"
    # It knows the id of the other one's, which only that one could have told it.
    assert (await client.get(theirs))["status"] == "completed"


async def test_who_is_known_lists_what_he_made_in_any_session(world):
    world.principal = "ada"
    one, two = await world.connect(), await world.connect()
    task_id = (await one.task("text"))["taskId"]
    assert [task["taskId"] for task in (await two.result("tasks/list"))["tasks"]] == [task_id]
    world.principal = "eve"
    eve = await world.connect()
    assert (await eve.result("tasks/list"))["tasks"] == []
    assert await eve.error("tasks/get", taskId=task_id) == -32602


async def test_a_long_list_comes_in_pages(client):
    ids = [(await client.task("text"))["taskId"] for _ in range(120)]
    seen, cursor = [], None
    while True:
        page = await client.result("tasks/list", **({"cursor": cursor} if cursor else {}))
        seen += [task["taskId"] for task in page["tasks"]]
        if (cursor := page.get("nextCursor")) is None:
            break
    assert seen == ids[::-1]
    assert await client.error("tasks/list", cursor="x") == -32602


async def test_a_session_hears_of_its_tasks_on_its_stream(world, client, nursery):
    reading = Reading(await client.listen())
    nursery.start_soon(reading.run)
    task = await client.task("text")
    await wait_all_tasks_blocked()
    await world.worker.work()
    news = await reading.until(lambda one: one["params"]["status"] == "completed")
    assert news["method"] == "notifications/tasks/status"
    assert news["params"]["taskId"] == task["taskId"]
    assert "result" not in news["params"]
    await wait_all_tasks_blocked()
    assert world.endpoint.statistics().subscriptions == 0  # there will be no more news of it
    await reading.stream.events.aclose()


async def test_a_stream_that_comes_later_begins_with_how_the_tasks_are(world, client, nursery):
    first = Reading(await client.listen())
    nursery.start_soon(first.run)
    await wait_all_tasks_blocked()
    task = await client.task("text")
    await first.stream.events.aclose()
    await world.worker.work()
    await wait_all_tasks_blocked()
    second = Reading(await client.listen())
    nursery.start_soon(second.run)
    news = await second.until(lambda one: one["method"] == "notifications/tasks/status")
    assert (news["params"]["taskId"], news["params"]["status"]) == (task["taskId"], "completed")
    await second.stream.events.aclose()


async def test_a_session_is_told_of_a_bounded_number_of_tasks(world, client, nursery, monkeypatch):
    monkeypatch.setattr(task_news, "MOST_OF_SESSION", 2)
    reading = Reading(await client.listen())
    nursery.start_soon(reading.run)
    ids = [(await client.task("text"))["taskId"] for _ in range(3)]
    assert world.endpoint.statistics().subscriptions == 2
    for _ in ids:
        await world.worker.work()
        await wait_all_tasks_blocked()
    ended = [one["params"]["taskId"] for one in reading.seen if one.get("params", {}).get("status") == "completed"]
    assert ended == ids[1:]
    await reading.stream.events.aclose()
