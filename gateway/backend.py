# SPDX-License-Identifier: AGPL-3.0-or-later
"""The gateway's ways: to the tools, a `ToolClient` whose calls are logged and have a time-out, with decoded items; and
to the task queue."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import msgspec

from actors.calls import Message, OnAsk
from actors.catalogue_view import CatalogueView
from actors.client import COMING, ToolClient
from actors.errors import MCPServerError, code_of
from actors.logs import log_execution
from actors.task_client import TASK_QUEUE, TaskClient
from actors.tool_messages import (
    ASK,
    BEGIN_TASK,
    CLOSE_STREAM,
    URL_DONE,
    Answers,
    Questions,
    ToolCall,
    ToolItem,
    ToolResult,
)
from gateway.types import Respondent

TASK_WORKER: Final = "task_worker"

_decode_item = msgspec.msgpack.Decoder(ToolItem).decode
_decode_questions = msgspec.msgpack.Decoder(Questions).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class ToolBackend:
    """What the protocol and REST call. One per gateway."""

    def __init__(self, client: ToolClient, incarnation: int) -> None:
        self._client = client
        self._incarnation = incarnation
        self._numbers = itertools.count(1)

    @property
    def catalogue(self) -> CatalogueView:
        """The tools there are now."""
        return self._client.catalogue

    def new_call_id(self) -> str:
        """An id that no other call of this tree ever has: incarnations are never used twice."""
        return f"{self._incarnation}-{next(self._numbers)}"

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,
        on_item: Callable[[ToolItem], object] | None = None,
        respondent: Respondent | None = None,
    ) -> ToolResult:
        """Run one tool and log it. Raises `MCPServerError` and below."""
        on_raw = None if on_item is None else lambda body: on_item(_decode_item(body))
        on_ask = None if respondent is None else _asked(respondent)
        try:
            result = await self._client.call(call, timeout_s=timeout_s, on_item=on_raw, on_ask=on_ask)
        except MCPServerError as error:
            tool = self._client.catalogue.of(call)
            log_execution(
                call.name, tool.runtime if tool else "unknown", 0.0, "error", call_id=call.call_id, error=code_of(error)
            )
            raise
        log_execution(call.name, result.runtime, result.duration_ms, "success", call_id=call.call_id)
        return result


class TaskBackend(TaskClient):
    """The way to the task queue. One per gateway."""

    @property
    def there(self) -> bool:
        """Whether the queue and the worker that runs tools are there, or will be again."""
        return all(
            any(entry.state in COMING for entry in self._peers.processes(base)) for base in (TASK_QUEUE, TASK_WORKER)
        )


def _asked(respondent: Respondent) -> OnAsk:
    """What answers the questions of one call's channel."""

    async def on_ask(method: str, body: msgspec.Raw) -> Message:
        if method == ASK:
            return Answers(answers=await respondent.ask(_decode_questions(body).questions))
        if method == CLOSE_STREAM:
            respondent.close_stream()
        elif method == URL_DONE:
            respondent.url_done(_decode_text(body))
        elif method == BEGIN_TASK:
            await respondent.begin_task()
        else:
            raise MCPServerError(f"a client can't be asked for {method!r}")
        return None

    return on_ask
