# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks and the queue as text for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from actors.task_messages import Task, status_of
from actors.task_views import QueueStats, TaskView
from supervisor.client_queue import Dead, Peek, Requeued, Shown
from supervisor.screen import duration

_MOST_CHARS: Final = 2000
_MOST_IDS: Final = 20
_STATUSES: Final = ("queued", "running", "completed", "failed", "cancelled", "skipped")


def stats_text(stats: QueueStats) -> str:
    """Counts, ages, rates, workers, the file."""
    lines = ["  ".join(f"{name} {stats.counts.get(name, 0)}" for name in _STATUSES)]
    waiting = {state: stats.by_state[state] for state in ("scheduled", "blocked") if stats.by_state.get(state)}
    if waiting:
        lines.append("of the queued: " + ", ".join(f"{count} {state}" for state, count in waiting.items()))
    if stats.paused:
        lines.append("paused: " + ", ".join(name or "everything" for name in stats.paused))
    facts = [
        ("the longest waits for", stats.oldest_ready_s, duration),
        ("tasks wait for", stats.average_wait_s, duration),
        ("run for", stats.average_run_s, duration),
        ("end at", stats.throughput_per_s, lambda rate: f"{rate:.3g}/s"),
    ]
    told = [f"{name} {words(value)}" for name, value, words in facts if value is not None]
    if told:
        lines.append(", ".join(told))
    if stats.by_type:
        lines += ["", *table(("type", *_STATUSES), [_type_row(name, row) for name, row in stats.by_type.items()])]
    if stats.workers:
        rows = [
            (one.worker, one.status, str(len(one.running)), str(one.completed), str(one.failed), _ago(one.seen_at))
            for one in stats.workers
        ]
        lines += ["", *table(("worker", "status", "running", "completed", "failed", "seen"), rows)]
    shown = ("completed", "failed", "cancelled", "retried", "expired", "released", "stale_fence", "refused")
    lines += ["", "since the queue was made: " + ", ".join(f"{stats.counters.get(one, 0)} {one}" for one in shown)]
    return "\n".join([*lines, _store_line(stats.store)])


def _type_row(name: str, row: dict[str, int]) -> tuple[str, ...]:
    return (name, *(str(row.get(status, 0)) for status in _STATUSES))


def _store_line(store: dict[str, Any]) -> str:
    sizes = (("the log", "bytes"), ("what is not in it yet", "wal_bytes"), ("ended tasks", "history_bytes"))
    line = "files: " + ", ".join(f"{words} {store[name] / 1e6:.1f} MB" for words, name in sizes if name in store)
    if store.get("commit_p50_ms") is not None:
        line += f"; a commit takes {store['commit_p50_ms']:.1f} ms, one in 100 over {store['commit_p99_ms']:.1f} ms"
    return line


def peek_text(peek: Peek) -> str:
    """The next tasks, one line each."""
    if not peek.tasks:
        return "no task waits"
    rows = [_peek_row(view) for view in peek.tasks]
    lines = table(("place", "id", "type", "priority", "waits for", "why"), rows)
    return "\n".join([*lines, *_more(len(peek.tasks), peek.total)])


def _peek_row(view: TaskView) -> tuple[str, ...]:
    task = view.task
    place = "-" if view.position is None else str(view.position)
    waits = duration(max(0.0, time.time() - task.created_at))
    return (place, task.id, task.type, f"{task.priority:g}", waits, view.why_waiting)


def dead_text(dead: Dead) -> str:
    """The dead letters, one line each."""
    if not dead.tasks:
        return "no task has failed"
    rows = [
        (
            task.id,
            task.type,
            f"{task.attempt} attempts" if task.attempt != 1 else "1 attempt",
            _ago(task.ended_at or task.updated_at),
            f"{task.error.code}: {one_line(task.error.message)}" if task.error else "",
        )
        for task in dead.tasks
    ]
    lines = table(("id", "type", "made", "failed", "why"), rows)
    return "\n".join([*lines, *_more(len(dead.tasks), dead.total)])


