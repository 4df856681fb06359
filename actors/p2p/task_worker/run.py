# SPDX-License-Identifier: AGPL-3.0-or-later
"""One attempt at a task: its tool's call, the beats that keep its lease, and the operation that ends it.

What the tool itself said is final, unless it says that it may be tried again. An attempt that ended without the tool's
answer, because its process died or its time ran out, may be made again, too: how often is for the task to say
(`Retry.max_attempts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from actors.calls import Message
from actors.client import ToolClient
from actors.errors import (
    DeadlineExceededError,
    MCPServerError,
    OutcomeUnknownError,
    code_of,
    to_info,
)
from actors.logs import get_logger, log_execution
from actors.messages import ErrorInfo
from actors.p2p.asking_queue import End
from actors.p2p.lease_keeper import LeaseKeeper
from actors.p2p.task_worker.links import Results
from actors.p2p.task_worker.questions import TaskOwner
from actors.p2p.task_worker.stops import Stops
from actors.task_client import TaskClient
from actors.task_messages import AckCancel, Complete, Fail, Lease, Release
from actors.tool_messages import ASK, Progress, ToolCall, ToolItem, ToolResult
from actors.tool_tasks import result_text

Why = Literal["cancelled", "given back", "lost"]
"""The owner wants it cancelled; the worker stops; the task is not this worker's any more."""
_decode_item = msgspec.msgpack.Decoder(ToolItem).decode


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker goes by, from the settings."""

    worker: str
    concurrency: int
    max_waiting: int
    lease_s: float
    """The queue's own."""
    wait_s: float
    """One question for tasks waits so long."""
    ask_timeout_s: float
    max_result_bytes: int


class Run:
    """One lease of a task."""

    def __init__(
        self,
        lease: Lease,
        queue: TaskClient,
        tools: ToolClient,
        stops: Stops,
        rules: Rules,
        results: Results,
        *,
        new_call_id: Callable[[], str],
        on_asking: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_asking` hears of each change of `questions`."""
        self.lease = lease
        self.over = trio.Event()
        """Set by the worker when nothing of it is left."""
        self.questions = 0
        """That its owner has not answered yet."""
        self._queue = queue
        self._tools = tools
        self._stops = stops
        self._rules = rules
        self._results = results
        self._new_call_id = new_call_id
        self._call_id = ""
        self._on_asking = on_asking
        self._scope = trio.CancelScope()
        self._why: Why | None = None
        self._keeper = LeaseKeeper(queue, lease.id, lease.token, rules.lease_s, self.stop)

    # --- from outside ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """The task has changed: ask what there is to know."""
        self._keeper.look()

    def stop(self, why: Why) -> None:
        """End the call; the first reason counts."""
        if self._why is None:
            self._why = why
            self._scope.cancel()

    async def live(self) -> End | None:
        """Call the tool. Returns how to end the task; None when it is not ours to end."""
        end: End | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keeper.run)
            end = await self._attempt()
            nursery.cancel_scope.cancel()
        return end

    # --- the call --------------------------------------------------------------------------------------------------

    async def _attempt(self) -> End | None:
        lease = self.lease
        end: End | None = None
        if self._tools.catalogue.get(lease.type) is None:
            # Its tool went away just now; the task is not claimed again before there is one.
            return self.given_back()
        with self._scope:
            try:
                end = self._completed(await self._call())
            except MCPServerError as error:
                self._log(error)
                if isinstance(error, OutcomeUnknownError) and self._was_stopped():
                    self.stop("given back")
                else:
                    end = self._failed(told(error))
            except Exception as error:  # noqa: BLE001 - one task never ends the worker, which has others
                get_logger().error("task failed unexpectedly", task=lease.id, tool=lease.type, exc_info=error)
                end = self._failed(to_info(error))
        if end is not None and self._why != "lost":
            return end
        if self._why == "cancelled":
            return AckCancel(id=lease.id, token=lease.token)
        return self.given_back() if self._why == "given back" else None

    def given_back(self) -> Release:
        """It ends without an attempt that counts."""
        return Release(id=self.lease.id, token=self.lease.token, counts=False, reason="its worker stopped")

    def _failed(self, error: ErrorInfo) -> Fail:
        return Fail(id=self.lease.id, token=self.lease.token, error=error, logs=self._keeper.take_lines())

    async def _call(self) -> ToolResult:
        lease = self.lease
        tool = self._tools.find(lease.type)
        owner = TaskOwner(self._queue, lease, timeout_s=self._rules.ask_timeout_s)
        payload = await self._results.filled(lease)
        timeout_s = tool.timeout_s if lease.timeout_s is None else lease.timeout_s

        async def on_ask(method: str, body: msgspec.Raw) -> Message:
            if method != ASK:
                return await owner.on_ask(method, body)
            self._count_questions(1)
            try:
                return await owner.on_ask(method, body)
            finally:
                self._count_questions(-1)

        async def run() -> ToolResult:
            left = timeout_s if lease.deadline is None else min(timeout_s, lease.deadline - time.time())
            if left <= 0:
                raise DeadlineExceededError("the deadline of the task came before its tool was called")
            self._call_id = self._new_call_id()
            call = ToolCall(
                name=lease.type,
                arguments=payload.encode(),
                call_id=self._call_id,
                progress=True,
                log_level="info",
                principal=lease.owner,
                can=owner.can,
            )
            return await self._tools.call(call, timeout_s=left, on_item=self._item, on_ask=on_ask)

        return await owner.call(run)

    def _count_questions(self, more: int) -> None:
        self.questions += more
        self._on_asking()

    def _was_stopped(self) -> bool:
        """Whether a process that the call was sent to had been told to end: no fault of the task."""
        tool = self._tools.catalogue.get(self.lease.type)
        return tool is not None and self._stops.lately(self._tools.way_of(tool))

    def _completed(self, result: ToolResult) -> End:
        lease = self.lease
        status = "error" if result.is_error else "success"
        log_execution(lease.type, result.runtime, result.duration_ms, status, call_id=self._call_id)
        text = result_text(result)
        size, most = len(text.encode()), self._rules.max_result_bytes
        if size > most:
            reason = f"its result has {size} bytes; p2p.task_queue.max_result_bytes is {most}"
            return self._failed(ErrorInfo(code="LIMIT_EXCEEDED", message=reason))
        return Complete(id=lease.id, token=lease.token, result=text, logs=self._keeper.take_lines())

    def _log(self, error: MCPServerError) -> None:
        tool = self._tools.catalogue.get(self.lease.type)
        runtime = tool.runtime if tool is not None else "unknown"
        log_execution(self.lease.type, runtime, 0.0, "error", call_id=self._call_id, error=code_of(error))

    # --- news ------------------------------------------------------------------------------------------------------

    def _item(self, body: msgspec.Raw) -> None:
        item = _decode_item(body)
        if isinstance(item, Progress):
            percent = 100.0 * item.progress / item.total if item.total else None
            self._keeper.progress(percent, item.message)
        else:
            text = item.data.decode(errors="replace")
            where = f"{item.logger}: " if item.logger else ""
            self._keeper.log(f"{item.level}: {where}{text}")


def told(error: MCPServerError) -> ErrorInfo:
    """A tool's error as the end of an attempt; see the module's text."""
    info = to_info(error)
    without_answer = isinstance(error, (OutcomeUnknownError, DeadlineExceededError))
    return msgspec.structs.replace(info, retryable=True) if without_answer else info
