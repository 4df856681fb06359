# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers calls of tools in one process: what a pool and a P2P actor have in common.

Methods: `catalogue` -> `Catalogue`; `tools/call` (`ToolCall`) -> `ToolResult`, with progress and log items.
A thread whose call was cancelled and that does not end within its grace time can't be ended from inside: the process
then asks to be replaced by ending itself, once its other calls are done.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from actors.base import Actor
from actors.calls import IncomingCall
from actors.errors import BusyError, ToolExecutionError, UnknownToolError
from actors.messages import Catalogue, ToolCall, ToolDescriptor, ToolResult
from actors.tools.execution import Environment, LoadedTool, abandoned_threads

_ABANDONED_CHECK_S = 1.0
_ABANDONED_GRACE_S = 30.0
_decode_call = msgspec.msgpack.Decoder(ToolCall).decode


class ToolHost:
    """The tools of one process."""

    def __init__(
        self, actor: Actor, tools: dict[str, LoadedTool], broken: list[ToolDescriptor], max_calls: int
    ) -> None:
        self._actor = actor
        self._tools = tools
        self._offer = Catalogue(tools=[tool.descriptor for tool in tools.values()] + broken)
        self._environment = Environment(actor.settings.tools, Path(actor.boot.data_dir))
        self._max_calls = max_calls

    async def catalogue(self, _: IncomingCall) -> Catalogue:
        """Method `catalogue`."""
        return self._offer

    async def call(self, call: IncomingCall) -> ToolResult:
        """Method `tools/call`. The channel applies the deadline and cancels when the caller leaves."""
        request = _decode_call(call.body)
        tool = self._tools.get(request.name)
        if tool is None:
            raise UnknownToolError(f"{self._actor.name} has no tool {request.name!r}", tool=request.name)
        if self._actor.open_calls > self._max_calls:
            raise BusyError(f"{self._actor.name} runs {self._max_calls} calls, which is its limit; try again")
        report = call.item if request.progress or request.log_level else None
        try:
            return await tool.run(request, self._environment, report, call.ask if request.can else None)
        except ToolExecutionError as error:
            # The caller gets the message only; whoever mends the tool needs the place.
            cause = error.__cause__ or error
            self._actor.log.error("tool failed", tool=request.name, call_id=request.call_id, exc_info=cause)
            raise

    async def replace_when_stuck(self) -> None:
        """End this process when abandoned threads stay for longer than their grace. Runs until then."""
        since: float | None = None
        while True:
            await trio.sleep(_ABANDONED_CHECK_S)
            if not abandoned_threads():
                since = None
                continue
            since = since if since is not None else trio.current_time()
            if trio.current_time() - since > _ABANDONED_GRACE_S:
                self._actor.log.error("threads of cancelled calls do not end; asking for a new process")
                self._actor.draining.set()
                await self._actor.finish_calls()
                raise StuckThreadError("threads of cancelled calls did not end")


class StuckThreadError(RuntimeError):
    """This process has threads that can't be ended and must be replaced. For the supervisor, as an exit."""
