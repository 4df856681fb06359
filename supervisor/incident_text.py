# SPDX-License-Identifier: AGPL-3.0-or-later
"""Kept exits for people: `greenroom why` and `greenroom events`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from actors.peers import base_name
from supervisor.incident_log import Exit
from supervisor.incidents import last_lines, span


def exits_of(exits: Sequence[Exit], actor: str) -> list[Exit]:
    """Those of one actor; a name without a slot means all processes of it."""
    return [one for one in exits if actor in {one.actor, base_name(one.actor)}]


def exit_line(one: Exit) -> str:
    """One exit on one line."""
    if one.decision.startswith("restart as"):
        back = "a spare took its place"
    else:
        back = f"back in {one.back_ms:.0f} ms" if one.back_ms is not None else "not back"
    how = one.reason.partition(": ")[0]
    return f"{one.at}  {one.actor}  {how}  {one.decision}  {back}"


def exit_story(one: Exit) -> str:
    """All that is known of one exit."""
    lines = [exit_line(one)]
    lines.append(
        f"  pid {one.pid}, incarnation {one.incarnation}, ready for {one.uptime_s:.1f} s, "
        f"{one.calls_in_flight} calls in flight"
    )
    lines += [
        f"    {call.tool}  {call.id}  call {call.call_id}, for {span(call.running_ms)}"
        + (", waiting for its client" if call.waiting else "")
        for call in one.calls
    ]
    written = last_lines(one.stderr_tail.encode())
    if written:
        lines += ["  it wrote last:", *(f"    {line}" for line in written)]
    if one.stacks:
        lines += ["  where its threads were:", textwrap.indent(one.stacks.rstrip(), "    ")]
    return "\n".join(lines)
