# SPDX-License-Identifier: AGPL-3.0-or-later
"""What must be true of a run, rule by rule, checked against what was seen. Pure: evidence in, violations out.

Each rule is a function of its own with a name that the report shows; `RULES` lists them, in the report's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from supervisor.chaos.history import Ended, Evidence, Injected, Invoked

NOTHING_STARTED = frozenset(
    {
        "BUSY", "RUNTIME_UNAVAILABLE", "QUARANTINED", "BREAKER_OPEN", "UNKNOWN_TOOL", "INVALID_ARGUMENTS",
        "UNAVAILABLE", "FORBIDDEN",
    }
)  # fmt: skip
"""Codes that promise that the call had no effect."""
MAYBE_STARTED = frozenset({"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED"})
STARVING = frozenset({"fd_exhaustion", "memory_bomb"})
"""Faults that leave the other calls of the process without files or memory."""
LIMIT_SLACK_S = 2.0
"""A busy machine may tell late that a call ended."""
WINDOW_SLACK_S = 1.0
"""Around a fault, for what it does to calls."""
REPEATED_WITHIN_S = 15.0
"""A call whose connection died with its gateway must succeed so soon when it is repeated, besides its own limit."""
MORE_FILES = 8
"""Connections of the moment."""
MORE_MEMORY = 1.15
MORE_MEMORY_KIB = 4096


class Violation(msgspec.Struct, frozen=True):
    """A rule that was broken, and how."""

    rule: str
    details: str


class _Calls:
    """The history, put in order."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.by_number: dict[int, Invoked] = {call.number: call for call in evidence.invoked}
        self.ends: dict[int, Ended] = {end.number: end for end in reversed(evidence.ended)}
        self.effects = Counter(line.token for line in evidence.effects)

    def pairs(self) -> Iterator[tuple[Invoked, Ended]]:
        """Calls that ended, with their ends."""
        for number, call in self.by_number.items():
            if number in self.ends:
                yield call, self.ends[number]

    def windows(self, call: Invoked, end: Ended, base: str) -> list[Injected]:
        """Faults that may have disturbed the call at this actor."""
        return [
            fault
            for fault in self.evidence.faults
            if fault.disturbs(base) and fault.overlaps(call.at, end.at, WINDOW_SLACK_S)
        ]

    def base(self, tool: str) -> str:
        return self.evidence.pools.get(tool, "")


Rule = Callable[[_Calls], Iterable[str]]


def one_outcome_per_call(calls: _Calls) -> Iterator[str]:
    """Every call ends exactly once, and no number is used twice."""
    for number, count in Counter(call.number for call in calls.evidence.invoked).items():
        if count > 1:
            yield f"call {number} was made {count} times"
    ends = Counter(end.number for end in calls.evidence.ended)
    for number, call in calls.by_number.items():
        if ends[number] != 1:
            yield f"{_name(call)} ended {ends[number]} times"
    for number in ends.keys() - calls.by_number.keys():
        yield f"an end of call {number}, which was never made"


def the_right_answer(calls: _Calls) -> Iterator[str]:
    """An answer is the answer to its own call."""
    for call, end in calls.pairs():
        if end.outcome == "lost":
            continue
        if end.answered_id != call.number:
            yield f"{_name(call)} was answered with id {end.answered_id}"
        elif end.outcome == "ok" and end.answer != call.token:
            yield f"{_name(call)} was answered {end.answer[:60]!r} instead of {call.token[:60]!r}"


def no_answer_from_the_dead(calls: _Calls) -> Iterator[str]:
    """Nobody answers a call that was made after a fault had ended him."""
    died = {pid: fault for fault in calls.evidence.faults for pid in fault.dead}
    for call, end in calls.pairs():
        fault = died.get(end.pid)
        if fault is not None and fault.ended and call.at > fault.ended:
            yield f"{_name(call)} was answered by pid {end.pid}, which fault {fault.number} ({fault.fault}) ended"


def acknowledged_is_done(calls: _Calls) -> Iterator[str]:
    """An effect that was acknowledged is in the file, from the process that said so."""
    lines = {(line.token, line.pid) for line in calls.evidence.effects}
    for call, end in calls.pairs():
        if call.effect and end.outcome == "ok" and (call.token, end.pid) not in lines:
            yield f"{_name(call)} was acknowledged by pid {end.pid}, and its effect is missing"


def no_effect_twice(calls: _Calls) -> Iterator[str]:
    """No effect happens twice, and none that nobody asked for."""
    asked = {call.token for call in calls.evidence.invoked if call.effect}
    for token, count in calls.effects.items():
        if token not in asked:
            yield f"the effect {token} was never asked for"
        elif count > 1:
            yield f"the effect {token} happened {count} times"


def refused_is_not_done(calls: _Calls) -> Iterator[str]:
    """A call that was refused had no effect."""
    for call, end in calls.pairs():
        if call.effect and end.outcome == "failed" and end.code in NOTHING_STARTED and calls.effects[call.token]:
            yield f"{_name(call)} was refused with {end.code}, and its effect happened"


def repeatable_calls_are_answered(calls: _Calls) -> Iterator[str]:
    """A retry_safe call never ends with an unknown outcome, unless two deaths met in it: it is repeated once only."""
    for call, end in calls.pairs():
        if call.retry_safe and end.outcome == "failed" and end.code in MAYBE_STARTED:
            faults = calls.windows(call, end, calls.base(call.tool))
            # The root's death ends the first process and the one of the repetition at once.
            deaths = sum(2 if "*" in fault.touches else 1 for fault in faults)
            if end.code != "OUTCOME_UNKNOWN" or deaths < 2:
                yield f"{_name(call)} ended with {end.code}; it took {end.at - call.at:.2f} s; near: {_list(faults)}"


