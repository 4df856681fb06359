# SPDX-License-Identifier: AGPL-3.0-or-later
"""How peers and their workers are called in the queue. A worker's name there begins with its peer's, so that the holder
of a lease is always a peer that the secure channel has proven."""

from __future__ import annotations

from typing import Final

_PEER: Final = "peer:"
_DOCKER: Final = "docker"


def principal_of(peer_id: str) -> str:
    """Who submitted what this peer submits."""
    return _PEER + peer_id


def worker_name(peer_id: str, worker_id: str) -> str:
    """A worker of a peer, as the queue knows it."""
    return f"{_PEER}{peer_id}/{worker_id}"


def is_of(worker: str, peer_id: str) -> bool:
    """Whether a worker of the queue is one of this peer."""
    return worker.startswith(worker_name(peer_id, ""))


def shown_worker(worker: str, peer_id: str) -> str | None:
    """A worker of the queue as it is told to a peer: its own ones by their own names."""
    return worker.removeprefix(worker_name(peer_id, "")) or None


def session_need(session: str) -> str:
    """What a task of a session needs, and workers of that session have."""
    return f"session:{session}"


def is_docker(task_type: str) -> bool:
    """Whether tasks of this type would run other people's programs: never taken from a peer, nor given to one."""
    return task_type.strip().lower().startswith(_DOCKER)
