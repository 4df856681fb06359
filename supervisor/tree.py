# SPDX-License-Identifier: AGPL-3.0-or-later
"""The production tree, from the configuration. Start order is top to bottom, stop order is the reverse."""

from __future__ import annotations

from operator import attrgetter

import msgspec

from actors.messages import DirectoryEntry, State
from actors.settings import PoolSettings, Settings
from supervisor.spec import Backoff, ChildSpec, GroupSpec, Heartbeat, Intensity, Limits, Strategy


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """What is to run, and what is not configured to."""

    groups: list[GroupSpec]
    children: list[ChildSpec]
    off: list[DirectoryEntry]


def build_tree(settings: Settings) -> Tree:
    """One tree for one configuration."""
    sup = settings.supervisor
    often = Intensity(restarts=sup.restarts, within_s=sup.within_s)
    backoff = Backoff(first_s=sup.backoff_first_s, cap_s=sup.backoff_cap_s, reset_after_s=sup.backoff_reset_s)
    rarely = Intensity(restarts=max(3, sup.restarts), within_s=60.0)
    groups = [
        GroupSpec(id="root", parent=None, intensity=rarely, backoff=backoff),
        GroupSpec(id="tools", strategy=Strategy.ONE_FOR_ONE, intensity=often, backoff=backoff, escalates=False),
        GroupSpec(id="durable", strategy=Strategy.REST_FOR_ONE, intensity=often, backoff=backoff, escalates=False),
        GroupSpec(id="p2p", strategy=Strategy.ONE_FOR_ONE, intensity=often, backoff=backoff, escalates=False),
    ]
    children: list[ChildSpec] = []
    off: list[DirectoryEntry] = []

    def child(
        name: str, entry: str, group: str, limits: Limits | None = None, spares: int = 0, *, stands_by: bool = True
    ) -> None:
        heartbeat = Heartbeat(every_s=sup.heartbeat_s, hung_after_s=sup.hung_after_s)
        spec = ChildSpec(
            id=name,
            entry=entry,
            group=group,
            shutdown=sup.shutdown_s,
            drain=sup.drain_s,
            ready_timeout=sup.ready_timeout_s,
            heartbeat=heartbeat,
            limits=limits or Limits(),
            spares=spares,
            stands_by=stands_by,
        )
        children.append(spec)

    def absent(name: str, group: str, reason: str) -> None:
        off.append(DirectoryEntry(name=name, group=group, state=State.OFF, reason=reason))

    def service(name: str, group: str, *switches: str) -> None:
        reason = _why_off(settings, *switches)
        if reason is None:
            child(name, f"actors.p2p.{name}.main:main", group, stands_by=False)
        else:
            absent(name, group, reason)

    if settings.p2p.bootstrap_only:
        alone = [groups[0], msgspec.structs.replace(groups[-1], escalates=True)]
        service("peer_registry", "p2p", "p2p.enabled", "runtimes.p2p.enabled", "p2p.peer_registry.enabled")
        return Tree(groups=alone, children=children, off=off)
    pools = {"general": PoolSettings(), **settings.tools.pools}
    for pool, wanted in pools.items():
        if not settings.runtimes.general.enabled:
            absent(f"tools.{pool}", "tools", "runtimes.general.enabled is false")
            continue
        for slot in range(wanted.workers or settings.runtimes.general.workers):
            spares = settings.runtimes.general.spares if wanted.spares is None else wanted.spares
            child(
                f"tools.{pool}#{slot}", "actors.tools.pool:main", "tools", _limits(wanted), spares if slot == 0 else 0
            )
    service("task_queue", "durable", "runtimes.p2p.enabled", "p2p.task_queue.enabled")
    service(
        "workflow_scheduler",
        "durable",
        "runtimes.p2p.enabled",
        "p2p.task_queue.enabled",
        "p2p.workflow_scheduler.enabled",
    )
    service("task_worker", "durable", "runtimes.p2p.enabled", "p2p.task_queue.enabled", "p2p.task_worker.enabled")
    service("peer_registry", "p2p", "p2p.enabled", "runtimes.p2p.enabled", "p2p.peer_registry.enabled")
    child("router", "actors.router.main:main", "root", spares=settings.router.spares)
    for slot in range(settings.server.gateways):
        spares = settings.server.spares if slot == 0 else 0
        child(gateway_name(settings, slot), "gateway.main:main", "root", spares=spares)
    return Tree(groups=groups, children=children, off=off)


def gateway_name(settings: Settings, slot: int) -> str:
    """`gateway` when there is one, `gateway#<slot>` when there are more."""
    return "gateway" if settings.server.gateways == 1 else f"gateway#{slot}"


def _why_off(settings: Settings, *switches: str) -> str | None:
    """Which of these switches is off, in words; None = none."""
    for key in switches:
        if not attrgetter(key)(settings):
            return f"{key} is false"
    return None


def _limits(pool: PoolSettings) -> Limits:
    return Limits(
        cpu_s=pool.cpu_s,
        open_files=pool.open_files,
        file_size_bytes=pool.file_size_bytes,
        address_space_bytes=pool.address_space_bytes,
        processes=pool.max_processes,
        memory_high_bytes=pool.memory_high_bytes,
        max_calls=pool.max_calls,
    )
