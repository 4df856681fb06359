# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process that has everything imported and starts children by fork(2): in milliseconds instead of half a second.

It is started before the root runs anything: by a fork of the root itself the first time (nothing has to be imported
twice), by a new interpreter when it has to be replaced. It runs no loop and no thread, so that a fork copies nothing
that is half done. It serves one socket (`SOCK_SEQPACKET`, msgpack), reaps its children and tells how they ended; when
the socket closes it ends. Its death ends no child: the root is a subreaper and inherits them.

Messages: `Fork` with the file descriptors [output, lifeline, listening sockets] -> `Forked` with a pidfd, or
`Refused`; later one `Exited` for each child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence

import msgspec

MAX_MESSAGE = 64 * 1024
MAX_FDS = 200
"""Linux carries 253 at most."""
_QUIET_S = 1.0
_HIGH = 512
"""Descriptors above this are ours while a child sorts out what it was given."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Start a child with these arguments and additions to the environment."""

    number: int
    arguments: list[str]
    environment: dict[str, str]
    lifeline_variable: str
    """Environment variable that gets the number of the lifeline's descriptor."""
    listen_fds: list[int] = []
    """The numbers that the listening sockets must have in the child."""


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The child runs, in a session of its own. Comes with its pidfd."""

    number: int
    pid: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """No child was started."""

    number: int
    error: str


class Exited(msgspec.Struct, frozen=True, tag=True):
    """A child has ended and is reaped."""

    pid: int
    returncode: int
    """Exit code, or the negative number of the signal."""


Answer = Forked | Refused | Exited
encode = msgspec.msgpack.Encoder().encode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
_decode_fork = msgspec.msgpack.Decoder(Fork).decode


def preload(modules: Sequence[str]) -> None:
    """Import what children will need. What can't be imported is left to fail in the child, where it is reported.

    Raises RuntimeError when a module started a thread, which a fork would not copy.
    """
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    if threading.active_count() != 1:
        raise RuntimeError(f"threads were started while modules were loaded: {threading.enumerate()}")
    # Pages that the collector never touches stay shared with all children.
    gc.collect()
    gc.freeze()


def serve(sock: socket.socket, modules: Sequence[str], later: Sequence[str]) -> None:
    """Serve until the other end closes. `modules` are loaded first, `later` in the first quiet moment after some child
    was started: the first answer of a system must not wait for them. Never returns in a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):
        os.setsid()
    importlib.import_module("supervisor.child")
    preload(modules)
    _Server(sock, later).run()


class _Server:
    def __init__(self, sock: socket.socket, later: Sequence[str]) -> None:
        self._sock = sock
        self._later = list(later)
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._pids: dict[int, int] = {}
        """pidfd -> pid of the children."""

    def run(self) -> None:
        while True:
            quiet = _QUIET_S if self._later and self._pids else None
            ready = self._selector.select(quiet)
            if not ready:
                preload(self._later)
                self._later.clear()
            for key, _ in ready:
                if key.fileobj is self._sock:
                    if not self._serve_one():
                        return
                else:
                    self._reap(key.fd)

    def _serve_one(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, MAX_FDS)
        if not data:
            return False
        request = _decode_fork(data)
        try:
            pid = self._fork(request, fds)
        except OSError as error:
            self._sock.send(encode(Refused(request.number, str(error))))
            return True
        finally:
            for fd in fds:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._pids[pidfd] = pid
        self._selector.register(pidfd, selectors.EVENT_READ)
        socket.send_fds(self._sock, [encode(Forked(request.number, pid))], [pidfd])
        return True

    def _fork(self, request: Fork, fds: list[int]) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _become_child(request, fds, write)
        os.close(write)
        # The child closes its end once it leads its own session: only then can its group be tied to the root.
        os.read(read, 1)
        os.close(read)
        return pid

    def _reap(self, pidfd: int) -> None:
        pid = self._pids.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._sock.send(encode(Exited(pid, os.waitstatus_to_exitcode(status))))


def _become_child(request: Fork, fds: list[int], started: int) -> None:
    """In the child: take over what was given, let go of all else, and run. Does not return."""
    try:
        os.setsid()
        given = [_raised(fd) for fd in fds]
        nothing = _raised(os.open(os.devnull, os.O_RDONLY))
        # Closes `started` too: from here on the root may limit the number of open files.
        assert started < _HIGH
        os.closerange(3, _HIGH)
        _take(nothing, 0)
        os.dup2(given[0], 1)
        _take(given[0], 2)
        os.environ.update(request.environment)
        os.environ[request.lifeline_variable] = str(given[1])
        os.set_inheritable(given[1], True)
        for fd, number in zip(given[2:], request.listen_fds, strict=True):
            _take(fd, number)
        sys.argv = ["-m", *request.arguments]
        child = importlib.import_module("supervisor.child")
        child.main()
        os._exit(0)
    except BaseException:  # noqa: BLE001
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
        os._exit(1)


def _raised(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)


def _take(fd: int, number: int) -> None:
    if fd != number:
        os.dup2(fd, number)
        os.close(fd)


def main() -> None:
    """Entry of a new interpreter: the socket's descriptor, then the modules to load, all at once."""
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:], [])


if __name__ == "__main__":
    main()
