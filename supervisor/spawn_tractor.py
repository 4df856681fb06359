# SPDX-License-Identifier: AGPL-3.0-or-later
"""Processes through tractor: one tractor nursery for each life, in a task of its own.

tractor starts the process, connects to it and runs the actor in a context. What it does not do is done here: the
process is watched and reaped, its stderr is drained, its limits are set, its end is always SIGKILL if nothing else
helps, and whatever it started in its session ends with it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors.messages import Boot
from supervisor import tractor_compat
from supervisor.forked import ForkedProcess, ForkServer, ForkServerError
from supervisor.orphan import LIFELINE, ROOT_PID, Lifeline
from supervisor.pids_cap import PidsCap
from supervisor.reaper import Reaper, set_subreaper
from supervisor.spawn import ExitStatus, OnStderr
from supervisor.spec import Limits

tractor_compat.install()
import tractor  # noqa: E402

_TAIL_BYTES = 8192
_DRAIN_AFTER_DEATH_S = 0.5
_POLITE_S = 1.0
_END_S = 2.0
_LOWEST_PORT = 10_000


Tell = Callable[[str, str], None]


def _tell_nobody(_level: str, _text: str) -> None:
    """No one wants to hear."""


class TractorProcess:
    """One life: the process, and tractor's portal to it."""

    def __init__(self, boot: Boot) -> None:
        self.name = boot.actor
        self.incarnation = boot.incarnation
        self.pid = 0
        self.opened = trio.Event()
        self.error = ""
        self.portal: tractor.Portal | None = None
        self.process: trio.Process | ForkedProcess | None = None
        self.lifeline: Lifeline | None = None
        self.tail = bytearray()
        self._ended = trio.Event()
        self._status: ExitStatus | None = None

    async def wait(self) -> ExitStatus:
        """See `supervisor.spawn.Process.wait`."""
        await self._ended.wait()
        assert self._status is not None
        return self._status

    async def stop(self) -> None:
        """See `supervisor.spawn.Process.stop`."""
        if self.portal is not None:
            with trio.move_on_after(_POLITE_S):
                try:
                    await self.portal.cancel_actor()
                except Exception:  # noqa: BLE001
                    return

    def dump_stacks(self) -> None:
        """See `supervisor.spawn.Process.dump_stacks`."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """See `supervisor.spawn.Process.kill`."""
        if self.lifeline is not None:
            self.lifeline.cut()

    def end(self, error: str = "") -> None:
        """The process is reaped, or was never there. What is said first counts."""
        if self._ended.is_set():
            return
        code = self.process.returncode if self.process is not None else None
        self._status = ExitStatus(
            returncode=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            stderr_tail=self.tail.decode(errors="replace"),
            error=error,
        )
        self._ended.set()
        self.opened.set()


class TractorSpawner:
    """Starts processes; `nursery` holds one task for each life."""

    def __init__(self, nursery: trio.Nursery, fork_server: ForkServer | None, tell: Tell) -> None:
        self._nursery = nursery
        self._fork_server = fork_server
        self._tell = tell
        self._pids = PidsCap()
        self._lives: set[TractorProcess] = set()
        self.reaper = Reaper()

    async def spawn(self, boot: Boot, *, limits: Limits, on_stderr: OnStderr) -> TractorProcess:
        """See `supervisor.spawn.Spawner.spawn`."""
        life = TractorProcess(boot)
        self._nursery.start_soon(self._live, life, boot, limits, on_stderr)
        await life.opened.wait()
        if life.process is None:
            raise OSError(life.error or "tractor started no process")
        return life

    async def _live(self, life: TractorProcess, boot: Boot, limits: Limits, on_stderr: OnStderr) -> None:
        """Everything that belongs to one life, until its process is reaped."""
        self._lives.add(life)
        try:
            async with trio.open_nursery() as nursery:
                launch = partial(self._open, life, list(boot.listen_fds.values()), limits, on_stderr, nursery)
                tractor_compat.launcher.set(launch)
                await self._run_in_tractor(life, boot)
                if life.process is not None:
                    life.kill()
                    await life.wait()
        finally:
            self._lives.discard(life)
            if limits.processes is not None:
                self._pids.release(f"{life.incarnation}")
            life.end(life.error or "it was not started")

    async def _run_in_tractor(self, life: TractorProcess, boot: Boot) -> None:
        """Start the actor and stay with it. Returns when its process is dead, or when tractor has lost it."""
        from supervisor.child import run_actor

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_dead, life, nursery.cancel_scope)
            try:
                async with tractor.open_nursery() as actors:
                    life.portal = await actors.start_actor(boot.actor, enable_modules=["supervisor.child"])
                    async with life.portal.open_context(run_actor, boot=msgspec.msgpack.encode(boot)) as (context, _):
                        await context.result()
            except Exception as error:  # noqa: BLE001
                # tractor's view of a death or of a cancel; the exit status tells more.
                life.error = life.error or f"{type(error).__name__}: {error}"
            except BaseExceptionGroup as group:
                rest = group.split(trio.Cancelled)[1]
                if rest is None:
                    raise
                life.error = life.error or f"{type(rest).__name__}: {rest}"
            finally:
                life.opened.set()
            if life.process is not None:
                await life.wait()
            nursery.cancel_scope.cancel()

    async def _cancel_when_dead(self, life: TractorProcess, scope: trio.CancelScope) -> None:
        await life.wait()
        if life.portal is not None:
            # tractor would ask the dead process to cancel its task, and wait half a second for the answer.
            await life.portal.channel.aclose()
        scope.cancel()

    # --- the process -----------------------------------------------------------------------------------------------

    async def _open(
        self,
        life: TractorProcess,
        listen_fds: Sequence[int],
        limits: Limits,
        on_stderr: OnStderr,
        nursery: trio.Nursery,
        command: Sequence[str],
    ) -> trio.Process | ForkedProcess:
        """In place of tractor's own start of a child: `command` is its command line."""
        arguments = command[list(command).index("tractor._child") + 1 :]
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            process, lifeline = await self._start(arguments, write, listen_fds)
        except BaseException as error:
            os.close(read)
            life.error = str(error)
            raise
        finally:
            os.close(write)
        life.process, life.pid, life.lifeline = process, process.pid, lifeline
        self.reaper.born(process.pid)
        lifeline.tie(process.pid)
        nursery.start_soon(self._watch, life, lifeline, read, on_stderr)
        set_limits(process.pid, limits)
        if limits.processes is not None:
            await self._cap_processes(life, limits.processes)
        life.opened.set()
        return process

    async def _cap_processes(self, life: TractorProcess, maximum: int) -> None:
        name = f"{life.incarnation}"
        problem = await trio.to_thread.run_sync(self._pids.limit, life.pid, name, maximum)
        if problem:
            self._tell("WARNING", f"max_processes of {life.name} is not enforced: {problem}")

    async def _start(
        self, arguments: Sequence[str], output: int, listen_fds: Sequence[int]
    ) -> tuple[trio.Process | ForkedProcess, Lifeline]:
        """A fork of the fork server if there is one, else a new interpreter; and its lifeline."""
        if self._fork_server is not None:
            try:
                return await self._fork(self._fork_server, arguments, output, listen_fds)
            except ForkServerError as error:
                self._fork_server.tell("WARNING", f"a child is started slowly: {error}")
        lifeline = Lifeline(tractor_compat.tree_key)
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "supervisor.child", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[lifeline.fd, *listen_fds],
                env=os.environ | {ROOT_PID: str(os.getpid()), LIFELINE: str(lifeline.fd)},
            )
        except BaseException:
            lifeline.close()
            raise
        return process, lifeline

    async def _fork(
        self, server: ForkServer, arguments: Sequence[str], output: int, listen_fds: Sequence[int]
    ) -> tuple[ForkedProcess, Lifeline]:
        lifeline = Lifeline(tractor_compat.tree_key)
        try:
            environment = {ROOT_PID: str(os.getpid())}
            return await server.start(arguments, environment, LIFELINE, [output, lifeline.fd], listen_fds), lifeline
        except BaseException:
            # Also ends the child of a server that was too slow to tell of it.
            lifeline.close()
            raise

    async def _watch(self, life: TractorProcess, lifeline: Lifeline, read: int, on_stderr: OnStderr) -> None:
        """Drain what the process writes until it is dead, then the rest, then say that it ended."""
        assert life.process is not None
        with trio.CancelScope(shield=True):
            async with trio.lowlevel.FdStream(read) as output, trio.open_nursery() as nursery:
                nursery.start_soon(_drain, life, output, on_stderr)
                await life.process.wait()
                # What it started and left behind must not outlive it.
                lifeline.close()
                nursery.cancel_scope.deadline = trio.current_time() + _DRAIN_AFTER_DEATH_S
            self.reaper.dead(life.pid)
            life.end(life.error if life.process.returncode is None else "")

    def kill_all(self) -> None:
        """End every life now."""
        for life in self._lives:
            life.kill()

    async def ended(self) -> None:
        """Wait until no process is left."""
        for life in list(self._lives):
            await life.wait()

    def close(self) -> None:
        """Leave nothing behind in the system."""
        self._pids.close()