def errors_have_a_reason(calls: _Calls) -> Iterator[str]:
    """A call fails only while a fault goes on that may disturb its pool, and with a code that says what happened."""
    for call, end in calls.pairs():
        if end.outcome != "failed" or call.fault or (call.retry_safe and end.code in MAYBE_STARTED):
            continue
        if end.code not in NOTHING_STARTED | MAYBE_STARTED | _starved(calls, call, end):
            yield f"{_name(call)} failed with {end.code}"
        elif not calls.windows(call, end, calls.base(call.tool)):
            yield f"{_name(call)} failed with {end.code} although no fault was near"


def _starved(calls: _Calls, call: Invoked, end: Ended) -> set[str]:
    """What a tool may say whose neighbour takes all that the process may have."""
    near = calls.windows(call, end, calls.base(call.tool))
    return {"TOOL_FAILED"} if any(fault.fault in STARVING for fault in near) else set()


def connections_break_with_the_gateway_only(calls: _Calls) -> Iterator[str]:
    """A call is lost only together with its gateway."""
    for call, end in calls.pairs():
        if end.outcome == "lost" and not calls.windows(call, end, calls.evidence.gateway):
            yield f"{_name(call)} got lost ({end.code}) although its gateway was left alone"


def lost_calls_succeed_when_repeated(calls: _Calls) -> Iterator[str]:
    """A retry_safe call whose connection died succeeds soon when the client repeats it."""
    operations: dict[int, list[tuple[Invoked, Ended]]] = {}
    for call, end in calls.pairs():
        if call.retry_safe:
            operations.setdefault(call.operation, []).append((call, end))
    for tries in operations.values():
        lost = [end.at for _, end in tries if end.outcome == "lost"]
        if not lost:
            continue
        last, end = max(tries, key=lambda pair: pair[0].at)
        if end.outcome == "lost":
            yield f"{_name(last)} was lost and never succeeded"
        elif end.at - min(lost) > REPEATED_WITHIN_S + last.limit_s:
            yield f"{_name(last)} succeeded only {end.at - min(lost):.1f} s after it had got lost"


def calls_end_in_time(calls: _Calls) -> Iterator[str]:
    """No call outlives its limit."""
    for call, end in calls.pairs():
        if end.at - call.at > call.limit_s + LIMIT_SLACK_S:
            yield f"{_name(call)} took {end.at - call.at:.1f} s; its limit was {call.limit_s:.1f} s"


def faults_go_as_expected(calls: _Calls) -> Iterator[str]:
    """What each fault did is what it should do."""
    for fault in calls.evidence.faults:
        for problem in fault.problems:
            yield f"{_fault(fault)}: {problem}"


def siblings_keep_their_pids(calls: _Calls) -> Iterator[str]:
    """A fault changes no process but those that it is aimed at."""
    for fault in calls.evidence.faults:
        for name, pid in fault.pids_before.items():
            after = fault.pids_after.get(name)
            if fault.pids_after and after != pid and not fault.disturbs(name.partition("#")[0]):
                yield f"{_fault(fault)}: {name} had pid {pid} before and {after} after"


def the_root_stays_flat(calls: _Calls) -> Iterator[str]:
    """The root's open files and memory do not grow."""
    for root in calls.evidence.roots:
        if root.warm is None or root.last is None:
            continue
        if root.last.files > root.warm.files + MORE_FILES:
            yield f"root {root.pid} had {root.warm.files} open files when warm, {root.last.files} at its end"
        if root.last.rss_kib > root.warm.rss_kib * MORE_MEMORY + MORE_MEMORY_KIB:
            yield f"root {root.pid} had {root.warm.rss_kib} KiB when warm, {root.last.rss_kib} KiB at its end"


def the_tree_is_whole(calls: _Calls) -> Iterator[str]:
    """At the end everything is ready; nothing is left over."""
    yield from calls.evidence.not_whole
    if calls.evidence.zombies:
        yield f"zombies below the root: {calls.evidence.zombies}"
    if calls.evidence.strays:
        yield f"processes below the root that the tree does not know: {calls.evidence.strays}"


RULES: tuple[Rule, ...] = (
    one_outcome_per_call,
    the_right_answer,
    no_answer_from_the_dead,
    acknowledged_is_done,
    no_effect_twice,
    refused_is_not_done,
    repeatable_calls_are_answered,
    errors_have_a_reason,
    connections_break_with_the_gateway_only,
    lost_calls_succeed_when_repeated,
    calls_end_in_time,
    faults_go_as_expected,
    siblings_keep_their_pids,
    the_root_stays_flat,
    the_tree_is_whole,
)


def check(evidence: Evidence) -> list[Violation]:
    """Every way in which a rule was broken."""
    calls = _Calls(evidence)
    return [Violation(rule_name(rule), details) for rule in RULES for details in rule(calls)]


def rule_name(rule: Rule) -> str:
    """A rule's name for people."""
    return rule.__name__.replace("_", " ")


def _name(call: Invoked) -> str:
    return f"call {call.number} ({call.tool} {call.token[:40]})"


def _fault(fault: Injected) -> str:
    return f"fault {fault.number} ({fault.fault}" + (f", {fault.target})" if fault.target else ")")


def _list(faults: list[Injected]) -> str:
    return ", ".join(_fault(fault) for fault in faults) or "none"
