# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root's side of the fork server: it asks for children, and sees to it that the server is there.

Deaths are seen through pidfds, which the root holds itself; the server only tells how they ended. A server that dies,
or does not answer in time, is replaced in the background; until then children are started the slow way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import trio

from supervisor import fork_server
from supervisor.fork_server import MAX_MESSAGE, Exited, Fork, Forked, decode_answer, encode

ANSWER_S = 2.0
"""A server that has not answered for so long is killed and replaced."""
_STATUS_S = 1.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0

Tell = Callable[[str, str], None]
"""Called with a level and a text when something happened to the server."""


class ForkServerError(OSError):
    """The server can't start a child now; start it another way."""


class ForkedProcess:
    """A child of the fork server, with the part of `trio.Process` that is used of it."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        self.lost_status = False
        """It ended together with the server, and nobody can say how."""
        self._pidfd = pidfd
        self._told: int | None = None
        self._tell = trio.Event()
        self._lock = trio.Lock()

    def told(self, returncode: int) -> None:
        """The server says how it ended."""
        self._told = returncode
        self._tell.set()

    def poll(self) -> int | None:
        """See `subprocess.Popen.poll`."""
        return self.returncode

    async def wait(self) -> int:
        """Until it has ended; gives the exit code, or the negative number of the signal."""
        async with self._lock:
            if self.returncode is not None:
                return self.returncode
            await trio.lowlevel.wait_readable(self._pidfd)
            with trio.CancelScope(shield=True):  # bounded
                returncode = self.returncode = await self._status()
            os.close(self._pidfd)
            return returncode

    async def _status(self) -> int:
        with trio.move_on_after(_STATUS_S):
            while self._told is None:
                # A child of a server that died is ours.
                inherited = _reap(self.pid)
                if inherited is not None:
                    return inherited
                with trio.move_on_after(0.02):
                    await self._tell.wait()
        self.lost_status = self._told is None
        return self._told if self._told is not None else -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        """Signal it; nothing once it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """One server and its replacements."""

    def __init__(self, modules: Sequence[str], later: Sequence[str] = ()) -> None:
        """`modules` are loaded before the first child, `later` when there is time."""
        self.pid = 0
        self.restarts = 0
        self.tell: Tell = lambda _level, _text: None
        self._modules = list(modules)
        self._later = list(later)
        self._number = 0
        self._waiting: dict[int, trio.Event] = {}
        self._answers: dict[int, ForkedProcess | str] = {}
        self._processes: dict[int, ForkedProcess] = {}
        self._sock: socket.socket | None = None
        self._pidfd = -1

    # --- its life --------------------------------------------------------------------------------------------------

    def fork_now(self) -> None:
        """Start the first server by a fork of this process, which saves it the time to import what is loaded here.

        Only before there is a loop in this process. Does nothing when there is another thread already.
        """
        if threading.active_count() != 1:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                fork_server.serve(theirs, self._modules, self._later)
            finally:
                os._exit(1)
        theirs.close()
        self._use(pid, ours)

    def _exec(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "supervisor.fork_server", str(theirs.fileno())]
            command += [*self._modules, *self._later]
            process = subprocess.Popen(  # noqa: S603
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._use(process.pid, ours)
        process.returncode = 0  # it is reaped through its pidfd, not by subprocess

    def _use(self, pid: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.pid, self._sock, self._pidfd = pid, sock, os.pidfd_open(pid)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a server until cancelled, then end it; children live on. `started` comes with the first server."""
        pause = _FIRST_PAUSE_S
        try:
            while True:
                if self._sock is None:
                    self._exec()
                if not self.restarts:
                    task_status.started()
                began = trio.current_time()
                await self._follow()
                reason = self._bury()
                self.restarts += 1
                self.tell("ERROR", f"the fork server ended ({reason}); children are started slowly until it is back")
                pause = _FIRST_PAUSE_S if trio.current_time() - began > _MAX_PAUSE_S else min(pause * 2, _MAX_PAUSE_S)
                await trio.sleep(pause)
        finally:
            self._bury()

    async def _follow(self) -> None:
        """Take its messages until there are no more."""
        assert self._sock is not None
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, 1)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            message = decode_answer(data)
            if isinstance(message, Exited):
                process = self._processes.pop(message.pid, None)
                if process is not None:
                    process.told(message.returncode)
            elif isinstance(message, Forked):
                process = self._processes[message.pid] = ForkedProcess(message.pid, fds[0])
                self._answered(message.number, process)
            else:
                self._answered(message.number, message.error)

    def _answered(self, number: int, answer: ForkedProcess | str) -> None:
        event = self._waiting.pop(number, None)
        if event is not None:
            self._answers[number] = answer
            event.set()
        elif isinstance(answer, ForkedProcess):
            # Whoever asked has left.
            answer.kill()

    def _bury(self) -> str:
        """End what is left of it, and return how it ended."""
        if self._sock is None:
            return ""
        self._sock.close()
        self._sock = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            code = -signal.SIGKILL
        self.pid = 0
        self._processes.clear()
        for number, event in self._waiting.items():
            self._answers[number] = "the fork server ended"
            event.set()
        self._waiting.clear()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    # --- its work --------------------------------------------------------------------------------------------------

    async def start(
        self, arguments: Sequence[str], environment: dict[str, str], lifeline_variable: str, fds: Sequence[int],
        listen_fds: Sequence[int],
    ) -> ForkedProcess:  # fmt: skip
        """A new child. `fds`: its output and its lifeline. `listen_fds` keep their numbers in the child.

        Raises `ForkServerError` when there is no server now, or when it does not answer within `ANSWER_S`.
        """
        if self._sock is None:
            raise ForkServerError("the fork server is being replaced")
        self._number = number = self._number + 1
        request = Fork(number, list(arguments), environment, lifeline_variable, list(listen_fds))
        event = self._waiting[number] = trio.Event()
        try:
            socket.send_fds(self._sock, [encode(request)], [*fds, *listen_fds])
            with trio.move_on_after(ANSWER_S):
                await event.wait()
        except OSError as error:
            raise ForkServerError(f"the fork server takes nothing: {error}") from error
        finally:
            self._waiting.pop(number, None)
        answer = self._answers.pop(number, None)
        if answer is None:
            # It hangs: its end wakes `run`, which replaces it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            raise ForkServerError("the fork server did not answer in time")
        if isinstance(answer, str):
            raise ForkServerError(answer)
        return answer


def _reap(pid: int) -> int | None:
    """How a child of this process ended; None when it is not one, or has not ended."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    return None
