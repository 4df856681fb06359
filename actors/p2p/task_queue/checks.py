# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the fields of operations may hold."""

from __future__ import annotations

import math
from collections.abc import Iterable

from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.machine import refuse
from actors.p2p.task_queue.records import DEFAULT_RETRY
from actors.task_messages import Enqueue, Retry

PRIORITY_MIN = 1.0
PRIORITY_MAX = 10.0


def check_submission(op: Enqueue, limits: QueueLimits) -> None:
    """Refuse a submission that is malformed or too large."""
    check_name("type", op.type, limits)
    if not PRIORITY_MIN <= op.priority <= PRIORITY_MAX:
        refuse("INVALID_PARAMS", f"priority is {op.priority}; it goes from 1 to 10, higher is earlier")
    check_size("payload", op.payload, limits.max_payload_bytes)
    if op.id or op.key or op.owner or op.model_name or op.fairness_key or op.sticky_worker:
        for what in ("id", "key", "owner", "model_name", "fairness_key", "sticky_worker"):
            if len(getattr(op, what)) > limits.max_name_chars:
                refuse("LIMIT_EXCEEDED", f"{what} is longer than {limits.max_name_chars} characters")
    if len(op.metadata) > 2:
        check_size("metadata", op.metadata, limits.max_metadata_bytes)
    if op.tags:
        check_names("tags", op.tags, limits.max_tags, limits)
    if op.needs:
        check_names("needs", op.needs, limits.max_needs, limits)
    if op.depends_on:
        check_names("depends_on", op.depends_on, limits.max_depends_on, limits)
    if op.retry is not DEFAULT_RETRY:
        check_retry(op.retry, limits)
    check_times(op, limits)


def check_times(op: Enqueue, limits: QueueLimits) -> None:
    """Refuse times that are none."""
    if op.timeout_s is not None:
        check_length("timeout_s", op.timeout_s)
    if op.queue_timeout_s is not None:
        check_length("queue_timeout_s", op.queue_timeout_s)
    if op.keep_s is not None and not 0 <= op.keep_s <= limits.keep_max_s:
        refuse("INVALID_PARAMS", f"keep_s is {op.keep_s}; it goes from 0 to {limits.keep_max_s:g} seconds")
    for what, at in (("deadline", op.deadline), ("run_at", op.run_at)):
        if at is not None and not 0 <= at < math.inf:
            refuse("INVALID_PARAMS", f"{what} is {at}; it is a time in Unix seconds")


def check_name(what: str, name: str, limits: QueueLimits) -> None:
    """Refuse an empty or long name."""
    if not name:
        refuse("INVALID_PARAMS", f"{what} is empty")
    if len(name) > limits.max_name_chars:
        refuse("LIMIT_EXCEEDED", f"{what} is longer than {limits.max_name_chars} characters")


def check_names(what: str, names: list[str], most: int, limits: QueueLimits) -> None:
    """Refuse too many names, or one that is empty or long."""
    if len(names) > most:
        refuse("LIMIT_EXCEEDED", f"{what} has {len(names)} entries; at most {most} are allowed")
    for name in names:
        check_name(f"an entry of {what}", name, limits)


def check_size(what: str, text: str, most: int) -> None:
    """Refuse a long text."""
    if len(text) * 4 > most and (len(text) > most or len(text.encode()) > most):
        refuse("LIMIT_EXCEEDED", f"{what} is larger than {most} bytes")


def check_length(what: str, seconds: float) -> None:
    """Refuse a length of time that is none."""
    if not 0 < seconds < math.inf:
        refuse("INVALID_PARAMS", f"{what} is {seconds}; it is a number of seconds above 0")


def check_retry(retry: Retry, limits: QueueLimits) -> None:
    """Refuse a policy that makes no sense."""
    if not 0 <= retry.max_attempts <= limits.max_attempts:
        refuse(
            "INVALID_PARAMS",
            f"retry.max_attempts is {retry.max_attempts}; it goes from 1 to {limits.max_attempts}, 0 = without end",
        )
    if not (0 <= retry.base_s < math.inf and 1 <= retry.factor < math.inf and 0 <= retry.cap_s < math.inf):
        refuse("INVALID_PARAMS", "retry wants base_s and cap_s of 0 seconds or more, and a factor of 1 or more")


def lease_length(asked_s: float, limits: QueueLimits) -> float:
    """The length of a lease; refuses one that is none."""
    if asked_s == 0:
        return limits.lease_s
    if not 0 < asked_s <= limits.lease_max_s:
        refuse("INVALID_PARAMS", f"lease_s is {asked_s}; it goes up to {limits.lease_max_s:g} seconds")
    return asked_s


def cut(text: str, most: int) -> str:
    """A text that is not too long."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def cut_all(lines: Iterable[str], limits: QueueLimits) -> list[str]:
    """The last lines, each not too long."""
    return [cut(line, limits.max_reason_chars) for line in list(lines)[-limits.max_log_lines :]]
