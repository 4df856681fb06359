# SPDX-License-Identifier: AGPL-3.0-or-later
"""The faults: what each does, what is expected of the system, and what it costs. Plain values; `nemesis` injects."""

from __future__ import annotations

import difflib
from typing import Literal

import msgspec

from actors.errors import MCPServerError

Where = Literal["process", "pool", "actor", "none", "root"]


class FaultKind(msgspec.Struct, frozen=True, kw_only=True):
    """One fault."""

    name: str
    does: str
    expected: str
    where: Where
    """What it is aimed at: any process (spares and the fork server too), the pool of the chaos tools, an actor, nothing
    in particular, the root."""
    deaths: int = 0
    """Restarts of its group that it may cost, at most: they count against the restart intensity."""
    hangs: bool = False
    """The system needs `supervisor.hung_after_s` to notice."""
    boots: bool = False
    """The system needs `supervisor.ready_timeout_s` to notice."""
    parameters: tuple[str, ...] = ()
    """One of them is chosen."""
    tool: str = ""
    """The chaos tool that does it."""
    codes: tuple[str, ...] = ()
    """How the call of that tool may end, besides being refused by a breaker; `ok` = with a result."""


UNKNOWN, FAILED = "OUTCOME_UNKNOWN", "TOOL_FAILED"
_TYPED = "a typed error; the process lives on"
_REPLACED = "the call ends at once with OUTCOME_UNKNOWN; the process is replaced"
_HUNG = "seen within hung_after_s, stacks kept, killed and replaced; its call ends with OUTCOME_UNKNOWN"
_CLOSED = "this connection is closed; nothing else notices, no memory is taken"

