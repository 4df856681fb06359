# SPDX-License-Identifier: AGPL-3.0-or-later
"""`tools/list` and `tools/call`, for all revisions, and what runs calls of any kind.

A call takes one of two ways. *Directly*, in the task of its request, when nothing but the result will be sent: the hot
path. As a *live call*, in a task of its own, when notifications were asked for or the tool may take so long that the
answer must become a stream. Which tools are quick is learned: one that was quick `QUICK_CALLS` times in a row is run
directly until it is slow once. (The call that shows it to be slow is answered without keep-alives.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Final, Generic, TypeVar

import msgspec
import trio

from actors.catalogue_view import CatalogueView
from actors.errors import CannotAskError, MCPServerError, UrlRequiredError
from actors.jsonrpc import INVALID_PARAMS, is_id
from actors.param_headers import ParamRule, param_rules
from actors.tool_messages import (
    STREAM,
    TASK,
    LogItem,
    Offered,
    Progress,
    ToolCall,
    ToolDescriptor,
    ToolItem,
    ToolResult,
)
from gateway.mcp.calls import STREAM_AFTER_S, LiveCall
from gateway.mcp.capabilities import missing
from gateway.mcp.dialogues import Dialogues, asked_instead, can_of, run_live
from gateway.mcp.eras import D, E
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.jsonrpc import McpError, params_as
from gateway.mcp.paging import Pages
from gateway.mcp.requests import SessionRespondent
from gateway.mcp.respondents import TaskStart
from gateway.mcp.rounds import Rounds
from gateway.mcp.shaping import LOG_LEVELS
from gateway.mcp.task_methods import TaskMethods, Wish
from gateway.types import Answer, Respondent, Stream

TOOLS_TTL_MS: Final = 10_000
"""Milliseconds that a client may keep a page of `tools/list` without asking."""
QUICK_S: Final = 1.0
"""A call is quick when it takes less, in seconds."""
QUICK_CALLS: Final = 16
"""Quick calls in a row that make a tool a quick one."""
NOTHING_ASKED: Final = ""
"""No log level."""


O = TypeVar("O", bound=Offered)  # noqa: E741
Run = Callable[[], Awaitable[bytes]]


class ListParams(msgspec.Struct):
    """Params of all list methods."""

    cursor: str | None = None


list_params = msgspec.json.Decoder(ListParams)


class CallMethods(Generic[O]):
    """Runs what is offered, whatever its kind, in one of the two ways. Those below say how results and errors look."""

    def __init__(self, core: Core, dialogues: Dialogues) -> None:
        self._core = core
        self._dialogues = dialogues
        self._quick: dict[str, int] = {}

    def _shaped(self, x: Exchange, offered: O | None, result: ToolResult) -> bytes:
        """The JSON of a result."""
        raise NotImplementedError

    def _failed(self, x: Exchange, offered: O | None, error: MCPServerError, took_s: float) -> bytes:
        """The JSON of a call that failed, or an `McpError` raised."""
        raise NotImplementedError

    @staticmethod
    def _check_client(x: Exchange, offered: O) -> None:
        """Raise -32021 when the client lacks what this needs. The specification wants that before all that may be wrong
        with the params; in sessions it has no such error, and `_asking` says it in their way."""
        if x.revision == E and offered.requires:
            lacking = missing(offered.requires, can_of(x))
            if lacking is not None:
                raise lacking

    async def _serve(self, x: Exchange, tool: O, call: ToolCall, token: object) -> bytes | Answer | Stream:
        """Choose the way. `token`: what progress is reported to; None = nobody."""
        if tool.asks or tool.requires:
            return await self._asking(x, tool, call, token)
        if call.progress or call.log_level:
            return await self._live(x, tool, call, token)
        if self._is_quick(x, tool):
            return await self._direct(x, tool, call)
        return await self._live(x, tool, call, None)

    def _is_quick(self, x: Exchange, tool: O) -> bool:
        """Whether a call needs no task of its own for the time that it takes."""
        return tool.timeout_s <= STREAM_AFTER_S or not x.may_stream or self._quick.get(tool.name, 0) >= QUICK_CALLS

    async def _asking(
        self, x: Exchange, tool: O, call: ToolCall, token: object, start: TaskStart | None = None
    ) -> bytes | Answer | Stream:
        """Run a call of a tool that may ask the client. `start`: where it becomes a task."""
        can = can_of(x)
        if start is not None:
            can += (TASK,)
        if x.revision == E:
            call = msgspec.structs.replace(call, can=can)
            rounds = self._dialogues.rounds.open(x, call.name, call.arguments)
            rounds.start = start
            if call.progress or call.log_level or not self._is_quick(x, tool):
                return await self._live(x, tool, call, token, rounds)
            return await rounds.run(self._starting(partial(self._run, x, call, tool, respondent=rounds), rounds))
        lacking = missing(tool.requires, can)
        if lacking is not None:
            return self._failed(x, tool, CannotAskError(lacking.message), 0.0)
        if x.revision == D:
            can += (STREAM,)
        if can and x.may_stream:
            return await self._live(x, tool, msgspec.structs.replace(call, can=can), token, start=start)
        if call.progress or call.log_level or not self._is_quick(x, tool):
            return await self._live(x, tool, call, token)
        return await self._direct(x, tool, call)

    async def _direct(self, x: Exchange, tool: O, call: ToolCall) -> bytes | Answer:
        """Run a call in the task of its request."""
        if x.session is None:
            return await self._run(x, call, tool)
        # A client that leaves does not cancel: the shield keeps the call until it ends or is cancelled by its id.
        scope = trio.CancelScope(shield=True)
        calls, core, id_ = x.session.calls, self._core, x.frame.id
        calls[id_] = scope
        core.shielded.add(scope)
        try:
            with scope:
                return await self._run(x, call, tool)
        finally:
            core.shielded.discard(scope)
            if calls.get(id_) is scope:
                del calls[id_]
        return core.cancelled(x.id_json)

    async def _live(
        self,
        x: Exchange,
        tool: O,
        call: ToolCall,
        token: object,
        rounds: Rounds | None = None,
        start: TaskStart | None = None,
    ) -> Answer | Stream:
        """Run a call in a task of its own."""
        core = self._core
        live, asked = self._dialogues.open_live(x, call.can)
        if asked is not None:
            asked.start = start
        on_item = self._forwarder(live, x.revision, token, call.log_level)

        async def work() -> Answer:
            run = self._starting(partial(self._run, x, call, tool, on_item, rounds or asked), rounds or asked)
            said = await core.respond(x, lambda _: rounds.run(run) if rounds is not None else run())
            assert isinstance(said, Answer)  # `_run` returns bytes
            return said

        return await run_live(core, x, live, asked, work, f"call {call.name}")

    @staticmethod
    def _starting(run: Run, respondent: Rounds | SessionRespondent | None) -> Run:
        """The run, which may become a task on the way."""
        if respondent is None or respondent.start is None:
            return run
        return partial(respondent.start.run, run, respondent.answers)

    def _forwarder(self, live: LiveCall, revision: int, token: object, level: str) -> Callable[[ToolItem], None] | None:
        """What turns items of the tool into notifications of the request; None when none is wanted."""
        if token is None and not level:
            return None
        shaper = self._core.shapers[revision]
        at_least = LOG_LEVELS.get(level, len(LOG_LEVELS))
        last = -inf

        def forward(item: ToolItem) -> None:
            nonlocal last
            if isinstance(item, Progress):
                # The protocol wants progress to increase; a tool that repeats itself is not worth an error.
                # Infinity and "not a number" have no JSON.
                if token is not None and last < item.progress < inf:
                    last = item.progress
                    live.notify(shaper.progress(item, token))
            elif isinstance(item, LogItem) and LOG_LEVELS.get(item.level, -1) >= at_least:
                live.notify(shaper.log(item))

        return forward

    async def _run(
        self,
        x: Exchange,
        call: ToolCall,
        tool: O | None,
        on_item: Callable[[ToolItem], None] | None = None,
        respondent: Respondent | None = None,
    ) -> bytes:
        """Call the backend; the JSON of the result, also of a call that failed."""
        timeout_s = tool.timeout_s if tool is not None else self._core.settings.runtimes.general.timeout
        started = trio.current_time()
        quick = False
        try:
            result = await self._core.backend.call(call, timeout_s=timeout_s, on_item=on_item, respondent=respondent)
            quick = trio.current_time() - started < QUICK_S
            return self._shaped(x, tool, result)
        except MCPServerError as error:
            took = trio.current_time() - started
            quick = took < QUICK_S
            if isinstance(error, (CannotAskError, UrlRequiredError)):
                instead = asked_instead(x.revision, call.can, error, respondent)
                if instead is not None:
                    return instead
            return self._failed(x, tool, error, took)
        finally:
            if tool is not None:
                self._quick[tool.name] = self._quick.get(tool.name, 0) + 1 if quick else 0


class ToolMethods(CallMethods[ToolDescriptor]):
    """The handlers, with what they remember of the catalogue."""

    def __init__(self, core: Core, page_size: int, dialogues: Dialogues, tasks: TaskMethods) -> None:
        super().__init__(core, dialogues)
        self._tasks = tasks
        self._pages = Pages(core.secret, page_size)
        self._catalogue: CatalogueView | None = None
        self._version = -1
        self._shown: list[ToolDescriptor] = []
        self._lists: dict[tuple[int, int, bool], bytes] = {}
        self._rules: dict[str, tuple[ParamRule, ...]] = {}

    def param_rules(self, name: object) -> tuple[ParamRule, ...]:
        """The header rules of a tool; none for a tool that does not exist."""
        catalogue = self._current()
        try:
            return self._rules[name]  # type: ignore[index]
        except (KeyError, TypeError):
            tool = catalogue.get(name) if isinstance(name, str) else None
            if tool is None:
                return ()
            rules = self._rules[tool.name] = param_rules(tool.input_schema)
            return rules

    async def list(self, x: Exchange) -> bytes:
        """Handler of `tools/list`."""
        cursor = params_as(x.body, list_params).cursor
        self._current()
        start, end = self._pages.bounds([tool.name for tool in self._shown] if cursor else [], cursor)
        key = (x.revision, start, self._tasks.there)
        page = self._lists.get(key)
        if page is None:
            tools = self._shown[start:end]
            more = self._pages.cursor(tools[-1].name) if end < len(self._shown) else None
            if x.revision < D:
                tools = [tool for tool in tools if tool.task != "required"]
            page = self._lists[key] = self._core.shapers[x.revision].tool_list(
                tools, more, ttl_ms=TOOLS_TTL_MS, tasks=self._tasks.there
            )
        return page

    async def call(self, x: Exchange) -> bytes | Answer | Stream:
        """Handler of `tools/call`."""
        params = x.frame.params
        name = params.name if params is not None else None
        if type(name) is not str or params is None:
            raise McpError(INVALID_PARAMS, "params.name must be the name of a tool")
        tool = self._current().get(name)
        if tool is not None and tool.requires:
            self._check_client(x, tool)
        token, level = wanted(x)
        call = ToolCall(
            name=name,
            arguments=arguments_of(bytes(params.arguments)),
            call_id=self._core.new_call_id(),
            progress=token is not None and x.may_stream,
            log_level=level if x.may_stream else NOTHING_ASKED,
            principal=x.principal,
        )
        if tool is None or tool.broken:
            # The backend knows why: no such tool, or one that can't be called at the moment.
            return await self._run(x, call, tool)
        if tool.task != "forbidden" or params.task is not msgspec.UNSET:
            wish = self._tasks.wish(x, tool)
            if wish is not None:
                return await self._as_task(x, tool, call, token, wish)
        return await self._serve(x, tool, call, token)

    async def _as_task(
        self, x: Exchange, tool: ToolDescriptor, call: ToolCall, token: object, wish: Wish
    ) -> bytes | Answer | Stream:
        """Make a task of a call, at once or where the tool says so."""
        if not tool.begins_task or (x.session is not None and not x.may_stream):
            return await self._tasks.create(x, tool, call, wish)
        return await self._asking(x, tool, call, token, TaskStart(partial(self._tasks.create, x, tool, call, wish)))

    def _shaped(self, x: Exchange, _offered: ToolDescriptor | None, result: ToolResult) -> bytes:
        return self._core.shapers[x.revision].tool_result(result)

    def _failed(self, x: Exchange, offered: ToolDescriptor | None, error: MCPServerError, took_s: float) -> bytes:
        runtime = offered.runtime if offered is not None else None
        return self._core.shapers[x.revision].failed_call(error, runtime=runtime, took_s=took_s)

    def _current(self) -> CatalogueView:
        """The catalogue; what was derived from an older one is dropped."""
        catalogue = self._core.backend.catalogue
        if catalogue is not self._catalogue or catalogue.version != self._version:
            self._catalogue, self._version = catalogue, catalogue.version
            self._shown = [tool for tool in catalogue.tools if not tool.broken]
            self._lists.clear()
            self._rules.clear()
            self._quick.clear()
        return catalogue


def wanted(x: Exchange) -> tuple[object, str]:
    """Progress token (None: no progress) and log level ('': no log) of a call."""
    meta = x.frame.params.meta if x.frame.params is not None else None
    level = x.session.log_level if x.session is not None else NOTHING_ASKED
    if meta is None:
        return None, level
    token = meta.progress_token
    if token is not None and not is_id(token):
        raise McpError(INVALID_PARAMS, "_meta.progressToken must be a string or an integer")
    if x.revision == E and meta.log_level is not msgspec.UNSET:
        level = check_level(meta.log_level)
    return token, level


def check_level(level: object) -> str:
    """A log level, or INVALID_PARAMS."""
    if not isinstance(level, str) or level not in LOG_LEVELS:
        raise McpError(INVALID_PARAMS, f"log level must be one of {', '.join(LOG_LEVELS)}")
    return level


def arguments_of(raw: bytes) -> bytes:
    """The arguments of a call as a JSON object."""
    if raw[:1] == b"{":
        return raw
    if raw in {b"", b"null"}:
        return b"{}"
    raise McpError(INVALID_PARAMS, "params.arguments must be an object")
