# SPDX-License-Identifier: AGPL-3.0-or-later
"""Carries out what the core decides: spawns, stops, kills, timers; and tells the core what happened.

One task reads events and runs the core, so decisions are never interleaved. Each life has one task, which ends when its
process is reaped. Nothing here decides.
"""

from __future__ import annotations

import difflib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from actors.errors import MCPServerError
from actors.messages import Boot, Directory, DirectoryEntry, Drain, Promote, Ready, Resume, State, Stop
from actors.peers import base_name, is_spare, socket_path
from actors.settings import Settings
from supervisor import events
from supervisor.control import ControlServer, Report
from supervisor.core import Core
from supervisor.exits import exit_reason, limit_reached
from supervisor.lives import Life, Lives
from supervisor.spawn import ExitStatus, Spawner, stacks_path
from supervisor.warden import Warden

_HEARTBEAT_CHECK_S = 0.25
_STACKS_S = 0.3
_DETAILS_S = 0.05
"""What no route depends on is told within this time."""
_LIMIT_AGAIN_S = 30.0
"""A life that reached a limit and could not be replaced is reported again after so long."""
_ENDLESS_S = 3600.0
"""Told to a child that may take as long as it needs to stop."""


Order = events.RestartChild | events.ReplaceChild | events.DrainChild | events.ResumeChild
OnExit = Callable[[Life, ExitStatus, events.ExitReason], None]


def _nobody_asks(_life: Life, _status: ExitStatus, _reason: events.ExitReason) -> None:
    """No one wants to hear of exits."""


class TreeEnd(msgspec.Struct, frozen=True):
    """How the tree ended."""

    exit_code: int
    reason: str


