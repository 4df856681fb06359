# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the task queue over a store in memory: called as the actor calls them, by callers with names."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from task_boxes import BIG, MemoryBox

from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.service import TaskQueue
from actors.p2p.task_queue.tools import load_task_tools
from actors.settings import Settings, ToolsSettings
from actors.settings_p2p import P2PSettings, TaskQueueSettings
from actors.tool_messages import ToolCall
from actors.tools.execution import Environment, LoadedTool

LONGEST_CALL_S = 10
_loaded: dict[str, tuple[_Standing, dict[str, LoadedTool]]] = {}


class _Standing:
    """The queue of the present test, for tools that were made before it: making them takes longer than most tests."""

    queue: TaskQueue

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)


def _tools_for(settings: Settings, queue: TaskQueue) -> dict[str, LoadedTool]:
    key = repr(settings)
    if key not in _loaded:
        standing = _Standing()
        loaded = load_task_tools(settings, standing)
        assert not loaded.broken, loaded.broken[0].broken
        _loaded[key] = (standing, loaded.tools)
    standing, tools = _loaded[key]
    standing.queue = queue
    return tools


class Desk:
    """`await desk("task_submit", task_id="t", ...)`; `by` names the caller, whose name is '' otherwise."""

    def __init__(self, box: MemoryBox, queue: TaskQueue, settings: Settings, data_dir: Path) -> None:
        self.box = box
        self.queue = queue
        self.tools = _tools_for(settings, queue)
        self._environment = Environment(settings.tools, data_dir)
        self._calls = 0

    async def __call__(self, tool: str, /, by: str = "", call_id: str = "", **arguments: Any) -> dict[str, Any]:
        self._calls += 1
        call = ToolCall(
            name=tool,
            arguments=msgspec.json.encode(arguments),
            call_id=call_id or f"call-{self._calls}",
            principal=by,
        )
        with trio.fail_after(LONGEST_CALL_S):
            return json.loads((await self.tools[tool].run(call, self._environment)).value)

    async def submit(self, task_id: str, type_: str = "dig", by: str = "", **more: Any) -> dict[str, Any]:
        arguments = {"payload": {"n": 1}} | more
        return await self("task_submit", by, task_id=task_id, task_type=type_, **arguments)

    async def hire(self, worker_id: str = "w", by: str = "", **more: Any) -> dict[str, Any]:
        arguments = {"capabilities": ["dig"]} | more
        return await self("worker_register", by, worker_id=worker_id, **arguments)

    async def take(self, worker_id: str = "w", by: str = "", **more: Any) -> dict[str, Any]:
        """Claim one task; there has to be one."""
        [task] = (await self("task_claim", by, worker_id=worker_id, **more))["tasks"]
        return task

    async def end(self, how: str, task: dict[str, Any], by: str = "", **more: Any) -> dict[str, Any]:
        """`task_complete` and its like."""
        key = {name: task[name] for name in ("task_id", "fencing_token")}
        return await self(how, by, worker_id=task["assigned_worker"], **key, **more)

    async def ended(self, task_id: str, result: Any = None, **more: Any) -> None:
        """Have a task that is submitted, taken and completed."""
        await self.submit(task_id, **more)
        await self.end("task_complete", await self.take(), result=result)


@asynccontextmanager
async def open_desk(
    data_dir: Path, limits: QueueLimits = BIG, max_result_bytes: int = 1 << 20, **settings: Any
) -> AsyncGenerator[Desk, None]:
    """A queue that runs, and its tools. `settings` are those of `p2p.task_queue`."""
    ours = TaskQueueSettings(**({"tools": True} | settings))
    box = MemoryBox(data_dir, limits)
    await box.open()
    queue = TaskQueue(box.store, most_waiting=1000, now=box.clock)
    all_settings = Settings(p2p=P2PSettings(task_queue=ours), tools=ToolsSettings(max_result_bytes=max_result_bytes))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        yield Desk(box, queue, all_settings, data_dir)
        nursery.cancel_scope.cancel()
    await box.close()
