# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks at revision 2026-07-28: the extension io.modelcontextprotocol/tasks."""

from __future__ import annotations

import datetime as dt

import pytest
import task_tools
import trio
from asking_tools import PoolBackend
from task_bench import QueueHere, Worker
from task_tools import TOOLS
from trio.testing import wait_all_tasks_blocked

from actors.errors import OutcomeUnknownError, RemoteError, to_info
from actors.messages import ErrorInfo
from actors.p2p.task_queue.limits import QueueLimits
from actors.settings import McpSettings, Settings
from actors.task_messages import Beat, Beaten, Ended, Fail, Pause, Paused, Release
from gateway.mcp.testing import messages, modern, protocol, said
from gateway.types import Stream

TASKS = "io.modelcontextprotocol/tasks"
CAN = {"elicitation": {"form": {}}, "extensions": {TASKS: {}}}
CAN_VISIT = {"elicitation": {"form": {}, "url": {}}, "extensions": {TASKS: {}}}
UNKNOWN = (-32602, 400)


def accept(**content):
    return {"action": "accept", "content": content}


class World:
    """A gateway, its client, the queue and a worker."""

    def __init__(self, tmp_path, queue=None, **settings):
        self.queue = queue or QueueHere()
        self.backend = PoolBackend(tmp_path, TOOLS)
        self.endpoint = protocol(self.backend, Settings(**settings), tasks=self.queue)
        self.worker = Worker(self.queue, self.backend)

    async def ask(self, method, *, can=CAN, principal="", **params):
        """The whole response, and its HTTP status."""
        meta = {"io.modelcontextprotocol/clientCapabilities": can}
        answer = await self.endpoint.handle(modern(method, params, meta=meta, principal=principal))
        if isinstance(answer, Stream):
            parts = [message async for frames in answer.events for message in messages(frames)]
            return parts[-1], 200
        return said(answer), answer.status

    async def result(self, method, **params):
        answer, status = await self.ask(method, **params)
        assert "result" in answer, answer
        assert status == 200
        return answer["result"]

    async def error(self, method, **params):
        answer, status = await self.ask(method, **params)
        return answer["error"]["code"], status

    async def call(self, name, arguments=None, **more):
        return await self.result("tools/call", name=name, arguments=arguments or {}, **more)

    async def task(self, name, arguments=None, **more):
        """The id of the task that a call becomes."""
        made = await self.call(name, arguments, **more)
        assert made["resultType"] == "task"
        return made["taskId"]

    async def get(self, task_id, **more):
        return await self.result("tasks/get", taskId=task_id, **more)

    async def update(self, task_id, **answers):
        return await self.result("tasks/update", taskId=task_id, inputResponses=answers)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    with trio.fail_after(5):
        async with made.endpoint.running():
            yield made


# --- what is offered -------------------------------------------------------------------------------------------------


async def test_the_extension_is_offered_while_the_queue_is_there(world):
    capabilities = (await world.result("server/discover"))["capabilities"]
    assert capabilities["extensions"] == {TASKS: {}}
    assert "tasks" not in capabilities
    world.queue.there = False
    assert "extensions" not in (await world.result("server/discover"))["capabilities"]


async def test_no_listed_tool_says_anything_of_tasks(world):
    listed = (await world.result("tools/list"))["tools"]
    assert {"must", "never"} <= {tool["name"] for tool in listed}
    assert not any("execution" in tool for tool in listed)


# --- creation --------------------------------------------------------------------------------------------------------


async def test_a_call_is_stored_before_it_is_answered(world):
    made = await world.call("text", {"text": "hello"})
    task = world.queue.machine.state.tasks[made["taskId"]].task
    assert (task.type, task.payload) == ("text", '{"text":"hello"}')
    assert set(made) == {
        "resultType", "taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs", "_meta",
    }  # fmt: skip
    assert made["status"] == "working"
    assert (made["pollIntervalMs"], made["ttlMs"]) == (1000, pytest.approx(86_400_000, abs=5_000))
    created = dt.datetime.fromisoformat(made["createdAt"])
    assert created.timestamp() == pytest.approx(task.created_at, abs=0.001)


