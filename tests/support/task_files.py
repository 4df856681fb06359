# SPDX-License-Identifier: AGPL-3.0-or-later
"""A log and a history of the task queue that live in memory: they outlast a store, as files do, and keep what files
would keep (canonical DAG-CBOR, segments that are dropped as whole)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import libipld
import msgspec

from actors.errors import UnavailableError
from actors.p2p.task_queue.log import Ended, Group, Opened
from actors.task_messages import Task, TaskState, status_of
from actors.task_views import ScanTasks


class MemoryLog:
    """`actors.p2p.task_queue.log.Log`. `fail_next` makes the next append fail; `rotate_at` = groups in a segment."""

    def __init__(self, *, rotate_at: int = 10**9) -> None:
        self.segments: dict[int, list[bytes]] = {1: []}
        self.rotate_at = rotate_at
        self.fail_next = False
        self.appended = 0
        self.checkpoints = 0

    def open(self) -> Opened:
        groups = (
            (segment, libipld.decode_dag_cbor(data)) for segment, stored in self.segments.items() for data in stored
        )
        return Opened(groups=groups, repairs=[])

    def append(self, events: Group) -> None:
        if self.fail_next:
            self.fail_next = False
            raise UnavailableError("the disk is full")
        self.segments[self.segment()].append(libipld.encode_dag_cbor(events))
        self.appended += 1

    def segment(self) -> int:
        return max(self.segments)

    def oldest_segment(self) -> int:
        return min(self.segments)

    def rotation_due(self) -> bool:
        return len(self.segments[self.segment()]) >= self.rotate_at

    def rotate(self, carried: Iterable[Group]) -> None:
        new = [libipld.encode_dag_cbor(group) for group in carried]
        self.segments[self.segment() + 1] = new
        if len(self.segments) > 2:
            del self.segments[self.oldest_segment()]

    def checkpoint_due(self) -> bool:
        return False

    def checkpoint(self) -> None:
        self.checkpoints += 1

    def sizes(self) -> dict[str, int]:
        groups = [group for stored in self.segments.values() for group in stored]
        size = sum(map(len, groups))
        return {"bytes": size, "wal_bytes": 0, "segments": len(self.segments), "groups": len(groups)}

    def close(self) -> None:
        pass


class HeldLog(MemoryLog):
    """Once it is held, each append waits until it is let go on."""

    def __init__(self, *, rotate_at: int = 10**9) -> None:
        super().__init__(rotate_at=rotate_at)
        self.held = False
        self._gate = threading.Semaphore(0)

    def append(self, events: Group) -> None:
        if self.held and not self._gate.acquire(timeout=10):
            raise AssertionError("nobody let it go on")
        super().append(events)

    def go_on(self, groups: int = 1) -> None:
        """Let so many appends go on."""
        self._gate.release(groups)

    def let_go(self) -> None:
        """Let all of them go on, and hold none any more."""
        self.held = False
        self._gate.release(100)


class MemoryHistory:
    """`actors.p2p.task_queue.log.History`."""

    def __init__(self) -> None:
        self.kept: dict[str, Ended] = {}

    def open(self) -> None:
        pass

    def add(self, ended: Sequence[Ended]) -> None:
        for one in ended:
            self.kept[one.task.id] = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Ended)

    def get(self, task_id: str) -> Ended | None:
        return self.kept.get(task_id)

    def find(self, ids: Sequence[str], keys: Sequence[tuple[str, str]]) -> list[Task]:
        by_id, by_key = frozenset(ids), frozenset(keys)
        tasks = [one.task for one in self.kept.values()]
        return [task for task in tasks if task.id in by_id or (task.key and (task.owner, task.key) in by_key)]

    def heads(self, ids: Sequence[str]) -> list[Task]:
        kept = (self.kept[task_id].task for task_id in ids if task_id in self.kept)
        return [msgspec.structs.replace(task, payload="{}", result=None) for task in kept]

    def tell(self, ids: Sequence[str], take: Callable[[Task], bool]) -> None:
        kept = (self.kept[task_id].task for task_id in ids if task_id in self.kept)
        all(take(msgspec.structs.replace(task, payload="{}")) for task in kept)

    def scan(self, ask: ScanTasks, most: int) -> tuple[list[Task], int]:
        found = [one.task for one in self.kept.values() if _fits(one.task, ask)]
        found.sort(key=lambda task: task.created_at, reverse=not ask.oldest_first)
        return [msgspec.structs.replace(task, payload="{}", result=None, depends_on=[]) for task in found[:most]], len(
            found
        )

    def counts(self) -> dict[tuple[str, TaskState], int]:
        counted: dict[tuple[str, TaskState], int] = {}
        for one in self.kept.values():
            which = (one.task.type, one.task.state)
            counted[which] = counted.get(which, 0) + 1
        return counted

    def clear(self, states: Sequence[TaskState], until: float) -> int:
        return self._drop(
            [one for one in self.kept.values() if one.task.state in states and one.task.ended_at <= until]
        )

    def forget(self, now: float, most: int) -> int:
        return self._drop([one for one in self.kept.values() if one.drop_at <= now][:most])

    def sizes(self) -> dict[str, int]:
        return {"history_bytes": 0, "history_tasks": len(self.kept)}

    def close(self) -> None:
        pass

    def _drop(self, dropped: list[Ended]) -> int:
        for one in dropped:
            del self.kept[one.task.id]
        return len(dropped)


def _fits(task: Task, ask: ScanTasks) -> bool:
    return (
        (ask.status is None or status_of(task.state) == ask.status)
        and (ask.owner is None or task.owner == ask.owner)
        and (not ask.worker or task.worker == ask.worker)
        and (not ask.types or task.type in ask.types)
        and set(ask.tags) <= set(task.tags)
        and task.id.startswith(ask.id_prefix)
        and (ask.priority_min is None or task.priority >= ask.priority_min)
    )
