# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools called as a pool calls them, without the processes: JSON in, the decoded result or an error out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from actors.settings import ToolsSettings
from actors.tool_messages import LogItem, Progress, ToolCall, ToolResult
from actors.tools.execution import Environment, LoadedTool
from actors.tools.loader import load_functions

LONGEST_CALL_S = 30


def loaded(*functions: Callable) -> dict[str, LoadedTool]:
    """Decorated functions as tools that can be called; a broken one fails the test with its reason."""
    found = load_functions(functions, runtime="general", actor="general", category="tests", default_timeout_s=60)
    assert not found.broken, found.broken[0].broken
    return found.tools


class Caller:
    """Calls `tools`, which keep what they store below `data_dir`. `settings` are those of the section `tools`."""

    def __init__(self, tools: dict[str, LoadedTool], data_dir: Path, **settings) -> None:
        self.tools = tools
        self.environment = Environment(ToolsSettings(**settings), data_dir)
        self.home = self.environment.files.home
        self.home.mkdir(parents=True, exist_ok=True)
        self.items: list[Progress | LogItem] = []
        """What the tools reported, in order."""

    async def __call__(self, name: str, /, **arguments):
        """The result of a call with these arguments."""
        return json.loads((await self.result(name, msgspec.json.encode(arguments))).value)

    async def result(
        self, name: str, arguments: bytes, *, log_level: str = "debug", progress: bool = True
    ) -> ToolResult:
        """The whole answer to a call with these bytes."""
        call = ToolCall(name=name, arguments=arguments, call_id="call-1", progress=progress, log_level=log_level)
        with trio.fail_after(LONGEST_CALL_S):
            return await self.tools[name].run(call, self.environment, self.items.append)
