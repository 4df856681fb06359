# SPDX-License-Identifier: AGPL-3.0-or-later
"""One request of the client on its way: sent, perhaps again, and everything that comes back handed on in order.

A request ends with exactly one answer, unless the client cancelled it. What was not sent waits for the next gateway.
What was lost after it was sent is repeated where that can do no harm: every method but `tools/call`, and tools that
say that they are `retry_safe`, once. Of all others the outcome is unknown, and the answer says so.
"""

from __future__ import annotations

import logging
from typing import Final

import httpx
import msgspec
import trio

from actors.jsonrpc import INTERNAL_ERROR
from actors.param_headers import ParamRule, param_rules
from gateway.mcp.jsonrpc import HEADER_MISMATCH, McpError
from gateway.sse import EventReader, EventTooLongError
from gateway.stdio.messages import (
    CALL,
    LISTEN,
    Kind,
    Message,
    Refused,
    answered,
    errors,
    lost,
    member,
    method_of,
    modern_headers,
    one_line,
    resume_headers,
    tool_name,
    unreachable,
)
from gateway.stdio.session import AGAIN_CAP_S, AGAIN_S, LegacySession, Say
from gateway.stdio.wire import LostError, NotSentError, Wire

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_LISTENED: Final = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}
_RESUMES: Final = 20
"""Tries to go on reading a stream that the server closed before its answer, each after at least `AGAIN_S`."""
_REST_S: Final = 1.0
"""Time for a stream to end after its answer."""

_log = logging.getLogger("greenroom.stdio")


class UnansweredError(Exception):
    """The HTTP exchange ended in order, but without an answer to the request."""


