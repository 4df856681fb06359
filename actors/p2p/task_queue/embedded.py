# SPDX-License-Identifier: AGPL-3.0-or-later
"""The embedded store of this node, as it is configured: which engine, which files, which limits."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from actors.p2p.task_queue.history import SQLiteHistory
from actors.p2p.task_queue.limits import QueueLimits, Rate
from actors.p2p.task_queue.log import Log
from actors.p2p.task_queue.log_store import LogStore
from actors.p2p.task_queue.store import Recovery, TaskStore
from actors.settings_p2p import TaskQueueSettings


@asynccontextmanager
async def open_embedded(
    settings: TaskQueueSettings, data_dir: Path, clock: Callable[[], float]
) -> AsyncGenerator[tuple[TaskStore, Recovery], None]:
    """The store and what opening it found; it is put away at the end. `clock` tells Unix seconds.

    Raises `actors.errors.UnavailableError` when another process has the file, or when it can't be used.
    """
    path = queue_path(settings, data_dir)
    history = SQLiteHistory(path.with_name(f"{path.name}.history"))
    store = LogStore(_log(settings, path), history, limits(settings), clock=clock, rng=random.SystemRandom())
    try:
        yield store, await store.open()
    finally:
        await store.close()


def queue_path(settings: TaskQueueSettings, data_dir: Path) -> Path:
    """The file of the log; the names of all others begin with its name."""
    return Path(settings.queue_path) if settings.queue_path else data_dir / f"task_queue.{settings.store}"


def _log(settings: TaskQueueSettings, path: Path) -> Log:
    """Only the engine that is used is imported: DuckDB alone takes a tenth of a second and 20 MB."""
    if settings.store == "sqlite":
        from actors.p2p.task_queue.sqlite_log import SQLiteLog

        return SQLiteLog(path, checkpoint_bytes=settings.checkpoint_bytes)
    from actors.p2p.task_queue.duckdb_log import DuckDBLog

    return DuckDBLog(path, checkpoint_bytes=settings.checkpoint_bytes)


def limits(settings: TaskQueueSettings) -> QueueLimits:
    """What is configured, as the store takes it."""
    types = settings.types
    return QueueLimits(
        max_queue_size=settings.max_queue_size,
        max_payload_bytes=settings.max_payload_bytes,
        max_result_bytes=settings.max_result_bytes,
        lease_s=settings.lease_s,
        ageing_s=settings.ageing_s,
        keep_s=settings.keep_s,
        worker_timeout_s=settings.worker_timeout_s,
        max_running_per_key=settings.max_running_per_key,
        concurrency={name: one.max_running for name, one in types.items() if one.max_running},
        rates={name: Rate(per_s=one.rate_per_s, burst=one.burst) for name, one in types.items() if one.rate_per_s},
    )
