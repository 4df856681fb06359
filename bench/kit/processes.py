# SPDX-License-Identifier: AGPL-3.0-or-later
"""A program under measurement with all its descendants: start it on chosen cores, read its CPU time and memory, end it.

Linux only (/proc). `adopt_orphans` must be called once before the first `Program`: it makes the benchmark the parent of
processes whose own parent died, so that no descendant escapes a reading or the end. One `Program` at a time: all that
runs below the benchmark while it takes a reading is counted as the program's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Let descendants whose parent died become children of this process instead of init's."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _stat(pid: int) -> list[str] | None:
    # Fields of proc_pid_stat(5) from number 3 on; the name before them may itself hold blanks and brackets.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, at = [root], 0
    while at < len(found):
        found.extend(children.get(found[at], ()))
        at += 1
    return found


class Program:
    """One started program and its tree. Use as a context manager: leaving it ends the whole tree."""

    def __init__(self, command: Sequence[str], *, on: Sequence[int], log: Path, cwd: Path) -> None:
        self.started = time.monotonic()
        """Clock reading (`time.monotonic`) just before the start."""
        self.log = log
        pinned = ["taskset", "-c", ",".join(map(str, on)), *command]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                pinned, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """The first process is gone."""
        return self._process.poll() is not None

    def tree(self) -> list[int]:
        """Process ids of the program and of all its descendants, orphans included."""
        return _descendants(os.getpid())[1:]

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of the whole tree since its start, ended and reaped descendants included."""
        total = 0
        for pid in self.tree():
            if fields := _stat(pid):
                total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        return total * _TICK_S

    def pss_mib(self) -> float:
        """Memory of the whole tree in MiB; pages that several processes share count once."""
        return sum(_pss_kib(pid) for pid in self.tree()) / 1024

    def tail(self, lines: int = 15) -> str:
        """The last lines of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self, grace_s: float = 15.0) -> None:
        """Ask politely, then kill what is left of the tree after `grace_s` seconds."""
        if not self.ended:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self._process.kill()
        self._process.wait()
        # Killing a parent hands its children to us, so a second look finds those that were born meanwhile.
        while left := self.tree():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass  # it ended meanwhile
    return 0
