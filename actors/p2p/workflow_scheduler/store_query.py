# SPDX-License-Identifier: AGPL-3.0-or-later
"""A `ListWorkflows` as conditions of SQL."""

from __future__ import annotations

from typing import Any

from actors.workflow_messages import ListWorkflows


def matching(ask: ListWorkflows, now: float) -> tuple[str, list[Any]]:
    """What follows `WHERE`, and its values. Those whose time has passed by `now` do not match."""
    terms: list[tuple[str, Any]] = [("(drop_at IS NULL OR drop_at > ?)", now)]
    if ask.status is not None:
        terms.append(("status = ?", ask.status))
    if ask.owner is not None:
        terms.append(("owner = ?", ask.owner))
    if ask.worker:
        terms.append(("n IN (SELECT workflow FROM step_worker WHERE worker = ?)", ask.worker))
    terms += [("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", tag) for tag in ask.tags]
    return " AND ".join(text for text, _ in terms), [value for _, value in terms]
