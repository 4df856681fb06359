# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue's numbers for Prometheus. They are the queue's own, whichever gateway is asked, and count on when it
restarts.

    mcp_p2p_task_queue_up                     1 when the queue answered this scrape; at 0 the others are left out
    mcp_p2p_tasks_queued                      tasks that wait: ready, scheduled or blocked
    mcp_p2p_tasks{state}                      tasks that have not ended; state: blocked, scheduled, ready, leased
    mcp_p2p_task_oldest_ready_seconds         how long the ready task that waits for longest has waited; 0 = none does
    mcp_p2p_task_events_total{event}          submitted, completed, failed, cancelled, retried, expired, released,
                                              stale_fence, replayed, refused
    mcp_p2p_task_execution_duration_ms        histogram of completed tasks: the attempt that completed it, milliseconds
    mcp_p2p_task_workers{status}              workers the queue knows; status: active, idle, busy, offline, unregistered
    mcp_p2p_task_types_paused                 types whose claims are stopped
    mcp_p2p_task_keys_paused                  fairness keys whose claims are stopped
    mcp_p2p_task_queue_bytes{part}            size on disk; part: log, wal, history
    mcp_p2p_task_commit_duration_ms{quantile} 0.5 and 0.99 of the latest commits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from actors.task_views import PAUSED_KEY, RUN_BUCKETS_MS, QueueStats, RunTimes
from gateway.asked_metrics import AskedMetrics, Family, labelled

_STATES: Final = ("blocked", "scheduled", "ready", "leased")
_PARTS: Final = {"log": "bytes", "wal": "wal_bytes", "history": "history_bytes"}


class TaskMetrics(AskedMetrics[QueueStats]):
    """What the queue says of itself."""

    def __init__(self, ask: Callable[[], Awaitable[QueueStats]]) -> None:
        """`ask` raises `MCPServerError` when there is no queue."""
        super().__init__(ask, ("mcp_p2p_task_queue_up", "Whether the task queue answered"), _families)


def _families(stats: QueueStats) -> Iterable[Family]:
    yield GaugeMetricFamily("mcp_p2p_tasks_queued", "Tasks that wait", value=stats.counts.get("queued", 0))
    yield labelled(
        "mcp_p2p_tasks", "Tasks that have not ended", "state", {s: stats.by_state.get(s, 0) for s in _STATES}
    )
    yield GaugeMetricFamily(
        "mcp_p2p_task_oldest_ready_seconds", "Longest wait of a ready task", value=stats.oldest_ready_s or 0.0
    )
    events = CounterMetricFamily("mcp_p2p_task_events", "What happened to tasks", labels=["event"])
    for name, count in stats.counters.items():
        events.add_metric([name], count)
    yield events
    if stats.run_times is not None:
        yield _run_times(stats.run_times)
    workers = Counter[str](worker.status for worker in stats.workers)
    yield labelled("mcp_p2p_task_workers", "Workers that the queue knows", "status", workers)
    keys = sum(name.startswith(PAUSED_KEY) for name in stats.paused)
    yield GaugeMetricFamily(
        "mcp_p2p_task_types_paused", "Types whose claims are stopped", value=len(stats.paused) - keys
    )
    yield GaugeMetricFamily("mcp_p2p_task_keys_paused", "Fairness keys whose claims are stopped", value=keys)
    sizes = {part: stats.store[key] for part, key in _PARTS.items() if key in stats.store}
    yield labelled("mcp_p2p_task_queue_bytes", "Size on disk", "part", sizes)
    commits = {"0.5": "commit_p50_ms", "0.99": "commit_p99_ms"}
    took = {quantile: stats.store[key] for quantile, key in commits.items() if key in stats.store}
    yield labelled("mcp_p2p_task_commit_duration_ms", "The latest commits (ms)", "quantile", took)


def _run_times(times: RunTimes) -> HistogramMetricFamily:
    rows: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip([*map(str, RUN_BUCKETS_MS), "+Inf"], times.buckets, strict=True):
        total += count
        rows.append((bound, total))
    return HistogramMetricFamily(
        "mcp_p2p_task_execution_duration_ms", "Duration of completed tasks (ms)", buckets=rows, sum_value=times.sum_ms
    )