def requeued_text(done: Sequence[Requeued]) -> str:
    """What was put back, one line each."""
    lines = []
    for one in done:
        if one.error is not None:
            lines.append(f"{one.id}: {one.error.message} [{one.error.code}]")
        elif one.before:
            lines.append(f"{one.id} was requeued before, as {one.new_id}")
        else:
            lines.append(f"requeued {one.id} as {one.new_id}")
    return "\n".join(lines) if lines else "no task has failed"


def task_text(shown: Shown) -> str:
    """All that is known of a task."""
    task = shown.task
    lines = [f"{name.ljust(12)}{value}" for name, value in _facts(shown) if value]
    for title, text in (("payload", task.payload), ("result", task.result)):
        if text is not None:
            lines += ["", title, f"  {_cut(text)}"]
    for title, asked in (("asked of its owner", task.asked), ("answers", task.answers)):
        if asked:
            lines += ["", title, *(f"  {key}: {one_line(text)}" for key, text in asked.items())]
    if task.logs:
        lines += ["", "log", *(f"  {line}" for line in task.logs)]
    if shown.events:
        rows = [
            (
                clock(event.at),
                event.what,
                event.worker,
                str(event.attempt) if event.attempt else "",
                one_line(event.note),
            )
            for event in shown.events
        ]
        lines += ["", *table(("when", "what", "worker", "attempt", ""), rows)]
    return "\n".join(lines)


def _facts(shown: Shown) -> list[tuple[str, str]]:
    task = shown.task
    status, state = status_of(task.state), task.state.value
    return [
        ("task", task.id),
        ("type", task.type + (f" ({task.model_name})" if task.model_name else "")),
        ("status", status if status == state else f"{status} ({state})"),
        ("why", shown.why_waiting or task.reason),
        ("place", "" if shown.position is None else str(shown.position)),
        ("owner", task.owner),
        ("priority", f"{task.priority:g}"),
        ("attempt", f"{task.attempt} of {task.retry.max_attempts or 'any number'}"),
        ("worker", task.worker),
        ("progress", _progress(task)),
        ("error", f"{task.error.code}: {one_line(task.error.message)}" if task.error else ""),
        ("tags", ", ".join(task.tags)),
        ("depends on", _some(task.depends_on)),
        ("retry of", task.retry_of),
        ("submitted", clock(task.created_at)),
        ("not before", clock(task.run_at) if task.run_at > time.time() and task.ended_at is None else ""),
        ("started", clock(task.started_at) if task.started_at else ""),
        ("lease until", clock(task.lease_until) if status == "running" else ""),
        ("ended", clock(task.ended_at) if task.ended_at else ""),
    ]


def _some(ids: Sequence[str]) -> str:
    rest = len(ids) - _MOST_IDS
    return ", ".join(ids[:_MOST_IDS]) + (f" and {rest} more" if rest > 0 else "")


def _progress(task: Task) -> str:
    if task.progress is None:
        return one_line(task.progress_text)
    return f"{task.progress:.0f} %" + (f", {one_line(task.progress_text)}" if task.progress_text else "")


def to_json(value: object) -> str:
    """One JSON object, with every field."""
    return msgspec.json.encode(filled(value)).decode()


def filled(value: object) -> Any:  # noqa: ANN401 - JSON
    """A value without the omissions of its Structs."""
    if isinstance(value, msgspec.Struct):
        return {name: filled(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [filled(one) for one in value]
    return {key: filled(one) for key, one in value.items()} if isinstance(value, dict) else value


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def _more(shown: int, total: int) -> list[str]:
    return [f"... and {total - shown} more (-n)"] if total > shown else []


def _ago(at: float) -> str:
    return f"{duration(max(0.0, time.time() - at))} ago"


def clock(at: float) -> str:
    """A time, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def one_line(text: str) -> str:
    """The beginning of a text, in one line."""
    return " ".join(text.split())[:200]


def printable(line: str) -> str:
    """What strangers wrote does not steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}... ({len(text)} characters; --json has all)"