@pytest.mark.parametrize("can", [{}, {"extensions": {}}, {"extensions": {TASKS: None}}, {"tasks": {}}])
async def test_a_client_that_does_not_declare_tasks_gets_the_result_at_once(world, can):
    done = await world.call("text", {"text": "now"}, can=can)
    assert (done["resultType"], done["content"][0]["text"]) == ("complete", "now")
    assert world.queue.ops == []


async def test_the_tool_decides_and_a_wish_of_the_older_revision_means_nothing(world):
    done = await world.result("tools/call", name="never", arguments={"text": "x"}, task={"ttl": 1})
    assert done["resultType"] == "complete"


async def test_a_tool_that_runs_only_as_a_task_is_refused_to_a_client_without(world):
    answer, status = await world.ask("tools/call", name="must", arguments={}, can={})
    assert (answer["error"]["code"], status) == (-32021, 400)
    assert answer["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}


async def test_without_a_queue_what_may_runs_directly_and_what_must_is_an_error(world):
    world.queue.there = False
    assert (await world.call("text"))["resultType"] == "complete"
    answer, _ = await world.ask("tools/call", name="must", arguments={})
    assert answer["error"]["data"] == {"greenroom/code": "RUNTIME_UNAVAILABLE", "greenroom/retryable": True}


async def test_a_full_queue_is_said_in_the_result_of_the_call(tmp_path):
    world = World(tmp_path, QueueHere(QueueLimits(max_queue_size=1)))
    async with world.endpoint.running():
        await world.task("text")
        full = await world.call("text")
        assert full["isError"]
        assert full["_meta"]["greenroom/code"] == "QUEUE_FULL"
        assert full["_meta"]["greenroom/retryable"]


async def test_a_tool_that_needs_more_of_the_client_makes_no_task(world):
    assert await world.error("tools/call", name="needs_sampling", arguments={}) == (-32021, 400)
    assert world.queue.ops == []


@pytest.mark.parametrize(("name", "attempts"), [("text", 3), ("asks", 1), ("add", 1)])
async def test_only_what_may_run_again_is_tried_again(world, name, attempts):
    task_id = await world.task(name, {"a": 1, "b": 2} if name == "add" else None)
    assert world.queue.machine.state.tasks[task_id].task.retry.max_attempts == attempts


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("text", {"text": "ü\n"}), ("add", {"a": 1, "b": 2}), ("numbers", {}), ("blocks", {}), ("fails", {}), ("add", {})],
)
async def test_the_result_is_what_the_call_would_have_had(world, name, arguments):
    direct = await world.call(name, arguments, can={})
    task_id = await world.task(name, arguments)
    await world.worker.work()
    done = await world.get(task_id)
    assert (done["resultType"], done["status"]) == ("complete", "completed")
    for result in (direct, done["result"]):
        assert result["_meta"].pop("greenroom/duration_ms") >= 0
    assert done["result"] == direct
    assert {"inputRequests", "error", "requestState", "ttl", "task"}.isdisjoint(done)


