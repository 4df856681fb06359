# SPDX-License-Identifier: AGPL-3.0-or-later
"""One tool, resource or prompt, ready to run: arguments decoded once and checked, the function called, its result
checked and encoded once.

Whatever a tool does ends as a result or an error of `actors.errors`; nothing that it raises reaches the actor, except
trio's own cancellation. Time-outs are the caller's: cancel `run`. A plain tool then stays behind in its thread until it
ends; `abandoned_threads` counts those, and whoever runs the process decides how long that may take.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Final, get_origin

import msgspec
import trio

from actors.asking import Ask
from actors.errors import MCPServerError, ToolExecutionError
from actors.schema import Contract, bare, call_adapter
from actors.settings import ToolsSettings
from actors.tool_messages import Offered, ToolCall, ToolDescriptor, ToolItem, ToolResult
from actors.toolkit import Timed, ToolContext
from actors.tools.arguments import explain
from actors.tools.files import Files
from actors.tools.guard import CallGuard, RunningCall

MAX_ERROR_CHARS: Final = 2000
MAX_NAME_CHARS: Final = 128
_INTERRUPT_GRACE_S: Final = 0.5
_INTERRUPT_EVERY_S: Final = 0.02
_encode = msgspec.json.Encoder().encode


class ResultTooLargeError(MCPServerError):
    """The tool's result has more bytes than `tools.max_result_bytes`; it took effect, but can't be delivered."""

    code = "RESULT_TOO_LARGE"


class Environment:
    """What all calls in one process share. Make one per process, inside trio."""

    def __init__(self, settings: ToolsSettings, data_dir: Path, guard: CallGuard | None = None) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self.files = Files(settings.roots, data_dir)
        self.guard = guard
        self.limiter = trio.CapacityLimiter(settings.threads)
        """Plain tools that run at once; threads that were abandoned keep their place until they end."""


class _Threads:
    """Counts threads that nobody waits for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.abandoned = 0


_threads = _Threads()


def abandoned_threads() -> int:
    """How many threads of cancelled calls still run in this process, now."""
    return _threads.abandoned


