# SPDX-License-Identifier: AGPL-3.0-or-later
"""Asks the workflow scheduler of a running tree by its methods, again and again while it restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.errors import ActorDiedError, BusyError, RuntimeUnavailableError
from actors.messages import State
from actors.peers import Peers, hello
from actors.workflow_messages import (
    ControlWorkflow,
    ExportWorkflow,
    GetWorkflow,
    ListWorkflows,
    SubmitWorkflow,
    Workflow,
    WorkflowControlled,
    WorkflowPage,
    WorkflowStats,
    WorkflowSubmitted,
    WorkflowView,
)
from supervisor.admin import background, open_admin
from supervisor.client import ask_directory
from supervisor.client_tasks import _follow
from supervisor.rundir import find_running


class Workflows:
    """The scheduler of one tree."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def submit(self, workflow: dict | Workflow, owner: str = "") -> WorkflowSubmitted:
        workflow = workflow if isinstance(workflow, Workflow) else msgspec.convert(workflow, Workflow)
        return await self.ask("workflows/submit", SubmitWorkflow(workflow=workflow, owner=owner), WorkflowSubmitted)

    async def get(self, workflow_id: str, **more) -> WorkflowView:
        return await self.ask("workflows/get", GetWorkflow(workflow_id=workflow_id, **more), WorkflowView)

    async def ended(self, workflow_id: str, within_s: float = 60.0) -> WorkflowView:
        """Once it has ended, with its outputs."""
        with trio.fail_after(within_s):
            while True:
                view = await self.get(workflow_id, wait_s=min(10.0, within_s), outputs=True)
                if view.ended_at is not None:
                    return view

    async def list(self, **more) -> WorkflowPage:
        return await self.ask("workflows/list", ListWorkflows(**more), WorkflowPage)

    async def control(self, workflow_id: str, what: str, **more) -> WorkflowControlled:
        order = ControlWorkflow(workflow_id=workflow_id, what=what, **more)
        return await self.ask("workflows/control", order, WorkflowControlled)

    async def stats(self) -> WorkflowStats:
        return await self.ask("workflows/stats", None, WorkflowStats)

    async def export(self, workflow_id: str) -> bytes:
        """The CAR file."""
        pieces: list[bytes] = []

        def on_item(body: msgspec.Raw) -> None:
            pieces.append(msgspec.msgpack.decode(body, type=bytes))

        await self.ask("workflows/export", ExportWorkflow(workflow_id=workflow_id), None, on_item=on_item)
        return b"".join(pieces)

    async def ask(self, method: str, body: object, answer: type | None, *, on_item=None):
        """Ask until there is an answer."""
        with trio.fail_after(60):
            while True:
                entry = next((one for one in self._peers.processes("workflow_scheduler")), None)
                if entry is not None and entry.state == State.READY:
                    try:
                        channel = await self._peers.connect(entry)
                        reply = await channel.call(method, body, timeout_s=30, on_item=on_item)
                        return msgspec.msgpack.decode(reply, type=answer or type(None))
                    except (ActorDiedError, BusyError, RuntimeUnavailableError):
                        pass
                await trio.sleep(0.02)


@asynccontextmanager
async def open_workflows(data_dir: Path) -> AsyncIterator[Workflows]:
    """The scheduler of the tree on this data directory; found again when it restarts."""
    async with open_admin(find_running(data_dir)) as admin, background() as nursery:
        peers = Peers(hello("tests", 0), nursery)
        peers.update(await ask_directory(admin))
        nursery.start_soon(_follow, admin, peers)
        yield Workflows(peers)


def step(step_id: str, action: str = "echo", after: tuple[str, ...] | list[str] = (), **more) -> dict:
    """A step of a workflow; what is not a field of steps is an input."""
    fields = {name: more.pop(name) for name in list(more) if name in STEP_FIELDS}
    return {"step_id": step_id, "action": action, "depends_on": list(after), "inputs": more, **fields}


STEP_FIELDS = {"when", "for_each", "retry_policy", "timeout", "tags", "placement", "memo"}
