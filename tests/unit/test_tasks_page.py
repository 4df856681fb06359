# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/tasks.md names every tool and says the limits that are in force; that its examples work is shown by
`tests/process/test_task_tools.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.p2p.task_queue.embedded import limits
from actors.p2p.task_queue.service import MOST_WAIT_S
from actors.p2p.task_queue.tools_leases import MOST_CLAIMED
from actors.p2p.task_queue.tools_leases import MOST_WAIT_S as CLAIM_WAIT_S
from actors.p2p_names import TASK_ALIASES, TASK_TOOLS
from actors.settings import Settings
from actors.task_links import MOST_FILLED_BYTES
from supervisor.config_keys import known_keys

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
P2P = Settings().p2p
LIMITS = limits(P2P.task_queue)
ROWS = dict(
    re.findall(r"^\| ([^|]+) \| ([^|]+) \|", PAGE.partition("## Limits")[2].partition("## Errors")[0], re.MULTILINE)
)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("tasks that wait; then `QUEUE_FULL`", f"{LIMITS.max_queue_size}"),
        ("payload of a task", f"{LIMITS.max_payload_bytes} bytes"),
        ("payload of a task with the results that it names", f"{MOST_FILLED_BYTES} bytes"),
        ("result of a task", f"{LIMITS.max_result_bytes} bytes"),
        ("metadata of a task or worker", f"{LIMITS.max_metadata_bytes} bytes"),
        ("ids, types, tags, workers", f"{LIMITS.max_name_chars} characters each"),
        ("tags of a task", f"{LIMITS.max_tags}"),
        ("tasks that one waits for", f"{LIMITS.max_depends_on}"),
        ("attempts of a task", f"{LIMITS.max_attempts}"),
        ("lines in a task's log, the latest", f"{LIMITS.max_log_lines}, {LIMITS.max_reason_chars} characters each"),
        ("lease", f"{LIMITS.lease_max_s:g} s"),
        ("tasks in one claim", f"{LIMITS.max_claim}"),
        ("workers; tasks that one holds", f"{LIMITS.max_workers}; {LIMITS.max_worker_tasks}"),
        ("tasks that the server's own worker does at once", f"{P2P.task_worker.concurrency}"),
    ],
)
def test_a_limit_is_what_the_page_says(row, said):
    assert ROWS[row] == said


def test_the_tools_take_what_the_queue_takes():
    assert (LIMITS.max_claim, MOST_WAIT_S) == (MOST_CLAIMED, CLAIM_WAIT_S)


def test_every_tool_has_an_example_and_every_other_name_is_told():
    examples = set(re.findall(r"^greenroom tools call (\w+)", PAGE, re.MULTILINE))
    assert examples == set(TASK_TOOLS)
    assert set(re.findall(r"`(p2p_taskqueue_\w+)`", PAGE)) == set(TASK_ALIASES)


def test_the_settings_that_it_names_exist():
    named = set(re.findall(r"`(p2p\.[a-z_.]+\w)(?:: \w+)?`", PAGE))
    known = set(known_keys()) | {"p2p.task_queue.types"}
    assert named <= known
