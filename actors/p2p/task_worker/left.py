# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a worker's life leaves to the next one.

A life that ends in order writes down what it could not tell the queue, in a file of the data directory: results of
tasks, and tasks that it gave back. One that was killed leaves nothing but its leases: nobody knows how far its tasks
were, so each of them has used an attempt, but for those that waited for an answer of their owner and had done nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec
import trio

from actors.logs import get_logger
from actors.messages import ErrorInfo
from actors.p2p.asking_queue import End, end_task, held_by
from actors.task_client import TaskClient
from actors.task_messages import Fail, Release, Task

FILE: Final = "task_worker.left"
_decode = msgspec.msgpack.Decoder(list[End]).decode


def write_left(data_dir: Path, ends: list[End]) -> None:
    """Leave these to the next life, after what is left already."""
    if not ends:
        return
    path = data_dir / FILE
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(msgspec.msgpack.encode(_read(path) + ends))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


async def settle_left(queue: TaskClient, data_dir: Path, worker: str) -> int:
    """Tell the queue what became of all tasks that former lives of this worker had. Returns how many these were; waits
    for the queue for as long as it takes."""
    path = data_dir / FILE
    ends = await trio.to_thread.run_sync(_read, path)
    for end in ends:
        await end_task(queue, end)
    await trio.to_thread.run_sync(_forget, path)
    held = await held_by(queue, worker)
    for task in held:
        await end_task(queue, _end_of(task))
    return len(ends) + len(held)


def _end_of(task: Task) -> End:
    if task.asked:
        return Release(id=task.id, token=task.token, counts=False, reason="its worker ended")
    reason = (
        f"the worker ended while it ran {task.type}; the call may or may not have taken effect: check before you "
        "repeat it"
    )
    error = ErrorInfo(code="OUTCOME_UNKNOWN", message=reason, retryable=True)
    return Fail(id=task.id, token=task.token, error=error)


def _read(path: Path) -> list[End]:
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        get_logger().error("what the worker left can't be read", file=str(path), reason=str(error))
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".broken"))
        return []


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
