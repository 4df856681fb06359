# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the task queue, for the gateway, the worker and other actors.

Every operation can be repeated without harm: new tasks and claims get an id here, ends of tasks carry their token. So a
`TaskClient` waits while the queue restarts and asks again, up to the deadline, and a caller never has to wonder.

Operations that are asked while two messages to the queue are open travel together in the next one.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import msgspec
import trio
from outcome import Error, Value

from actors.calls import Message
from actors.errors import (
    DeadlineExceededError,
    MCPServerError,
    NotFoundError,
    from_info,
)
from actors.one_actor import OneActor
from actors.peers import Peers
from actors.task_messages import (
    ASK_ALONE,
    MOST_OPS,
    Answer_,
    Claim,
    Complete,
    Enqueue,
    Op,
    Ops,
    Outcome,
    Outcomes,
    Refused,
    RegisterWorker,
    RetryTask,
    Task,
    made_id,
)
from actors.task_views import (
    MOST_RESULTS,
    GetTask,
    QueueStats,
    ReadResults,
    ScanTasks,
    TaskChanged,
    TaskEvent,
    TaskFact,
    TaskFacts,
    TaskPage,
    TaskView,
)

TASK_QUEUE: Final = "task_queue"
APPLY: Final = "tasks/apply"
GET: Final = "tasks/get"
RESULTS: Final = "tasks/results"
SCAN: Final = "tasks/scan"
HISTORY: Final = "tasks/history"
STATS: Final = "tasks/stats"
WATCH: Final = "tasks/watch"
_MOST_BYTES: Final = 1 << 20
"""Bytes of operations in one message, but for a single one that is larger."""
_SMALL_BYTES: Final = 200
"""Of an operation without its texts."""
_OPEN_MESSAGES: Final = 2
_LEAST_TOGETHER: Final = 32
"""A message that is smaller than that is not worth a group of its own."""
_PAGE: Final = 500

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_decode_outcomes = msgspec.msgpack.Decoder(Outcomes).decode
_decode_view = msgspec.msgpack.Decoder(TaskView).decode
_decode_facts = msgspec.msgpack.Decoder(TaskFacts).decode
_decode_page = msgspec.msgpack.Decoder(TaskPage).decode
_decode_events = msgspec.msgpack.Decoder(list[TaskEvent]).decode
_decode_stats = msgspec.msgpack.Decoder(QueueStats).decode
_decode_changed = msgspec.msgpack.Decoder(TaskChanged).decode

A = TypeVar("A", bound=Answer_)


def new_task_id() -> str:
    """An id that no other task has, and that nobody can guess."""
    return made_id(time.time(), secrets.token_bytes(16))


def method_of(op: Op) -> str:
    """The channel's method that carries an operation: `tasks/enqueue`, ..."""
    return f"tasks/{op.__struct_config__.tag}"


def repeatable(op: Op) -> Op:
    """The same operation with the id that makes a repeat of it harmless."""
    if isinstance(op, Enqueue) and not op.id:
        return msgspec.structs.replace(op, id=new_task_id(), fresh=not op.key)
    if isinstance(op, Claim) and not op.request:
        return msgspec.structs.replace(op, request=new_task_id())
    if isinstance(op, RetryTask) and not op.new_id:
        return msgspec.structs.replace(op, new_id=new_task_id())
    return op


def repeated(op: Op) -> Op:
    """The same operation once more: the queue may know its id by now."""
    return msgspec.structs.replace(op, fresh=False) if isinstance(op, Enqueue) and op.fresh else op


async def every_task(scan: Callable[[ScanTasks], Awaitable[TaskPage]], ask: ScanTasks) -> list[Task]:
    """All that match, page by page (`limit` and `offset` of `ask` do not count); `scan` reads one page."""
    found: list[Task] = []
    while True:
        page = await scan(msgspec.structs.replace(ask, limit=_PAGE, offset=len(found)))
        found += page.tasks
        if not page.tasks or len(found) >= page.total:
            return found


async def each_answer(
    read: Callable[[ReadResults], Awaitable[TaskFacts]],
    ids: Iterable[str],
    take: Callable[[list[TaskFact]], Awaitable[None]],
) -> None:
    """Hand out where these tasks are and what they gave, of those that there are, in any order; `read` reads one
    answer, and no more than one is in memory."""
    left = list(dict.fromkeys(ids))
    while left:
        answer = await read(ReadResults(ids=left[:MOST_RESULTS]))
        left[:MOST_RESULTS] = answer.left
        await take(answer.facts)


