# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orders of the command line to a running tree, each until it is carried out or can't be."""

from __future__ import annotations

import difflib
import time
from pathlib import Path

import msgspec
import trio

from actors.channel import Channel
from actors.errors import MCPServerError
from actors.messages import ActorStatus, State, TreeStatus
from actors.peers import base_name, is_spare
from supervisor.admin import ActorRequest, RestartRequest, Scaled, ScaleRequest, open_admin
from supervisor.client import ASK_TIMEOUT_S, ask_status
from supervisor.reload import Reloaded
from supervisor.rundir import find_running

_POLL_S = 0.02
_RESTART_TIMEOUT_S = 60.0
_REPLACE_TIMEOUT_S = 60.0


class UnknownActorError(MCPServerError):
    """No actor has this name, or it is switched off."""

    code = "UNKNOWN_ACTOR"


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `restart`."""

    name: str
    old_pid: int | None
    new_pid: int | None
    seconds: float
    """Time without this process: from the order until its next life was ready."""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `drain` and `resume`."""

    names: list[str]
    open_calls: int
    """Calls that still run there."""


async def restart(data_dir: Path, name: str, *, drain: bool) -> Restarted:
    """Give one actor a new process and wait until its next life is ready. Raises `UnknownActorError`."""
    async with open_admin(find_running(data_dir)) as admin:
        old = _actor(await ask_status(admin), name)
        asked = time.monotonic()
        await admin.call("restart", RestartRequest(name=name, drain=drain), timeout_s=ASK_TIMEOUT_S)
        with trio.move_on_after(_RESTART_TIMEOUT_S):
            while True:
                now = _actor(await ask_status(admin), name)
                if now.state == State.READY and now.incarnation != old.incarnation:
                    seconds = time.monotonic() - now.uptime_s - asked
                    return Restarted(name=name, old_pid=old.pid, new_pid=now.pid, seconds=round(max(0.0, seconds), 3))
                await trio.sleep(_POLL_S)
    raise MCPServerError(f"{name} was not ready again within {_RESTART_TIMEOUT_S:g} s; see: greenroom tree")


async def drain(data_dir: Path, name: str, wait_s: float) -> Drained:
    """Take an actor, or all of a base name, out of service; wait until it has no open call, but not longer than
    `wait_s` seconds. Raises `UnknownActorError`."""
    async with open_admin(find_running(data_dir)) as admin:
        names = _names(await ask_status(admin), name)
        await admin.call("drain", ActorRequest(name=name), timeout_s=ASK_TIMEOUT_S)
        with trio.move_on_after(wait_s):
            while True:
                actors = [actor for actor in (await ask_status(admin)).actors if actor.name in names]
                out = all(actor.state == State.DRAINING for actor in actors)
                if out and not sum(actor.open_calls for actor in actors):
                    break
                await trio.sleep(_POLL_S)
        actors = [actor for actor in (await ask_status(admin)).actors if actor.name in names]
        return Drained(names=names, open_calls=sum(actor.open_calls for actor in actors))


async def resume(data_dir: Path, name: str) -> Drained:
    """Put it back into service. Raises `UnknownActorError`."""
    async with open_admin(find_running(data_dir)) as admin:
        names = _names(await ask_status(admin), name)
        await admin.call("resume", ActorRequest(name=name), timeout_s=ASK_TIMEOUT_S)
        actors = [actor for actor in (await ask_status(admin)).actors if actor.name in names]
        return Drained(names=names, open_calls=sum(actor.open_calls for actor in actors))


async def scale(data_dir: Path, pool: str, size: int) -> Scaled:
    """Give a pool so many processes, and wait until those that are new are ready."""
    async with open_admin(find_running(data_dir)) as admin:
        request = ScaleRequest(pool=pool, size=size)
        done = msgspec.msgpack.decode(await admin.call("scale", request, timeout_s=ASK_TIMEOUT_S), type=Scaled)
        await _until_ready(admin, dict.fromkeys(done.added, 0))
        return done


async def reload(data_dir: Path) -> Reloaded:
    """Read configuration and tool files anew, and wait until every new process does its work."""
    async with open_admin(find_running(data_dir)) as admin:
        before = {actor.name: actor.incarnation for actor in (await ask_status(admin)).actors}
        done = msgspec.msgpack.decode(await admin.call("reload", None, timeout_s=ASK_TIMEOUT_S), type=Reloaded)
        await _until_ready(admin, {name: before.get(name, 0) for name in [*done.replaced, *done.added]})
        return done


async def _until_ready(admin: Channel, old: dict[str, int]) -> None:
    """Until each of these has a ready life other than its old one."""
    waiting: set[str] = set()
    with trio.move_on_after(_REPLACE_TIMEOUT_S):
        while True:
            actors = {actor.name: actor for actor in (await ask_status(admin)).actors}
            waiting = {name for name, life in old.items() if not _renewed(actors.get(name), life)}
            if not waiting:
                return
            await trio.sleep(_POLL_S)
    raise MCPServerError(
        f"no new process of {', '.join(sorted(waiting))} was ready within {_REPLACE_TIMEOUT_S:g} s; the old ones work "
        "on; see: greenroom events"
    )


def _renewed(actor: ActorStatus | None, old: int) -> bool:
    return actor is not None and actor.incarnation != old and actor.state in {State.READY, State.DRAINING}


def _names(status: TreeStatus, name: str) -> list[str]:
    """The actors that a name stands for: all of a base name, or the one. Raises `UnknownActorError`."""
    names = [actor.name for actor in status.actors if not is_spare(actor.name)]
    return [one for one in names if base_name(one) == name] or [_actor(status, name).name]


def _actor(status: TreeStatus, name: str) -> ActorStatus:
    actors = {actor.name: actor for actor in status.actors}
    actor = actors.get(name)
    if actor is None:
        nearest = difflib.get_close_matches(name, actors, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are: {', '.join(actors)}"
        raise UnknownActorError(f"no actor matches {name!r}{hint}")
    if actor.state == State.OFF:
        raise UnknownActorError(f"{name} is off: {actor.reason}")
    return actor
