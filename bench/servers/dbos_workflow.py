# SPDX-License-Identifier: AGPL-3.0-or-later
"""A peer for `bench/workflow.py`: DBOS, embedded, on SQLite with its own defaults.

Usage: `python dbos_workflow.py FILE chain|gather|queue STEPS RUNS`; prints JSON, the seconds of each run. `chain`: one
workflow whose steps follow each other. `gather`: one workflow that starts all steps at once, as asyncio tasks of its
own process. `queue`: one workflow that puts each step into a DBOS queue, from which any process may take it. Runs in
an environment of its own (`bench/peers.py`), never in Greenroom's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from dbos import DBOS

AT_ONCE = 64
POLL_S = 0.05

path, shape, steps, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
DBOS(
    config={
        "name": "bench",
        "system_database_url": f"sqlite:///{path}",
        "log_level": "WARNING",
        "run_admin_server": False,
    }
)


@DBOS.step()
def echo(text: str) -> str:
    return text


@DBOS.step()
async def echo_async(text: str) -> str:
    return text


@DBOS.workflow()
def chain(count: int) -> int:
    text = "0"
    for _ in range(count):
        text = str(int(echo(text)) + 1)
    return int(text)


@DBOS.workflow()
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(echo_async(str(number)) for number in range(count))))


@DBOS.workflow()
def one(text: str) -> str:
    return echo(text)


@DBOS.workflow()
def fan_out(count: int) -> int:
    handles = [DBOS.enqueue_workflow("bench", one, str(number)) for number in range(count)]
    return len([handle.get_result() for handle in handles])


DBOS.launch()
DBOS.register_queue("bench", worker_concurrency=AT_ONCE, polling_interval_sec=POLL_S)
seconds = []
for _ in range(runs):
    began = time.perf_counter()
    done = asyncio.run(gather(steps)) if shape == "gather" else {"chain": chain, "queue": fan_out}[shape](steps)
    seconds.append(time.perf_counter() - began)
    assert done == steps, done
DBOS.destroy()
json.dump({"seconds": seconds}, sys.stdout)
