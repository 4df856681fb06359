# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a new segment of the log begins with, so that older ones can be dropped: all that is not a task (one `GLOBALS`
event), and the records of tasks that were written in a segment that goes."""

from __future__ import annotations

from collections.abc import Iterator

from actors.p2p.task_queue.crew import Worker
from actors.p2p.task_queue.events import GLOBALS
from actors.p2p.task_queue.log import Event, Group
from actors.p2p.task_queue.records import Item, pack_item
from actors.p2p.task_queue.state import State

_GROUP_TASKS = 1000
_GROUP_CHARS = 250_000


def pack_globals(s: State) -> Event:
    """All that is not a task, as an event."""
    return [
        GLOBALS,
        {
            "epoch": s.epoch,
            "last_token": s.last_token,
            "seq": s.seq,
            "paused": dict(s.paused),
            "workers": [worker.pack() for worker in s.workers.values()],
            "ready": s.ready.pack(),
            "tallies": s.tallies.pack(),
        },
    ]


def take_globals(s: State, e: Event) -> None:
    """Make such an event count."""
    packed = e[1]
    s.epoch = packed["epoch"]
    s.last_token = packed["last_token"]
    s.seq = packed["seq"]
    s.paused = dict(packed["paused"])
    old = s.workers
    s.workers = {}
    for one in packed["workers"]:
        worker = Worker.unpack(one)
        if worker.name in old:
            worker.running = old[worker.name].running
        s.workers[worker.name] = worker
    s.ready.unpack(packed["ready"])
    s.tallies.unpack(packed["tallies"])


def carried(s: State, items: list[Item]) -> Iterator[Group]:
    """The groups that a new segment begins with. Reads the state, which must not change meanwhile. What is no task
    comes last: it says how things stand when all tasks are there."""
    group: Group = []
    chars = 0
    for item in items:
        event = pack_item(item)
        group.append(event)
        chars += item.chars()
        if item.waits:
            chars += sum(map(len, item.waits))
        if len(group) > _GROUP_TASKS or chars > _GROUP_CHARS:
            yield group
            group, chars = [], 0
    yield [*group, pack_globals(s)]
