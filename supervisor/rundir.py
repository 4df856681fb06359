# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two folders of a running system, and the facts others need to find it.

The data directory holds what lasts, a lock that refuses a second root, and `run.json` while a root runs. The runtime
directory holds the sockets, is private to the user (mode 0700), and goes with the root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from actors.errors import MCPServerError

CONTROL_SOCKET = "control.sock"
ADMIN_SOCKET = "admin.sock"
_RUN_FILE = "run.json"
_LOCK_FILE = "lock"
_RUNTIME_PREFIX = "greenroom-"
_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET_NAME = len("tools." + "p" * 24 + "#spare99.999999999.sock")
"""Of a tool process: `actors.settings.PoolName` bounds the pool's name."""


class StartError(MCPServerError):
    """The system can't start; the message says why and what to do."""

    code = "START_FAILED"


class NotRunningError(MCPServerError):
    """No system runs on this data directory."""

    code = "NOT_RUNNING"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`run.json`: which root runs on a data directory, and where its sockets are."""

    root_pid: int
    start_time: int
    """Field 22 of /proc/PID/stat: with the pid it names one process for good."""
    runtime_dir: str
    version: str


@contextmanager
def hold_data_dir(data_dir: Path) -> Generator[None, None, None]:
    """Make the data directory if need be, and keep every other root out while inside.

    Raises `StartError` when another root has it, or when it can't be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"the data directory {data_dir} can't be used ({error.strerror}); choose another: --data-dir"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(_in_use(data_dir)) from None
        remove_leftovers(data_dir)
        try:
            yield
        finally:
            (data_dir / _RUN_FILE).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _in_use(data_dir: Path) -> str:
    info = read_run_info(data_dir)
    who = f" (pid {info.root_pid})" if info else ""
    return f"a Greenroom{who} runs on {data_dir} already; stop it (greenroom down) or choose another --data-dir"


def remove_leftovers(data_dir: Path) -> None:
    """Remove what a root that was killed left. Called with the lock held: that root is gone."""
    info = read_run_info(data_dir)
    if info is not None and Path(info.runtime_dir).name.startswith(_RUNTIME_PREFIX):
        shutil.rmtree(info.runtime_dir, ignore_errors=True)
    for leftover in data_dir.glob(f"{_RUN_FILE}*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def open_runtime_dir(wanted: str) -> Generator[Path, None, None]:
    """A private folder for sockets, removed at the end. `wanted` is `supervisor.runtime_dir`; '' = choose one.

    Raises `StartError` when the path is too long for a Unix socket, or can't be made.
    """
    parent = Path(wanted).absolute() if wanted else _usual_parent()
    try:
        if wanted:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = Path(tempfile.mkdtemp(prefix=_RUNTIME_PREFIX, dir=parent))
    except OSError as error:
        raise StartError(
            f"no runtime directory below {parent} ({error.strerror}); set supervisor.runtime_dir"
        ) from None
    try:
        longest = len(os.fsencode(path)) + 1 + _LONGEST_SOCKET_NAME
        if longest > _MAX_SOCKET_PATH:
            raise StartError(
                f"{path} is too long a path for Unix sockets ({longest} bytes with a name, the system takes "
                f"{_MAX_SOCKET_PATH}); set supervisor.runtime_dir to a shorter one"
            )
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _usual_parent() -> Path:
    """The user's runtime folder where there is one (services often have none), else the temporary one."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(own if own and os.access(own, os.W_OK | os.X_OK) else tempfile.gettempdir())


def write_run_info(data_dir: Path, info: RunInfo) -> None:
    """Publish the running root, in one step."""
    draft = data_dir / f"{_RUN_FILE}.{info.root_pid}"
    draft.write_bytes(msgspec.json.encode(info))
    draft.replace(data_dir / _RUN_FILE)


def read_run_info(data_dir: Path) -> RunInfo | None:
    """What `run.json` says, whether or not that root still lives."""
    try:
        return msgspec.json.decode((data_dir / _RUN_FILE).read_bytes(), type=RunInfo)
    except (OSError, msgspec.DecodeError):
        return None


def find_running(data_dir: Path) -> RunInfo:
    """The root that runs on this data directory now. Raises `NotRunningError`."""
    info = read_run_info(data_dir)
    if info is None or process_start_time(info.root_pid) != info.start_time:
        raise NotRunningError(f"no Greenroom runs on {data_dir}; start one: greenroom up --data-dir {data_dir}")
    return info


def process_start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none, or only a zombie. With the pid it
    names one for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else int(fields[19])
