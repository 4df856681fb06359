# SPDX-License-Identifier: AGPL-3.0-or-later
"""Why a life ends or ended, in words and as a value: from what the root knows of it and how its process ended."""

from __future__ import annotations

import signal

from supervisor.events import ExitKind, ExitReason
from supervisor.lives import Life
from supervisor.spawn import ExitStatus


def limit_reached(life: Life) -> str:
    """Which limit the last beat shows to be reached, in words; empty for none."""
    limits, beat = life.spec.limits, life.beat
    if beat is None:
        return ""
    if limits.memory_high_bytes is not None and beat.rss_bytes > limits.memory_high_bytes:
        return f"it uses {mib(beat.rss_bytes)} of memory, more than memory_high_bytes ({mib(limits.memory_high_bytes)})"
    if limits.max_calls is not None and beat.calls_total >= limits.max_calls:
        return f"it has answered {beat.calls_total} calls (max_calls: {limits.max_calls})"
    return ""


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**20:.0f} MiB"


def exit_reason(life: Life, status: ExitStatus) -> ExitReason:
    """Why a life ended, as the core and the incident see it. What the process wrote last is part of it only where it
    may explain the end: not after an orderly one."""
    # A process that ended by itself just before its kill tells more than the kill's reason.
    killed = bool(life.kill_cause) and status.signal == signal.SIGKILL
    out_of_cpu = status.signal == signal.SIGXCPU and life.spec.limits.cpu_s is not None
    kind: ExitKind
    if killed and life.killed_as != "killed":
        kind = life.killed_as
    elif (life.limit_reached and life.stop is not None) or out_of_cpu:
        kind = "limit"
    elif life.stop is not None:
        kind = "shutdown"
    elif life.ready_at is None:
        kind = "boot_death"
    elif status.signal is not None:
        kind = "killed"
    else:
        kind = "normal" if status.returncode == 0 else "abnormal"
    wrote = "" if kind in {"normal", "shutdown"} else last_lines(status.stderr_tail)
    why = life.kill_cause if killed else status.error
    if kind == "limit":
        why = life.limit_reached or f"it has used {life.spec.limits.cpu_s} s of CPU time (cpu_s)"
    text = f"{why}; it wrote: {wrote}" if why and wrote else why or wrote
    return ExitReason(kind=kind, exit_code=status.returncode, signal=status.signal, text=text)


def last_lines(stderr_tail: str, count: int = 3) -> str:
    """The end of what a process wrote, short enough for one report."""
    lines = [line.strip() for line in stderr_tail.strip().splitlines() if line.strip()]
    return " | ".join(lines[-count:])[-2000:]
