# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom up`: from a configuration to a running tree, in the foreground, until it is told to stop."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio

from actors.calls import Message
from actors.errors import MCPServerError
from actors.messages import Directory, TreeStatus
from actors.settings import Settings
from actors.tool_messages import ToolDescriptor
from supervisor import bootstrap
from supervisor.admin import AdminMethod, AdminServer, Down
from supervisor.admin_quarantine import quarantine_methods
from supervisor.chaos import enabling
from supervisor.client import ask_catalogue
from supervisor.core import Core
from supervisor.forked import ForkServer
from supervisor.incident_log import IncidentLog
from supervisor.incidents import Incidents, StartFailure
from supervisor.listeners import open_listeners, url_of
from supervisor.log_relay import LogRelay
from supervisor.operations import Operations, operation_methods
from supervisor.rundir import RunInfo, hold_data_dir, open_runtime_dir, process_start_time, write_run_info
from supervisor.runtime import Runtime, TreeEnd
from supervisor.screen import first_screen
from supervisor.spawn_tractor import open_tractor_spawner
from supervisor.status import tree_status
from supervisor.tree import Tree, build_tree, gateway_name

_ADMIN_GRACE_S = 0.2
_LATER_MODULES = ("gateway.app", "gateway.http_server")
"""What a gateway loads in a thread while it already serves."""
_CATALOGUE_TIMEOUT_S = 0.5
_BROKEN_TOOL = b'"event":"broken tool"'
"""Of a pool's log: the first screen lists them already."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How `greenroom up` ended."""

    exit_code: int
    reason: str
    failure: StartFailure | None = None
    """Which actor kept the tree from starting."""


def run_up(
    settings: Settings,
    data_dir: Path,
    *,
    started_at: float,
    show: Callable[[TreeStatus, str], None],
    load: Callable[[], Settings],
    notices: Sequence[str] = (),
    until_eof: bool = False,
) -> Outcome:
    """Run the tree until it ends. `started_at` is a `time.monotonic()` reading; `show` prints the first screen (text)
    or the status; `load` reads the configuration again; `notices` go to the log. `until_eof`: stop when standard input,
    a pipe, ends: whoever started this is gone.

    Raises `StartError` when it can't start at all.
    """
    settings = bootstrap.as_configured(enabling.with_chaos(settings))
    if settings.p2p.bootstrap_only:
        bootstrap.check(settings)
    tree = build_tree(settings)
    enabling.prepare(settings, data_dir)
    fork_server = ForkServer(_first_modules(tree), _LATER_MODULES) if settings.supervisor.fork_server else None
    if fork_server is not None:
        fork_server.fork_now()  # before anything is opened or started here that a fork would copy
    with ExitStack() as stack:
        stack.enter_context(hold_data_dir(data_dir))
        runtime_dir = stack.enter_context(open_runtime_dir(settings.supervisor.runtime_dir))
        listeners = []
        if not settings.p2p.bootstrap_only:
            listeners = open_listeners(settings.server.host, settings.server.port, settings.server.gateways)
        for sock in listeners:
            stack.enter_context(sock)
        root = _Root(settings, tree, data_dir, runtime_dir, listeners, started_at, show, load, notices, fork_server)
        end = trio.run(root.run, until_eof)
        failure = root.incidents.start_failure() if end.exit_code else None
        return Outcome(exit_code=end.exit_code, reason=end.reason, failure=failure)


def _first_modules(tree: Tree) -> list[str]:
    """What children need to begin their work."""
    return list(dict.fromkeys(["actors.base", *(child.entry.partition(":")[0] for child in tree.children)]))


