# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workflow scheduler's numbers for Prometheus. They are the scheduler's own, whichever gateway is asked.

mcp_p2p_workflow_scheduler_up         1 when the scheduler answered this scrape; at 0 the others are left out
mcp_p2p_workflows_active              workflows that run
mcp_p2p_workflows_waiting             workflows that have not begun
mcp_p2p_workflows_total{status}       workflows since the scheduler's store was made: submitted, and those of them that
                                      are completed, failed, cancelled
mcp_p2p_workflow_steps_total{status}  steps since then: completed, failed, skipped, cancelled; memoised: those of the
                                      completed whose result is that of equal work
mcp_p2p_workflow_store_bytes{part}    size on disk; part: file, wal
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from actors.workflow_messages import WorkflowStats
from gateway.asked_metrics import AskedMetrics, Family, labelled

_WORKFLOWS: Final = ("submitted", "completed", "failed", "cancelled")
_STEPS: Final = ("completed", "failed", "skipped", "cancelled", "memoised")
_PARTS: Final = {"file": "bytes", "wal": "wal_bytes"}


class WorkflowMetrics(AskedMetrics[WorkflowStats]):
    """What the scheduler says of itself."""

    def __init__(self, ask: Callable[[], Awaitable[WorkflowStats]]) -> None:
        """`ask` raises `MCPServerError` when there is no scheduler."""
        super().__init__(ask, ("mcp_p2p_workflow_scheduler_up", "Whether the workflow scheduler answered"), _families)


def _families(stats: WorkflowStats) -> Iterable[Family]:
    yield GaugeMetricFamily("mcp_p2p_workflows_active", "Workflows that run", value=stats.counts.get("running", 0))
    waiting = stats.counts.get("submitted", 0)
    yield GaugeMetricFamily("mcp_p2p_workflows_waiting", "Workflows that have not begun", value=waiting)
    yield _counter("mcp_p2p_workflows", "Workflows that were submitted, and that ended", _WORKFLOWS, stats.workflows)
    yield _counter("mcp_p2p_workflow_steps", "Steps that ended", _STEPS, stats.steps)
    sizes = {part: stats.store[key] for part, key in _PARTS.items() if key in stats.store}
    yield labelled("mcp_p2p_workflow_store_bytes", "Size on disk", "part", sizes)


def _counter(name: str, text: str, statuses: Iterable[str], counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["status"])
    for status in statuses:
        family.add_metric([status], counts.get(status, 0))
    return family
