# SPDX-License-Identifier: AGPL-3.0-or-later
"""What happens to the tree (events), what is to be done about it (commands), how children are seen: plain values."""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.messages import State
from supervisor.spec import ChildSpec, GroupSpec

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Context = Literal["started", "exited", "hung", "replaced", "gave_up", "stopping", "stopped", "stale", "operator"]
ExitKind = Literal["normal", "abnormal", "killed", "hung", "boot_timeout", "boot_death", "limit", "shutdown"]
_KIND_WORDS: dict[ExitKind, str] = {
    "normal": "ended normally",
    "abnormal": "",
    "killed": "",
    "hung": "hung",
    "boot_timeout": "not ready in time",
    "boot_death": "ended before it was ready",
    "limit": "reached a limit",
    "shutdown": "stopped",
}


class ExitReason(msgspec.Struct, frozen=True, kw_only=True):
    """How one life ended."""

    kind: ExitKind
    exit_code: int | None = None
    signal: int | None = None
    text: str = ""

    @property
    def words(self) -> str:
        """For people: `signal 9`, `exit code 3: ValueError ...`, `ended before it was ready, exit code 1: ...`."""
        what = [_KIND_WORDS[self.kind]]
        if self.kind in {"hung", "boot_timeout", "limit"}:
            pass  # The signal explains nothing: it was the root's own, or the limit's.
        elif self.signal is not None:
            what.append(f"signal {self.signal}")
        elif self.exit_code or (self.exit_code is not None and self.kind not in {"normal", "shutdown"}):
            what.append(f"exit code {self.exit_code}")
        head = ", ".join(word for word in what if word) or "ended"
        return f"{head}: {self.text}" if self.text else head


class _Value(msgspec.Struct, frozen=True):
    """Base of events and commands: plain values."""


class Start(_Value, frozen=True):
    """Start the whole tree. Once."""


class ChildReady(_Value, frozen=True):
    """A child said that it does its work."""

    name: str
    incarnation: int


class ChildExited(_Value, frozen=True):
    """A life has ended and is reaped, or could not begin."""

    name: str
    incarnation: int
    reason: ExitReason


class ChildHung(_Value, frozen=True):
    """No beat came in time."""

    name: str
    incarnation: int


class TimerFired(_Value, frozen=True):
    """A timer set by `SetTimer` has run out."""

    key: str


class StopTree(_Value, frozen=True):
    """Stop everything in order; the second time at once."""

    reason: str


class RestartChild(_Value, frozen=True):
    """An operator wants a new process (or a failed child back). Does not count for the intensity."""

    name: str


class ReplaceChild(_Value, frozen=True):
    """Put a new process beside a child, which takes its place when it is ready; the old one finishes its calls."""

    name: str
    reason: str = ""
    incarnation: int | None = None
    """Only this life; a limit that it reached is no reason to replace the next one. None = whatever life it has."""


class DrainChild(_Value, frozen=True):
    """Take a child out of service: it finishes its calls and gets no new ones."""

    name: str


class ResumeChild(_Value, frozen=True):
    """Put a drained child back into service."""

    name: str


class AddChild(_Value, frozen=True):
    """A pool grows: a new child at the end of its group."""

    spec: ChildSpec


class RemoveChild(_Value, frozen=True):
    """A pool shrinks: let this child finish its calls, stop it and forget it."""

    name: str


class Reconfigure(_Value, frozen=True):
    """The tree is to be as a new configuration says."""

    groups: tuple[GroupSpec, ...]
    children: tuple[ChildSpec, ...]
    replace: frozenset[str] = frozenset()
    """Children, and with them the spares of their base names, that get a new life by it."""


Event = (
    Start
    | ChildReady
    | ChildExited
    | ChildHung
    | TimerFired
    | StopTree
    | RestartChild
    | ReplaceChild
    | DrainChild
    | ResumeChild
    | AddChild
    | RemoveChild
    | Reconfigure
)


class Spawn(_Value, frozen=True):
    """Start a process."""

    spec: ChildSpec
    incarnation: int


class Swap(_Value, frozen=True):
    """The lives of a child and of a spare change places: the spare's life does the child's work from now on, and the
    child's, if there is one, is called by the spare's name until it ends."""

    name: str
    spare: str


class Terminate(_Value, frozen=True):
    """Ask it to end, kill it after `grace_s` seconds (None = wait for as long as it takes)."""

    name: str
    incarnation: int
    grace_s: float | None


class Drain(_Value, frozen=True):
    """Tell it to finish its calls and to take no new ones."""

    name: str
    incarnation: int


class Resume(_Value, frozen=True):
    """Tell it to take calls again."""

    name: str
    incarnation: int


class Kill(_Value, frozen=True):
    """End it now."""

    name: str
    incarnation: int
    cause: str


class SetTimer(_Value, frozen=True):
    """Send `TimerFired(key)` after so many seconds."""

    key: str
    delay_s: float


class CancelTimer(_Value, frozen=True):
    """Forget this timer."""

    key: str


class Report(_Value, frozen=True):
    """What happened and what was decided, for the log: one shape for all of it."""

    level: Level
    context: Context
    supervisor: str
    offender: str = ""
    incarnation: int = 0
    reason: str = ""
    decision: str = ""


class TreeStopped(_Value, frozen=True):
    """The end."""

    exit_code: int
    reason: str


Command = Spawn | Swap | Terminate | Drain | Resume | Kill | SetTimer | CancelTimer | Report | TreeStopped


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """One child as others may see it."""

    spec: ChildSpec
    name: str
    state: State
    incarnation: int
    restarts: int
    reason: str
    leaving: bool
    """It ends, and is no part of the tree any more then."""
