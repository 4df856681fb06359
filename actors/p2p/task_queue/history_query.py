# SPDX-License-Identifier: AGPL-3.0-or-later
"""A `ScanTasks` as conditions of SQL."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.task_messages import TaskState, status_of
from actors.task_views import ScanTasks


def matching(ask: ScanTasks, now: float | None) -> tuple[str, list[Any]]:
    """What follows `WHERE`, and its values. Those whose time has passed by `now` do not match."""
    terms: list[tuple[str, list[Any]]] = [("drop_at > ?", [now])] if now is not None else [("true", [])]
    if ask.status is not None:
        states = [state.value for state in TaskState if status_of(state) == ask.status]
        terms.append(_one_of("state", states))
    if ask.owner is not None:
        terms.append(("owner = ?", [ask.owner]))
    if ask.worker:
        terms.append(("worker = ?", [ask.worker]))
    if ask.types:
        terms.append(_one_of("type", ask.types))
    terms += [("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", [tag]) for tag in ask.tags]
    if ask.id_prefix:
        # Not LIKE: `%` and `_` in an id mean themselves, and the index is used.
        bounds = [ask.id_prefix, f"{ask.id_prefix}\U0010ffff"]
        terms.append(("id >= ? AND id < ? AND substr(id, 1, ?) = ?", [*bounds, len(ask.id_prefix), ask.id_prefix]))
    if ask.priority_min is not None:
        terms.append(("priority >= ?", [ask.priority_min]))
    return " AND ".join(text for text, _ in terms), [value for _, values in terms for value in values]


def tallied(ask: ScanTasks) -> bool:
    """Whether it asks for nothing but types and a status."""
    only = ScanTasks(status=ask.status, types=ask.types)
    return only == msgspec.structs.replace(ask, oldest_first=False, limit=only.limit, offset=0)


def _one_of(column: str, values: list[str]) -> tuple[str, list[Any]]:
    return f"{column} IN ({', '.join('?' * len(values))})", list(values)
