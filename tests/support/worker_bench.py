# SPDX-License-Identifier: AGPL-3.0-or-later
"""A task worker between a queue in this process and tools that do as a test says; the way to both is left out."""

from __future__ import annotations

import time

import msgspec
import trio
from task_bench import QueueHere

from actors.client import ToolClient
from actors.errors import from_info
from actors.messages import Directory, DirectoryEntry, ErrorInfo, State
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_worker.run import Rules
from actors.p2p.task_worker.worker import TaskWorker
from actors.peers import Peers, hello
from actors.task_messages import Claim, Claimed, Enqueue, Expire, Expired, Submitted
from actors.task_views import GetTask
from actors.tool_messages import Catalogue, LogItem, Progress, ToolDescriptor, ToolResult

LEASE_S = 30.0
NAME = "task_worker"


def tool(name: str, **more) -> ToolDescriptor:
    given = {"title": name, "description": "", "category": "tests", "runtime": "general", "pool": "general"} | more
    return ToolDescriptor(name=name, input_schema=b"{}", **given)


class WaitingQueue(QueueHere):
    """Claims wait, and leases end by trio's clock."""

    def __init__(self) -> None:
        since = time.time() - trio.current_time()
        super().__init__(QueueLimits(lease_s=LEASE_S), now=lambda: since + trio.current_time())

    async def do(self, op, answer, *, timeout_s=30.0):
        done = await super().do(op, answer, timeout_s=timeout_s)
        if isinstance(op, Claim) and op.wait_s and not done.tasks:
            with trio.move_on_after(op.wait_s):
                while not done.tasks:
                    await self._news.wait()
                    done = await super().do(op, Claimed)
        return done

    async def pass_time(self, seconds: float) -> None:
        """Let the clock run, and end what is due."""
        await trio.sleep(seconds)
        await super().do(Expire(), Expired)

    async def submit(self, type_: str = "echo", **more) -> str:
        return (await self.do(Enqueue(type=type_, **more), Submitted)).id

    async def task(self, task_id: str):
        return (await self.get(GetTask(id=task_id))).task

    def asked(self, kind: type) -> list:
        return [op for op in self.ops if isinstance(op, kind)]


class ToolsHere(ToolClient):
    """Tools that a test ends by hand: `results` first, else a call waits for `let`."""

    def __init__(self, peers: Peers) -> None:
        super().__init__(peers, max_held_calls=100, max_calls_per_process=100)
        self.calls = []
        self.timeouts = []
        self.cancelled = []
        self.items = None
        self.on_ask = None
        self._let: dict[str, trio.Event] = {}
        self.outcome = ToolResult(value=b'"ok"', shape="text", runtime="general", duration_ms=1.0)

    async def call(self, call, *, timeout_s, on_item=None, on_ask=None):
        self.find(call.name)
        self.calls.append(call)
        self.timeouts.append(timeout_s)
        self.items, self.on_ask = on_item, on_ask
        try:
            with trio.fail_after(timeout_s):
                await self._let.setdefault(call.arguments.decode(), trio.Event()).wait()
        except trio.Cancelled:
            self.cancelled.append(call)
            raise
        except trio.TooSlowError:
            raise from_info(ErrorInfo(code="DEADLINE_EXCEEDED", message="too slow")) from None
        if isinstance(self.outcome, ErrorInfo):
            raise from_info(self.outcome)
        return self.outcome

    def let(self, arguments: str = "{}") -> None:
        """Calls with these arguments end."""
        self._let.setdefault(arguments, trio.Event()).set()

    def hold(self, arguments: str = "{}") -> None:
        """They wait again."""
        self._let.pop(arguments, None)

    def report(self, item: Progress | LogItem) -> None:
        """The latest call says something on its way."""
        self.items(msgspec.Raw(msgspec.msgpack.encode(item)))


class WorkerBench:
    """All of it. `worker` runs in `nursery` from `start` on."""

    def __init__(self, nursery: trio.Nursery, **rules) -> None:
        self.nursery = nursery
        self.queue = WaitingQueue()
        self.peers = Peers(hello(NAME, 1), nursery)
        self.states = {"task_queue": State.READY, "tools.general#0": State.READY, "router": State.READY}
        self.show()
        self.tools = ToolsHere(self.peers)
        given = {"concurrency": 4, "max_waiting": 2, "lease_s": LEASE_S, "wait_s": 50.0, "ask_timeout_s": 60.0}
        self.rules = Rules(worker=NAME, max_result_bytes=10_000, **(given | rules))
        self.numbers = 0
        self.worker = self.new_worker()
        self.offer(tool("echo"))

    def new_worker(self) -> TaskWorker:
        return TaskWorker(self.queue, self.tools, self.peers, self.rules, new_call_id=self._number)

    def _number(self) -> str:
        self.numbers += 1
        return f"1-{self.numbers}"

    def offer(self, *tools: ToolDescriptor) -> None:
        """These are the tools there are."""
        self.tools.take_catalogue(Catalogue(tools=list(tools), version=self.tools.catalogue.version + 1))
        self.worker.catalogue_changed(self.tools.catalogue)

    def show(self, **states: State) -> None:
        """What the directory says; `general=...` for the pool."""
        names = {"general": "tools.general#0"}
        self.states |= {names.get(name, name): state for name, state in states.items()}
        entries = [
            DirectoryEntry(name=name, group="g", state=state, pid=1, incarnation=1, socket="s")
            for name, state in self.states.items()
        ]
        self.peers.update(Directory(entries=entries))

    async def start(self) -> None:
        self.nursery.start_soon(self.worker.run)
        await trio.testing.wait_all_tasks_blocked()
