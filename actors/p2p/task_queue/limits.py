# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every limit and default of the queue, as one value that is given to its store."""

from __future__ import annotations

import msgspec


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast tasks of one type may start: a bucket that holds `burst` starts and gains `per_s` each second."""

    per_s: float
    burst: int = 1


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lengths in seconds end in `_s`, sizes in bytes of UTF-8 in `_bytes`; all others are numbers of things."""

    max_queue_size: int = 100_000
    """Tasks that wait; more are refused with `QUEUE_FULL`."""
    max_held_chars: int = 500_000_000
    """Characters of payloads, metadata, results and ids in `depends_on` of all tasks that are held in memory; a new
    task that would exceed it is refused with `QUEUE_FULL`."""
    max_claim: int = 128
    """Tasks for one claim."""
    lease_s: float = 300.0
    """Lease of a claim that names none."""
    lease_max_s: float = 3600.0
    ageing_s: float = 60.0
    """Waiting for so long counts as much as one step of priority."""
    keep_s: float = 7 * 86400.0
    """How long an ended task can be read, when it does not say so itself."""
    keep_max_s: float = 90 * 86400.0
    max_attempts: int = 1000
    max_payload_bytes: int = 1_000_000
    max_result_bytes: int = 1_000_000
    max_metadata_bytes: int = 65_536
    max_name_chars: int = 200
    """Of ids, types, keys, owners, workers, tags and capabilities, each."""
    max_tags: int = 50
    max_needs: int = 50
    max_depends_on: int = 10_000
    """Tasks that one waits for. Any number may wait for one."""
    max_reason_chars: int = 2000
    """Of reasons, of the text of a progress and of one line of a task's log; what is longer is cut."""
    max_log_lines: int = 200
    """Kept of a task's log: the latest."""
    max_task_events: int = 50
    """Kept of what happened to a task: the latest."""
    max_questions: int = 100
    """Of one task to its owner, answered ones included."""
    max_question_bytes: int = 65_536
    """Of one question or answer."""
    max_workers: int = 1000
    max_worker_tasks: int = 1000
    """That one worker may hold at once."""
    max_types: int = 1000
    """That one worker may name."""
    worker_timeout_s: float = 90.0
    """A worker that was silent for so long is offline; tasks that were kept for it go to others."""
    worker_keep_s: float = 86400.0
    """A worker that was silent for so long and holds nothing is forgotten."""
    concurrency: dict[str, int] = {}
    """Type -> how many of its tasks may run at once."""
    rates: dict[str, Rate] = {}
    """Type -> how fast its tasks may start."""
    max_running_per_key: int = 0
    """Tasks of one fairness key that may run at once; 0 = any number."""
    max_paused_keys: int = 10_000
    """Fairness keys whose claims are stopped at once."""
    weights: dict[str, float] = {}
    """Fairness key -> its share of turns, against 1 for all that are not named."""
    max_facts_bytes: int = 4 << 20
    """Of the tasks in one answer to `ReadResults`, as they travel; a single one may be larger."""
    archive_batch: int = 256
    """Ended tasks that are put into the history together."""
    archive_chars: int = 4_000_000
    """Of payloads and results that are put into the history together, about."""
    archive_after_s: float = 1.0
    """An ended task waits so long for others to be put into the history with it."""
    forget_every_s: float = 60.0
    """How often the history is asked for tasks whose time has passed."""
