# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the workflow scheduler over `workflow_world`: called as the actor calls them, by callers with names."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import trio
from workflow_world import World

from actors.errors import from_info
from actors.p2p.workflow_scheduler.tools import load_workflow_tools
from actors.settings import Settings
from actors.settings_p2p import P2PSettings, TaskQueueSettings, WorkflowSchedulerSettings
from actors.task_messages import Claim, Op, Outcome, Refused
from actors.tool_messages import ToolCall, ToolResult
from actors.tools.execution import Environment, LoadedTool

LONGEST_CALL_S = 10
_loaded: list[tuple[_Standing, _Standing, dict[str, LoadedTool]]] = []


class _Standing:
    """What is the present test's, for tools that were made before it: making them takes longer than most tests."""

    what: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.what, name)


class Operations:
    """A queue in this process, as `TaskClient` shows it."""

    def __init__(self, world: World) -> None:
        self._queue = world.queue
        self._side = world.side
        self.watch = world.side.watch
        self.get = world.queue.get
        self.scan = world.queue.scan

    async def do(self, op: Op, kind: type, *, timeout_s: float = 30.0) -> Outcome:
        self._side.operations.append(op)
        if isinstance(op, Claim):
            op = msgspec.structs.replace(op, wait_s=min(op.wait_s, timeout_s))
        outcome = await self._queue.do(op)
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        assert isinstance(outcome, kind)
        return outcome


class Desk:
    """`await desk("workflow_status", workflow_id="w")`; `by` names the caller, whose name is '' otherwise."""

    def __init__(self, world: World, **settings: Any) -> None:
        """`settings` are those of `p2p.workflow_scheduler`; the caller `boss` is an operator."""
        self.world = world
        p2p = P2PSettings(
            workflow_scheduler=WorkflowSchedulerSettings(**({"tools": True} | settings)),
            task_queue=TaskQueueSettings(operators=["boss"]),
        )
        self.settings = Settings(p2p=p2p)
        self.tools = self._made() if settings else self._standing()
        self._environment = Environment(self.settings.tools, world.folder)
        self._calls = 0
        self.items: list[Any] = []
        """What the tools reported."""

    def _made(self) -> dict[str, LoadedTool]:
        return load_workflow_tools(self.settings, self.world.service, Operations(self.world)).tools

    def _standing(self) -> dict[str, LoadedTool]:
        if not _loaded:
            service, tasks = _Standing(), _Standing()
            loaded = load_workflow_tools(self.settings, service, tasks)
            assert not loaded.broken, loaded.broken[0].broken
            _loaded.append((service, tasks, loaded.tools))
        service, tasks, tools = _loaded[0]
        service.what, tasks.what = self.world.service, Operations(self.world)
        return tools

    async def __call__(self, tool: str, /, by: str = "", call_id: str = "", **arguments: Any) -> dict[str, Any]:
        self._calls += 1
        call = ToolCall(
            name=tool,
            arguments=msgspec.json.encode(arguments),
            call_id=call_id or f"call-{self._calls}",
            principal=by,
            progress=True,
        )
        return json.loads((await self.run(call)).value)

    async def run(self, call: ToolCall) -> ToolResult:
        with trio.fail_after(LONGEST_CALL_S):
            return await self.tools[call.name].run(call, self._environment, self.items.append)

    async def submit(self, *steps: dict[str, Any], by: str = "", **more: Any) -> dict[str, Any]:
        return await self("workflow_submit", by, **({"workflow_id": "w", "name": "W", "steps": steps} | more))
