# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to a tool: choice of process, holding, retrying, and honest errors, against real sockets in one process."""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from fake_process import FakeProcess
from trio.testing import wait_all_tasks_blocked

from actors.catalogue_view import CatalogueView, changed_lists
from actors.client import ToolClient
from actors.errors import (
    BusyError,
    DeadlineExceededError,
    NotFoundError,
    OutcomeUnknownError,
    RuntimeUnavailableError,
    ToolExecutionError,
    UnavailableError,
    UnknownToolError,
)
from actors.messages import Directory, DirectoryEntry, State
from actors.peers import Peers, hello
from actors.tool_messages import (
    ASK,
    Catalogue,
    CompletionAsk,
    PromptDescriptor,
    PromptGet,
    Questions,
    ResourceDescriptor,
    ResourceRead,
    ToolCall,
    ToolDescriptor,
    ToolResult,
)


def tool(name, **more):
    fields = {"runtime": "general", "pool": "general"} | more
    return ToolDescriptor(name=name, title="", description="", category="c", input_schema=b"{}", **fields)


TOOLS = [
    tool("safe", retry_safe=True),
    tool("unsafe"),
    tool("asking", asks=True),
    tool("bad"),
    tool("counted", max_concurrent=1),
    tool("broken", broken="SyntaxError in line 3"),
    tool("peerish", runtime="p2p", pool="peer_registry"),
]


OFFER = {"title": "", "description": "", "category": "c", "runtime": "general", "pool": "general", "retry_safe": True}
RESOURCES = [
    ResourceDescriptor(name="all", uri="notes://all", **OFFER),
    ResourceDescriptor(name="bad", uri="notes://bad", broken="why", **OFFER),
    ResourceDescriptor(name="one", uri="notes://one/{id}", template=True, **OFFER),
]
PROMPTS = [PromptDescriptor(name="review", **OFFER)]


class FakeToolProcess(FakeProcess):
    """It answers at once, or holds calls until told."""

    def __init__(self, name, incarnation, folder):
        super().__init__(name, incarnation, folder)
        self.calls = []
        self.hold = False
        self.asks = "once"
        self.answered = trio.Event()
        self.released = trio.Event()

    async def handle(self, call):
        kind = next(kind for kind in (ToolCall, ResourceRead, PromptGet, CompletionAsk) if call.method == kind.METHOD)
        request = msgspec.msgpack.decode(call.body, type=kind)
        self.calls.append(request.name)
        if self.hold:
            await self.released.wait()
        if request.name.startswith("asking"):
            await call.ask(ASK, Questions(questions=[]))
            if self.asks == "then holds":
                self.answered.set()
                await trio.sleep_forever()
        if request.name == "bad":
            raise ToolExecutionError("bad", "general", "it broke")
        return ToolResult(value=self.name.encode(), shape="text", runtime="general", duration_ms=1.0)


class World:
    def __init__(self, nursery, folder, **options):
        self.nursery = nursery
        self.folder = folder
        self.peers = Peers(hello("gateway", 1), nursery)
        options = {"max_held_calls": 10, "max_calls_per_process": 4} | options
        self.client = ToolClient(self.peers, **options)
        self.client.take_catalogue(Catalogue(tools=TOOLS, resources=RESOURCES, prompts=PROMPTS, version=1))

    async def process(self, name, incarnation=1):
        process = FakeToolProcess(name, incarnation, self.folder)
        await process.listen(self.nursery)
        return process

    def directory(self, *entries):
        self.peers.update(Directory(entries=list(entries)))

    async def call(self, name, timeout_s=5.0):
        call = ToolCall(name=name, arguments=b"{}", call_id="1")
        return (await self.client.call(call, timeout_s=timeout_s)).value.decode()


@pytest.fixture
def world(tmp_path):
    @asynccontextmanager
    async def opened(**options):
        async with trio.open_nursery() as nursery:
            yield World(nursery, tmp_path, **options)
            nursery.cancel_scope.cancel()

    return opened


async def test_a_call_goes_to_a_ready_process(world):
    async with world() as w:
        process = await w.process("tools.general#0")
        w.directory(process.entry())
        assert await w.call("unsafe") == "tools.general#0"


async def test_the_least_busy_process_is_chosen(world):
    async with world() as w:
        first, second = await w.process("tools.general#0"), await w.process("tools.general#1", 2)
        w.directory(first.entry(), second.entry())
        w.nursery.start_soon(w.client.keep_connections, lambda name: True)
        await wait_all_tasks_blocked()
        first.hold = second.hold = True
        for _ in range(6):
            w.nursery.start_soon(w.call, "unsafe")
            await wait_all_tasks_blocked()
        assert len(first.calls) == len(second.calls) == 3


