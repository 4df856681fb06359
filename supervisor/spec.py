# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the supervisor is told about its children: child specs and groups. Plain values, no behaviour, no I/O.

The terms are OTP's (https://www.erlang.org/doc/system/sup_princ.html). A spec is data, so that an actor's module can
carry its own `SPEC` without importing the supervisor's machinery, and so that the root can show it unchanged.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal

import msgspec

_GROUP_ID = re.compile(r"[a-z][a-z0-9_.-]*")
_CHILD_ID = re.compile(r"[a-z][a-z0-9_.-]*(#[a-z]*[0-9]+)?")
_ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ID_WORDS = "must be lower-case letters, digits, '_', '.', '-'"


class Restart(StrEnum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """Only after an abnormal end: a signal, an exit code other than 0, an exception, a hang."""
    TEMPORARY = "temporary"
    """Never; its spec is forgotten when it ends."""


class Strategy(StrEnum):
    """Which siblings are restarted when one child of a group ends."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody else."""
    ONE_FOR_ALL = "one_for_all"
    """All of them."""
    REST_FOR_ONE = "rest_for_one"
    """Those that come after it in the group."""


class SpecError(ValueError):
    """A child spec or group that can't be used; `field` names the part at fault. For whoever wrote the spec."""

    def __init__(self, where: str, field: str, problem: str) -> None:
        self.where = where
        self.field = field
        super().__init__(f"{where}: {field} {problem}")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one child process, all set and watched from outside: the first four with prlimit(2), the number of
    processes with a control group, the rest by its beats. None = not limited."""

    cpu_s: int | None = None
    """CPU time in seconds (RLIMIT_CPU)."""
    open_files: int | None = None
    """Open file descriptors (RLIMIT_NOFILE)."""
    file_size_bytes: int | None = None
    """Size of a file that the child writes (RLIMIT_FSIZE)."""
    address_space_bytes: int | None = None
    """Virtual memory (RLIMIT_AS)."""
    processes: int | None = None
    """Processes and threads of the child and all below it (`pids.max`)."""
    memory_high_bytes: int | None = None
    """Resident memory above which it is replaced, in order."""
    max_calls: int | None = None
    """Calls after which it is replaced, in order."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a child shows that its own loop still turns."""

    every_s: float = 1.0
    """Seconds between two beats."""
    hung_after_s: float = 5.0
    """A child that is silent for so many seconds is hung: it is killed and counts as an abnormal end."""


class Intensity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restart intensity: more than `restarts` restart attempts within `within_s` seconds and the group gives up."""

    restarts: int = 5
    within_s: float = 30.0


class Backoff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delay before a restart: none for the first, then a random time up to a bound that doubles (full jitter)."""

    first_s: float = 0.1
    cap_s: float = 10.0
    reset_after_s: float = 30.0
    """A child that was ready for so long starts again without delay."""


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One child. The order of children in their group is the start order; they are stopped in reverse."""

    id: str
    """Unique in the tree, as it appears everywhere: `router`, `tools.general#0`."""
    entry: str
    """The actor's main function as `module:function`; imported in the child only."""
    restart: Restart = Restart.PERMANENT
    shutdown: float | Literal["kill"] | None = 5.0
    """Grace time in seconds after a polite stop, `kill` for none, None to wait for as long as it takes."""
    drain: float = 60.0
    """Grace time in seconds for its open calls when another life has taken its place, or its pool shrinks."""
    ready_timeout: float = 20.0
    """Seconds from spawn until the child must have said that it is ready."""
    heartbeat: Heartbeat = Heartbeat()
    limits: Limits = Limits()
    stands_by: bool = False
    """Its actor can be started as a standby, beside one that works (`Boot.spare`)."""
    spares: int = 0
    """Warm standbys."""
    group: str = "root"
    significant: bool = False
    """When it ends and is not restarted, its group stops as a whole (OTP's automatic shutdown `any_significant`), and
    in the root group the tree."""

    def __post_init__(self) -> None:
        where = f"child {self.id!r}"
        _check(_CHILD_ID.fullmatch(self.id), where, "id", f"{_ID_WORDS} and may end in '#slot'")
        _check(_ENTRY.fullmatch(self.entry), where, "entry", f"must look like 'module:function', not {self.entry!r}")
        if isinstance(self.shutdown, str):
            _check(self.shutdown == "kill", where, "shutdown", f"is seconds, 'kill' or None, not {self.shutdown!r}")
        elif self.shutdown is not None:
            _check(self.shutdown >= 0, where, "shutdown", "must not be negative")
        _check(self.drain >= 0, where, "drain", "must not be negative")
        _check(self.ready_timeout > 0, where, "ready_timeout", "must be more than 0 seconds")
        beat = self.heartbeat
        _check(beat.every_s > 0, where, "heartbeat.every_s", "must be more than 0 seconds")
        _check(
            beat.hung_after_s >= 2 * beat.every_s,
            where,
            "heartbeat.hung_after_s",
            "must be at least twice heartbeat.every_s",
        )
        for name, limit in msgspec.structs.asdict(self.limits).items():
            _check(limit is None or limit > 0, where, f"limits.{name}", "must be more than 0")
        _check(self.spares >= 0, where, "spares", "must not be negative")
        _check(self.stands_by or not self.spares, where, "spares", "must be 0 for an actor that can't stand by")
        _check(self.restart in list(Restart), where, "restart", f"is one of {', '.join(Restart)}, not {self.restart!r}")
        lasts = self.restart == Restart.PERMANENT
        _check(not (self.significant and lasts), where, "significant", "makes no sense: a permanent child never ends")


def _check(right: object, where: str, field: str, problem: str) -> None:
    # Conditions say what is right, so that NaN, which compares with nothing, is wrong.
    if not right:
        raise SpecError(where, field, problem)


class GroupSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A supervisor within the tree. `root` is the group that all others hang under."""

    id: str
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Intensity = Intensity()
    backoff: Backoff = Backoff()
    parent: str | None = "root"
    """None for the root alone."""
    escalates: bool = True
    """When it gives up its parent restarts it, or gives up too. False: it stays failed and the others work on."""

    def __post_init__(self) -> None:
        where = f"group {self.id!r}"
        _check(_GROUP_ID.fullmatch(self.id), where, "id", _ID_WORDS)
        strategies = ", ".join(Strategy)
        _check(self.strategy in list(Strategy), where, "strategy", f"is one of {strategies}, not {self.strategy!r}")
        _check(self.parent != self.id, where, "parent", "must be another group")
        _check(self.intensity.restarts >= 0, where, "intensity.restarts", "must not be negative")
        _check(self.intensity.within_s > 0, where, "intensity.within_s", "must be more than 0 seconds")
        backoff = self.backoff
        _check(backoff.first_s >= 0, where, "backoff.first_s", "must not be negative")
        _check(backoff.cap_s >= backoff.first_s, where, "backoff.cap_s", "must not be less than backoff.first_s")
        _check(backoff.reset_after_s >= 0, where, "backoff.reset_after_s", "must not be negative")
