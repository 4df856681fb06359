# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the gateway shows of the workflow scheduler. That a scrape waits for it no longer than is right, and asks it
once, is the same as for the task queue (`test_task_metrics.py`)."""

from __future__ import annotations

import pytest
from workflow_calls import step
from workflow_world import World

from actors.errors import RuntimeUnavailableError
from actors.workflow_messages import WorkflowStats
from gateway.metrics import Metrics
from gateway.workflow_metrics import WorkflowMetrics

STATS = WorkflowStats(
    counts={"running": 2, "submitted": 3, "completed": 4},
    workflows={"submitted": 20, "completed": 14, "failed": 1},
    steps={"completed": 40, "memoised": 5},
    store={"path": "/x", "bytes": 100, "wal_bytes": 10},
)


async def lines(answer):
    async def ask():
        if isinstance(answer, Exception):
            raise answer
        return answer

    metrics = Metrics()
    metrics.workflows = WorkflowMetrics(ask)
    return [line for line in (await metrics.fresh_text()).decode().splitlines() if line.startswith("mcp_p2p")]


async def test_the_numbers_of_the_scheduler_are_shown_under_their_names():
    assert await lines(STATS) == [
        "mcp_p2p_workflow_scheduler_up 1.0",
        "mcp_p2p_workflows_active 2.0",
        "mcp_p2p_workflows_waiting 3.0",
        'mcp_p2p_workflows_total{status="submitted"} 20.0',
        'mcp_p2p_workflows_total{status="completed"} 14.0',
        'mcp_p2p_workflows_total{status="failed"} 1.0',
        'mcp_p2p_workflows_total{status="cancelled"} 0.0',
        'mcp_p2p_workflow_steps_total{status="completed"} 40.0',
        'mcp_p2p_workflow_steps_total{status="failed"} 0.0',
        'mcp_p2p_workflow_steps_total{status="skipped"} 0.0',
        'mcp_p2p_workflow_steps_total{status="cancelled"} 0.0',
        'mcp_p2p_workflow_steps_total{status="memoised"} 5.0',
        'mcp_p2p_workflow_store_bytes{part="file"} 100.0',
        'mcp_p2p_workflow_store_bytes{part="wal"} 10.0',
    ]


@pytest.mark.parametrize("answer", [RuntimeUnavailableError("off")])
async def test_without_a_scheduler_only_that_is_shown(answer):
    assert await lines(answer) == ["mcp_p2p_workflow_scheduler_up 0.0"]


async def test_what_is_counted_for_good_is_what_happened(nursery, tmp_path):
    world = World(nursery, tmp_path)
    await world.open()
    await world.submit(step("a"), step("b", after=["a"]))
    await world.submit(step("bad", retry_policy={"max_retries": 0}), workflow_id="bad")
    await world.work(3, fail=("bad",))
    await world.ended()
    await world.ended("bad")
    stats = await world.service.stats()
    assert stats.workflows == {"submitted": 2, "completed": 1, "failed": 1}
    assert stats.steps == {"completed": 2, "failed": 1}
    await world.close()
