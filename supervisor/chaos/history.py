# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was seen during a run: calls as they began and ended, faults, and the tree at the end. Plain values.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["ok", "failed", "lost"]
"""With a result; with a typed error; without an answer, because the connection broke."""


class Invoked(msgspec.Struct, frozen=True, gc=False):
    """A call began."""

    number: int
    """Its JSON-RPC id; never repeats in a run."""
    operation: int
    """What the client wants done: a call that got lost is repeated under the same operation."""
    tool: str
    token: str
    """What the right answer carries."""
    retry_safe: bool
    effect: bool
    at: float
    limit_s: float
    """By then it must have ended: its deadline, or what the work and the longest recovery may take."""
    fault: bool = False
    """Made to do harm: whoever made it judges how it failed."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A call ended."""

    number: int
    at: float
    outcome: Outcome
    code: str = ""
    answer: str = ""
    answered_id: int = 0
    """The id in the answer."""
    pid: int = 0
    """Who did it, where the answer says so."""


class Injected(msgspec.Struct, kw_only=True):
    """One fault, as it went."""

    number: int
    fault: str
    target: str
    parameter: str
    began: float
    ended: float = 0.0
    """When the tree was whole again, or the wait for that was given up."""
    seen: str = ""
    recovery_s: float | None = None
    """From the fault until its target was ready again; None when nothing had to recover."""
    problems: list[str] = []
    """What was not as expected."""
    touches: list[str] = []
    """Base names of the actors that it may disturb; `*` = all."""
    dead: list[int] = []
    """Processes that it ended."""
    pids_before: dict[str, int] = {}
    pids_after: dict[str, int] = {}

    def overlaps(self, began: float, ended: float, slack_s: float) -> bool:
        """Whether it was going on at some time in between."""
        return self.began - slack_s <= ended and began <= (self.ended or self.began) + slack_s

    def disturbs(self, base: str) -> bool:
        """Whether it may disturb this actor."""
        return "*" in self.touches or base in self.touches


class Footprint(msgspec.Struct, frozen=True):
    """A root's open files and resident memory."""

    files: int
    rss_kib: int


class RootLife(msgspec.Struct, kw_only=True):
    """One root: after its warm-up, and at its end. None when it was not measured."""

    pid: int
    warm: Footprint | None = None
    last: Footprint | None = None


class EffectLine(msgspec.Struct, frozen=True):
    """A line of the effects' file."""

    token: str
    pid: int


class Evidence(msgspec.Struct, kw_only=True):
    """All that the checker looks at."""

    invoked: list[Invoked] = []
    ended: list[Ended] = []
    effects: list[EffectLine] = []
    faults: list[Injected] = []
    roots: list[RootLife] = []
    gateway: str = "gateway"
    """Base name of what holds the clients' connections."""
    pools: dict[str, str] = {}
    """Tool -> base name of the actor that runs it."""
    not_whole: list[str] = []
    """What was not ready at the end."""
    zombies: list[int] = []
    strays: list[int] = []
    """Processes below the root that the tree does not know."""
