# SPDX-License-Identifier: AGPL-3.0-or-later
"""A client of the task queue for the kill loop: it writes down what it is about to ask, and what was acknowledged.

Usage: `python queue_load.py DATA_DIR NAME SEED FILE`; ends when its standard input does. Lines of FILE are JSON lists:
`["try", id]`, `["new", id]`, `["claim", id, token]`, `["end", id, token, result]` (about to complete it), `["done", id,
token, result]`, `["refused", operation, code]`. Each line is one write, before or after the call that it tells of.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import trio

from actors.errors import MCPServerError, code_of
from actors.messages import ErrorInfo
from actors.task_client import TaskClient, new_task_id
from actors.task_messages import Beat, Beaten, Claim, Claimed, Complete, Ended, Enqueue, Fail, Lease, Release, Submitted
from supervisor.client_tasks import open_tasks

AT_ONCE = 8
TYPE = "kill_loop"
PATIENCE_S = 60.0


class Load:
    """What one client does."""

    def __init__(self, name: str, seed: int, sink: int) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._sink = sink

    def note(self, *fact: object) -> None:
        """Write one fact down."""
        os.write(self._sink, (json.dumps(fact) + "\n").encode())

    async def run(self, tasks: TaskClient, number: int) -> None:
        """One task in, a few tasks out, and again."""
        while True:
            task_id = new_task_id()
            self.note("try", task_id)
            payload = json.dumps({"of": task_id})
            await tasks.do(Enqueue(id=task_id, type=TYPE, payload=payload), Submitted, timeout_s=PATIENCE_S)
            self.note("new", task_id)
            claim = Claim(worker=f"{self._name}-{number}", types=[TYPE], n=self._random.choice([1, 1, 2]))
            for lease in (await tasks.do(claim, Claimed, timeout_s=PATIENCE_S)).tasks:
                self.note("claim", lease.id, lease.token)
                assert json.loads(lease.payload) == {"of": lease.id}
                await self.finish(tasks, lease)

    async def finish(self, tasks: TaskClient, lease: Lease) -> None:
        """Bring a claimed task to one of its ends."""
        key = {"id": lease.id, "token": lease.token}
        draw = self._random.random()
        try:
            if draw < 0.2:
                await tasks.do(Beat(**key, progress=50.0), Beaten, timeout_s=PATIENCE_S)
            if draw < 0.8:
                result = json.dumps(self._random.randrange(10**9))
                self.note("end", lease.id, lease.token, result)
                await tasks.do(Complete(**key, result=result), Ended, timeout_s=PATIENCE_S)
                self.note("done", lease.id, lease.token, result)
            elif draw < 0.9:
                error = ErrorInfo(code="TOOL_FAILED", message="on purpose", retryable=True)
                await tasks.do(Fail(**key, error=error), Ended, timeout_s=PATIENCE_S)
            else:
                await tasks.do(Release(**key, counts=False), Ended, timeout_s=PATIENCE_S)
        except MCPServerError as error:
            self.note("refused", draw, code_of(error))


async def main() -> None:
    """See the module's text."""
    data_dir, name, seed, file = sys.argv[1:]
    sink = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    load = Load(name, int(seed), sink)
    async with open_tasks(Path(data_dir)) as tasks, trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(load.run, tasks, number)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
