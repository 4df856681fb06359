# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `greenroom status` and `greenroom tree` show, taken from the core, the lives and their beats."""

from __future__ import annotations

import os
from importlib.metadata import version

import trio

from actors.messages import ActorStatus, State, TreeStatus
from supervisor.runtime import Runtime
from supervisor.tree import Tree


def tree_status(runtime: Runtime, tree: Tree, url: str) -> TreeStatus:
    """The whole tree, now. `tree`: as it is configured."""
    now = trio.current_time()
    actors = []
    for child in runtime.core.children():
        life = runtime.lives.get(child.name, child.incarnation)
        beat = life.beat if life is not None else None
        actors.append(
            ActorStatus(
                name=child.name,
                group=child.spec.group,
                pid=life.pid if life is not None else None,
                incarnation=child.incarnation,
                state=child.state,
                restarts=child.restarts,
                uptime_s=round(now - life.ready_at, 3) if life is not None and life.ready_at is not None else 0.0,
                rss_bytes=beat.rss_bytes if beat is not None else 0,
                note=life.note if life is not None else "",
                reason=child.reason,
                loop_lag_s=beat.loop_lag_s if beat is not None else 0.0,
                open_calls=beat.open_calls if beat is not None else 0,
            )
        )
    actors += [
        ActorStatus(
            name=entry.name,
            group=entry.group,
            pid=None,
            incarnation=0,
            state=State.OFF,
            restarts=0,
            uptime_s=0.0,
            rss_bytes=0,
            reason=entry.reason,
        )
        for entry in tree.off
    ]
    marks = runtime.warden.marks()
    return TreeStatus(
        root_pid=os.getpid(),
        version=version("greenroom"),
        uptime_s=round(now - runtime.started_at, 3),
        url=url,
        groups={group.id: str(group.strategy) for group in tree.groups},
        actors=actors,
        quarantined=len(marks.quarantined),
        breakers_open=[breaker.tool for breaker in marks.breakers],
    )
