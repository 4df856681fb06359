# SPDX-License-Identifier: AGPL-3.0-or-later
"""Descendants whose parent died: the root inherits them (it is a subreaper), ends those that still run, and reaps them.

A process belongs to the tree when its session is that of a child that was started here, or when its environment names
this root, as that of every child does, whatever session it opened for itself. Others are left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

import trio

from supervisor.orphan import ROOT_PID

_EVERY_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36


def set_subreaper(*, on: bool) -> None:
    """Whether orphaned descendants become children of this process, or of the system's init."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


class Reaper:
    """Ends and reaps inherited processes. `known` are the children that somebody here waits for."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self._sessions: set[int] = set()
        self._suspects: set[int] = set()
        self._mark = f"{ROOT_PID}={os.getpid()}".encode()

    def born(self, pid: int) -> None:
        """A child was started, in a session of its own."""
        self.known.add(pid)
        self._sessions.add(pid)

    def dead(self, pid: int) -> None:
        """It was reaped."""
        self.known.discard(pid)

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            await trio.sleep(_EVERY_S)
            self.look()

    def look(self) -> None:
        """End and reap what was inherited. Only what was seen the last time too, for a child that was started just now
        may not be known yet."""
        # A dead process shows no environment any more: what was ours stays ours until it is reaped.
        found = {pid for pid in _children() - self.known if pid in self._suspects or self._is_ours(pid)}
        for pid in found & self._suspects:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._suspects = found

    def _is_ours(self, pid: int) -> bool:
        try:
            session = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
            return session in self._sessions or self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _children() -> set[int]:
    """Pids of all children of this process, inherited ones among them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found