class Request:
    """One line with one or more requests in it."""

    def __init__(self, message: Message, wire: Wire, session: LegacySession, say: Say, event_limit: int) -> None:
        self.message = message
        self._wire = wire
        self._session = session
        self._say_out = say
        self._event_limit = event_limit
        self.scope = trio.CancelScope()
        self.muted = False
        """The client cancelled it: nothing more is said."""
        self.done = trio.Event()
        self.fence: trio.Event | None = None
        """Set when what the client sent before has left."""
        self._open = set(message.ids)
        self._said = False
        self._acknowledged = False
        self._repeated = False
        self._rules: tuple[ParamRule, ...] = ()
        self._renewed = False
        self._reader = EventReader(event_limit)
        """Of the stream that answers, or answered last."""
        self._resume_from = ""
        """The event after which the answer goes on, in a stream of its own; '' = nothing of it was seen."""
        self._resumes = 0

    @property
    def lasts(self) -> bool:
        """Whether it has no end of its own."""
        return self.message.modern and self.message.method == LISTEN

    async def run(self) -> None:
        """From the first try to the answer. Raises what `say` raises."""
        try:
            with self.scope:
                if self.fence is not None:
                    await self.fence.wait()
                if not self.message.modern and self.message.method != "initialize":
                    await self._session.settled()
                if not self.muted:
                    await (self._listen() if self.lasts else self._ask())
        except Refused as refusal:
            await self._say(refusal.answer)
        finally:
            if self.message.method == "initialize":
                self._session.ends()
            self.done.set()

    async def give_up(self, error: McpError) -> None:
        """Answer what is not answered yet, and end."""
        self.scope.cancel()
        await self._fail(error)

    # --- tries -------------------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        patience = self._wire.patience()
        while self._open and not self.muted:
            try:
                if not await self._once():
                    return
            except NotSentError as problem:
                if not await patience.again():
                    await self._fail(unreachable(str(problem)))
            except LostError as problem:
                _log.info("%s: %s", self.message.method or "array", problem)
                if not (await self._may_repeat() and await patience.again()) and not await self._may_resume():
                    await self._fail(lost())
            except EventTooLongError as problem:
                await self._fail(McpError(INTERNAL_ERROR, f"the answer can't be read: {problem}"))
            except UnansweredError as problem:
                await self._fail(McpError(INTERNAL_ERROR, f"the gateway gave no answer: {problem}"))

    async def _may_repeat(self) -> bool:
        """Whether a second try does no harm, and nothing of the first was seen."""
        message = self.message
        if self._said or self.muted or message.kind is Kind.ARRAY:
            return False
        if message.method != CALL:
            return True
        if self._repeated:
            return False
        self._repeated = True
        tool = await self._wire.tool(tool_name(message.body))
        return tool is not None and tool.retry_safe

    async def _may_resume(self) -> bool:
        """Whether the rest of the answer can be asked for. Legacy servers also close a stream to have clients do so."""
        seen = self._reader.last_id
        if self.message.modern or not seen or self.muted:
            return False
        self._resumes = self._resumes + 1 if seen == self._resume_from else 1
        self._resume_from = seen
        await trio.sleep(max(self._reader.retry_s or 0.0, AGAIN_S))
        return self._resumes <= _RESUMES

    async def _once(self) -> bool:
        """One try; True when there is to be another one, with what was learned."""
        message, token = self.message, self._session.token
        legacy = {} if message.modern else self._headers()
        headers = legacy or modern_headers(message, self._rules)
        resuming = bool(self._resume_from)
        async with self._wire.once(
            "GET" if resuming else "POST", headers, b"" if resuming else message.body
        ) as response:
            if _is_stream(response):
                self._reader = EventReader(self._event_limit)
                self._reader.last_id = self._resume_from
                await self._read(response, self._reader)
            else:
                body = await response.aread()
                if resuming:
                    await self._fail(lost())
                elif await self._refreshed(response.status_code, legacy, token) or await self._learned(body):
                    return True
                else:
                    await self._answer(response, body)
                return False
        if self._open and not self.muted and not await self._may_resume():
            await self._fail(lost())
        return bool(self._open)

    async def _refreshed(self, status: int, legacy: dict[str, str], token: str) -> bool:
        """Whether the session was unknown, and there is a new one now."""
        if status != 404 or "mcp-session-id" not in legacy or self._renewed:
            return False
        self._renewed = True
        return await self._session.renew(token)

    def _headers(self) -> dict[str, str]:
        """Of a try in the session."""
        if self._resume_from:
            return resume_headers(self._session.headers(), self._resume_from)
        if self.message.method == "initialize":
            return {name: value for name, value in self._session.headers().items() if not name.startswith("mcp-")}
        return self._session.headers()

    async def _learned(self, body: bytes) -> bool:
        """Whether the refusal was for arguments that headers must repeat, and it is known now which these are."""
        if not self.message.modern or self.message.method != CALL or self._rules:
            return False
        error = member(body, "error")
        if not isinstance(error, dict) or error.get("code") != HEADER_MISMATCH:
            return False
        tool = await self._wire.tool(tool_name(self.message.body))
        self._rules = param_rules(tool.input_schema) if tool is not None else ()
        return bool(self._rules)

    async def _listen(self) -> None:
        """`subscriptions/listen`: opened again when the gateway goes, so that the client need not know of it."""
        pause = AGAIN_S
        while self._open:
            began = trio.current_time()
            try:
                async with self._wire.once("POST", modern_headers(self.message), self.message.body) as response:
                    if not _is_stream(response):
                        await self._answer(response, await response.aread())
                        return
                    await self._read(response, EventReader(self._event_limit))
            except (NotSentError, LostError, EventTooLongError) as problem:
                _log.debug("a subscription is opened again: %s", problem)
            pause = AGAIN_S if trio.current_time() - began > AGAIN_CAP_S else min(2 * pause, AGAIN_CAP_S)
            await trio.sleep(pause)

    # --- what comes back ---------------------------------------------------------------------------------------------

    async def _read(self, response: httpx.Response, reader: EventReader) -> None:
        # Read to its end, as leaving the iteration early would leave its generators open; but not for ever.
        with trio.CancelScope() as rest:
            async for chunk in response.aiter_raw():
                for event in reader.feed(chunk):
                    if event.data:
                        await self._take(event.data)
                if not self._open:
                    rest.deadline = min(rest.deadline, trio.current_time() + _REST_S)

    async def _take(self, data: bytes) -> None:
        """One message of the stream."""
        ids = answered(data)
        if self.lasts and (ids is not None or method_of(data) == _ACKNOWLEDGED):
            await self._of_listen(data, ids)
            return
        self._said = True
        await self._say(data)
        self._open.difference_update(ids or ())

    async def _of_listen(self, data: bytes, ids: tuple[int | str, ...] | None) -> None:
        if ids is not None:
            # A result only says that this gateway ends; an error says that there is no such subscription.
            if member(data, "error") is not None:
                await self._say(data)
                self._open.clear()
        elif not self._acknowledged:
            self._acknowledged = True
            await self._say(data)
        else:
            # What happened between the two streams nobody knows, so the client is told to look.
            params = member(data, "params") or {}
            for kind, name in _LISTENED.items():
                if params.get("notifications", {}).get(kind) is True:
                    await self._say(_changed(name, self.message.ids[0]))

    async def _answer(self, response: httpx.Response, body: bytes) -> None:
        """An answer in one piece."""
        ids = answered(body) if body else None
        if ids is not None and self._open.issuperset(ids) and ids:
            if self.message.method == "initialize":
                self._session.opened(response, body)
            await self._say(body)
            self._open.difference_update(ids)
            if self._open:
                raise UnansweredError("it left out a part of the array")
            return
        if self.muted:
            self._open.clear()
            return
        error = member(body, "error") if body else None
        if not isinstance(error, dict):
            raise UnansweredError(f"HTTP status {response.status_code}")
        # An error without our id: of the JSON-RPC layer, or of the HTTP layer below it.
        code = error.get("code")
        code, data = (code, error.get("data")) if isinstance(code, int) else (INTERNAL_ERROR, {"code": code})
        await self._fail(McpError(code, str(error.get("message", "")), data))

    async def _fail(self, error: McpError) -> None:
        open_, self._open = sorted(self._open, key=str), set()
        for line in errors(open_, error):
            await self._say(line)

    async def _say(self, data: bytes) -> None:
        if not self.muted:
            await self._say_out(one_line(data))


def _is_stream(response: httpx.Response) -> bool:
    kind = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.partition(";")[0].strip() == "text/event-stream"


def _changed(name: str, subscription: int | str) -> bytes:
    params = {"_meta": {SUBSCRIPTION_ID: subscription}}
    return msgspec.json.encode({"jsonrpc": "2.0", "method": f"notifications/{name}/list_changed", "params": params})