class _Root:
    """The parts of a running root, put together."""

    def __init__(
        self,
        settings: Settings,
        tree: Tree,
        data_dir: Path,
        runtime_dir: Path,
        listeners: list[socket.socket],
        started_at: float,
        show: Callable[[TreeStatus, str], None],
        load: Callable[[], Settings],
        notices: Sequence[str],
        fork_server: ForkServer | None,
    ) -> None:
        self._fork_server = fork_server
        if fork_server is not None:
            fork_server.tell = lambda level, text: self._relay.say(level, text, "fork server")
        self.incidents = Incidents()
        self._log = IncidentLog(data_dir)
        self._is_up = False
        self._notices = notices
        self._settings = settings
        self._tree = tree
        self._data_dir = data_dir
        self._runtime_dir = runtime_dir
        self._listeners = listeners
        self._started_at = started_at
        self._show = show
        self._load = load
        self._url = url_of(listeners[0]) if listeners else ""
        self._relay = LogRelay(settings.server.log_format, sys.stderr.buffer, settings.server.log_level)
        self._runtime: Runtime | None = None
        self._operations: Operations | None = None

    async def run(self, until_eof: bool) -> TreeEnd:
        async with trio.open_nursery() as outer:
            await outer.start(self._relay.run)
            outer.start_soon(self._log.run)
            for notice in self._notices:
                self._relay.say("WARNING", f"note: {notice}", "configuration notice", notice=notice)
            async with open_tractor_spawner(self._fork_server, self._tell_spawner) as spawner:
                self._runtime = runtime = Runtime(
                    Core(self._tree.groups, self._tree.children, random.Random()),  # noqa: S311
                    spawner,
                    settings=self._settings,
                    runtime_dir=self._runtime_dir,
                    data_dir=self._data_dir,
                    listen_fds={
                        gateway_name(self._settings, slot): sock.fileno() for slot, sock in enumerate(self._listeners)
                    },
                    report=self._report,
                    on_stderr=self._take_stderr,
                    off=tuple(self._tree.off),
                    on_exit=self._log.ended,
                )
                self._operations = Operations(runtime, self._settings, self._load, on_reload=self._take_over)
                end = await self._run_tree(runtime, until_eof)
            outer.cancel_scope.cancel()
        return end

    def _take_stderr(self, name: str, chunk: bytes) -> None:
        self.incidents.wrote(name, chunk)
        # On a terminal the first screen comes first; after a failed start its screen has the lines that matter.
        if not self._relay.brief or self._is_up:
            self._relay.feed(name, chunk)

    def _report(self, level: str, event: str, **fields: object) -> None:
        """The core's reports go to the log; on a terminal only what people must know."""
        if event == "exited":
            self._relay.finish(str(fields.get("offender", "")))
        if self._relay.brief and "text" in fields:
            self._relay.say(level, str(fields["text"]), event)
        elif not self._relay.brief or event == "gave_up":
            self._relay.emit(level, event, **fields)
        actor, number = str(fields.get("offender", "")), fields.get("incarnation", 0)
        self._log.observe(event, actor, number if isinstance(number, int) else 0, str(fields.get("decision", "")))
        incident = self.incidents.observe(event, fields, trio.current_time())
        if incident is not None:
            self._relay.say(
                "WARNING",
                incident.sentence,
                "incident",
                offender=incident.actor,
                reason=incident.reason,
                back_ms=incident.back_ms,
            )

    async def _run_tree(self, runtime: Runtime, until_eof: bool) -> TreeEnd:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._follow_signals, nursery)
            if until_eof:
                nursery.start_soon(self._stop_at_eof, runtime)
            await nursery.start(AdminServer(self._runtime_dir, self._admin_methods()).run)
            write_run_info(self._data_dir, self._run_info())
            nursery.start_soon(self._show_when_up, runtime)
            end = await runtime.run()
            await trio.sleep(_ADMIN_GRACE_S if end.exit_code == 0 else 0)
            nursery.cancel_scope.cancel()
        return end

    def _run_info(self) -> RunInfo:
        return RunInfo(
            root_pid=os.getpid(),
            start_time=process_start_time(os.getpid()) or 0,
            runtime_dir=str(self._runtime_dir),
            version=version("greenroom"),
        )

    async def _follow_signals(self, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]) -> None:
        assert self._runtime is not None
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP:
                    nursery.start_soon(self._reload_by_signal)
                else:
                    self._runtime.stop(signal.Signals(number).name)

    async def _stop_at_eof(self, runtime: Runtime) -> None:
        while await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
            pass
        runtime.stop("its standard input ended")

    async def _reload_by_signal(self) -> None:
        assert self._operations is not None
        try:
            done = await self._operations.reload()
        except MCPServerError as error:
            self._relay.say("ERROR", f"not reloaded: {error}", "reload refused", reason=str(error))
        else:
            text = f"reloaded; new processes for {', '.join(done.replaced) or 'nobody'}"
            self._relay.say("INFO", text, "reloaded", **msgspec.structs.asdict(done))

    def _tell_spawner(self, level: str, text: str) -> None:
        self._relay.say(level, text, "limit not enforced", reason=text)

    def _take_over(self, settings: Settings, tree: Tree) -> None:
        self._settings, self._tree = settings, tree

    async def _show_when_up(self, runtime: Runtime) -> None:
        await runtime.up.wait()
        seconds = time.monotonic() - self._started_at
        status = self.status()
        if self._settings.p2p.bootstrap_only:
            text = await bootstrap.first_screen(status, seconds, runtime.directory(), self._settings)
        else:
            text = first_screen(status, seconds, await self._broken_tools(runtime))
        self._show(status, text)
        self._is_up = True
        wrote = self.incidents.tree_is_up()
        if self._relay.brief:
            for name, tail in wrote.items():
                self._relay.feed(name, b"".join(line for line in tail.splitlines(True) if _BROKEN_TOOL not in line))

    async def _broken_tools(self, runtime: Runtime) -> list[ToolDescriptor]:
        """What the router lists as broken; the first screen does not wait long for it."""
        with trio.move_on_after(_CATALOGUE_TIMEOUT_S):
            try:
                catalogue = await ask_catalogue(runtime.directory())
            except MCPServerError:
                return []
            return [tool for tool in catalogue.tools if tool.broken]
        return []

    # --- the admin interface ---------------------------------------------------------------------------------------

    def status(self) -> TreeStatus:
        """The whole tree, now."""
        assert self._runtime is not None
        return tree_status(self._runtime, self._tree, self._url)

    def _admin_methods(self) -> dict[str, AdminMethod]:
        runtime, operations = self._runtime, self._operations
        assert runtime is not None
        assert operations is not None

        async def status(_: msgspec.Raw) -> TreeStatus:
            return self.status()

        async def directory(_: msgspec.Raw) -> Directory:
            return runtime.directory()

        async def down(body: msgspec.Raw) -> Message:
            order = msgspec.msgpack.decode(body, type=Down)
            runtime.stop("greenroom down")
            if order.now:
                runtime.stop("greenroom down --now")
            return None

        async def chaos(_: msgspec.Raw) -> enabling.ChaosInfo:
            server = self._fork_server
            pid = server.pid if server is not None else 0
            return enabling.describe(self._settings, self._tree.groups, self._data_dir, self._runtime_dir, pid)

        return {
            "status": status,
            "directory": directory,
            "down": down,
            "chaos": chaos,
            **operation_methods(operations),
            **quarantine_methods(runtime.warden),
        }
