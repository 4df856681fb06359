# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the workflow scheduler, which run in its actor: they are methods of objects that have the service."""

from __future__ import annotations

from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.p2p.workflow_scheduler.tools_access import Access, Tasks
from actors.p2p.workflow_scheduler.tools_submit import SubmitTools
from actors.p2p.workflow_scheduler.tools_workflows import WorkflowTools
from actors.settings import Settings
from actors.tools.loader import Loaded, load_functions

CATEGORY = "workflow_tools"


def load_workflow_tools(settings: Settings, service: WorkflowService, tasks: Tasks) -> Loaded:
    """All of them, or none when they are switched off."""
    functions = []
    if settings.p2p.enabled or settings.p2p.workflow_scheduler.tools:
        access = Access(service, tasks, settings.p2p.task_queue.operators)
        functions += SubmitTools(access).all() + WorkflowTools(access).all()
    return load_functions(
        functions,
        runtime="p2p",
        actor="workflow_scheduler",
        category=CATEGORY,
        default_timeout_s=settings.runtimes.p2p.timeout,
    )
