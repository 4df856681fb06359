# SPDX-License-Identifier: AGPL-3.0-or-later
"""What happens to the tree (events), what is to be done about it (commands), how children are seen: plain values."""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.messages import State
from supervisor.spec import ChildSpec

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Context = Literal["started", "exited", "hung", "gave_up", "stopping", "stopped", "stale", "operator"]
ExitKind = Literal["normal", "abnormal", "killed", "hung", "boot_timeout", "boot_death", "shutdown"]
_KIND_WORDS: dict[ExitKind, str] = {
    "normal": "ended normally",
    "abnormal": "",
    "killed": "",
    "hung": "hung",
    "boot_timeout": "not ready in time",
    "boot_death": "ended before it was ready",
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
        if self.kind in {"hung", "boot_timeout"}:
            pass  # The signal was the root's own and explains nothing.
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


class AddChild(_Value, frozen=True):
    """A pool grows: a new child at the end of its group."""

    spec: ChildSpec


class RemoveChild(_Value, frozen=True):
    """A pool shrinks: stop this child and forget it."""

    name: str


Event = Start | ChildReady | ChildExited | ChildHung | TimerFired | StopTree | RestartChild | AddChild | RemoveChild


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


Command = Spawn | Swap | Terminate | Kill | SetTimer | CancelTimer | Report | TreeStopped


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """One child as others may see it."""

    spec: ChildSpec
    name: str
    state: State
    incarnation: int
    restarts: int
    reason: str