class Runtime:
    """The tree at work."""

    def __init__(
        self,
        core: Core,
        spawner: Spawner,
        *,
        settings: Settings,
        runtime_dir: Path,
        data_dir: Path,
        listen_fds: Mapping[str, int],
        report: Report,
        on_stderr: Callable[[str, bytes], None],
        off: tuple[DirectoryEntry, ...] = (),
        on_exit: OnExit = _nobody_asks,
    ) -> None:
        """`listen_fds`: child name -> listening socket that it gets. `off`: parts that are not configured, shown as
        such. `on_exit` hears of each life that ended, before the core does."""
        self.core = core
        self.lives = Lives()
        self.started_at = trio.current_time()
        self.up = trio.Event()
        """Set when every child is ready for the first time."""
        self._spawner = spawner
        self._settings = settings
        self._settings_json = msgspec.json.encode(settings)
        self._runtime_dir = runtime_dir
        self._data_dir = data_dir
        self._listen_fds = listen_fds
        self._report = report
        self._on_stderr = on_stderr
        self._off = off
        self._on_exit = on_exit
        self._send, self._receive = trio.open_memory_channel[events.Event](math.inf)
        self._exits: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._timers: dict[str, trio.CancelScope] = {}
        self._tree_end: TreeEnd | None = None
        self._nursery: trio.Nursery | None = None
        self._directory_dirty = trio.Event()
        self.warden = Warden(
            settings.supervisor, runtime_dir=runtime_dir, data_dir=data_dir, lives=self.lives, report=report
        )
        self._control = ControlServer(
            runtime_dir,
            self.lives,
            directory=self.directory,
            marks=self.warden.marks,
            on_ready=self._life_ready,
            on_survived=self.warden.survived,
            report=report,
        )

    async def run(self) -> TreeEnd:
        """Start the tree, keep it, and return how it ended."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._control.run)
            nursery.start_soon(self._watch_beats)
            nursery.start_soon(self.warden.run)
            nursery.start_soon(self._push_directories)
            self.tell(events.Start())
            async for event in self._receive:
                for command in self.core.handle(event, trio.current_time()):
                    self._carry_out(command)
                self._directory_dirty.set()
                if not self.up.is_set() and self._all_ready():
                    self.up.set()
                if self._tree_end is not None:
                    break
            nursery.cancel_scope.cancel()
        assert self._tree_end is not None
        return self._tree_end

    def tell(self, event: events.Event) -> None:
        """Give the core an event, in order."""
        self._send.send_nowait(event)

    def stop(self, reason: str) -> None:
        """Stop the tree in order; a second time: at once."""
        self.tell(events.StopTree(reason))

    def order(self, order: Order) -> None:
        """Give the core an operator's order about one child. Raises `MCPServerError` when there is none of this name,
        or when it can't be done."""
        names = [child.name for child in self.core.children()]
        if order.name not in names:
            nearest = difflib.get_close_matches(order.name, names, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise MCPServerError(f"no actor matches {order.name!r}{hint}")
        if isinstance(order, events.DrainChild) and order.name in self._listen_fds:
            raise MCPServerError(
                f"{order.name} can't be drained: connects would wait on its socket; use: restart {order.name} --drain"
            )
        self.tell(order)

    def reconfigure(self, settings: Settings, order: events.Reconfigure, off: Sequence[DirectoryEntry]) -> None:
        """New processes get these settings from now on; the tree takes the shape that is ordered."""
        self._settings, self._settings_json = settings, msgspec.json.encode(settings)
        self._off = tuple(off)
        self.tell(order)

    def _all_ready(self) -> bool:
        return all(child.state == State.READY for child in self.core.children() if not is_spare(child.name))

    # --- commands --------------------------------------------------------------------------------------------------

    def _carry_out(self, command: events.Command) -> None:
        assert self._nursery is not None
        if isinstance(command, events.Spawn):
            life = Life(command.spec, command.incarnation)
            self.lives.add(life)
            self._nursery.start_soon(self._live, life)
        elif isinstance(command, events.Swap):
            self._swap(command)
        elif isinstance(command, (events.Terminate, events.Kill)):
            self._end(command)
        elif isinstance(command, (events.Drain, events.Resume)):
            self._post(command)
        elif isinstance(command, events.SetTimer):
            scope = self._timers[command.key] = trio.CancelScope()
            self._nursery.start_soon(self._timer, command.key, command.delay_s, scope)
        elif isinstance(command, events.CancelTimer):
            timer = self._timers.pop(command.key, None)
            if timer is not None:
                timer.cancel()
        elif isinstance(command, events.Report):
            self._tell_report(command)
        else:
            self._tree_end = TreeEnd(command.exit_code, command.reason)

    def _post(self, command: events.Drain | events.Resume) -> None:
        life = self.lives.get(command.name, command.incarnation)
        if life is not None and life.control is not None:
            life.control.post(Drain() if isinstance(command, events.Drain) else Resume())

    def _end(self, command: events.Terminate | events.Kill) -> None:
        assert self._nursery is not None
        life = self.lives.get(command.name, command.incarnation)
        if life is None:
            return
        if isinstance(command, events.Kill) and command.cause == "hung":
            self._nursery.start_soon(self._kill_with_stacks, life, "hung", "hung")
        elif isinstance(command, events.Kill):
            life.ordered = True
            life.kill(command.cause)
        else:
            self._nursery.start_soon(self._terminate, life, command.grace_s)

    def _swap(self, command: events.Swap) -> None:
        self.lives.swap(command.name, command.spare)
        old = self.lives.get(command.spare)
        if old is not None:
            old.worked_as = command.name
        life = self.lives.get(command.name)
        assert life is not None, command
        if life.control is not None:
            life.control.post(Promote(name=command.name))

    def _tell_report(self, report: events.Report) -> None:
        fields = {key: value for key, value in msgspec.structs.asdict(report).items() if value}
        self._report(fields.pop("level"), fields.pop("context"), **fields)

    async def _timer(self, key: str, delay_s: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(delay_s)
            del self._timers[key]
            self.tell(events.TimerFired(key))

    # --- one life --------------------------------------------------------------------------------------------------

    async def _live(self, life: Life) -> None:
        """From spawn to reaped, then one `ChildExited`."""
        status = await self._spawn(life)
        if life.process is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._limit_boot, life)
                if life.kill_cause:
                    life.process.kill()
                status = await life.process.wait()
                nursery.cancel_scope.cancel()
        self._end_life(life, status)

    def _end_life(self, life: Life, status: ExitStatus) -> None:
        life.ended.set()
        if life.control is not None:
            life.control.close("the process ended")
        self.lives.remove(life)
        Path(socket_path(str(self._runtime_dir), life.spec.id, life.incarnation)).unlink(missing_ok=True)
        stacks_path(self._runtime_dir, life.incarnation).unlink(missing_ok=True)
        reason = exit_reason(life, status)
        self.warden.ended(life, reason)
        if reason.kind != "shutdown":
            self._exits[life.worked_as or life.name][reason.kind] += 1
        self._on_exit(life, status, reason)
        self.tell(events.ChildExited(life.name, life.incarnation, reason))

    async def _spawn(self, life: Life) -> ExitStatus:
        boot = Boot(
            actor=life.name,
            incarnation=life.incarnation,
            entry=life.spec.entry,
            token=life.token,
            runtime_dir=str(self._runtime_dir),
            data_dir=str(self._data_dir),
            beat_every_s=life.spec.heartbeat.every_s,
            root_pid=os.getpid(),
            settings=self._settings_json,
            spare=life.spare,
            listen_fds=self._fds_for(life),
        )
        try:
            life.process = await self._spawner.spawn(boot, limits=life.spec.limits, on_stderr=self._on_stderr)
        except OSError as error:
            return ExitStatus(returncode=None, signal=None, stderr_tail="", error=f"no process: {error}")
        self._directory_dirty.set()
        return ExitStatus(returncode=None, signal=None, stderr_tail="", error="")

    def _fds_for(self, life: Life) -> dict[str, int]:
        """Its own listening socket; for a spare those of all whose place it may take."""
        base = base_name(life.name)
        return {
            name: fd
            for name, fd in self._listen_fds.items()
            if name == life.name or (life.spare and base_name(name) == base)
        }

    async def _limit_boot(self, life: Life) -> None:
        await trio.sleep(life.spec.ready_timeout)
        if life.ready_at is None:
            await self._kill_with_stacks(life, f"it had {life.spec.ready_timeout:g} s", "boot_timeout")

    async def _kill_with_stacks(self, life: Life, cause: str, kind: events.ExitKind) -> None:
        """Let it write where each of its threads is, if it still can, then end it. Its actor's loop need not turn for
        that: faulthandler writes from the signal's handler."""
        path = stacks_path(self._runtime_dir, life.incarnation)
        if life.process is not None and path.exists():
            life.process.dump_stacks()
            with trio.move_on_after(_STACKS_S):
                await life.ended.wait()
            life.stacks = path.read_text(errors="replace") if path.exists() else ""
        life.kill(cause, kind)

    async def _terminate(self, life: Life, grace_s: float | None) -> None:
        """Ask politely, wait for the grace time, then kill."""
        # Posted to a life that is not connected yet as soon as it is.
        life.stop = Stop(grace_s=grace_s if grace_s is not None else _ENDLESS_S, replaced=bool(life.worked_as))
        if life.control is not None:
            life.control.post(life.stop)
        elif life.process is not None:
            await life.process.stop()
        with trio.move_on_after(math.inf if grace_s is None else grace_s):
            await life.ended.wait()
        if not life.ended.is_set():
            life.kill(f"did not end within its {grace_s:g} s of grace")

    def _life_ready(self, life: Life, _: Ready) -> None:
        self.tell(events.ChildReady(life.name, life.incarnation))

    async def _watch_beats(self) -> None:
        while True:
            await trio.sleep(_HEARTBEAT_CHECK_S)
            now = trio.current_time()
            for life in self.lives:
                self._watch_limits(life)
                silent = now - life.last_beat_at
                if life.ready_at is not None and not life.kill_cause and silent > life.spec.heartbeat.hung_after_s:
                    # The process is killed when the core says so; the reason is remembered from now on.
                    life.kill_cause = f"no beat for {silent:.1f} s"
                    life.killed_as = "hung"
                    self.tell(events.ChildHung(life.name, life.incarnation))

    def _watch_limits(self, life: Life) -> None:
        """A life that has reached a limit which its beats show is replaced, in order; tried again now and then."""
        now = trio.current_time()
        if life.ready_at is None or life.stop is not None or now < life.look_at_limits_at:
            return
        life.limit_reached = limit_reached(life)
        if life.limit_reached:
            life.look_at_limits_at = now + _LIMIT_AGAIN_S
            self.tell(events.ReplaceChild(life.name, life.limit_reached, life.incarnation))

    # --- the directory ---------------------------------------------------------------------------------------------

    def directory(self) -> Directory:
        """Where every actor is and how it is, now."""
        return Directory(entries=[*map(self._entry, self.core.children()), *self._off])

    def _entry(self, child: events.ChildView) -> DirectoryEntry:
        life = self.lives.get(child.name, child.incarnation)
        return DirectoryEntry(
            name=child.name,
            group=child.spec.group,
            state=child.state,
            pid=life.pid if life is not None else None,
            incarnation=child.incarnation,
            restarts=child.restarts,
            socket=life.socket if life is not None else "",
            reason=child.reason,
            exits=dict(self._exits.get(child.name, {})),
        )

    async def _push_directories(self) -> None:
        """Push what routes depend on in the turn in which it changed, all else a little later: each push wakes every
        actor, and most of them come when one has died and the others have better things to do."""
        pushed: list[object] = []
        while True:
            await self._directory_dirty.wait()
            with trio.move_on_after(_DETAILS_S):
                while self._routes() == pushed:
                    self._directory_dirty = trio.Event()
                    await self._directory_dirty.wait()
            self._directory_dirty = trio.Event()
            pushed = self._routes()
            self._control.push_directory()

    def _routes(self) -> list[object]:
        """Who does whose work, and how it is."""
        return [
            (child.name, child.incarnation, child.state) for child in self.core.children() if not is_spare(child.name)
        ]