class _Waiter:
    """A caller whose operations are on their way."""

    __slots__ = ("deadline", "ops", "size", "task")

    def __init__(self, ops: list[Op], size: int, deadline: float) -> None:
        self.ops = ops
        self.size = size
        self.deadline = deadline
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def end(self, outcome: Value[list[Outcome]] | Error) -> None:
        """Wake the caller, who may have left."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, outcome)
            self.task = None

    def leave(self, _: object) -> trio.lowlevel.Abort:
        """The caller is cancelled."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TaskClient:
    """See the module's text. One per process; connections are those of `peers`, tasks run in `nursery`."""

    def __init__(self, peers: Peers, nursery: trio.Nursery) -> None:
        self._peers = peers
        self._way = OneActor(peers, TASK_QUEUE, called="the task queue", gives="durable work")
        self._nursery = nursery
        self._waiters: dict[_Waiter, None] = {}
        """All whose operations have no outcome yet."""
        self._outstanding = 0
        """Their operations."""
        self._unsent: list[_Waiter] = []
        self._senders = 0
        self._keeper = trio.CancelScope()
        self._keeper_looks_at = math.inf
        self._keeping = False

    # --- operations ------------------------------------------------------------------------------------------------

    async def do(self, op: Op, answer: type[A], *, timeout_s: float = 30.0) -> A:
        """One operation and its answer. Raises what it was refused with (`actors.errors`, by code),
        `DeadlineExceededError`, and `RuntimeUnavailableError` when the queue is off or not back in time."""
        if isinstance(op, Claim) and op.wait_s:
            outcome = await self._alone(repeatable(op), trio.current_time() + timeout_s + op.wait_s)
        else:
            op = repeatable(op)
            outcome = (await self._together([op], _rough_size(op), timeout_s))[0]
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        if not isinstance(outcome, answer):
            raise MCPServerError(f"{method_of(op)} was answered with {type(outcome).__name__}")
        return outcome

    async def do_all(self, ops: Sequence[Op], *, timeout_s: float = 30.0) -> list[Outcome]:
        """At most `MOST_OPS` operations, stored together; an outcome for each, refusals among them."""
        if len(ops) > MOST_OPS:
            raise MCPServerError(f"{len(ops)} operations at once; at most {MOST_OPS} are stored together")
        sent = [repeatable(op) for op in ops]
        return await self._together(sent, sum(map(_rough_size, sent)), timeout_s)

    async def _together(self, ops: list[Op], size: int, timeout_s: float) -> list[Outcome]:
        waiter = _Waiter(ops, size, trio.current_time() + timeout_s)
        self._waiters[waiter] = None
        self._outstanding += len(ops)
        self._unsent.append(waiter)
        if self._senders < _OPEN_MESSAGES:
            self._senders += 1
            self._nursery.start_soon(self._send)
        if not self._keeping:
            self._keeping = True
            self._nursery.start_soon(self._keep_deadlines)
        if waiter.deadline < self._keeper_looks_at:
            self._keeper_looks_at = self._keeper.deadline = waiter.deadline
        try:
            outcomes: list[Outcome] = await trio.lowlevel.wait_task_rescheduled(waiter.leave)
        finally:
            del self._waiters[waiter]
            self._outstanding -= len(ops)
        return outcomes

    async def _send(self) -> None:
        """Carry one message after the other, until there is nothing more to send."""
        try:
            while batch := self._take():
                await self._carry(batch)
        finally:
            self._senders -= 1

    def _take(self) -> list[_Waiter]:
        # A share each, so that this side works on one message while the queue works on the other.
        most = min(MOST_OPS, max(_LEAST_TOGETHER, -(-self._outstanding // _OPEN_MESSAGES)))
        batch: list[_Waiter] = []
        count = size = taken = 0
        for waiter in self._unsent:
            count += len(waiter.ops)
            size += waiter.size
            if batch and (count > most or size > _MOST_BYTES):
                break
            taken += 1
            if waiter.task is not None:
                batch.append(waiter)
        del self._unsent[:taken]
        return batch

    async def _carry(self, batch: list[_Waiter]) -> None:
        deadline = max(waiter.deadline for waiter in batch)
        ops = [op for waiter in batch for op in waiter.ops]
        try:
            reply = await self._way.call(APPLY, Ops(ops=ops), deadline, lambda: Ops(ops=[repeated(op) for op in ops]))
            outcomes = _decode_outcomes(reply).outcomes
            for at, outcome in enumerate(outcomes):
                if isinstance(outcome, Refused) and outcome.error.code == ASK_ALONE:
                    outcomes[at] = await self._alone(repeated(ops[at]), deadline)
        except MCPServerError as error:
            for waiter in batch:
                waiter.end(Error(error))
            return
        start = 0
        for waiter in batch:
            end = start + len(waiter.ops)
            waiter.end(Value(outcomes[start:end]))
            start = end

    async def _alone(self, op: Op, deadline: float) -> Outcome:
        reply = await self._way.call(method_of(op), op, deadline, lambda: repeated(op))
        outcome: Outcome = _decode_outcome(reply)
        return outcome

    async def _keep_deadlines(self) -> None:
        """End the waiting of those whose time is over. One task for all: a cancel scope for each would cost more than
        the rest of an operation."""
        while True:
            self._keeper_looks_at = min((waiter.deadline for waiter in self._waiters), default=math.inf)
            with trio.CancelScope(deadline=self._keeper_looks_at) as self._keeper:
                await trio.sleep_forever()
            now = trio.current_time()
            for waiter in self._waiters:
                if waiter.deadline <= now:
                    waiter.end(
                        Error(DeadlineExceededError("the task queue did not answer in time; it may have done it"))
                    )
            await trio.lowlevel.checkpoint()

    # --- readings --------------------------------------------------------------------------------------------------

    async def get(self, ask: GetTask, *, timeout_s: float = 30.0) -> TaskView | None:
        """A task, or None when there is none of this id."""
        try:
            return _decode_view(await self._read(GET, ask, timeout_s + ask.wait_s))
        except NotFoundError:
            return None

    async def read_results(self, ask: ReadResults, *, timeout_s: float = 30.0) -> TaskFacts:
        """Some tasks and what they gave, as far as that fits into one answer. Raises `InvalidArgumentsError` when they
        are more than `MOST_RESULTS`."""
        return _decode_facts(await self._read(RESULTS, ask, timeout_s))

    async def results(self, ids: Sequence[str], *, timeout_s: float = 30.0) -> TaskFacts:
        """Any number of tasks and what they gave, each once; nothing is `left`. All of it is in memory then: when that
        may be too much, take what comes with `each_answer`."""
        facts: dict[str, TaskFact] = {}
        deadline = trio.current_time() + timeout_s

        async def read(ask: ReadResults) -> TaskFacts:
            return await self.read_results(ask, timeout_s=deadline - trio.current_time())

        async def take(some: list[TaskFact]) -> None:
            facts.update((fact.id, fact) for fact in some)

        await each_answer(read, ids, take)
        wanted = dict.fromkeys(ids)
        return TaskFacts(
            facts=[facts[task_id] for task_id in wanted if task_id in facts],
            unknown=[task_id for task_id in wanted if task_id not in facts],
        )

    async def scan(self, ask: ScanTasks, *, timeout_s: float = 30.0) -> TaskPage:
        """Some tasks."""
        return _decode_page(await self._read(SCAN, ask, timeout_s))

    async def history(self, task_id: str, *, timeout_s: float = 30.0) -> list[TaskEvent]:
        """What happened to a task. Raises `NotFoundError`."""
        return _decode_events(await self._read(HISTORY, GetTask(id=task_id), timeout_s))

    async def stats(self, *, timeout_s: float = 30.0) -> QueueStats:
        """The whole queue."""
        return _decode_stats(await self._read(STATS, None, timeout_s))

    async def watch(self, on_changed: Callable[[list[str]], None]) -> None:
        """Tell which tasks have changed, for as long as the queue is part of this system; an empty list = any may have,
        at the beginning and whenever something may have been missed. Raises `RuntimeUnavailableError` when it is off.
        """

        def on_item(body: msgspec.Raw) -> None:
            on_changed(_decode_changed(body).ids)

        await self._way.watch(WATCH, lambda: on_changed([]), on_item)

    async def _read(self, method: str, body: Message, timeout_s: float) -> msgspec.Raw:
        return await self._way.call(method, body, trio.current_time() + timeout_s)


def _rough_size(op: Op) -> int:
    """About as many bytes as it has on the wire; only a few texts can be large."""
    if isinstance(op, Enqueue):
        return _SMALL_BYTES + len(op.payload) + len(op.metadata) + sum(map(len, op.depends_on))
    if isinstance(op, Complete):
        return _SMALL_BYTES + len(op.result)
    if isinstance(op, RegisterWorker):
        return _SMALL_BYTES + len(op.metadata)
    return _SMALL_BYTES