async def test_an_unknown_tool_is_named_with_its_nearest(world):
    async with world() as w:
        with pytest.raises(UnknownToolError, match="'saef'; did you mean 'safe'"):
            await w.call("saef")


async def test_a_broken_tool_says_why(world):
    async with world() as w:
        with pytest.raises(UnavailableError, match="SyntaxError in line 3"):
            await w.call("broken")


async def test_a_tools_own_error_arrives_as_it_is(world):
    async with world() as w:
        process = await w.process("tools.general#0")
        w.directory(process.entry())
        with pytest.raises(ToolExecutionError, match="it broke"):
            await w.call("bad")


async def test_calls_wait_while_a_process_restarts(world):
    async with world() as w:
        process = await w.process("tools.general#0")
        w.directory(process.entry(State.RESTARTING))
        answers = []

        async def one():
            answers.append(await w.call("unsafe"))

        w.nursery.start_soon(one)
        await wait_all_tasks_blocked()
        assert w.client.held_calls == 1
        w.directory(process.entry())
        await wait_all_tasks_blocked()
        assert answers == ["tools.general#0"]
        assert w.client.held_calls == 0


async def test_a_held_call_ends_at_its_deadline(world, autojump_clock):
    async with world() as w:
        w.directory((await w.process("tools.general#0")).entry(State.RESTARTING))
        with pytest.raises(RuntimeUnavailableError, match="no process ready"):
            await w.call("unsafe", timeout_s=2)
        assert trio.current_time() == pytest.approx(2, abs=0.1)


async def test_held_calls_are_bounded(world):
    async with world(max_held_calls=1) as w:
        w.directory((await w.process("tools.general#0")).entry(State.RESTARTING))
        w.nursery.start_soon(w.call, "unsafe", 1000)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyError, match="max_held_calls"):
            await w.call("unsafe")
        w.nursery.cancel_scope.cancel()


@pytest.mark.parametrize("state", [State.FAILED, State.OFF])
async def test_a_part_that_is_off_is_unavailable_at_once(world, state):
    async with world() as w:
        w.directory((await w.process("tools.general#0")).entry(state, "runtimes.general.enabled is false"))
        with pytest.raises(RuntimeUnavailableError, match=r"runtimes\.general\.enabled is false"):
            await w.call("unsafe")


async def test_one_runtime_off_leaves_the_other_working(world):
    async with world() as w:
        general = await w.process("tools.general#0")
        peer = await w.process("peer_registry", 2)
        w.directory(general.entry(State.OFF), peer.entry())
        with pytest.raises(RuntimeUnavailableError):
            await w.call("unsafe")
        assert await w.call("peerish") == "peer_registry"
        w.directory(general.entry(), peer.entry(State.FAILED, "restarted too often"))
        assert await w.call("unsafe") == "tools.general#0"
        with pytest.raises(RuntimeUnavailableError, match="restarted too often"):
            await w.call("peerish")


async def test_a_p2p_tool_is_unavailable_and_not_unknown_while_p2p_is_off(world):
    async with world() as w:
        w.directory(DirectoryEntry(name="peer_registry", group="p2p", state=State.OFF, reason="p2p.enabled is false"))
        with pytest.raises(RuntimeUnavailableError, match=r"p2p\.enabled is false"):
            await w.call("peer_id")


async def test_a_tool_of_the_task_queue_that_is_not_offered_says_what_switches_it_on(world):
    async with world() as w:
        w.directory(DirectoryEntry(name="task_queue", group="durable", state=State.READY))
        with pytest.raises(RuntimeUnavailableError, match=r"p2p\.task_queue\.tools switches it on"):
            await w.call("task_submit")
        with pytest.raises(RuntimeUnavailableError, match=r"p2p\.task_queue\.aliases switches it on"):
            await w.call("p2p_taskqueue_submit")


async def running(w, name):
    """A call that has reached its process and stays there; with the list its outcome will land in."""
    process = await w.process("tools.general#0")
    process.hold = True
    w.directory(process.entry())
    outcome = []

    async def one():
        try:
            outcome.append(await w.call(name))
        except OutcomeUnknownError as error:
            outcome.append(error)

    w.nursery.start_soon(one)
    await wait_all_tasks_blocked()
    assert process.calls == [name]
    return process, outcome


async def test_a_retry_safe_call_is_run_again_elsewhere_when_its_process_dies(world):
    async with world() as w:
        process, outcome = await running(w, "safe")
        heir = await w.process("tools.general#0", 2)
        await process.die()
        w.directory(heir.entry())
        await wait_all_tasks_blocked()
        assert outcome == ["tools.general#0"]
        assert heir.calls == ["safe"]