_ALL = (
    FaultKind(
        name="kill",
        does="SIGKILL to a random process: gateway, router, pool, spare, fork server",
        expected="its place is taken at once; siblings keep their pids",
        where="process",
        deaths=1,
    ),
    FaultKind(
        name="stop",
        does="SIGSTOP to a random actor",
        expected="seen within hung_after_s, killed and replaced",
        where="actor",
        deaths=1,
        hangs=True,
    ),
    FaultKind(
        name="spin",
        does="a tool computes without end on the loop",
        expected=_HUNG,
        where="pool",
        deaths=1,
        hangs=True,
        tool="chaos_spin",
        codes=(UNKNOWN,),
    ),
    FaultKind(
        name="block",
        does="a tool calls time.sleep on the loop",
        expected=_HUNG,
        where="pool",
        deaths=1,
        hangs=True,
        tool="chaos_block",
        codes=(UNKNOWN,),
    ),
    FaultKind(
        name="memory_bomb",
        does="a tool takes memory up to the pool's address_space_bytes",
        expected="a typed error, or the process dies and is replaced; others live",
        where="pool",
        deaths=1,
        tool="chaos_memory",
        codes=(FAILED, UNKNOWN),
    ),
    FaultKind(
        name="fd_exhaustion",
        does="a tool opens files up to the pool's open_files, while others connect",
        expected=_TYPED,
        where="pool",
        tool="chaos_files",
        codes=(FAILED,),
    ),
    FaultKind(
        name="file_size",
        does="a tool writes beyond the pool's file_size_bytes",
        expected=_TYPED,
        where="pool",
        tool="chaos_file_size",
        codes=(FAILED,),
    ),
    FaultKind(
        name="disk_full",
        does="a tool writes to a full disk (/dev/full, so that no mount is needed)",
        expected=_TYPED,
        where="pool",
        tool="chaos_disk",
        codes=(FAILED,),
    ),
    FaultKind(
        name="cpu_limit",
        does="a tool computes in a thread until RLIMIT_CPU, set one second above what is used",
        expected=_REPLACED,
        where="pool",
        deaths=1,
        tool="chaos_cpu",
        codes=(UNKNOWN,),
    ),
    FaultKind(
        name="boot_death",
        does="a pool process is killed, and the next one or two starts die while booting",
        expected="a spare takes the place; starts are repeated until one succeeds",
        where="pool",
        deaths=3,
        parameters=("1", "2"),
    ),
    FaultKind(
        name="boot_hang",
        does="a pool process is killed, and the next start hangs while booting",
        expected="a spare takes the place; the hung start is killed and repeated",
        where="pool",
        deaths=2,
        boots=True,
    ),
    FaultKind(
        name="os_exit",
        does="a tool calls os._exit",
        expected=_REPLACED,
        where="pool",
        deaths=1,
        tool="chaos_os_exit",
        codes=(UNKNOWN,),
    ),
    FaultKind(
        name="sys_exit",
        does="a tool calls sys.exit",
        expected=_TYPED,
        where="pool",
        tool="chaos_sys_exit",
        codes=(FAILED,),
    ),
    FaultKind(
        name="unencodable_answer",
        does="a tool answers with what can't be sent",
        expected=_TYPED,
        where="pool",
        tool="chaos_unencodable",
        codes=(FAILED,),
    ),
    FaultKind(
        name="odd_exception",
        does="a tool raises what is no Exception, has no text, comes in groups, or is endless recursion",
        expected=_TYPED,
        where="pool",
        parameters=("odd", "interrupt", "generator", "group", "recursion"),
        tool="chaos_raise",
        codes=(FAILED,),
    ),
    FaultKind(
        name="length_prefix",
        does="a length of 2 GiB is sent to an actor's socket, the control and the admin socket",
        expected=_CLOSED,
        where="actor",
        parameters=("before hello", "after hello"),
    ),
    FaultKind(
        name="half_frame",
        does="half a frame and an end, on the same sockets",
        expected=_CLOSED,
        where="actor",
    ),
    FaultKind(
        name="random_bytes",
        does="random bytes to the same sockets, the HTTP port and tractor's ports",
        expected=_CLOSED,
        where="actor",
    ),
    FaultKind(
        name="slow_reader",
        does="an HTTP client and a caller on an actor's socket ask for much and read nothing",
        expected="bounded buffers; everybody else is served on",
        where="none",
    ),
    FaultKind(
        name="slow_writer",
        does="requests arrive in pieces of a few bytes, over HTTP and on an actor's socket",
        expected="they are put together and answered right",
        where="none",
    ),
    FaultKind(
        name="wrong_peer",
        does="a caller on a pool's socket repeats a call's id, cancels and answers what never was",
        expected="late frames are dropped, a doubled id ends this connection only",
        where="none",
    ),
    FaultKind(
        name="full_stderr",
        does="a tool writes 4 MB to the log at once",
        expected="the root drains it; the call succeeds",
        where="pool",
        tool="chaos_flood",
        codes=("ok",),
    ),
    FaultKind(
        name="root_death",
        does="kill -9 of the root (only in a system of the run's own: --own)",
        expected="every process is gone within 1 s; a new start finds no leftovers",
        where="root",
    ),
)  # fmt: skip

FAULTS: dict[str, FaultKind] = {kind.name: kind for kind in _ALL}
OWN_ONLY = ("root_death",)


class UnknownFaultError(MCPServerError):
    """No fault has this name; the message has the nearest, or all."""

    code = "UNKNOWN_FAULT"


class OwnTreeOnlyError(MCPServerError):
    """This fault ends the system for good, unless whoever runs it can start it again."""

    code = "OWN_TREE_ONLY"


def chosen(names: str | None, *, own: bool) -> list[str]:
    """The faults of a list with commas; None = all that are possible. `own`: the run started the tree itself.

    Raises `UnknownFaultError`, `OwnTreeOnlyError`.
    """
    if names is None:
        return [name for name in FAULTS if own or name not in OWN_ONLY]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in FAULTS:
            near = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(FAULTS)}"
            raise UnknownFaultError(f"there is no fault {name!r}; {hint} (greenroom chaos faults)")
        if name in OWN_ONLY and not own:
            raise OwnTreeOnlyError(
                f"{name} ends this system and nobody would start it again; try it on one of its own: "
                f"greenroom chaos run --own --faults {name}"
            )
    if not wanted:
        raise UnknownFaultError(f"--faults names none; there are: {', '.join(FAULTS)}")
    return [name for name in FAULTS if name in wanted]
