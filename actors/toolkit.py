# SPDX-License-Identifier: AGPL-3.0-or-later
"""All that the author of tools, resources and prompts imports: the decorators `tool`, `resource` and `prompt`, the
context of a call, content blocks and errors.

A tool is a typed function, async or plain:

    @tool(read_only=True)
    async def echo(text: str) -> str:
        '''Return the text unchanged.'''
        return text

* The decorator only marks; `actors.tools.loader` finds marked functions and builds everything else.
* Annotations are the contract: arguments are checked against them before the function is called, results afterwards.
* An async tool runs on the process's trio loop and must not block it. A plain one runs in a thread; when its call is
  cancelled nobody waits for it any more, so it should look at `ToolContext.check_cancelled()` now and then.
* A parameter annotated `ToolContext` is the call's context, not an argument.
* It may ask the client by its context: `await ctx.elicit(...)`, in plain tools `ctx.elicit(...).wait()`; what that
  means for the order of things is said in `actors.asking`.
* Any exception ends the call as "tool failed" with its message. `InvalidArgumentsError`, `UnavailableError` and
  `ForbiddenError` keep their meaning.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import msgspec
import trio

from actors.asking import Ask, Asker, CallCancelledError
from actors.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    PromptMessage,
    ResourceContents,
    ResourceLink,
    TextContent,
)
from actors.declare import Completion, JsonObject, prompt, resource
from actors.errors import (
    CannotAskError,
    ForbiddenError,
    InvalidArgumentsError,
    NoAnswerError,
    NotFoundError,
    UnavailableError,
    UrlRequiredError,
)
from actors.forms import Email, Url, choices
from actors.notices import list_changed, resource_changed
from actors.questions import (
    Asks,
    Capability,
    ElicitResult,
    Message,
    Root,
    SampleResult,
    ToolUse,
    ToolUseResult,
    checked_capabilities,
)
from actors.settings import ToolsSettings
from actors.tool_messages import Annotations, Icon, Kind, LogItem, Progress, TaskSupport, ToolItem
from actors.tools.files import Files

__all__ = [
    "Annotations", "AudioContent", "CallCancelledError", "CannotAskError", "Completion", "ContentBlock", "ElicitResult",
    "Email", "EmbeddedResource", "ForbiddenError", "Icon", "ImageContent", "InvalidArgumentsError", "Message",
    "NoAnswerError", "NotFoundError", "PromptMessage", "ResourceContents", "ResourceLink", "Root", "SampleResult",
    "TextContent", "ToolContext", "ToolUse", "ToolUseResult", "UnavailableError", "Url", "UrlRequiredError", "choices",
    "list_changed", "prompt", "resource", "resource_changed", "tool",
]  # fmt: skip

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""MCP's names, least severe first."""
LOG_RANK: Final[dict[str, int]] = {name: rank for rank, name in enumerate(LogLevel.__args__)}  # type: ignore[attr-defined]

SPEC_ATTRIBUTE: Final = "__greenroom_tool__"
_MAX_WAITING_LOGS: Final = 256

_Function = TypeVar("_Function", bound=Callable[..., Any])