async def test_a_retry_safe_call_is_repeated_only_once(world):
    async with world() as w:
        process, outcome = await running(w, "safe")
        heir = await w.process("tools.general#0", 2)
        heir.hold = True
        await process.die()
        w.directory(heir.entry())
        await wait_all_tasks_blocked()
        await heir.die()
        await wait_all_tasks_blocked()
        assert isinstance(outcome[0], OutcomeUnknownError)


async def test_any_other_call_says_that_its_outcome_is_unknown(world):
    async with world() as w:
        process, outcome = await running(w, "unsafe")
        heir = await w.process("tools.general#0", 2)
        await process.die()
        w.directory(heir.entry())
        await wait_all_tasks_blocked()
        assert isinstance(outcome[0], OutcomeUnknownError)
        assert "may or may not have taken effect" in str(outcome[0])
        assert heir.calls == []


async def test_a_limited_tool_is_carried_by_the_router(world):
    async with world() as w:
        pool, router = await w.process("tools.general#0"), await w.process("router", 2)
        w.directory(pool.entry(), router.entry())
        assert await w.call("counted") == "router"
        assert await w.call("unsafe") == "tools.general#0"


async def test_every_call_can_be_carried_by_the_router(world):
    async with world(carry=True) as w:
        router = await w.process("router", 2)
        w.directory(router.entry())
        assert await w.call("unsafe") == "router"


async def test_calls_beyond_a_processes_bound_wait_for_room(world):
    async with world(max_calls_per_process=1) as w:
        process = await w.process("tools.general#0")
        process.hold = True
        w.directory(process.entry())
        answers = []

        async def one():
            answers.append(await w.call("unsafe"))

        w.nursery.start_soon(one)
        w.nursery.start_soon(one)
        await wait_all_tasks_blocked()
        assert (len(process.calls), w.client.held_calls) == (1, 1)
        process.released.set()
        await wait_all_tasks_blocked()
        assert len(answers) == 2


async def test_a_tool_that_is_too_slow_ends_at_its_deadline(world, autojump_clock):
    async with world() as w:
        process = await w.process("tools.general#0")
        process.hold = True
        w.directory(process.entry())
        with pytest.raises(DeadlineExceededError):
            await w.call("safe", timeout_s=3)


async def test_a_socket_that_answers_for_another_life_is_not_used(world, autojump_clock):
    async with world() as w:
        old = await w.process("tools.general#0", 1)
        w.directory(msgspec.structs.replace(old.entry(), incarnation=2))
        with pytest.raises(RuntimeUnavailableError):
            await w.call("safe", timeout_s=1)
        assert old.calls == []


async def test_a_successor_that_is_listed_while_the_dead_process_is_tried_is_not_missed(world, monkeypatch):
    async with world() as w:
        dead, spare = await w.process("tools.general#0", 1), await w.process("tools.general#spare0", 2)
        w.directory(dead.entry(), spare.entry(State.SPARE))
        await w.peers.connect(spare.entry())
        await dead.die()
        connect = w.peers.connect

        async def connect_and_hear_news(entry):
            try:
                return await connect(entry)
            finally:
                w.directory(msgspec.structs.replace(spare.entry(), name="tools.general#0"))

        monkeypatch.setattr(w.peers, "connect", connect_and_hear_news)
        assert await w.call("safe", timeout_s=2) == "tools.general#spare0"


async def test_a_dead_process_that_is_still_listed_is_tried_once(world, autojump_clock):
    async with world() as w:
        dead = await w.process("tools.general#0")
        await dead.die()
        tried = []
        w.peers._on_closed = lambda name, reason: tried.append(reason)
        w.directory(dead.entry())
        with pytest.raises(RuntimeUnavailableError):
            await w.call("safe", timeout_s=1)
        assert len(tried) == 1


async def test_a_call_that_was_asking_when_its_process_died_is_run_again_whatever_it_does(world):
    async with world() as w:
        processes = [await w.process("tools.general#0", n) for n in (1, 2)]
        w.directory(processes[0].entry())
        asked, answer, results = trio.Event(), trio.Event(), []

        async def on_ask(method, body):
            asked.set()
            await answer.wait()

        async def ask():
            call = ToolCall(name="asking", arguments=b"{}", call_id="1")
            results.append(await w.client.call(call, timeout_s=5, on_ask=on_ask))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await asked.wait()
            asked = trio.Event()
            await processes[0].die()
            w.directory(processes[1].entry())
            await asked.wait()
            answer.set()
        assert len(results) == 1
        assert processes[1].calls == ["asking"]


