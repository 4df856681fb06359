# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which actors there are for a configuration, and in which order they start."""

from __future__ import annotations

import msgspec
import pytest

from actors.settings import Settings
from supervisor.tree import build_tree


def durable(**sections):
    """The actors of durable work in the order of their start, and why the others are off."""
    tree = build_tree(msgspec.convert(sections, Settings))
    running = [child.id for child in tree.children if child.group == "durable"]
    return running, {entry.name: entry.reason for entry in tree.off if entry.group == "durable"}


def test_the_scheduler_starts_between_the_queue_and_the_worker():
    assert durable() == (["task_queue", "workflow_scheduler", "task_worker"], {})


@pytest.mark.parametrize(
    ("switch", "running"),
    [
        ("workflow_scheduler", ["task_queue", "task_worker"]),
        ("task_worker", ["task_queue", "workflow_scheduler"]),
        ("task_queue", []),
    ],
)
def test_what_is_switched_off_is_named_with_what_needs_it(switch, running):
    found, off = durable(p2p={switch: {"enabled": False}})
    assert found == running
    assert set(off.values()) == {f"p2p.{switch}.enabled is false"}
