# SPDX-License-Identifier: AGPL-3.0-or-later
"""kill -9 of the task queue again and again while four processes use it: nothing that was acknowledged is lost, nothing
is completed twice, nothing is there that nobody asked for.

`GREENROOM_QUEUE_KILLS` sets how many kills, `GREENROOM_TEST_SEED` repeats the moments.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
import trio
from running import started

from actors.task_messages import TaskState
from actors.task_views import GetTask, ScanTasks
from supervisor.client_tasks import open_tasks

pytestmark = pytest.mark.chaos

KILLS = int(os.environ.get("GREENROOM_QUEUE_KILLS", "15"))
SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))
CLIENTS = 4
LOAD = Path(__file__).parents[1] / "support" / "queue_load.py"
ENV = {
    "GREENROOM_SUPERVISOR__RESTARTS": "100000",
    "GREENROOM_SUPERVISOR__BACKOFF_RESET_S": "0.001",
    "GREENROOM_P2P__TASK_QUEUE__MAX_QUEUE_SIZE": "1000000",
}
PAGE = 1000


@pytest.mark.parametrize("store", ["duckdb", "sqlite"])
def test_nothing_acknowledged_is_lost_nothing_done_twice_nothing_invented(tmp_path, store):
    # It takes longer than a test usually may: no stacks of this process, please.
    faulthandler.cancel_dump_traceback_later()
    print(f"seed {SEED}, {KILLS} kills, {store}")
    moments = random.Random(SEED)
    with started(tmp_path / "data", env=ENV | {"GREENROOM_P2P__TASK_QUEUE__STORE": store}) as tree:
        files = [tmp_path / f"client-{number}" for number in range(CLIENTS)]
        clients = [
            subprocess.Popen(
                [sys.executable, LOAD, tree.data_dir, path.name, str(SEED + number), path],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number, path in enumerate(files)
        ]
        try:
            time.sleep(1.0)  # the clients start
            for _ in range(KILLS):
                time.sleep(moments.uniform(0.0, 0.4))
                tree.wait_ready("task_queue", after=tree.kill("task_queue"))
            time.sleep(0.5)
            assert [client.poll() for client in clients] == [None] * CLIENTS, [
                c.stderr.read() for c in clients if c.poll()
            ]
        finally:
            for client in clients:
                client.stdin.close()
                client.wait(30)
                client.stderr.close()
        facts = Facts(files)
        print(facts.told())
        there = trio.run(everything, tree.data_dir)
        facts.check(there)
        trio.run(check_one_by_one, tree.data_dir, facts)


class Facts:
    """What the clients wrote down."""

    def __init__(self, files: list[Path]) -> None:
        self.tried: set[str] = set()
        self.new: set[str] = set()
        self.claims: dict[str, list[int]] = defaultdict(list)
        self.ends: dict[str, dict[int, str]] = defaultdict(dict)
        self.done: dict[str, dict[int, str]] = defaultdict(dict)
        self.refused: dict[str, int] = defaultdict(int)
        for path in files:
            for line in path.read_text().splitlines():
                kind, key, *rest = json.loads(line)
                if kind == "try":
                    self.tried.add(key)
                elif kind == "new":
                    self.new.add(key)
                elif kind == "claim":
                    self.claims[key].append(rest[0])
                elif kind == "refused":
                    self.refused[rest[0]] += 1
                else:
                    (self.ends if kind == "end" else self.done)[key][rest[0]] = rest[1]

    def told(self) -> str:
        """In one line."""
        claims = sum(map(len, self.claims.values()))
        return f"{len(self.new)} new, {claims} claims, {len(self.done)} done, refused: {dict(self.refused)}"

    def check(self, there: dict[str, TaskState]) -> None:
        """The rules that can be seen in the list of all tasks."""
        assert len(self.done) > 10 * KILLS, "too little happened to prove anything"
        assert not self.new - set(there), "an acknowledged task is not there"
        assert not set(there) - self.tried, "a task that nobody asked for"
        assert not {key for key in self.done if there[key] != TaskState.COMPLETED}, "an acknowledged end is lost"
        completed = {key for key, state in there.items() if state == TaskState.COMPLETED}
        assert not completed - set(self.ends), "an end that nobody asked for"
        assert not {key for key, tokens in self.done.items() if len(tokens) != 1}, "completed by two leases"
        assert not {key for key, tokens in self.claims.items() if len(set(tokens)) != len(tokens)}, (
            "a token given twice"
        )
        assert set(self.refused) <= {"STALE_FENCE", "INVALID_STATE"}, self.refused


async def everything(data_dir: Path) -> dict[str, TaskState]:
    """All tasks and their states."""
    found: dict[str, TaskState] = {}
    async with open_tasks(data_dir) as tasks:
        while True:
            page = await tasks.scan(ScanTasks(oldest_first=True, limit=PAGE, offset=len(found)))
            found |= {task.id: task.state for task in page.tasks}
            if not page.tasks:
                assert len(found) == page.total
                return found


async def check_one_by_one(data_dir: Path, facts: Facts) -> None:
    """The results are those that were acknowledged."""
    async with open_tasks(data_dir) as tasks:
        for key, tokens in facts.done.items():
            view = await tasks.get(GetTask(id=key))
            ((token, result),) = tokens.items()
            assert (view.task.token, view.task.result) == (token, result)
