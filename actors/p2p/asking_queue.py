# SPDX-License-Identifier: AGPL-3.0-or-later
"""How actors that do tasks ask the queue: for as long as it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from actors.errors import DeadlineExceededError, MCPServerError, OutcomeUnknownError, code_of
from actors.logs import get_logger
from actors.messages import ErrorInfo
from actors.task_client import TaskClient, every_task
from actors.task_messages import AckCancel, Complete, Ended, Fail, Release, Task
from actors.task_views import ScanTasks

End = Complete | Fail | Release | AckCancel
AGAIN_S: Final = 0.5
"""Pause when the queue is busy or away."""
T = TypeVar("T")


def may_ask_again(error: MCPServerError) -> bool:
    """Whether the queue refused nothing, but was busy or away."""
    return error.retryable or isinstance(error, (DeadlineExceededError, OutcomeUnknownError))


async def persist(ask: Callable[[], Awaitable[T]]) -> T:
    """The queue's answer, asked for until there is one. Raises what it refuses with."""
    while True:
        try:
            return await ask()
        except MCPServerError as error:
            if not may_ask_again(error):
                raise
        await trio.sleep(AGAIN_S)


async def end_task(queue: TaskClient, end: End) -> bool:
    """Tell how a task ended; whether it counts so. When it was given to another worker meanwhile, or has ended, it does
    not; a result that is too large makes the task fail instead."""
    try:
        await persist(lambda: queue.do(end, Ended))
    except MCPServerError as error:
        if isinstance(end, Complete) and code_of(error) in {"LIMIT_EXCEEDED", "INVALID_PARAMS"}:
            why = ErrorInfo(code=code_of(error), message=error.message)
            await end_task(queue, Fail(id=end.id, token=end.token, error=why))
        else:
            get_logger().warning("the end of a task did not count", task=end.id, reason=error.message)
        return False
    return True


async def held_by(queue: TaskClient, worker: str) -> list[Task]:
    """The tasks that a worker has by the queue's books."""
    return await every_task(lambda ask: persist(lambda: queue.scan(ask)), ScanTasks(status="running", worker=worker))
