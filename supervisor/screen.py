# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tree as text, for the first screen and for `greenroom tree` and `status`."""

from __future__ import annotations

from collections.abc import Sequence

from actors.messages import ActorStatus, State, TreeStatus
from actors.peers import base_name, is_spare
from actors.tool_messages import ToolDescriptor

_FINE = {State.READY, State.OFF}


def first_screen(status: TreeStatus, seconds: float, broken: Sequence[ToolDescriptor] = ()) -> str:
    """What `greenroom up` shows once everything is ready. `broken`: tools that could not be loaded."""
    return "\n".join(
        [
            f"greenroom {status.version}  ready in {seconds:.2f} s".ljust(52)
            + "(Ctrl-C stops in order, twice stops now)",
            f"  MCP        {status.url}/mcp",
            f"  REST       {status.url}/tools        (OpenAPI: /openapi.json, metrics: /metrics)",
            "",
            tree_text(status),
            "",
            *(f"  broken: {tool.broken}" for tool in broken),
            *([""] if broken else []),
            "  try:  greenroom tools call echo text=hello",
        ]
    )


def tree_text(status: TreeStatus) -> str:
    """The supervision tree, one line for each spec."""
    lines = [f"  root ({status.groups.get('root', '')})".ljust(36) + f"pid {status.root_pid}"]
    branches: list[tuple[str, list[list[ActorStatus]]]] = []
    for group, strategy in status.groups.items():
        specs = _by_spec([actor for actor in status.actors if actor.group == group])
        if group == "root":
            branches += [("", [processes]) for processes in specs]
        elif specs:
            branches.append((f"{group} ({strategy})", specs))
    for number, (title, specs) in enumerate(branches):
        last = number == len(branches) - 1
        stem = "`- " if last else "|- "
        if not title:
            lines.append(_line(f"  {stem}", specs[0]))
            continue
        lines.append(f"  {stem}{title}")
        for inner, processes in enumerate(specs):
            lines.append(_line(f"  {'   ' if last else '|  '}{'`- ' if inner == len(specs) - 1 else '|- '}", processes))
    return "\n".join(lines)


def _by_spec(actors: list[ActorStatus]) -> list[list[ActorStatus]]:
    specs: dict[str, list[ActorStatus]] = {}
    for actor in actors:
        specs.setdefault(base_name(actor.name), []).append(actor)
    return list(specs.values())


def _line(stem: str, processes: list[ActorStatus]) -> str:
    spares = [actor for actor in processes if actor.state == State.SPARE]
    actors = [actor for actor in processes if not is_spare(actor.name)]
    first = actors[0]
    count = f" x{len(actors)}" if len(actors) > 1 else ""
    left = f"{stem}{base_name(first.name)}{count}".ljust(36)
    if first.state == State.OFF:
        return f"{left}off      ({first.reason})"
    pids = ", ".join(str(actor.pid or "-") for actor in actors)
    parts = [f"pid {pids}".ljust(18), ", ".join(dict.fromkeys(str(actor.state) for actor in actors))]
    if spares:
        parts.append(f"+{len(spares)} spare{'s' if len(spares) > 1 else ''}")
    parts += [_restarts(restarts)] if (restarts := sum(actor.restarts for actor in actors)) else []
    parts += [actor.note for actor in actors if actor.note][:1]
    parts += [actor.reason for actor in actors if actor.reason and actor.state not in _FINE][:1]
    return f"{left}{'  '.join(parts)}".rstrip()


def status_line(status: TreeStatus) -> str:
    """Ready or degraded, since when, how many, what is wrong."""
    active = [actor for actor in status.actors if actor.state != State.OFF and not is_spare(actor.name)]
    ready = [actor for actor in active if actor.state == State.READY]
    word = "degraded" if is_degraded(status) else "ready"
    line = (
        f"{word}  up {duration(status.uptime_s)}  {len(ready)} of {len(active)} actors ready  "
        f"{_restarts(sum(actor.restarts for actor in active))}"
    )
    if status.url:
        line += f"  {status.url}/mcp"
    wrong = [
        f"{actor.name} is {actor.state}" + (f": {actor.reason}" if actor.reason else "")
        for actor in active
        if actor.state != State.READY
    ]
    if status.quarantined:
        wrong.append(f"{status.quarantined} quarantined, see: greenroom quarantine list")
    if status.breakers_open:
        wrong.append(f"refused for a while: {', '.join(status.breakers_open)}")
    return line + (f"  ({'; '.join(wrong)})" if wrong else "")


def _restarts(count: int) -> str:
    return f"{count} restart{'' if count == 1 else 's'}"


def is_degraded(status: TreeStatus) -> bool:
    """Whether something that should be ready is not, or is refused because it ends processes."""
    if status.quarantined or status.breakers_open:
        return True
    return any(actor.state not in _FINE for actor in status.actors if not is_spare(actor.name))


def duration(seconds: float) -> str:
    """`2 h 05 min`, `41 s`."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
