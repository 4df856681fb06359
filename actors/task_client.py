# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the task queue, for the gateway, the worker and other actors.

Every operation can be repeated without harm: new tasks and claims get an id here, ends of tasks carry their token. So a
`TaskClient` waits while the queue restarts and asks again, up to the deadline, and a caller never has to wonder.
"""

from __future__ import annotations

import uuid
from typing import Final, TypeVar

import msgspec
import trio

from actors.calls import Message
from actors.channel import Channel
from actors.client import COMING, why_off
from actors.errors import (
    ActorDiedError,
    BusyError,
    DrainingError,
    MCPServerError,
    NotFoundError,
    RuntimeUnavailableError,
    from_info,
)
from actors.messages import State
from actors.peers import Peers
from actors.task_messages import Answer_, Claim, Enqueue, Op, Ops, Outcome, Outcomes, Refused, RetryTask
from actors.task_views import GetTask, QueueStats, ScanTasks, TaskEvent, TaskPage, TaskView

TASK_QUEUE: Final = "task_queue"
APPLY: Final = "tasks/apply"
GET: Final = "tasks/get"
SCAN: Final = "tasks/scan"
HISTORY: Final = "tasks/history"
STATS: Final = "tasks/stats"
_MAX_HELD: Final = 4096
_DRAINING_SHOWS_WITHIN_S: Final = 0.05

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_decode_outcomes = msgspec.msgpack.Decoder(Outcomes).decode
_decode_view = msgspec.msgpack.Decoder(TaskView).decode
_decode_page = msgspec.msgpack.Decoder(TaskPage).decode
_decode_events = msgspec.msgpack.Decoder(list[TaskEvent]).decode
_decode_stats = msgspec.msgpack.Decoder(QueueStats).decode

A = TypeVar("A", bound=Answer_)


def new_task_id() -> str:
    """An id that no other task has, 32 hex digits, and that nobody can guess."""
    return uuid.uuid4().hex


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


class TaskClient:
    """See the module's text. One per process; connections are those of `peers`."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._held = 0

    async def do(self, op: Op, answer: type[A], *, timeout_s: float = 30.0) -> A:
        """One operation and its answer. Raises what it was refused with (`actors.errors`, by code), and
        `RuntimeUnavailableError` when the queue is off or not back in time."""
        op = repeatable(op)
        wait_s = op.wait_s if isinstance(op, Claim) else 0.0
        outcome = _decode_outcome(await self._call(method_of(op), op, timeout_s + wait_s))
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        if not isinstance(outcome, answer):
            raise MCPServerError(f"{method_of(op)} was answered with {type(outcome).__name__}")
        return outcome

    async def do_all(self, ops: list[Op], *, timeout_s: float = 30.0) -> list[Outcome]:
        """Many operations, stored together; an outcome for each, refusals among them."""
        asked = Ops(ops=[repeatable(op) for op in ops])
        return _decode_outcomes(await self._call(APPLY, asked, timeout_s)).outcomes

    async def get(self, ask: GetTask, *, timeout_s: float = 30.0) -> TaskView | None:
        """A task, or None when there is none of this id."""
        try:
            return _decode_view(await self._call(GET, ask, timeout_s + ask.wait_s))
        except NotFoundError:
            return None

    async def scan(self, ask: ScanTasks, *, timeout_s: float = 30.0) -> TaskPage:
        """Some tasks."""
        return _decode_page(await self._call(SCAN, ask, timeout_s))

    async def history(self, task_id: str, *, timeout_s: float = 30.0) -> list[TaskEvent]:
        """What happened to a task."""
        return _decode_events(await self._call(HISTORY, GetTask(id=task_id), timeout_s))

    async def stats(self, *, timeout_s: float = 30.0) -> QueueStats:
        """The whole queue."""
        return _decode_stats(await self._call(STATS, None, timeout_s))

    async def _call(self, method: str, body: Message, timeout_s: float) -> msgspec.Raw:
        deadline = trio.current_time() + timeout_s
        while True:
            channel = self._ready_channel() or await self._hold(deadline)
            try:
                return await channel.call(method, body, timeout_s=max(0.0, deadline - trio.current_time()))
            except DrainingError:
                with trio.move_on_after(_DRAINING_SHOWS_WITHIN_S):
                    await self._peers.changed()
            except ActorDiedError:
                continue

    def _ready_channel(self) -> Channel | None:
        for entry in self._peers.processes(TASK_QUEUE):
            if entry.state == State.READY:
                return self._peers.connected(entry)
        return None

    async def _hold(self, deadline: float) -> Channel:
        if self._held >= _MAX_HELD:
            raise BusyError(f"{self._held} calls wait for the task queue already; try again")
        self._held += 1
        try:
            with trio.CancelScope(deadline=deadline):
                while True:
                    seen = self._peers.changes
                    entries = self._peers.processes(TASK_QUEUE)
                    if not any(entry.state in COMING for entry in entries):
                        raise RuntimeUnavailableError(why_off(TASK_QUEUE, entries, "durable work"))
                    for entry in entries:
                        if entry.state == State.READY:
                            try:
                                return await self._peers.connect(entry)
                            except ActorDiedError:
                                break
                    await self._peers.changed(seen)
        finally:
            self._held -= 1
        raise RuntimeUnavailableError("the task queue was not back before the deadline; try again")
