# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom the end of one actor takes along, as a chaos run has to know it."""

from __future__ import annotations

import pytest

from actors.messages import ActorStatus, State, TreeStatus
from supervisor.chaos.view import restarted_with


def actor(name, group):
    return ActorStatus(
        name=name, group=group, pid=1, incarnation=1, state=State.READY, restarts=0, uptime_s=1.0, rss_bytes=1
    )


TREE = TreeStatus(
    root_pid=1,
    version="1",
    uptime_s=1.0,
    url="",
    groups={"root": "one_for_one", "durable": "rest_for_one", "pair": "one_for_all"},
    actors=[
        actor("task_queue", "durable"),
        actor("scheduler", "durable"),
        actor("worker#0", "durable"),
        actor("left", "pair"),
        actor("right", "pair"),
        actor("router", "root"),
        actor("gateway", "root"),
    ],
)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("router", []),
        ("task_queue", ["scheduler", "worker"]),
        ("scheduler", ["worker"]),
        ("worker#0", []),
        ("left", ["right"]),
        ("right", ["left"]),
        ("nobody", []),
    ],
)
def test_siblings_are_restarted_by_the_strategy_of_their_group(name, others):
    assert restarted_with(TREE, name) == others