# --- the decorator -------------------------------------------------------------------------------------------------


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What `tool` was told about a function; read by the loader."""

    name: str
    title: str | None
    pool: str | None
    timeout_s: float | None
    retry_safe: bool
    read_only: bool | None
    destructive: bool | None
    idempotent: bool | None
    open_world: bool | None
    max_concurrent: int | None
    category: str | None
    input_schema: dict[str, Any] | None
    requires: tuple[str, ...] | None
    icons: tuple[Icon, ...] | None
    meta: JsonObject | None
    task: TaskSupport | None
    begins_task: bool | None


def tool(
    *,
    name: str | None = None,
    title: str | None = None,
    pool: str | None = None,
    timeout: float | None = None,
    retry_safe: bool | None = None,
    read_only: bool | None = None,
    destructive: bool | None = None,
    idempotent: bool | None = None,
    open_world: bool | None = None,
    max_concurrent: int | None = None,
    category: str | None = None,
    input_schema: dict[str, Any] | None = None,
    requires: Sequence[Capability] | None = None,
    icons: Sequence[Icon] | None = None,
    meta: JsonObject | None = None,
    task: TaskSupport | None = None,
    begins_task: bool | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a function as a tool. The function itself stays as it is and can be called in tests.

    * `name`: default the function's name. In Greenroom's own packages it equals the file's name.
    * `title`: for people; default made from the name.
    * `pool`: process group that runs it, where the configuration has such a pool and does not decide otherwise.
    * `timeout`: seconds for a call; default `runtimes.general.timeout`.
    * `retry_safe`: a call whose process died may be run again. Default: whether it is `read_only` or `idempotent`.
    * `read_only, destructive, idempotent, open_world`: MCP's hints for clients. None = not said.
    * `max_concurrent`: calls at once in the whole system.
    * `category`: for tools of your own; default the name of their folder or module.
    * `input_schema`: published instead of the schema made from the annotations; must name the same parameters.
    * `requires`: what a client must have declared (`sampling`, `elicitation.url`, ...); others are refused at once.
    * `icons`: pictures that clients may show.
    * `meta`: `_meta` of the listed tool; keys of your own begin with your domain name.
    * `task`: whether a call may (`optional`) or must (`required`) be an MCP task, which is stored and survives the
      death of every process; its client comes back for the result. Default `forbidden`.
    * `begins_task`: the call becomes a task where the tool awaits `ctx.begin_task()`, not before it runs.

    A parameter `Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Region"})]` is repeated by clients in the HTTP
    header `Mcp-Param-Region`, for whoever routes by it.
    """

    needed = checked_capabilities(requires)

    def mark(function: _Function) -> _Function:
        safe = bool(read_only or idempotent) if retry_safe is None else retry_safe
        spec = ToolSpec(
            name=name if name is not None else function.__name__,
            title=title,
            pool=pool,
            timeout_s=timeout,
            retry_safe=safe,
            read_only=read_only,
            destructive=destructive,
            idempotent=idempotent,
            open_world=open_world,
            max_concurrent=max_concurrent,
            category=category,
            input_schema=input_schema,
            requires=None if requires is None else needed,
            icons=None if icons is None else tuple(icons),
            meta=meta,
            task=task,
            begins_task=begins_task,
        )
        setattr(function, SPEC_ATTRIBUTE, spec)
        return function

    return mark


# --- the context of a call -----------------------------------------------------------------------------------------


class Timed(Protocol):
    """What has a deadline, which may be moved."""

    @property
    def deadline(self) -> float:
        """On Trio's clock."""
        ...


