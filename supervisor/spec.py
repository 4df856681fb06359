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
    """Resource limits of one child process, set from outside with prlimit(2). None = not limited."""

    cpu_s: int | None = None
    """CPU time in seconds (RLIMIT_CPU)."""
    open_files: int | None = None
    """Open file descriptors (RLIMIT_NOFILE)."""
    file_size_bytes: int | None = None
    """Size of a file that the child writes (RLIMIT_FSIZE)."""
    address_space_bytes: int | None = None
    """Virtual memory (RLIMIT_AS)."""


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
    ready_timeout: float = 20.0
    """Seconds from spawn until the child must have said that it is ready."""
    heartbeat: Heartbeat = Heartbeat()
    limits: Limits = Limits()
    spares: int = 0
    """Warm standbys."""
    group: str = "root"
    significant: bool = False
    """When it ends and is not restarted, its group stops as a whole (OTP's automatic shutdown `any_significant`)."""

    def __post_init__(self) -> None:
        where = f"child {self.id!r}"
        if not re.fullmatch(r"[a-z][a-z0-9_.-]*(#[a-z]*[0-9]+)?", self.id):
            raise SpecError(where, "id", "must be lower-case letters, digits, '_', '.', '-' and may end in '#slot'")
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.entry):
            raise SpecError(where, "entry", f"must look like 'module:function', not {self.entry!r}")
        if isinstance(self.shutdown, (int, float)) and self.shutdown < 0:
            raise SpecError(where, "shutdown", "must not be negative")
        if self.ready_timeout <= 0:
            raise SpecError(where, "ready_timeout", "must be more than 0 seconds")
        if self.heartbeat.every_s <= 0:
            raise SpecError(where, "heartbeat.every_s", "must be more than 0 seconds")
        if self.heartbeat.hung_after_s < 2 * self.heartbeat.every_s:
            raise SpecError(where, "heartbeat.hung_after_s", "must be at least twice heartbeat.every_s")
        if self.spares < 0:
            raise SpecError(where, "spares", "must not be negative")
        if self.significant and self.restart is Restart.PERMANENT:
            raise SpecError(where, "significant", "makes no sense for a permanent child, which is always restarted")


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
