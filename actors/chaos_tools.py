# SPDX-License-Identifier: AGPL-3.0-or-later
"""TOOLS THAT BREAK THEIR PROCESS ON PURPOSE. For `greenroom chaos run` only; see docs/chaos.md.

They are no part of the catalogue: the root names this module in `tools.paths` only where `chaos.enabled` is true, and
gives it the pool `chaos` to itself. Each fault has a tool of its own, so that a breaker that opens for one leaves the
others alone. With `harm` false a tool does nothing but answer: the way to see that its process is well again.

While it is imported this module looks for switches in the folder that `GREENROOM_CHAOS_DIR` names: with `boot_death.N`
a process takes the file away and ends, with `boot_hang.N` it takes the file away and hangs. Each file is good for one
start.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import trio
from msgspec import Meta

from actors.toolkit import tool

SWITCHES = "GREENROOM_CHAOS_DIR"
"""Environment variable, set by the root for its children."""
EFFECTS = "effects.log"
"""In that folder: a line `TOKEN PID` for each effect."""
BOOT_EXIT = 75
EXIT = 13
LONGEST_S = 60.0
"""How long a tool harms where nobody ends it: no longer than that is a machine busy with it."""
_HOLD_FILES_S = 0.5
_CHUNK = 64 * 1024 * 1024
_MOST_MEMORY = 64 * 1024**3

Token = Annotated[str, Meta(min_length=1, max_length=100, pattern="^[A-Za-z0-9_.-]+$")]


class LimitMissingError(RuntimeError):
    """The limit that this fault runs into is not there. For whoever configured the pool."""


class OddError(BaseException):
    """No `Exception`, and its text can't be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Effect(msgspec.Struct, frozen=True):
    """What `chaos_effect` answers."""

    token: str
    pid: int


def folder() -> Path:
    """Where switches and effects are."""
    return Path(os.environ[SWITCHES])


def obey_switches() -> None:
    """Die or hang when a switch says so."""
    if not os.environ.get(SWITCHES):
        return
    for switch in sorted(folder().glob("boot_*")):
        try:
            switch.unlink()
        except FileNotFoundError:
            continue  # another process took it
        if switch.stem == "boot_death":
            os._exit(BOOT_EXIT)
        time.sleep(LONGEST_S)  # blocks the loop


@tool(destructive=True, idempotent=False, open_world=False)
def chaos_effect(token: Token) -> Effect:
    """Add a line with the token to a file, wait until it is on the disk, then answer.

    Args:
        token: What to write; unique for each call.
    """
    fd = os.open(folder() / EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{token} {os.getpid()}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    return Effect(token, os.getpid())


@tool()
async def chaos_spin(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: compute for a minute without ever giving the loop back.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    end = time.monotonic() + LONGEST_S
    while harm and time.monotonic() < end:
        pass
    return token


@tool()
async def chaos_block(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: sleep for a minute without ever giving the loop back.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    if harm:
        time.sleep(LONGEST_S)  # noqa: ASYNC251
    return token


@tool()
async def chaos_memory(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: take memory until there is no more.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    taken = []
    while harm:
        # Never touched, so that only the address space is used up.
        taken.append(bytes(_CHUNK))
        if len(taken) * _CHUNK > _MOST_MEMORY:
            raise LimitMissingError("no limit of the address space (tools.pools.chaos.address_space_bytes)")
    return token


@tool()
async def chaos_files(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: open files until no more can be opened, and keep them for half a second.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    opened: list[int] = []
    try:
        while harm:
            try:
                opened.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                await trio.sleep(_HOLD_FILES_S)
                raise
    finally:
        for fd in opened:
            os.close(fd)
    return token


@tool()
async def chaos_file_size(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: write a file beyond the size that the process may write.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if harm and limit == resource.RLIM_INFINITY:
        raise LimitMissingError("no limit of a file's size (tools.pools.chaos.file_size_bytes)")
    path = folder() / f"large.{os.getpid()}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if harm:
            os.pwrite(fd, b"x", limit)
    finally:
        os.close(fd)
        path.unlink()
    return token


@tool()
async def chaos_disk(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: write to a disk that is full (the device /dev/full).

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    if harm:
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(fd, b"x")
        finally:
            os.close(fd)
    return token


@tool()
def chaos_cpu(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: compute in a thread until RLIMIT_CPU, set one second above what is used.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    if harm:
        # From within, because only this process is to end: nobody outside knows which one got the call.
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + 1, hard))
    end = time.monotonic() + LONGEST_S
    while harm and time.monotonic() < end:
        pass
    return token


@tool()
async def chaos_os_exit(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: end it at once.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    if harm:
        os._exit(EXIT)
    return token


@tool()
async def chaos_sys_exit(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: ask Python to end.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    if harm:
        sys.exit(EXIT)
    return token


@tool()
async def chaos_unencodable(token: Token, harm: bool = True) -> Any:  # noqa: ANN401
    """BREAKS ITS PROCESS: answer with something that can't be sent.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    return threading.Lock() if harm else token


@tool()
async def chaos_raise(
    token: Token, kind: Literal["odd", "interrupt", "generator", "group", "recursion", "none"] = "odd"
) -> str:
    """BREAKS ITS PROCESS: raise what tools do not raise.

    Args:
        token: Comes back.
        kind: Which; `none` only answers.
    """

    def recurse(depth: int) -> int:
        return recurse(depth + 1) + 1

    if kind == "odd":
        raise OddError
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "generator":
        raise GeneratorExit
    if kind == "group":
        raise BaseExceptionGroup("two at once", [OddError(), ValueError("an ordinary one")])
    if kind == "recursion":
        recurse(0)
    return token


@tool()
async def chaos_flood(token: Token, harm: bool = True) -> str:
    """BREAKS ITS PROCESS: write 4 MB to the log as fast as it goes.

    Args:
        token: Comes back.
        harm: False: only answer.
    """
    for number in range(40_000 if harm else 0):
        sys.stderr.write(f"flood {token} {number:<80}\n")
    return token


@tool(read_only=True)
async def chaos_large(size: Annotated[int, Meta(ge=1, le=8_000_000)]) -> str:
    """Answer with a long text.

    Args:
        size: Characters.
    """
    return "x" * size


obey_switches()
