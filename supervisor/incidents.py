# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator has to know of a running tree, made from the core's reports: one sentence for each death and its
recovery, and the whole story of a start that failed. No I/O and no clock of its own."""

from __future__ import annotations

from typing import Any

import msgspec

_TAIL_BYTES = 16 * 1024
_MAX_LINES = 8
_MAX_LINE = 300


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One death, as far as it is known."""

    actor: str
    reason: str
    sentence: str
    """`router died (signal 9), back in 7 ms`."""
    back_ms: float | None = None
    """From the notice of its death until its next life was ready; None while it is not back."""


class StartFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the tree did not come up."""

    actor: str
    reason: str
    """How it ended: `ended before it was ready, exit code 1`."""
    last_lines: list[str]
    """What it wrote last, oldest first."""
    remedy: str


class Incidents:
    """Follows the core's reports. `observe` returns an incident when there is something to tell."""

    def __init__(self) -> None:
        self._down: dict[str, tuple[float, str]] = {}
        self._spared: set[str] = set()
        self._up = False
        self._tails: dict[str, bytearray] = {}
        self._failed: tuple[str, str] | None = None

    def tree_is_up(self) -> dict[str, bytes]:
        """From now on no start can fail, and what actors write is not kept; what was kept of each is returned."""
        self._up = True
        tails, self._tails = self._tails, {}
        return {actor: bytes(tail) for actor, tail in tails.items()}

    def wrote(self, actor: str, chunk: bytes) -> None:
        """Keep what an actor wrote last, for as long as the start can fail."""
        if not self._up:
            tail = self._tails.setdefault(actor, bytearray())
            tail += chunk
            del tail[:-_TAIL_BYTES]

    def observe(self, event: str, fields: dict[str, Any], now: float) -> Incident | None:
        """Take one report: its context, its fields, the time in seconds."""
        actor = str(fields.get("offender", ""))
        reason = str(fields.get("reason", ""))
        decision = str(fields.get("decision", ""))
        if event == "started" and actor in self._down:
            since, why = self._down.pop(actor)
            back_ms = round((now - since) * 1000, 1)
            how = "a spare took its place" if actor in self._spared else f"back in {span(back_ms)}"
            self._spared.discard(actor)
            sentence = f"{actor} {_died(why)}, {how}"
            return Incident(actor=actor, reason=why, sentence=sentence, back_ms=back_ms)
        if event == "exited" and decision.startswith("restart"):
            if decision.startswith("restart as"):
                self._spared.add(actor)
            if actor not in self._down:
                self._down[actor] = (now, reason)
                return None
            return Incident(actor=actor, reason=reason, sentence=f"{actor} {_died(reason)} again; {decision}")
        if event == "exited" and decision == "stop the tree" and not self._up and self._failed is None:
            self._failed = (actor, reason)
        return None

    def start_failure(self) -> StartFailure | None:
        """The story of the failed start; None when it did not fail because of an actor."""
        if self._failed is None:
            return None
        actor, reason = self._failed
        lines = last_lines(bytes(self._tails.get(actor, b"")))
        how, _, detail = reason.partition(": ")
        return StartFailure(
            actor=actor, reason=how, last_lines=lines or ([detail] if detail else []), remedy=_remedy(reason, lines)
        )


def _died(reason: str) -> str:
    how = reason.partition(": ")[0]
    return "hung" if how.startswith("hung") else f"died ({how})"


def span(ms: float) -> str:
    """Milliseconds for people: `7 ms`, `12.0 s`."""
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def last_lines(tail: bytes) -> list[str]:
    """What a process wrote last, for people: its events in short, everything else as it is."""
    lines: list[str] = []
    for raw in tail.splitlines():
        try:
            fields = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError:
            text = raw.decode(errors="replace").rstrip()
        else:
            words = [fields.get("event"), fields.get("reason"), fields.get("error")]
            text = ": ".join(str(word) for word in words if word)
        if text.strip():
            lines.append(text[:_MAX_LINE])
    return lines[-_MAX_LINES:]


def _remedy(reason: str, lines: list[str]) -> str:
    told = " ".join([reason, *lines])
    if "not ready in time" in reason:
        return "give it more time (supervisor.ready_timeout_s), or see what it does with server.log_level: DEBUG"
    if "ModuleNotFoundError" in told or "ImportError" in told:
        return "a package is missing or broken in this environment; install it (./dev setup), or switch that part off"
    if "MemoryError" in told or "Cannot allocate memory" in told or "signal 9" in reason:
        return "memory may have run out: look at tools.pools.*.address_space_bytes and at the memory of the machine"
    if "Too many open files" in told or "Error 24" in told:
        return "its limit of open files is too low: raise tools.pools.*.open_files, or the system's (ulimit -n)"
    return "mend what its last lines say; greenroom config show --origin tells where each setting comes from"


def failure_screen(failure: StartFailure) -> str:
    """A failed start for people: who, how, what it wrote last, what to do."""
    lines = [f"greenroom could not start: {failure.actor} {failure.reason}"]
    if failure.last_lines:
        lines += ["  it wrote last:", *(f"    {line}" for line in failure.last_lines)]
    else:
        lines.append("  it wrote nothing")
    return "\n".join([*lines, f"  what to do: {failure.remedy}"])
