# SPDX-License-Identifier: AGPL-3.0-or-later
"""What all tools of the queue share: who may do what, and refusals of the queue as errors.

A caller with no name ('') may do everything: then nobody has to say who they are. Others may see to their own tasks and
workers; operators to all of them, and to the queue itself. Work on the tasks of others is for the named workers.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from actors.errors import ForbiddenError, NotFoundError, from_info
from actors.p2p.answers import refuse
from actors.p2p.task_queue.service import TaskQueue
from actors.settings_p2p import TaskQueueSettings
from actors.task_messages import Answer_, Op, Refused, Task, WorkerInfo
from actors.task_views import GetTask, TaskView

A = TypeVar("A", bound=Answer_)

_encode = msgspec.json.Encoder(order="deterministic").encode


def to_json(value: object) -> str:
    """Equal values as equal text, so that a repeated submission is recognised."""
    return _encode(value).decode()


class Access:
    """The queue, as the callers of its tools may use it."""

    def __init__(self, queue: TaskQueue, settings: TaskQueueSettings) -> None:
        self.queue = queue
        self.settings = settings
        self._operators = frozenset(settings.operators)
        self._workers = frozenset(settings.workers)

    async def do(self, op: Op, kind: type[A]) -> A:
        """One operation. Raises what the queue refuses it with, and `BusyError`."""
        outcome = await self.queue.do(op)
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        assert isinstance(outcome, kind)
        return outcome

    # --- who may -----------------------------------------------------------------------------------------------------

    def is_operator(self, principal: str) -> bool:
        """Whether this caller may see to everything."""
        return not principal or principal in self._operators

    def check_operator(self, principal: str, what: str) -> None:
        """Raise `ForbiddenError` for all others."""
        if not self.is_operator(principal):
            raise ForbiddenError(f"{what} is for operators; p2p.task_queue.operators does not name {principal!r}")

    def check_worker(self, principal: str) -> None:
        """Raise `ForbiddenError` for callers that may not work on the tasks of others."""
        if not self.is_operator(principal) and principal not in self._workers:
            raise ForbiddenError(
                f"work on tasks is for named workers; p2p.task_queue.workers does not name {principal!r}"
            )

    def check_owner(self, principal: str, task: Task) -> None:
        """Raise NOT_OWNER when the task is somebody else's."""
        if task.owner != principal and not self.is_operator(principal):
            refuse("NOT_OWNER", f"task {task.id} belongs to somebody else", task_id=task.id)

    # --- what is asked for -------------------------------------------------------------------------------------------

    async def task(self, principal: str, task_id: str, *, position: bool = False, wait_s: float = 0.0) -> TaskView:
        """A task of this caller. Raises `NotFoundError` and NOT_OWNER."""
        view = await self.queue.get(GetTask(id=task_id, position=position, wait_s=wait_s))
        if view is None:
            raise NotFoundError(f"there is no task {task_id!r}; what has ended is kept for a while only")
        self.check_owner(principal, view.task)
        return view

    async def worker(self, principal: str, worker_id: str, *, free_within_s: float = 0.0) -> WorkerInfo:
        """A worker of this caller. Raises `NotFoundError` and NOT_OWNER."""
        info = await self.queue.worker(worker_id, free_within_s=free_within_s)
        if info is None:
            raise NotFoundError(f"there is no worker {worker_id!r}; register it with worker_register")
        if info.owner != principal and not self.is_operator(principal):
            refuse("NOT_OWNER", f"worker {worker_id} belongs to somebody else; take another id")
        return info

    async def acting_worker(self, principal: str, worker_id: str) -> WorkerInfo:
        """A worker that this caller is, not one that it oversees. Raises also `ForbiddenError`."""
        self.check_worker(principal)
        info = await self.worker(principal, worker_id)
        if info.internal or info.owner != principal:
            refuse("NOT_OWNER", f"worker {worker_id} is not yours to act for; register one of your own")
        return info

    async def check_holder(self, worker_id: str, task_id: str, token: int) -> None:
        """Raise NOT_OWNER when this token is that of another worker: tokens are numbers, not secrets."""
        view = await self.queue.get(GetTask(id=task_id))
        if view is not None and view.task.token == token and view.task.worker != worker_id:
            refuse("NOT_OWNER", f"task {task_id} is held by another worker", task_id=task_id)