class ToolContext(Asks):
    """One call, as its tool sees it. All methods may be called from the loop and from the tool's threads; none wait,
    but for the questions of `Asks`, which are awaited (in plain tools: `.wait()`)."""

    def __init__(
        self,
        *,
        call_id: str,
        principal: str,
        settings: ToolsSettings,
        data_dir: Path,
        files: Files,
        report: Callable[[ToolItem], object] | None,
        wants_progress: bool,
        log_level: str,
        logger: str,
        ask: Ask | None = None,
        can: Sequence[str] = (),
        timed: Timed | None = None,
        on_wait: Callable[[bool], object] = lambda _: None,
    ) -> None:
        """Made inside the call's task, by `actors.tools.execution`. `timed`: what knows the call's deadline; without it
        that is the deadline of the task's cancel scopes. `on_wait` is told when the call only waits for its client's
        answer, and when it runs again."""
        self.call_id = call_id
        """Never repeats."""
        self.principal = principal
        """Who calls; '' when nobody had to say."""
        self.settings = settings
        self.data_dir = data_dir
        """Greenroom's data directory: a tool keeps its state in a folder of its own there."""
        self.files = files
        """Turns paths from callers into paths below the configured roots; use it for every path that a caller gives."""
        self._timed = timed
        self._scopes_end = trio.current_effective_deadline() if timed is None else math.inf
        # Threads have no Trio clock to ask.
        self._clock_offset = time.monotonic() - trio.current_time()
        self._report = report
        self._wants_progress = wants_progress and report is not None
        self._log_rank = LOG_RANK.get(log_level, len(LOG_RANK)) if report is not None else len(LOG_RANK)
        self._logger = logger
        self._loop = trio.lowlevel.current_trio_token()
        self._loop_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._waiting_progress: Progress | None = None
        self._waiting_logs: deque[LogItem] = deque(maxlen=_MAX_WAITING_LOGS)
        self._flush_due = False
        self._cancelled = False
        self._ended = False
        self._on_cancel: list[Callable[[], object]] = []
        self._ask, self._can, self._on_wait = ask, can, on_wait
        self._task = trio.lowlevel.current_task()
        self._asker: Asker | None = None

    @property
    def asker(self) -> Asker:
        """The questions of this call."""
        with self._lock:
            if self._asker is None:
                self._asker = Asker(self._ask, self._can, self._loop, self._task, self._on_wait)
            return self._asker

    @property
    def deadline(self) -> float:
        """When the call is cancelled, on the clock of `time.monotonic()`; infinite when it has no limit, and while a
        question to the client is open: the time that people take is not the tool's."""
        return (self._timed.deadline if self._timed is not None else self._scopes_end) + self._clock_offset

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """The call was cancelled or its time ran out; nobody waits for the result."""
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raise `CallCancelledError` when the call was cancelled. For loops in plain tools."""
        if self._cancelled:
            raise CallCancelledError

    def on_cancel(self, interrupt: Callable[[], object]) -> None:
        """Have `interrupt` called when the call of a plain tool is cancelled, to wake its thread from a long wait.

        It is called from the loop's thread, must return at once, and may be called more than once. Exceptions from it
        are dropped.
        """
        with self._lock:
            self._on_cancel.append(interrupt)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Tell the client how far the tool is, if it asked. `done` has to grow; units are yours.

        From a thread only the latest of several quick reports is sent.
        """
        if not self._wants_progress:
            return
        item = Progress(progress=float(done), total=None if total is None else float(total), message=text)
        if threading.get_ident() == self._loop_thread:
            self._send(item)
            return
        with self._lock:
            self._waiting_progress = item
        self._schedule_flush()

    def log(self, level: LogLevel, data: object) -> None:
        """Send the client something to read, if it wants that level. `data` is any JSON value."""
        if LOG_RANK[level] < self._log_rank:
            return
        item = LogItem(level=level, data=msgspec.json.encode(data), logger=self._logger)
        if threading.get_ident() == self._loop_thread:
            self._send(item)
            return
        with self._lock:
            self._waiting_logs.append(item)
        self._schedule_flush()

    def resource_changed(self, uri: str) -> None:
        """Tell all clients that subscribed to this resource that it has other contents now."""
        resource_changed(uri)

    def list_changed(self, kind: Kind) -> None:
        """Have all clients list the tools, resources or prompts again."""
        list_changed(kind)

    def _send(self, item: ToolItem) -> None:
        if not self._ended and self._report is not None:
            self._report(item)

    def _schedule_flush(self) -> None:
        with self._lock:
            if self._flush_due:
                return
            self._flush_due = True
        # The loop is gone when the process ends; an abandoned thread may outlive it by a moment.
        with suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self.flush, idempotent=True)

    def flush(self) -> None:
        """Send what threads left to be sent. Loop's thread only; done by itself, and at the end of the call."""
        with self._lock:
            self._flush_due = False
            logs = list(self._waiting_logs)
            self._waiting_logs.clear()
            progress, self._waiting_progress = self._waiting_progress, None
        for item in logs:
            self._send(item)
        if progress is not None:
            self._send(progress)

    def cancel(self) -> bool:
        """Mark the call as cancelled and interrupt its waits. True when there was something to interrupt.

        For the code that runs tools, not for tools.
        """
        self._cancelled = True
        with self._lock:
            interrupts = list(self._on_cancel)
        for interrupt in interrupts:
            with suppress(Exception):
                interrupt()
        waited = self._asker is not None and self._asker.interrupt()
        return waited or bool(interrupts)

    def end(self) -> None:
        """The call is over: send what is left, drop all that comes later. For the code that runs tools."""
        self.flush()
        self._ended = True
        if self._asker is not None:
            self._asker.end()