async def _drain(life: TractorProcess, output: trio.lowlevel.FdStream, on_stderr: OnStderr) -> None:
    """Read for as long as anybody holds the other end, so that the process never blocks on it."""
    while chunk := await output.receive_some(65536):
        life.tail += chunk
        del life.tail[:-_TAIL_BYTES]
        on_stderr(life.name, bytes(chunk))


def set_limits(pid: int, limits: Limits) -> None:
    """Set a process's resource limits from outside. What is None stays as it is; no limit is ever raised."""
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size_bytes),
        (resource.RLIMIT_AS, limits.address_space_bytes),
    ):
        if value is None:
            continue
        # One second between SIGXCPU and SIGKILL: the first one names the cause.
        hard = value + 1 if kind == resource.RLIMIT_CPU else value
        present = resource.getrlimit(kind)[1]
        if present != resource.RLIM_INFINITY:
            hard = min(hard, present)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (min(value, hard), hard))


@asynccontextmanager
async def open_tractor_spawner(
    fork_server: ForkServer | None = None, tell: Tell = _tell_nobody
) -> AsyncGenerator[TractorSpawner, None]:
    """tractor's root in this process. On leaving, every process that is left is killed.

    With a fork server, which is kept running meanwhile, children are forks of it. `tell(level, text)` hears of limits
    that are not enforced.
    """
    tractor_compat.tree_key = secrets.token_hex(32)
    port = _free_port()
    async with tractor.open_root_actor(arbiter_addr=("127.0.0.1", port), name="root", loglevel=None):
        if not tractor.current_actor().is_arbiter:
            raise RuntimeError(f"another tractor tree took port {port}; start again")
        async with trio.open_nursery() as nursery:
            spawner = TractorSpawner(nursery, fork_server, tell)
            set_subreaper(on=True)
            nursery.start_soon(spawner.reaper.run)
            if fork_server is not None:
                await nursery.start(fork_server.run)
            try:
                yield spawner
            finally:
                spawner.kill_all()
                with trio.move_on_after(_END_S, shield=True):
                    await spawner.ended()
                spawner.reaper.look()
                spawner.reaper.look()
                set_subreaper(on=False)
                spawner.close()
                nursery.cancel_scope.cancel()


def _free_port() -> int:
    """A loopback port that nobody listens on; tractor can't be told to take any. Not one of those that the system gives
    to outgoing connections: until tractor has bound it, any of them could take it."""
    try:
        outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        outgoing = 0
    tries = [_LOWEST_PORT + secrets.randbelow(outgoing - _LOWEST_PORT) for _ in range(20) if outgoing > _LOWEST_PORT]
    for port in [*tries, 0]:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])
    raise OSError("no loopback port is free")
