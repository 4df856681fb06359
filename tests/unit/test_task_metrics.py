# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the gateway shows of the task queue, and what a scrape costs the queue."""

from __future__ import annotations

import pytest
import trio

from actors.errors import RuntimeUnavailableError
from actors.p2p.task_queue.tallies import Tallies
from actors.task_messages import WorkerInfo
from actors.task_views import RUN_BUCKETS_MS, QueueStats
from gateway.asked_metrics import ANSWER_S
from gateway.metrics import Metrics
from gateway.task_metrics import TaskMetrics


def stats(tallies=None, **more):
    given = {
        "counts": {"queued": 3, "failed": 2},
        "by_type": {},
        "by_state": {"ready": 2, "scheduled": 1},
        "paused": ["x", "key:a", "key:b"],
        "oldest_ready_s": 4.5,
        "average_wait_s": None,
        "average_run_s": None,
        "throughput_per_s": None,
        "workers": [WorkerInfo(worker=name, registered_at=0.0, seen_at=0.0, status="idle") for name in "ab"],
        "hours": [],
        "counters": {"submitted": 7, "stale_fence": 1},
        "run_times": (tallies or Tallies()).run_times(),
        "store": {"bytes": 100, "wal_bytes": 10, "commit_p50_ms": 1.5, "commit_p99_ms": 9.0},
    }
    return QueueStats(**(given | more))


class Queue:
    def __init__(self):
        self.asked = 0
        self.answer = stats()

    async def __call__(self):
        self.asked += 1
        if self.answer is None:
            await trio.sleep_forever()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def metrics(queue):
    metrics = Metrics()
    metrics.tasks = TaskMetrics(queue)
    return metrics


async def lines(metrics):
    return [line for line in (await metrics.fresh_text()).decode().splitlines() if line.startswith("mcp_p2p")]


async def test_the_numbers_of_the_queue_are_shown_under_their_names(metrics):
    shown = await lines(metrics)
    assert {
        "mcp_p2p_task_queue_up 1.0",
        "mcp_p2p_tasks_queued 3.0",
        'mcp_p2p_tasks{state="ready"} 2.0',
        'mcp_p2p_tasks{state="leased"} 0.0',
        "mcp_p2p_task_oldest_ready_seconds 4.5",
        'mcp_p2p_task_events_total{event="submitted"} 7.0',
        'mcp_p2p_task_events_total{event="stale_fence"} 1.0',
        'mcp_p2p_task_workers{status="idle"} 2.0',
        "mcp_p2p_task_types_paused 1.0",
        "mcp_p2p_task_keys_paused 2.0",
        'mcp_p2p_task_queue_bytes{part="log"} 100.0',
        'mcp_p2p_task_commit_duration_ms{quantile="0.99"} 9.0',
    } <= set(shown)


async def test_durations_are_a_histogram_that_survives_a_restart(metrics, queue):
    before = Tallies()
    for seconds in (0.01, 0.02, 7200.0):
        before.ran(seconds)
    tallies = Tallies()
    tallies.unpack(before.pack())
    queue.answer = stats(tallies)
    name = "mcp_p2p_task_execution_duration_ms"
    shown = [line for line in await lines(metrics) if line.startswith(name)]
    assert shown[0] == f'{name}_bucket{{le="10.0"}} 1.0', "a bound belongs to its class"
    assert f'{name}_bucket{{le="50.0"}} 2.0' in shown
    assert f'{name}_bucket{{le="{RUN_BUCKETS_MS[-1]}"}} 2.0' in shown
    assert f'{name}_bucket{{le="+Inf"}} 3.0' in shown
    assert f"{name}_count 3.0" in shown
    (total,) = [line for line in shown if line.startswith(f"{name}_sum")]
    assert float(total.split()[1]) == pytest.approx(7_200_030.0)


@pytest.mark.parametrize("answer", [None, RuntimeUnavailableError("off")])
async def test_without_an_answer_only_that_is_shown_and_in_time(autojump_clock, metrics, queue, answer):
    await lines(metrics)
    await trio.sleep(10)
    queue.answer = answer
    at = trio.current_time()
    assert await lines(metrics) == ["mcp_p2p_task_queue_up 0.0"]
    assert trio.current_time() - at <= ANSWER_S


async def test_many_scrapes_at_once_ask_once(autojump_clock, metrics, queue):
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(metrics.fresh_text)
    assert queue.asked == 1
    await trio.sleep(2)
    await metrics.fresh_text()
    assert queue.asked == 2


async def test_without_a_way_to_the_queue_nothing_is_said_of_it():
    assert await lines(Metrics()) == []
