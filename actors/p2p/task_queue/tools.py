# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the task queue, which run in its actor: they are methods of objects that have the queue."""

from __future__ import annotations

from actors.p2p.task_queue.service import TaskQueue
from actors.p2p.task_queue.tools_access import Access
from actors.p2p.task_queue.tools_aliases import AliasTools
from actors.p2p.task_queue.tools_leases import LeaseTools
from actors.p2p.task_queue.tools_queue import QueueTools
from actors.p2p.task_queue.tools_tasks import TaskTools
from actors.p2p.task_queue.tools_workers import WorkerTools
from actors.settings import Settings
from actors.tools.loader import Loaded, load_functions

CATEGORY = "task_queue_tools"


def load_task_tools(settings: Settings, queue: TaskQueue) -> Loaded:
    """Those that are switched on: none, or all but the aliases, or all."""
    ours = settings.p2p.task_queue
    functions = []
    if settings.p2p.enabled or ours.tools:
        access = Access(queue, ours)
        leases = LeaseTools(access, settings.tools.max_result_bytes)
        for group in (TaskTools(access), QueueTools(access), WorkerTools(access), leases):
            functions += group.all()
        if ours.aliases:
            functions += AliasTools(access, settings.tools.max_result_bytes).all()
    return load_functions(
        functions,
        runtime="p2p",
        actor="task_queue",
        category=CATEGORY,
        default_timeout_s=settings.runtimes.p2p.timeout,
    )
