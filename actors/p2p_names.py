# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which actor answers which P2P tool, also while that actor is off: such a call is unavailable, not unknown."""

from __future__ import annotations

from typing import Final

TASK_TOOLS: Final = (
    "task_submit", "task_status", "task_cancel", "task_list", "task_priority", "task_result", "task_retry",
    "queue_stats", "queue_pause", "queue_resume", "queue_clear",
    "worker_register", "worker_unregister", "worker_status", "worker_heartbeat",
    "task_claim", "task_complete", "task_fail", "task_release",
)  # fmt: skip
TASK_ALIASES: Final = (
    "p2p_taskqueue_status", "p2p_taskqueue_submit", "p2p_taskqueue_claim_next", "p2p_taskqueue_list_tasks",
    "p2p_taskqueue_get_task", "p2p_taskqueue_wait_task", "p2p_taskqueue_complete_task",
)  # fmt: skip
WORKFLOW_TOOLS: Final = (
    "workflow_submit", "workflow_status", "workflow_cancel", "workflow_list", "workflow_dependencies",
    "workflow_result",
    "submit_workflow", "get_workflow_status",
)  # fmt: skip

P2P_TOOLS: Final = (
    {"peer_id": "peer_registry"}
    | dict.fromkeys(TASK_TOOLS + TASK_ALIASES, "task_queue")
    | dict.fromkeys(WORKFLOW_TOOLS, "workflow_scheduler")
)
"""Tool name -> actor name."""
SWITCHES: Final = (
    dict.fromkeys(TASK_TOOLS, "p2p.task_queue.tools")
    | dict.fromkeys(TASK_ALIASES, "p2p.task_queue.aliases")
    | dict.fromkeys(WORKFLOW_TOOLS, "p2p.workflow_scheduler.tools")
)
"""Tool name -> the setting that offers it, where its actor also runs without."""
