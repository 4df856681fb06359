# SPDX-License-Identifier: AGPL-3.0-or-later
"""A limit of the number of processes: one control group per child, below the root's own, with `pids.max`.

RLIMIT_NPROC counts a user's processes and not those of one process, so it can't do this. Both layouts of control groups
are served (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/pids.html). Where none can be written,
nothing is limited, and whoever asks is told why. All of this blocks for milliseconds: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class PidsCap:
    """Control groups of one tree's children. `problem` says why there can't be any; empty when there can."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._home, self.problem = _find_home(proc)
        self._folder = self._home / f"greenroom-{os.getpid()}" if self._home is not None else None

    def limit(self, pid: int, name: str, maximum: int) -> str:
        """Put a process, and with it all that it will start, under a limit. Returns why that failed, or nothing."""
        if self._folder is None:
            return self.problem
        group = self._folder / name
        try:
            group.mkdir(parents=True, exist_ok=True)
            for at in (self._folder.parent, self._folder):
                _delegate(at)
            (group / "pids.max").write_text(str(maximum))
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            return ""  # it has ended meanwhile
        except OSError as error:
            return f"{group}: {error.strerror}"
        return ""

    def release(self, name: str) -> None:
        """Remove the group of a child that has ended."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # never made, or the kernel still counts something in it
                (self._folder / name).rmdir()

    def close(self) -> None:
        """Remove what is left."""
        if self._folder is None or not self._folder.is_dir():
            return
        for group in [path for path in self._folder.iterdir() if path.is_dir()]:
            self.release(group.name)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def _delegate(folder: Path) -> None:
    """Version 2 only: groups below this one get the controller. Version 1 has no such file."""
    control = folder / "cgroup.subtree_control"
    if control.exists() and "pids" not in control.read_text().split():
        control.write_text("+pids")


def _find_home(proc: Path) -> tuple[Path | None, str]:
    """The control group that this process is in, if groups with `pids.max` can be made below it."""
    try:
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in (proc / "mountinfo").read_text().splitlines()]
    except OSError as error:
        return None, f"control groups can't be read ({error.strerror})"
    one = next((path for _, controllers, path in groups if "pids" in controllers.split(",")), "/")
    two = next((path for number, _, path in groups if number == "0"), "/")
    for first, last in mounts:
        top, point = first.split()[3:5]
        kind, *_, options = last.split()
        if kind not in {"cgroup", "cgroup2"} or (kind == "cgroup" and "pids" not in options.split(",")):
            continue
        home = Path(point) / os.path.relpath(two if kind == "cgroup2" else one, top)
        if (kind == "cgroup" or _offers_pids(home)) and os.access(home, os.W_OK):
            return home, ""
    return None, "no control group with pids.max can be written by this user"


def _offers_pids(home: Path) -> bool:
    """Whether a group of version 2 can give the controller to groups below it."""
    controllers = home / "cgroup.controllers"
    return controllers.exists() and "pids" in controllers.read_text().split()
