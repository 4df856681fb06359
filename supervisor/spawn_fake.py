# SPDX-License-Identifier: AGPL-3.0-or-later
"""A spawner without processes: each life is a trio task in this process, so that a whole tree runs under a mock clock.

What the lives do is planned by name:

    spawner.plan("router", Plan(boot_s=2.0))        # its next life needs two seconds until it is ready
    spawner.plan("tools.general#0", Plan(exits_in_boot=3, stderr="no such table\\n"), Plan())

A life without a plan is ready at once, beats, and ends as soon as it is asked to. While it lives a test may `crash`,
`hang`, `disconnect` or `kill` it. Only the process is pretended: the life connects to the real control socket, proves
its token, says ready, beats and hears orders in the real protocol, so the runtime, the control server and the channel
are the real ones. With trio's autojump clock time runs only while every task waits; what is written to a Unix socket
can be read at once, so nothing is ever under way while time jumps.
"""

from __future__ import annotations

import math
import signal
from collections import defaultdict, deque
from pathlib import Path

import msgspec
import trio

from actors.channel import Channel, ChannelClosedError
from actors.messages import Beat, Boot, ControlMessage, Directory, Ready, Stop
from actors.peers import hello, socket_path
from supervisor.rundir import CONTROL_SOCKET
from supervisor.spawn import ExitStatus, OnStderr
from supervisor.spec import Limits

_FIRST_PID = 5_000_000
"""Above the kernel's largest pid: no signal that goes astray can reach a stranger."""
NEVER = math.inf
_decode = msgspec.msgpack.Decoder(ControlMessage).decode


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one life does."""

    spawn_s: float = 0.0
    """Seconds until its process exists."""
    boot_s: float = 0.0
    """Seconds from then until it says ready, or `NEVER`."""
    exits_in_boot: int | None = None
    """Exit code with which it ends in place of saying ready."""
    no_process: str = ""
    """Why it can't be started at all: the spawner raises OSError with this text."""
    stderr: str = ""
    """Written at the start."""
    stop_s: float = 0.0
    """Seconds from the order to stop until it ends with exit code 0, or `NEVER`."""
    connect_s: float = 0.0
    """Seconds until it connects to the root, before `boot_s` begins; or `NEVER`."""
    kill_s: float = 0.0
    """Seconds from SIGKILL until it is gone."""


