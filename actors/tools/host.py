# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers calls of tools in one process: what a pool and a P2P actor have in common.

Methods: `catalogue` -> `Catalogue`; `tools/call`, `resources/read`, `prompts/get` and `completion/complete` (`ToolCall`
and below) -> `ToolResult`, with progress and log items. Event: `Changed`.
A thread whose call was cancelled and that does not end within its grace time can't be ended from inside: the process
then asks to be replaced by ending itself, once its other calls are done.
Calls that run are on a record that outlives the process (`actors/flight.py`), and those that end processes are refused
(`actors/tools/guard.py`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from actors.base import Actor, Method
from actors.calls import IncomingCall
from actors.channel import FrameTooLargeError
from actors.errors import BusyError, ToolExecutionError, UnknownToolError
from actors.flight import FlightRecorder, flight_path
from actors.keys import DIGEST_KEY, load_or_create_key
from actors.notices import notices
from actors.tool_messages import (
    Catalogue,
    Changed,
    CompletionAsk,
    PromptGet,
    ResourceRead,
    ToolCall,
    ToolDescriptor,
    ToolResult,
)
from actors.tools.execution import Environment, LoadedTool, Runnable, abandoned_threads
from actors.tools.guard import CallGuard
from actors.tools.offers import Offers

_ABANDONED_CHECK_S = 1.0
_ABANDONED_GRACE_S = 30.0
_decode_call = msgspec.msgpack.Decoder(ToolCall).decode
_decode_read = msgspec.msgpack.Decoder(ResourceRead).decode
_decode_prompt = msgspec.msgpack.Decoder(PromptGet).decode
_decode_completion = msgspec.msgpack.Decoder(CompletionAsk).decode


class ToolHost:
    """The tools of one process."""

    def __init__(
        self,
        actor: Actor,
        tools: dict[str, LoadedTool],
        broken: list[ToolDescriptor],
        max_calls: int,
        offers: Offers | None = None,
    ) -> None:
        self._actor = actor
        self._tools = tools
        data_dir = Path(actor.boot.data_dir)
        guard = CallGuard(_recorder(actor, max_calls), load_or_create_key(data_dir, DIGEST_KEY), actor.survived)
        guard.take(actor.marks)
        actor.on_marks = guard.take
        self._environment = Environment(actor.settings.tools, data_dir, guard)
        self._offers = offers or Offers()
        self._offer = Catalogue(
            tools=[tool.descriptor for tool in tools.values()] + broken,
            resources=self._offers.resource_descriptors(),
            prompts=self._offers.prompt_descriptors(),
        )
        self._max_calls = max_calls

    def methods(self) -> dict[str, Method]:
        """All that is answered, for `Actor.serve`."""
        return {
            "catalogue": self.catalogue,
            ToolCall.METHOD: self.call,
            ResourceRead.METHOD: self.read,
            PromptGet.METHOD: self.prompt,
            CompletionAsk.METHOD: self.complete,
        }

    async def send_notices(self) -> None:
        """Tell all that are connected what changed in this process. Runs until cancelled."""
        actor = self._actor

        def post(news: Changed) -> None:
            try:
                actor.post_to_all(news)
            except FrameTooLargeError:
                actor.post_to_all(Changed(any_uri=True, lists=news.lists))

        await notices.send(post, lambda: actor.most_queued_bytes <= actor.limits.max_queued_bytes)

    async def catalogue(self, _: IncomingCall) -> Catalogue:
        """Method `catalogue`."""
        return self._offer

    async def call(self, call: IncomingCall) -> ToolResult:
        """Method `tools/call`. The channel applies the deadline and cancels when the caller leaves."""
        request = _decode_call(call.body)
        tool = self._tools.get(request.name)
        if tool is None:
            raise UnknownToolError(f"{self._actor.name} has no tool {request.name!r}", tool=request.name)
        return await self._run(call, request, tool)

    async def read(self, call: IncomingCall) -> ToolResult:
        """Method `resources/read`."""
        resource, request = self._offers.reading(_decode_read(call.body))
        return await self._run(call, request, resource)

    async def prompt(self, call: IncomingCall) -> ToolResult:
        """Method `prompts/get`."""
        request = _decode_prompt(call.body)
        return await self._run(call, request, self._offers.prompt(request))

    async def complete(self, call: IncomingCall) -> ToolResult:
        """Method `completion/complete`."""
        request = _decode_completion(call.body)
        return await self._run(call, request, self._offers.completing(request))

    async def _run(self, call: IncomingCall, request: ToolCall, tool: Runnable) -> ToolResult:
        if self._actor.open_calls > self._max_calls:
            raise BusyError(f"{self._actor.name} runs {self._max_calls} calls, which is its limit; try again")
        report = call.item if request.progress or request.log_level else None
        try:
            return await tool.run(request, self._environment, report, call.ask if request.can else None, call)
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


def _recorder(actor: Actor, slots: int) -> FlightRecorder:
    """Tools run without a record, too: then nobody learns which of them ended the process."""
    try:
        return FlightRecorder.create(flight_path(actor.boot.runtime_dir, actor.boot.incarnation), slots)
    except OSError as error:
        actor.log.warning("no record of running calls", reason=str(error))
        return FlightRecorder.without_file(slots)


class StuckThreadError(RuntimeError):
    """This process has threads that can't be ended and must be replaced. For the supervisor, as an exit."""
