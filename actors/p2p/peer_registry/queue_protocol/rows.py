# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks as the protocol shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.p2p.peer_registry.queue_protocol.names import shown_worker
from actors.task_links import output_of
from actors.task_messages import Lease, Task, status_of


def row(task: Task, peer_id: str) -> dict[str, Any]:
    """A task with all that older nodes know of one."""
    return {
        "task_id": task.id,
        "task_type": task.type,
        "model_name": task.model_name,
        "payload": msgspec.json.decode(task.payload),
        "status": status_of(task.state),
        "result": None if task.result is None else output_of(task.result),
        "error": None if task.error is None else task.error.message,
        "priority": task.priority,
        "attempt": task.attempt,
        "max_attempts": task.retry.max_attempts,
        "assigned_worker": shown_worker(task.worker, peer_id),
        "next_attempt_at": task.run_at,
        "lease_until": task.lease_until or None,
        "heartbeat_at": task.beat_at,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
    }


def claimed(lease: Lease, worker_id: str) -> dict[str, Any]:
    """A task for the worker that has it now."""
    return {
        "task_id": lease.id,
        "task_type": lease.type,
        "model_name": lease.model_name,
        "payload": msgspec.json.decode(lease.payload),
        "created_at": lease.created_at,
        "status": "running",
        "assigned_worker": worker_id,
        "fencing_token": lease.token,
        "lease_until": lease.lease_until,
        "attempt": lease.attempt,
        "priority": lease.priority,
    }