class FakeProcess:
    """One life. It ends once, with the first status that it is given."""

    def __init__(self, boot: Boot, plan: Plan, pid: int, on_stderr: OnStderr, log: list[tuple[str, str]]) -> None:
        self.name = boot.actor
        self.incarnation = boot.incarnation
        self.pid = pid
        self.boot = boot
        self.plan = plan
        self.directories: list[Directory] = []
        """What the root pushed, in order."""
        self.stop_order: Stop | None = None
        self.control: Channel | None = None
        self.ended = trio.Event()
        self._on_stderr = on_stderr
        self._log = log
        self._tail = ""
        self._hanging = False
        self._stopping = trio.Event()
        self._killed = trio.Event()
        self._status: ExitStatus | None = None
        self.write(plan.stderr)

    # --- what the runtime calls: see `supervisor.spawn.Process` ---------------------------------------------------

    async def wait(self) -> ExitStatus:
        """See `supervisor.spawn.Process.wait`."""
        await self.ended.wait()
        assert self._status is not None
        return self._status

    async def stop(self) -> None:
        """See `supervisor.spawn.Process.stop`."""
        await trio.lowlevel.checkpoint()
        self._asked_to_stop()

    def dump_stacks(self) -> None:
        """See `supervisor.spawn.Process.dump_stacks`."""
        self._log.append(("dump stacks", self.name))

    def kill(self) -> None:
        """See `supervisor.spawn.Process.kill`."""
        if not self.ended.is_set() and not self._killed.is_set():
            self._log.append(("kill", self.name))
            self._killed.set()

    # --- what a test calls -----------------------------------------------------------------------------------------

    def crash(self, exit_code: int = 1, *, signal_number: int | None = None, stderr: str = "") -> None:
        """End now, as if by itself (exit code 0 is a normal end)."""
        if self.ended.is_set():
            return
        self.write(stderr)
        self._log.append(("end", self.name))
        code = exit_code if signal_number is None else None
        self._status = ExitStatus(returncode=code, signal=signal_number, stderr_tail=self._tail, error="")
        self.ended.set()

    def hang(self) -> None:
        """Neither beat nor hear anything from now on, as after SIGSTOP. Only `kill` helps."""
        self._hanging = True

    def disconnect(self) -> None:
        """Lose the connection to the root, and live on."""
        assert self.control is not None
        self.control.close("disconnected by the test")

    def write(self, text: str) -> None:
        """Write to stderr."""
        self._tail += text
        if text:
            self._on_stderr(self.name, text.encode())

    def tell(self, message: msgspec.Struct) -> None:
        """Send the root anything, also what no actor would."""
        assert self.control is not None
        self.control.post(message)

    # --- its life --------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Its main task, until it has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_stopped)
            nursery.start_soon(self._end_when_killed)
            nursery.start_soon(self._main, nursery)
            await self.ended.wait()
            nursery.cancel_scope.cancel()

    async def _main(self, nursery: trio.Nursery) -> None:
        await trio.sleep(self.plan.connect_s)
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.connect(str(Path(self.boot.runtime_dir) / CONTROL_SOCKET))
        me = hello(self.name, self.incarnation, self.boot.token)
        self.control = Channel(sock, me=me, on_event=self._ordered)
        await nursery.start(self._carry, self.control, sock)
        nursery.start_soon(self._beat, self.control)
        await trio.sleep(self.plan.boot_s)
        if self.plan.exits_in_boot is not None:
            self.crash(self.plan.exits_in_boot)
        elif not self._hanging:
            self.tell(Ready(socket=socket_path(self.boot.runtime_dir, self.name, self.incarnation)))

    async def _carry(
        self, control: Channel, sock: trio.socket.SocketType, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with sock:
            try:
                await control.run(task_status=task_status)
            except ChannelClosedError as error:
                self.crash(stderr=f"{error}\n")
                task_status.started()

    def _ordered(self, body: msgspec.Raw) -> None:
        order = _decode(body)
        if self._hanging:
            return
        if isinstance(order, Directory):
            self.directories.append(order)
        elif isinstance(order, Stop):
            self.stop_order = order
            self._asked_to_stop()

    def _asked_to_stop(self) -> None:
        if not self._hanging and not self._stopping.is_set():
            self._log.append(("stop", self.name))
            self._stopping.set()

    async def _end_when_stopped(self) -> None:
        await self._stopping.wait()
        await trio.sleep(self.plan.stop_s)
        if not self._hanging:
            self.crash(0)

    async def _end_when_killed(self) -> None:
        await self._killed.wait()
        await trio.sleep(self.plan.kill_s)
        self.crash(signal_number=signal.SIGKILL)

    async def _beat(self, control: Channel) -> None:
        while not self._hanging:
            control.post(Beat(loop_lag_s=0.0, open_calls=0, rss_bytes=1))
            await trio.sleep(self.boot.beat_every_s)


class FakeSpawner:
    """Starts lives as tasks of `nursery`, which ends them when it is cancelled."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.started: list[FakeProcess] = []
        """Every life so far, in the order of their start."""
        self.log: list[tuple[str, str]] = []
        """What happened to them, in order: ("spawn" | "stop" | "kill" | "end", name); "stop" when the order came."""
        self._nursery = nursery
        self._plans: defaultdict[str, deque[Plan]] = defaultdict(deque)

    def plan(self, name: str, *plans: Plan) -> None:
        """The next lives of this child follow these plans, one each."""
        self._plans[name].extend(plans)

    def process(self, name: str) -> FakeProcess:
        """The latest life of this child, dead or alive. Raises KeyError when there was none."""
        for process in reversed(self.started):
            if process.name == name:
                return process
        raise KeyError(name)

    def lives(self, name: str) -> int:
        """How often this child was started."""
        return sum(process.name == name for process in self.started)

    async def spawn(self, boot: Boot, *, limits: Limits, on_stderr: OnStderr) -> FakeProcess:
        """See `supervisor.spawn.Spawner.spawn`."""
        del limits
        plans = self._plans[boot.actor]
        plan = plans.popleft() if plans else Plan()
        await trio.sleep(plan.spawn_s)
        if plan.no_process:
            raise OSError(plan.no_process)
        process = FakeProcess(boot, plan, _FIRST_PID + len(self.started), on_stderr, self.log)
        self.log.append(("spawn", boot.actor))
        self.started.append(process)
        self._nursery.start_soon(process.live)
        return process