async def test_a_call_whose_question_was_answered_is_not_run_again(world):
    async with world() as w:
        process = await w.process("tools.general#0")
        w.directory(process.entry())
        errors = []

        async def on_ask(method, body):
            return None

        async def ask():
            call = ToolCall(name="asking", arguments=b"{}", call_id="1")
            with pytest.raises(OutcomeUnknownError) as caught:
                await w.client.call(call, timeout_s=5, on_ask=on_ask)
            errors.append(caught.value)

        process.asks = "then holds"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await process.answered.wait()
            await process.die()
        assert len(errors) == 1


async def test_a_process_that_dies_with_each_question_is_given_up(world):
    async with world() as w:
        asked = []
        process = await w.process("tools.general#0", 1)
        w.directory(process.entry())

        async def on_ask(method, body):
            nonlocal process
            asked.append(process.incarnation)
            dying, process = process, await w.process("tools.general#0", process.incarnation + 1)
            await dying.die()
            w.directory(process.entry())
            await trio.sleep_forever()

        call = ToolCall(name="asking", arguments=b"{}", call_id="1")
        with pytest.raises(OutcomeUnknownError):
            await w.client.call(call, timeout_s=5, on_ask=on_ask)
        assert asked == [1, 2, 3, 4]


# --- resources and prompts -------------------------------------------------------------------------------------------

COMPLETE = {"of": "resources", "argument": "id"}


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        (ResourceRead, "notes://all", {}),
        (ResourceRead, "notes://one/7", {}),
        (PromptGet, "review", {}),
        (CompletionAsk, "notes://one/{id}", COMPLETE),
    ],
)
async def test_what_is_no_tool_goes_to_its_pool_and_is_asked_again_when_that_dies(world, kind, name, more):
    async with world() as w:
        process = await w.process("tools.general#0")
        process.hold = True
        w.directory(process.entry())
        outcome = []

        async def ask():
            call = kind(name=name, arguments=b"{}", call_id="1", **more)
            outcome.append((await w.client.call(call, timeout_s=5)).value)

        w.nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        heir = await w.process("tools.general#0", 2)
        await process.die()
        w.directory(heir.entry())
        await wait_all_tasks_blocked()
        assert outcome == [b"tools.general#0"]
        assert (process.calls, heir.calls) == ([name], [name])


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (ResourceRead, "notes://al", "no resource 'notes://al'; did you mean 'notes://all'"),
        (ResourceRead, "notes://bad", "no resource"),
        (PromptGet, "revie", "no prompt 'revie'; did you mean 'review'"),
    ],
)
async def test_what_is_not_there_is_named_with_its_nearest(world, kind, name, said):
    async with world() as w:
        with pytest.raises(NotFoundError, match=said.replace("?", "[?]")):
            await w.client.call(kind(name=name, arguments=b"{}", call_id="1"), timeout_s=5)


async def test_resources_can_be_carried_by_the_router(world):
    async with world(carry=True) as w:
        router = await w.process("router", 2)
        w.directory(router.entry())
        call = ResourceRead(name="notes://all", arguments=b"{}", call_id="1")
        assert (await w.client.call(call, timeout_s=5)).value == b"router"


async def test_only_the_router_at_work_is_believed_and_no_older_list_wins(world):
    async with world() as w:
        at_work, spare = await w.process("router", 5), await w.process("router#spare0", 6)
        w.directory(at_work.entry(), spare.entry(State.SPARE))

        def tools(entry, version, *names):
            w.client.catalogue_posted(entry, Catalogue(tools=[tool(name) for name in names], version=version))
            return [one.name for one in w.client.catalogue.tools]

        assert tools(at_work.entry(), 3, "new") == ["new"]
        assert tools(at_work.entry(), 2, "old") == ["new"]
        assert tools(spare.entry(), 9, "spare's") == ["new"]
        # The spare takes the place: its numbers begin anew.
        w.directory(DirectoryEntry(name="router", group="g", state=State.READY, incarnation=6, socket=spare.path))
        assert tools(spare.entry(), 1, "next") == ["next"]


def test_only_lists_that_differ_for_clients_count_as_changed():
    old = CatalogueView(Catalogue(tools=TOOLS, resources=RESOURCES, prompts=PROMPTS, version=1))
    again = CatalogueView(Catalogue(tools=TOOLS, resources=RESOURCES, prompts=PROMPTS, version=7))
    assert changed_lists(old, again) == []
    no_broken = CatalogueView(
        Catalogue(tools=[one for one in TOOLS if not one.broken], resources=RESOURCES[:1], prompts=[], version=2)
    )
    assert changed_lists(old, no_broken) == ["resources", "prompts"]
