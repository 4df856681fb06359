# SPDX-License-Identifier: AGPL-3.0-or-later
"""What workers say of themselves: `RegisterWorker, BeatWorker, UnregisterWorker`."""

from __future__ import annotations

from actors.p2p.task_queue.checks import check_name, check_names, check_size
from actors.p2p.task_queue.crew import Worker
from actors.p2p.task_queue.events import WORKER, WORKER_GONE
from actors.p2p.task_queue.machine import Machine, refuse
from actors.task_messages import BeatWorker, RegisterWorker, UnregisterWorker, WorkerInfo


def register_worker(m: Machine, op: RegisterWorker) -> WorkerInfo:
    """See `RegisterWorker`."""
    limits = m.limits
    check_name("worker", op.worker, limits)
    check_names("types", op.types, limits.max_types, limits)
    check_size("limits", op.limits, limits.max_metadata_bytes)
    check_size("metadata", op.metadata, limits.max_metadata_bytes)
    if not 1 <= op.max_tasks <= limits.max_worker_tasks:
        refuse("INVALID_PARAMS", f"max_tasks is {op.max_tasks}; it goes from 1 to {limits.max_worker_tasks}")
    known = m.state.workers.get(op.worker)
    if known is None and len(m.state.workers) >= limits.max_workers:
        refuse("LIMIT_EXCEEDED", f"there are {limits.max_workers} workers already", retryable=True)
    if known is not None and known.owner != op.owner and known.max_tasks:
        _not_yours(op.worker)
    fields = [op.owner, op.types, op.max_tasks, op.limits, op.metadata, op.internal]
    if known is None or known.gone or fields != _fields(known):
        m.emit([WORKER, m.now, op.worker, *fields])
    return _info(m, op.worker)


def beat_worker(m: Machine, op: BeatWorker) -> WorkerInfo:
    """See `BeatWorker`."""
    _known(m, op.worker)
    return _info(m, op.worker)


def unregister_worker(m: Machine, op: UnregisterWorker) -> WorkerInfo:
    """See `UnregisterWorker`."""
    worker = _known(m, op.worker)
    if worker.owner != op.owner and worker.max_tasks:
        _not_yours(op.worker)
    if not worker.gone or (op.release and worker.running):
        held = list(worker.running)
        m.emit([WORKER_GONE, m.now, op.worker, op.release])
        for task_id in held:
            if m.state.tasks[task_id].task.ended_at is not None:
                m.skip_dependents(task_id, "was cancelled")
    return worker.info(m.now, m.limits.worker_timeout_s)


def _known(m: Machine, name: str) -> Worker:
    worker = m.state.workers.get(name)
    if worker is None:
        refuse("NOT_FOUND", f"there is no worker {name}; register it first")
    return worker


def _info(m: Machine, name: str) -> WorkerInfo:
    worker = m.state.workers[name]
    worker.seen_at = max(worker.seen_at, m.now)
    return worker.info(m.now, m.limits.worker_timeout_s)


def _fields(worker: Worker) -> list[object]:
    return [worker.owner, worker.types, worker.max_tasks, worker.limits, worker.metadata, worker.internal]


def _not_yours(name: str) -> None:
    refuse("NOT_OWNER", f"worker {name} belongs to somebody else; take another id")