class Runnable:
    """A function that can be called: a tool's, or another's that runs as tools do."""

    descriptor: Offered
    kind = ""
    """What it is, where it is no tool."""

    def __init__(
        self, descriptor: Offered, function: Callable[..., Any], contract: Contract, *, strict: bool = True
    ) -> None:
        """`strict`: arguments must have the types that the annotations say; else text is read as them."""
        self.descriptor = descriptor
        self.known_as = descriptor.name if not self.kind else _plain(f"{self.kind}.{descriptor.name}")
        """Among the calls that end processes."""
        self._decode = msgspec.json.Decoder(contract.arguments, strict=strict).decode
        self._made_schema = contract.input_schema
        self._invoke = call_adapter(function, contract)
        self._is_async = inspect.iscoroutinefunction(function)
        self._wants_context = contract.context_at is not None
        self._shape = contract.shape
        has_schema = contract.shape in ("object", "wrapped", "content")
        self._check = msgspec.json.Decoder(contract.returns).decode if has_schema else None
        self._one_block = contract.shape == "content" and get_origin(bare(contract.returns)) is not list

    async def run(
        self,
        call: ToolCall,
        environment: Environment,
        report: Callable[[ToolItem], object] | None = None,
        ask: Ask | None = None,
        timed: Timed | None = None,
    ) -> ToolResult:
        """Run the tool for `call`. `report` takes progress and log items; it is called from the loop and must not wait.
        `ask` is the way to the caller for the tool's questions. `timed` tells the tool its deadline; whoever runs it
        applies it.

        Raises `InvalidArgumentsError`, `QuarantinedError`, `BreakerOpenError`, `ToolExecutionError`,
        `ResultTooLargeError` and what the tool raises from `actors.errors`.
        """
        started = perf_counter()
        try:
            arguments = self._decode(call.arguments or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise explain(self.descriptor.name, error, self._made_schema) from None
        guard = environment.guard
        running = guard.begin(self.known_as, call, arguments) if guard is not None else None
        answered = False
        try:
            value = await self._value(call, environment, report, ask, timed, arguments, running)
            encoded = self._encoded(value, call, environment.settings.max_result_bytes)
            answered = True
        except MCPServerError:
            answered = True
            raise
        finally:
            if guard is not None and running is not None:
                guard.end(running, answered=answered)
        return ToolResult(
            value=encoded,
            shape=self._shape,
            runtime=self.descriptor.runtime,
            duration_ms=(perf_counter() - started) * 1000.0,
        )

    async def _value(
        self,
        call: ToolCall,
        environment: Environment,
        report: Callable[[ToolItem], object] | None,
        ask: Ask | None,
        timed: Timed | None,
        arguments: msgspec.Struct,
        running: RunningCall | None,
    ) -> Any:  # noqa: ANN401 - a tool's result
        """What the tool returns; what it raises, as `actors.errors`."""
        try:
            if not self._wants_context and self._is_async:
                return await self._invoke(arguments, None)
            return await self._run_with_context(call, environment, report, ask, timed, arguments, running)
        except (MCPServerError, trio.Cancelled):
            raise
        except BaseException as error:  # SystemExit, GeneratorExit and the like are no `Exception`, and no end of ours
            raise self._failed(error) from error

    async def _run_with_context(
        self,
        call: ToolCall,
        environment: Environment,
        report: Callable[[ToolItem], object] | None,
        ask: Ask | None,
        timed: Timed | None,
        arguments: msgspec.Struct,
        running: RunningCall | None,
    ) -> Any:  # noqa: ANN401 - a tool's result
        context = ToolContext(
            call_id=call.call_id,
            principal=call.principal,
            settings=environment.settings,
            data_dir=environment.data_dir,
            files=environment.files,
            report=report,
            wants_progress=call.progress,
            log_level=call.log_level,
            logger=self.descriptor.name,
            ask=ask,
            can=call.can,
            timed=timed,
            on_wait=running.waits if running is not None else lambda _: None,
        )
        try:
            if self._is_async:
                return await self._invoke(arguments, context)
            run = _ThreadRun(self._invoke, arguments, context, running)
            return await _run_in_thread(run, context, environment.limiter)
        finally:
            context.end()

    def _shaped(self, value: object, _call: ToolCall) -> object:
        """What is sent for a result. Raises TypeError for one that was not promised."""
        if self._shape == "text" and not isinstance(value, str):
            raise TypeError(f"the tool promised text and returned {type(value).__name__}")
        return [value] if self._one_block else value

    def _encoded(self, value: object, call: ToolCall, max_bytes: int) -> bytes:
        """The result as JSON, checked against the return annotation."""
        name = self.descriptor.name
        try:
            value = self._shaped(value, call)
            encoded = _encode(value)
            if self._check is not None:
                self._check(encoded[1:-1] if self._one_block else encoded)
        except msgspec.ValidationError as error:
            cause = f"its result is not what it promises: {error}"
            raise ToolExecutionError(name, self.descriptor.runtime, cause) from error
        except Exception as error:
            raise ToolExecutionError(name, self.descriptor.runtime, f"its result can't be sent: {error}") from error
        if len(encoded) > max_bytes:
            raise ResultTooLargeError(
                f"the result of {name} has {len(encoded)} bytes, more than tools.max_result_bytes ({max_bytes}); "
                "ask for less",
                tool=name,
            )
        return encoded

    def _failed(self, error: BaseException) -> MCPServerError:
        if isinstance(error, BaseExceptionGroup):
            return self._failed_group(error)
        return ToolExecutionError(self.descriptor.name, self.descriptor.runtime, _in_short(error))

    def _failed_group(self, group: BaseExceptionGroup[BaseException]) -> MCPServerError:
        """The first error of a tool's own nursery. Re-raises a group that holds nothing but cancellation."""
        first = next((leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)), None)
        if first is None:
            raise group
        if isinstance(first, MCPServerError):
            return first
        return self._failed(first)


class LoadedTool(Runnable):
    """A tool that can be called."""

    descriptor: ToolDescriptor


def _plain(name: str) -> str:
    """A name as tools may have it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:MAX_NAME_CHARS]


async def _run_in_thread(run: _ThreadRun, context: ToolContext, limiter: trio.CapacityLimiter) -> Any:  # noqa: ANN401
    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        if context.cancel() and run.running:
            # An interrupted wait ends in a moment: worth that moment, since an abandoned thread may cost its process.
            with trio.move_on_after(_INTERRUPT_GRACE_S, shield=True):
                while run.running:
                    context.cancel()
                    await trio.sleep(_INTERRUPT_EVERY_S)
        run.abandon()
        raise


class _ThreadRun:
    """One run of a plain tool in a thread, which may be abandoned."""

    def __init__(
        self,
        invoke: Callable[[msgspec.Struct, ToolContext], Any],
        arguments: msgspec.Struct,
        context: ToolContext,
        call: RunningCall | None = None,
    ) -> None:
        self.running = False
        self._invoke = invoke
        self._arguments = arguments
        self._context = context
        self._call = call
        self._abandoned = False

    def __call__(self) -> Any:  # noqa: ANN401 - a tool's result
        with _threads.lock:
            if self._context.cancelled:
                return None
            self.running = True
        try:
            return self._invoke(self._arguments, self._context)
        except BaseException:
            if self._abandoned:
                return None
            raise
        finally:
            with _threads.lock:
                self.running = False
                if self._abandoned:
                    _threads.abandoned -= 1
                    if self._call is not None:
                        self._call.thread_ended()

    def abandon(self) -> None:
        with _threads.lock:
            if self.running:
                self._abandoned = True
                _threads.abandoned += 1
                if self._call is not None:
                    self._call.abandoned = True


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _in_short(error: BaseException) -> str:
    """An exception as its caller may see it: type and message, no traceback, bounded."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a tool's own exception class may be broken, too
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"
