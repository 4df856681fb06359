# SPDX-License-Identifier: AGPL-3.0-or-later
"""The gateway's way to the tools: a `ToolClient` whose calls are logged and have a time-out, with decoded items."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from actors.calls import Message, OnAsk
from actors.client import CatalogueView, ToolClient
from actors.errors import MCPServerError, code_of
from actors.logs import log_execution
from actors.messages import ASK, CLOSE_STREAM, URL_DONE, Answers, Questions, ToolCall, ToolItem, ToolResult
from gateway.types import Respondent

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


def _asked(respondent: Respondent) -> OnAsk:
    """What answers the questions of one call's channel."""

    async def on_ask(method: str, body: msgspec.Raw) -> Message:
        if method == ASK:
            return Answers(answers=await respondent.ask(_decode_questions(body).questions))
        if method == CLOSE_STREAM:
            respondent.close_stream()
        elif method == URL_DONE:
            respondent.url_done(_decode_text(body))
        else:
            raise MCPServerError(f"a client can't be asked for {method!r}")
        return None

    return on_ask
