# SPDX-License-Identifier: AGPL-3.0-or-later
"""Load on Greenroom's task queue from a process of its own, over the channel, as actors ask it.

Usage: `python -m kit.queue_greenroom DATA_DIR cycles IN_FLIGHT SECONDS`, `... fill TASKS`, `... pass TASKS`. Prints
JSON. `cycles` makes whole cycles (enqueue, claim, complete; each waits for the one before), IN_FLIGHT at once. `fill`
only puts tasks in. `pass` sends TASKS through the queue in large groups.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import trio

from actors.task_client import TaskClient
from actors.task_messages import Claim, Claimed, Complete, Ended, Enqueue, Submitted
from supervisor.client_tasks import open_tasks

PAYLOAD = json.dumps({"path": "/data/set/part-00017.parquet", "columns": ["id", "text", "label"], "note": "x" * 100})
RESULT = json.dumps({"rows": 12345, "ok": True})
TYPE = "bench"
GROUP = 250
MOST_CLAIMED = 128
"""By one claim: what the queue allows."""
WARM_S = 1.0


class Cycles:
    """What was measured."""

    def __init__(self) -> None:
        self.cycle_ms: list[float] = []
        self.op_ms: list[float] = []
        self.empty = 0

    async def one(self, tasks: TaskClient, worker: str) -> None:
        """One cycle: a new task, then any task of the queue, then its end."""
        at = [time.perf_counter()]
        await tasks.do(Enqueue(type=TYPE, payload=PAYLOAD), Submitted)
        at.append(time.perf_counter())
        claimed = await tasks.do(Claim(worker=worker, types=[TYPE]), Claimed)
        at.append(time.perf_counter())
        for lease in claimed.tasks:
            await tasks.do(Complete(id=lease.id, token=lease.token, result=RESULT), Ended)
            at.append(time.perf_counter())
        self.empty += not claimed.tasks
        self.cycle_ms.append((at[-1] - at[0]) * 1000)
        self.op_ms += [(later - earlier) * 1000 for earlier, later in itertools.pairwise(at)]


async def cycles(data_dir: Path, in_flight: int, seconds: float) -> dict[str, object]:
    """So many cycles at once, for so long."""
    seen = Cycles()
    async with open_tasks(data_dir) as tasks:
        end = time.perf_counter() + WARM_S

        async def run(number: int) -> None:
            while time.perf_counter() < end:
                await seen.one(tasks, f"bench-{number}")

        for span in (WARM_S, seconds):
            seen = Cycles()
            end = time.perf_counter() + span
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(in_flight):
                    nursery.start_soon(run, number)
            took = time.perf_counter() - began
    return {
        "cycles_per_s": len(seen.cycle_ms) / took,
        "cycle_ms": seen.cycle_ms,
        "op_ms": seen.op_ms,
        "empty_claims": seen.empty,
    }


async def fill(data_dir: Path, count: int) -> dict[str, object]:
    """So many tasks that wait."""
    began = time.perf_counter()
    async with open_tasks(data_dir) as tasks:
        for start in range(0, count, GROUP):
            outcomes = await tasks.do_all(
                [Enqueue(type=TYPE, payload=PAYLOAD) for _ in range(min(GROUP, count - start))]
            )
            assert all(isinstance(outcome, Submitted) for outcome in outcomes), outcomes[0]
    return {"seconds": time.perf_counter() - began}


async def pass_through(data_dir: Path, count: int) -> dict[str, object]:
    """So many tasks in, claimed and completed, in groups; the longest waits for one group."""
    group_ms: list[float] = []
    began = time.perf_counter()
    async with open_tasks(data_dir) as tasks, trio.open_nursery() as nursery:

        async def run(worker: str, share: int) -> None:
            for start in range(0, share, GROUP):
                size = min(GROUP, share - start)
                at = time.perf_counter()
                await tasks.do_all([Enqueue(type=TYPE, payload=PAYLOAD) for _ in range(size)])
                group_ms.append((time.perf_counter() - at) * 1000)
                left = size
                while left:
                    claimed = await tasks.do(Claim(worker=worker, types=[TYPE], n=min(left, MOST_CLAIMED)), Claimed)
                    left -= len(claimed.tasks)
                    at = time.perf_counter()
                    await tasks.do_all([Complete(id=t.id, token=t.token, result=RESULT) for t in claimed.tasks])
                    group_ms.append((time.perf_counter() - at) * 1000)

        for number in range(4):
            nursery.start_soon(run, f"bench-{number}", count // 4)
    took = time.perf_counter() - began
    return {"tasks_per_s": count / took, "group_ms": sorted(group_ms)[-1000:]}


async def main() -> None:
    """See the module's text."""
    data_dir, what, *numbers = sys.argv[1:]
    if what == "cycles":
        found = await cycles(Path(data_dir), int(numbers[0]), float(numbers[1]))
    else:
        found = await {"fill": fill, "pass": pass_through}[what](Path(data_dir), int(numbers[0]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    trio.run(main)
