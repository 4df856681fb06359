# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which calls and which tools are refused because they end processes. Pure decisions: no clock, no I/O.

What is counted are deaths of processes that nobody ordered, with the calls that were running then (one that only waited
for its client's answer was not):

* A tool with certain arguments (known by a digest) that was running at `after` deaths, and was not answered in between
  by a living process, is *quarantined* until an operator releases it. An answer, result or error, sets the count back,
  so that calls which are innocent and merely frequent are never refused because processes die of something else.
* A tool that was running at `deaths` deaths within `within_s`, with no call of it answered in between, is refused for
  `open_s` seconds: its *breaker* is open. Then it is half open: each process tries one call at a time. An answer closes
  the breaker, another death opens it again, for twice as long (up to `open_cap_s`).
* At most `max_calls` are quarantined and as many suspect; of either the oldest are forgotten first. Not one bound for
  both: where quarantined calls filled it, no suspect would ever be remembered up to its second death.

Every method that takes `now` (monotonic seconds) returns what was decided, for the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from actors.flight import short_id
from actors.messages import Breaker, Marks, QuarantinedCall

_MAX_TOOLS = 500
"""Names that are remembered: a process that writes nonsense into its record must not fill the memory."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the rules; `SupervisorSettings` says what they mean."""

    after: int = 2
    max_calls: int = 1000
    deaths: int = 3
    within_s: float = 60.0
    open_s: float = 30.0
    open_cap_s: float = 600.0


class Call(msgspec.Struct, frozen=True):
    """A tool with certain arguments."""

    tool: str
    digest: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One decision."""

    what: Literal["quarantined", "released", "breaker open", "breaker half open", "breaker closed"]
    tool: str
    id: str = ""
    """Of the quarantined call."""
    deaths: int = 0
    for_s: float = 0.0
    """How long the breaker stays open."""


class _Tool:
    """A tool with which processes died lately."""

    def __init__(self) -> None:
        self.deaths: list[float] = []
        """When, as far as they still count."""
        self.count = 0
        """All of them since it was answered last."""
        self.open_until: float | None = None
        """None = closed, or half open."""
        self.open_s = 0.0
        """How long it was open last; 0 = closed."""

    @property
    def half_open(self) -> bool:
        return self.open_s > 0 and self.open_until is None


class Quarantine:
    """The state of all of it."""

    def __init__(self, policy: Policy, kept: Iterable[QuarantinedCall] = ()) -> None:
        """`kept`: what was quarantined before the root started, oldest first."""
        self._policy = policy
        self._suspects: dict[str, int] = {}
        self._quarantined = {one.digest: one for one in kept}
        self._tools: dict[str, _Tool] = {}
        self._trim()

    # --- what others may see ---------------------------------------------------------------------------------------

    @property
    def quarantined(self) -> list[QuarantinedCall]:
        """All that is refused for good, oldest first."""
        return list(self._quarantined.values())

    def breakers(self, now: float) -> list[Breaker]:
        """All that are not closed."""
        return [
            Breaker(
                tool=name,
                deaths=tool.count,
                half_open=tool.half_open,
                retry_after_s=round(max(0.0, tool.open_until - now), 3) if tool.open_until is not None else 0.0,
            )
            for name, tool in self._tools.items()
            if tool.open_s
        ]

    def marks(self, now: float) -> Marks:
        """What the actors have to know."""
        return Marks(
            watched=list(self._suspects),
            watched_tools=[name for name, tool in self._tools.items() if tool.open_until is None],
            quarantined=self.quarantined,
            breakers=self.breakers(now),
        )

    def next_at(self) -> float | None:
        """When `pass_time` has something to decide."""
        return min((tool.open_until for tool in self._tools.values() if tool.open_until is not None), default=None)

    # --- what happens ----------------------------------------------------------------------------------------------

    def died(self, calls: Iterable[Call], *, cause: str, at: str, now: float) -> list[Verdict]:
        """A process died while it ran these calls; equal ones count once. `cause` and `at` (UTC) are for people."""
        running = list(dict.fromkeys(calls))
        verdicts = [verdict for call in running for verdict in self._suspect(call, cause, at)]
        for name in dict.fromkeys(call.tool for call in running):
            verdicts += self._tool_died(name, now)
        self._trim()
        return verdicts

    def survived(self, call: Call) -> list[Verdict]:
        """A call was answered by a process that lives."""
        self._suspects.pop(call.digest, None)
        tool = self._tools.get(call.tool)
        # An answer while it is open is one to a call from before.
        if tool is None or tool.open_until is not None:
            return []
        del self._tools[call.tool]
        return [Verdict(what="breaker closed", tool=call.tool)] if tool.half_open else []

    def pass_time(self, now: float) -> list[Verdict]:
        """Breakers whose time is over are half open."""
        verdicts = []
        for name, tool in self._tools.items():
            if tool.open_until is not None and tool.open_until <= now:
                tool.open_until = None
                verdicts.append(Verdict(what="breaker half open", tool=name, deaths=tool.count))
        return verdicts

    def release(self, name: str) -> list[Verdict]:
        """An operator lets a quarantined call in again, by its id or its whole digest, or a tool by its name. Nothing
        when there is none of this name."""
        for digest, one in self._quarantined.items():
            if name in {one.id, digest}:
                del self._quarantined[digest]
                return [Verdict(what="released", tool=one.tool, id=one.id, deaths=one.deaths)]
        tool = self._tools.get(name)
        if tool is None or not tool.open_s:
            return []
        del self._tools[name]
        return [Verdict(what="breaker closed", tool=name)]

    def release_all(self) -> list[Verdict]:
        """Let everything in again."""
        names = [*self._quarantined, *(name for name, tool in self._tools.items() if tool.open_s)]
        return [verdict for name in names for verdict in self.release(name)]

    # --- decisions -------------------------------------------------------------------------------------------------

    def _suspect(self, call: Call, cause: str, at: str) -> list[Verdict]:
        before = self._quarantined.get(call.digest)
        if before is not None:
            # It was let in before it was quarantined.
            deaths = before.deaths + 1
            self._quarantined[call.digest] = msgspec.structs.replace(before, deaths=deaths, last_at=at, cause=cause)
            return []
        # Taken out and put in again: the order is that of the latest death.
        deaths = self._suspects.pop(call.digest, 0) + 1
        if deaths < self._policy.after:
            self._suspects[call.digest] = deaths
            return []
        one = QuarantinedCall(
            id=short_id(call.digest), digest=call.digest, tool=call.tool, deaths=deaths, last_at=at, cause=cause
        )
        self._quarantined[call.digest] = one
        return [Verdict(what="quarantined", tool=call.tool, id=one.id, deaths=deaths)]

    def _tool_died(self, name: str, now: float) -> list[Verdict]:
        policy = self._policy
        tool = self._tools.setdefault(name, _Tool())
        if tool.open_until is not None:
            # A call from before it was opened, or the trial of another process: nothing that is not known.
            return []
        tool.count += 1
        tool.deaths = [at for at in tool.deaths if now - at < policy.within_s] + [now]
        if not tool.half_open and len(tool.deaths) < policy.deaths:
            return []
        tool.open_s = min(tool.open_s * 2 if tool.open_s else policy.open_s, policy.open_cap_s)
        tool.open_until = now + tool.open_s
        return [Verdict(what="breaker open", tool=name, deaths=tool.count, for_s=tool.open_s)]

    def _trim(self) -> None:
        for remembered in (self._suspects, self._quarantined):
            while len(remembered) > self._policy.max_calls:
                del remembered[next(iter(remembered))]
        while len(self._tools) > _MAX_TOOLS:
            closed = (name for name, tool in self._tools.items() if not tool.open_s)
            del self._tools[next(closed, next(iter(self._tools)))]
