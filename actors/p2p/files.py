# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small matters of files: who has one, durable names, copies of damaged ones."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from actors.errors import UnavailableError


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileLock:
    """Keeps other processes away, and tells them who is here. Ends with the process."""

    def __init__(self, path: Path, what: Path) -> None:
        self._path = path
        self._what = what
        self._fd = -1

    def take(self) -> None:
        """Make the directory too, if need be. Raises UnavailableError that names the process which has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnavailableError(
                f"{self._what} can't be used ({error.strerror}: {self._path}); check the data directory",
                path=str(self._what),
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            raise in_use(self._what, pid) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def drop(self) -> None:
        """Let others have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def in_use(path: Path, pid: str) -> UnavailableError:
    """The error for a file that another process has."""
    who = f"pid {pid}" if pid.isdecimal() else "another process"
    if pid == str(os.getpid()):
        who += ", this process"
    return UnavailableError(
        f"{path} is in use by {who}; stop it, or choose another data directory", path=str(path), pid=pid
    )


def free_name(path: Path) -> Path:
    """A name beside a damaged file for its copy."""
    number = 1
    while (copy := Path(f"{path}.damaged-{number}")).exists():
        number += 1
    return copy
