# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root's side: what `chaos.enabled` adds to a tree, and what a chaos run is told of it (admin method `chaos`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from actors.errors import MCPServerError
from actors.settings import PoolSettings, Settings
from supervisor.spec import GroupSpec

POOL = "chaos"
CATEGORY = "chaos_tools"
MODULE = f"actors.{CATEGORY}"
FOLDER = "chaos"
"""In the data directory."""
EFFECTS = "effects.log"
SWITCHES = "GREENROOM_CHAOS_DIR"
ADDRESS_SPACE_BYTES = 2 * 1024**3
OPEN_FILES = 256
FILE_SIZE_BYTES = 64 * 1024**2
"""Limits of the pool `chaos` where `tools.pools.chaos` does not say."""


class ChaosOffError(MCPServerError):
    """This tree does not allow chaos runs."""

    code = "CHAOS_OFF"

    def __init__(self) -> None:
        super().__init__(
            "chaos runs are switched off in this system, because they kill its processes; where that is wanted set "
            "chaos.enabled: true and restart it, or try one on a system of its own: greenroom chaos run --own"
        )


class ChaosInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Reply of admin method `chaos`: what a run has to know, from the root that it runs against."""

    data_dir: str
    runtime_dir: str
    folder: str
    """Switches and effects are here."""
    pool: str
    """Which runs the chaos tools; '' when there are no pools."""
    fork_server_pid: int
    """0 when there is none now."""
    fork_server: bool
    """Whether there should be one."""
    intensity: dict[str, tuple[int, float]]
    """Group -> restarts and seconds, as the running tree has them."""
    hung_after_s: float
    ready_timeout_s: float
    tool_timeout_s: float
    carry: bool
    """Calls go through the router."""


def with_chaos(settings: Settings) -> Settings:
    """The configuration with the chaos tools and their pool, where `chaos.enabled`; else as it is."""
    if not settings.chaos.enabled:
        return settings
    tools = settings.tools
    pools = dict(tools.pools)
    if not any(CATEGORY in pool.categories for pool in pools.values()):
        pool = pools.get(POOL, PoolSettings())
        pools[POOL] = msgspec.structs.replace(
            pool,
            categories=[*pool.categories, CATEGORY],
            address_space_bytes=pool.address_space_bytes or ADDRESS_SPACE_BYTES,
            open_files=pool.open_files or OPEN_FILES,
            file_size_bytes=pool.file_size_bytes or FILE_SIZE_BYTES,
        )
    paths = [*tools.paths, MODULE]
    return msgspec.structs.replace(settings, tools=msgspec.structs.replace(tools, pools=pools, paths=paths))


def prepare(settings: Settings, data_dir: Path) -> None:
    """Make the folder that the chaos tools use and name it to the children; switches of an earlier root are dropped.

    Before the fork server is started: children have its environment."""
    if settings.chaos.enabled:
        folder = data_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        forget_switches(folder)
        os.environ[SWITCHES] = str(folder.absolute())


def forget_switches(folder: Path | str) -> None:
    """Take away what would make a start fail."""
    for switch in Path(folder).glob("boot_*"):
        switch.unlink(missing_ok=True)


def describe(
    settings: Settings, groups: Iterable[GroupSpec], data_dir: Path, runtime_dir: Path, fork_server_pid: int
) -> ChaosInfo:
    """The answer of admin method `chaos`. Raises `ChaosOffError`."""
    if not settings.chaos.enabled:
        raise ChaosOffError
    pools = settings.tools.pools
    return ChaosInfo(
        data_dir=str(data_dir.absolute()),
        runtime_dir=str(runtime_dir),
        folder=str((data_dir / FOLDER).absolute()),
        pool=next((name for name, pool in pools.items() if CATEGORY in pool.categories), "")
        if settings.runtimes.general.enabled
        else "",
        fork_server_pid=fork_server_pid,
        fork_server=settings.supervisor.fork_server,
        intensity={group.id: (group.intensity.restarts, group.intensity.within_s) for group in groups},
        hung_after_s=settings.supervisor.hung_after_s,
        ready_timeout_s=settings.supervisor.ready_timeout_s,
        tool_timeout_s=settings.runtimes.general.timeout,
        carry=settings.router.carry,
    )