async def test_an_error_of_the_protocol_is_the_error_of_a_failed_task(world):
    task_id = await world.task("asks_too_much")
    await world.worker.work()
    done = await world.get(task_id)
    assert done["status"] == "failed"
    assert "result" not in done
    assert done["error"]["code"] == -32021
    assert done["error"]["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}
    assert done["statusMessage"] == done["error"]["message"]


@pytest.mark.parametrize("error", [OutcomeUnknownError("who knows"), RemoteError(ErrorInfo(code="ODD", message="odd"))])
async def test_what_went_wrong_on_the_way_is_a_result_as_for_any_call(world, error):
    task_id = await world.task("add", {"a": 1, "b": 2})
    lease = await world.worker.claim()
    await world.queue.do(Fail(id=task_id, token=lease.token, error=to_info(error)), Ended)
    done = await world.get(task_id)
    assert done["status"] == "completed"
    assert done["result"]["isError"]
    assert done["result"]["_meta"]["greenroom/code"] == to_info(error).code


async def test_a_task_is_working_until_its_end(world):
    task_id = await world.task("text")
    assert (await world.get(task_id))["status"] == "working"
    lease = await world.worker.claim()
    await world.queue.do(Beat(id=task_id, token=lease.token, progress=40, progress_text="page 4"), Beaten)
    working = await world.get(task_id)
    assert (working["status"], working["statusMessage"]) == ("working", "40 %: page 4")
    assert "result" not in working


async def test_why_a_task_waits_is_said(world):
    task_id = await world.task("text")
    await world.queue.do(Pause(), Paused)
    assert (await world.get(task_id))["statusMessage"] == "it waits: paused"


async def test_the_time_that_a_task_can_be_read_grows_until_its_end(tmp_path):
    world = World(tmp_path, mcp=McpSettings(task_keep_s=60.0, task_poll_s=0.2))
    async with world.endpoint.running():
        task_id = await world.task("text")
        task = world.queue.machine.state.tasks[task_id].task
        task.created_at -= 100
        assert (await world.get(task_id))["ttlMs"] == pytest.approx(160_000, abs=3_000)
        await world.worker.work()
        task.ended_at = task.created_at + 7
        done = await world.get(task_id)
        assert (done["ttlMs"], done["pollIntervalMs"]) == (67_000, 200)


# --- questions -------------------------------------------------------------------------------------------------------


async def asked(world, task_id):
    """Wait until a task has questions."""
    while (seen := await world.get(task_id))["status"] != "input_required":
        await wait_all_tasks_blocked()
    return seen["inputRequests"]


async def test_a_question_waits_for_its_answer_with_the_task(world):
    task_id = await world.task("asks")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        requests = await asked(world, task_id)
        assert list(requests) == ["user_name"]
        assert requests["user_name"]["method"] == "elicitation/create"
        assert requests["user_name"]["params"]["message"] == "What is your name?"
        acknowledged = await world.update(task_id, user_name=accept(name="Ada"))
        assert (acknowledged["resultType"], set(acknowledged)) == ("complete", {"resultType", "_meta"})
    assert (await world.get(task_id))["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_answers_may_come_one_by_one(world):
    task_id = await world.task("asks_two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        assert set(await asked(world, task_id)) == {"a", "b"}
        await world.update(task_id, a=accept(name="Ada"))
        # At once, without any step of the worker between.
        assert set((await world.get(task_id))["inputRequests"]) == {"b"}
        await world.update(task_id, a=accept(name="Eve"), b=accept(sure=True), c={"ignored": True})
    assert (await world.get(task_id))["result"]["content"][0]["text"] == "Ada True"


@pytest.mark.parametrize("answer", [7, {"action": "maybe"}, accept(name=1), None, accept()])
async def test_an_answer_that_does_not_fit_is_refused_and_nothing_is_stored(world, answer):
    task_id = await world.task("asks_two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        await asked(world, task_id)
        given = {"a": answer, "b": accept(sure=True)}
        assert await world.error("tasks/update", taskId=task_id, inputResponses=given) == (-32602, 400)
        assert set((await world.get(task_id))["inputRequests"]) == {"a", "b"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("responses", [{"odd": {"ignored": True}}, {"odder": 7}, {}])
async def test_answers_that_nobody_asked_for_are_ignored(world, responses):
    task_id = await world.task("text")
    done = await world.result("tasks/update", taskId=task_id, inputResponses=responses)
    assert done["resultType"] == "complete"
    await world.worker.work()
    assert (await world.result("tasks/update", taskId=task_id, inputResponses=responses))["resultType"] == "complete"


async def test_a_further_run_is_given_all_answers_at_once(world):
    task_id = await world.task("asks")
    lease = await world.worker.claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work, lease)
        await asked(world, task_id)
        nursery.cancel_scope.cancel()  # the worker dies
    await world.queue.do(Release(id=task_id, token=lease.token, counts=False), Ended)
    assert set(await asked(world, task_id)) == {"user_name"}
    await world.update(task_id, user_name=accept(name="Ada"))
    await world.worker.work()
    assert (await world.get(task_id))["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_an_answer_counts_for_the_very_question_that_was_asked(world):
    task_id = await world.task("asks_after", {"before": "Your name?"})
    lease = await world.worker.claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work, lease)
        assert list(await asked(world, task_id)) == ["same"]
        await world.update(task_id, same=accept(name="Ada"))
        assert list(await asked(world, task_id)) == ["same-2"]
        nursery.cancel_scope.cancel()
    await world.queue.do(Release(id=task_id, token=lease.token, counts=False), Ended)
    # The tool that runs then asks something else in the place of what was answered.
    world.queue.machine.state.tasks[task_id].task.payload = '{"before":"And your age?"}'
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        while "same~2" not in (requests := await asked(world, task_id)):
            await wait_all_tasks_blocked()
        assert requests["same~2"]["params"]["message"] == "And your age?"
        nursery.cancel_scope.cancel()


async def test_nobody_waits_for_an_answer_for_ever(tmp_path, autojump_clock):
    world = World(tmp_path)
    with trio.fail_after(1000):
        async with world.endpoint.running():
            task_id = await world.task("asks")
            began = trio.current_time()
            await world.worker.work(timeout_s=300.0)
            assert 300 <= trio.current_time() - began < 301
            done = await world.get(task_id)
    assert done["result"]["_meta"]["greenroom/code"] == "NO_ANSWER"
    assert "questions.task_timeout_s" in done["result"]["content"][0]["text"]


async def test_a_tool_that_needs_a_visit_first_runs_again_after_it(world):
    task_tools.VISITS.clear()
    task_id = await world.task("visit_first", can=CAN_VISIT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        requests = await asked(world, task_id)
        assert requests == {
            "url-1": {
                "method": "elicitation/create",
                "params": {"mode": "url", "message": "Sign in first", "url": "https://example.com/in"},
            }
        }
        task_tools.VISITS.append("in")
        await world.update(task_id, **{"url-1": {"action": "accept"}})
    assert (await world.get(task_id))["result"]["content"][0]["text"] == "signed in"


async def test_a_visit_that_is_declined_is_what_the_tool_failed_for(world):
    task_tools.VISITS.clear()
    task_id = await world.task("visit_first", can=CAN_VISIT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.worker.work)
        await asked(world, task_id)
        await world.update(task_id, **{"url-1": {"action": "decline"}})
    assert (await world.get(task_id))["result"]["_meta"]["greenroom/code"] == "URL_REQUIRED"


# --- tools that begin their task themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["begins", "begins_in_a_thread"])
async def test_questions_before_the_task_are_rounds_of_the_call(world, name):
    first = await world.call(name)
    assert first["resultType"] == "input_required"
    assert list(first["inputRequests"]) == ["user_name"]
    assert "taskId" not in first
    assert world.queue.ops == []
    made = await world.call(name, inputResponses={"user_name": accept(name="Ada")}, requestState=first["requestState"])
    assert made["resultType"] == "task"
    assert {"requestState", "inputRequests"}.isdisjoint(made)
    await world.worker.work()
    done = await world.get(made["taskId"])
    assert done["result"]["content"][0]["text"] == "Hello, Ada!"


async def test_a_tool_may_find_that_its_call_is_not_worth_a_task(world):
    done = await world.call("begins", {"worth": False}, inputResponses={"user_name": accept(name="Ada")})
    assert (done["resultType"], done["content"][0]["text"]) == ("complete", "Hello, Ada!")


async def test_without_tasks_such_a_tool_runs_to_its_end(world):
    can = {"elicitation": {}}
    done = await world.call("begins_in_a_thread", can=can, inputResponses={"user_name": accept(name="Ada")})
    assert (done["resultType"], done["content"][0]["text"]) == ("complete", "Hello, Ada!")


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_task_that_waits_is_cancelled_at_once(world):
    task_id = await world.task("text")
    assert set(await world.result("tasks/cancel", taskId=task_id)) == {"resultType", "_meta"}
    gone = await world.get(task_id)
    assert (gone["status"], gone["statusMessage"]) == ("cancelled", "its owner cancelled it")
    assert {"result", "error"}.isdisjoint(gone)


async def test_the_worker_of_a_running_task_hears_that_it_is_to_stop(world):
    task_id = await world.task("text")
    lease = await world.worker.claim()
    await world.result("tasks/cancel", taskId=task_id)
    assert (await world.get(task_id))["status"] == "working"
    beaten = await world.queue.do(Beat(id=task_id, token=lease.token), Beaten)
    assert beaten.cancel_requested


async def test_cancelling_what_has_ended_is_acknowledged(world):
    task_id = await world.task("text")
    await world.worker.work()
    assert (await world.result("tasks/cancel", taskId=task_id))["resultType"] == "complete"
    assert (await world.get(task_id))["status"] == "completed"


# --- who may -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_the_declaration_is_looked_at_before_the_task(world, method):
    answer, status = await world.ask(method, taskId="no-such-task", can={}, inputResponses={})
    assert (answer["error"]["code"], status) == (-32021, 400)
    assert answer["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
@pytest.mark.parametrize("task_id", ["no-such-task", "", "x" * 10_000])
async def test_an_unknown_task(world, method, task_id):
    meta = {"io.modelcontextprotocol/clientCapabilities": CAN}
    headers = {"mcp-name": task_id}
    request = modern(method, {"taskId": task_id, "inputResponses": {}}, headers, meta=meta)
    answer = await world.endpoint.handle(request)
    assert (said(answer)["error"]["code"], answer.status) == UNKNOWN


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_the_task_of_another_is_as_unknown_as_one_that_is_not_there(world, method):
    task_id = await world.task("text", principal="ada")
    more = {"inputResponses": {}} if method == "tasks/update" else {}
    for principal in ("eve", ""):
        answer, status = await world.ask(method, taskId=task_id, principal=principal, **more)
        assert (answer["error"]["code"], status) == UNKNOWN
        assert answer["error"]["message"] == f"Unknown task: {task_id}"
    assert "result" in (await world.ask(method, taskId=task_id, principal="ada", **more))[0]


async def test_tasks_that_no_call_of_mcp_made_are_not_shown(world):
    task_id = await world.task("text")
    world.queue.machine.state.tasks[task_id].task.tags = ["something"]
    assert await world.error("tasks/get", taskId=task_id) == UNKNOWN


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list"])
async def test_methods_of_the_older_form_are_not_there(world, method):
    assert await world.error(method, taskId="x") == (-32601, 404)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_without_a_queue_there_are_no_such_methods(world, method):
    world.queue.there = False
    assert await world.error(method, taskId="x") == (-32601, 404)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_the_header_may_name_no_other_task(world, method):
    task_id = await world.task("text")
    for header in ("other", "", "=?base64?!?="):
        answer = await world.endpoint.handle(modern(method, {"taskId": task_id}, {"mcp-name": header}))
        assert (said(answer)["error"]["code"], answer.status) == (-32020, 400)


async def test_a_queue_that_does_not_come_back_is_an_error_that_may_pass(world):
    task_id = await world.task("text")
    world.queue.go_away()
    answer, status = await world.ask("tasks/get", taskId=task_id)
    assert (answer["error"]["code"], status) == (-32603, 200)
    assert answer["error"]["data"] == {"greenroom/code": "RUNTIME_UNAVAILABLE", "greenroom/retryable": True}
    refused = await world.call("text")
    assert refused["_meta"]["greenroom/code"] == "RUNTIME_UNAVAILABLE"


# --- notifications ---------------------------------------------------------------------------------------------------


class Listener:
    """One `subscriptions/listen`, read in a task of its own."""

    def __init__(self, stream):
        self.stream = stream
        self.seen = []
        self.more = trio.Event()

    async def run(self):
        async for frames in self.stream.events:
            self.seen += messages(frames)
            self.more.set()
            self.more = trio.Event()

    async def until(self, count):
        while len(self.seen) < count:
            await self.more.wait()
        return self.seen[:count]

    @property
    def states(self):
        return [(one["params"]["taskId"], one["params"]["status"]) for one in self.seen[1:]]


async def listen(world, *ids, can=CAN, principal=""):
    meta = {"io.modelcontextprotocol/clientCapabilities": can}
    params = {"notifications": {"taskIds": list(ids)}}
    return await world.endpoint.handle(modern("subscriptions/listen", params, meta=meta, id="L", principal=principal))


async def test_a_listener_hears_how_a_task_is_and_of_each_change(world, nursery):
    task_id = await world.task("asks")
    other = await world.task("text")
    listener = Listener(await listen(world, task_id, "no-such-task"))
    nursery.start_soon(listener.run)
    acknowledged, now = await listener.until(2)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"taskIds": [task_id]}
    assert now["method"] == "notifications/tasks"
    assert now["params"]["status"] == "working"
    assert now["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "L"}
    nursery.start_soon(world.worker.work)
    while (task_id, "input_required") not in listener.states:
        await listener.more.wait()
    assert list(listener.seen[-1]["params"]["inputRequests"]) == ["user_name"]
    await world.update(task_id, user_name=accept(name="Ada"))
    while (task_id, "completed") not in listener.states:
        await listener.more.wait()
    last = listener.seen[-1]["params"]
    assert last["result"]["content"][0]["text"] == "Hello, Ada!"
    assert other not in dict(listener.states)
    assert world.endpoint.statistics().subscriptions == 1
    await listener.stream.events.aclose()
    await wait_all_tasks_blocked()
    assert world.endpoint.statistics().subscriptions == 0
    assert world.queue.watchers == []  # nobody wants to know any more


async def test_a_listener_is_told_nothing_twice(world, nursery):
    task_id = await world.task("text")
    listener = Listener(await listen(world, task_id))
    nursery.start_soon(listener.run)
    await listener.until(2)
    await wait_all_tasks_blocked()
    for _ in range(3):
        for tell in world.queue.watchers:
            tell([])  # the connection to the queue was lost and found again
        await wait_all_tasks_blocked()
    assert listener.states == [(task_id, "working")]


async def test_only_who_made_a_task_hears_of_it(world):
    task_id = await world.task("text", principal="ada")
    answer = await listen(world, task_id, principal="eve")
    assert messages(await anext(aiter(answer.events)))[0]["params"]["notifications"] == {}


async def test_listening_to_tasks_needs_their_declaration(world):
    answer = await listen(world, "x", can={})
    assert (said(answer)["error"]["code"], answer.status) == (-32021, 400)


async def test_a_slow_reader_is_told_later_and_of_the_last_state(tmp_path):
    world = World(tmp_path)
    with trio.fail_after(10):
        async with world.endpoint.running():
            ids = [await world.task("text") for _ in range(20)]
            stream = await listen(world, *ids)
            for _ in ids:
                await world.worker.work()
            await wait_all_tasks_blocked()
            told = {}
            async for frames in stream.events:
                assert len(messages(frames)) <= 30  # a bounded number waits for the reader
                for one in messages(frames):
                    if one["method"] == "notifications/tasks":
                        told[one["params"]["taskId"]] = one["params"]["status"]
                if told == dict.fromkeys(ids, "completed"):
                    break


async def test_news_wait_for_a_queue_that_is_away(tmp_path, autojump_clock):
    world = World(tmp_path)
    async with world.endpoint.running(), trio.open_nursery() as nursery:
        task_id = await world.task("text")
        listener = Listener(await listen(world, task_id))
        nursery.start_soon(listener.run)
        await listener.until(2)
        await world.worker.work()
        world.queue.go_away()
        await trio.sleep(30)
        world.queue.failing = None
        # Not around the whole: the clock jumps while a thread works, as it does for what is kept of sessions.
        with trio.fail_after(1000):
            while (task_id, "completed") not in listener.states:
                await listener.more.wait()
        nursery.cancel_scope.cancel()


async def test_a_task_that_can_not_be_shown_costs_nothing_but_its_news(world, nursery):
    odd, task_id = await world.task("text"), await world.task("text")
    listener = Listener(await listen(world, odd, task_id))
    nursery.start_soon(listener.run)
    await listener.until(3)
    world.queue.machine.state.tasks[odd].task.created_at = float("nan")
    await world.worker.work()
    await world.worker.work()
    while (task_id, "completed") not in listener.states:
        await listener.more.wait()
    assert (odd, "completed") not in listener.states
