# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node that others begin at: the peer registry alone, without tools, queue and gateway (`p2p.bootstrap_only`)."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import msgspec
import trio

from actors.errors import MCPServerError
from actors.messages import Directory, State, TreeStatus
from actors.peer_client import PEER_REGISTRY
from actors.peer_messages import NodeShown
from actors.settings import Settings
from supervisor.admin import open_socket
from supervisor.rundir import StartError

_ANSWER_S: Final = 2.0
_SOMEBODY: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses of nobody: the way to them tells which of this machine's addresses leads out. Nothing is sent."""


def as_configured(settings: Settings) -> Settings:
    """With `p2p.bootstrap_only` the configuration without all that such a node does not do; else as it is."""
    p2p = settings.p2p
    if not p2p.bootstrap_only:
        return settings
    replace = msgspec.structs.replace
    registry = replace(
        p2p.peer_registry,
        wanted_connections=0,
        sharing=replace(p2p.peer_registry.sharing, enabled=False),
        mcp=replace(p2p.peer_registry.mcp, enabled=False),
        queue_protocol=replace(p2p.peer_registry.queue_protocol, enabled=False),
    )
    queue = replace(p2p.task_queue, enabled=False)
    return replace(settings, p2p=replace(p2p, enabled=True, task_queue=queue, peer_registry=registry))


def check(settings: Settings) -> None:
    """Raise `StartError`, with the remedy, when such a node would be of no use or can't listen."""
    ours, where = settings.p2p.peer_registry, settings.p2p.connectivity
    if not (ours.secret_file or ours.introduce_strangers or ours.allow):
        raise StartError(
            "nobody would be introduced to anybody: give --secret-file FILE, and only nodes that prove to have the "
            "same secret get to know each other, or --open, and everybody does"
        )
    if ours.secret_file and ours.introduce_strangers:
        raise StartError(
            "--open (p2p.peer_registry.introduce_strangers) and a secret (--secret-file) exclude each other: a node "
            "with a secret has links only with nodes that prove it"
        )
    if not (settings.runtimes.p2p.enabled and ours.enabled):
        raise StartError("runtimes.p2p.enabled and p2p.peer_registry.enabled must be true for a bootstrap node")
    _check_place(where.listen_host, where.listen_port)


def _check_place(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise StartError(
            f"{host!r} can't be listened on: give an IP address with --listen, such as 0.0.0.0 for all of this machine"
        ) from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"{host}:{port} can't be listened on ({error.strerror or error}); "
                "choose another with --listen and --port"
            ) from None


async def first_screen(status: TreeStatus, seconds: float, directory: Directory, settings: Settings) -> str:
    """What is shown once it is ready: its addresses, and what others have to write to begin here."""
    lines = [
        f"greenroom {status.version}  bootstrap node, ready in {seconds:.2f} s".ljust(52)
        + "(Ctrl-C stops in order, twice stops now)"
    ]
    node = await _node(directory)
    if node is None:
        return "\n".join([*lines, "  the peer registry does not answer yet; see: greenroom peers id"])
    addresses = [reachable(address) for address in node.addresses]
    lines += [*(f"  {address}" for address in addresses), ""]
    if addresses != node.addresses:
        lines += ["  It listens on every address of this machine: write the one that others reach it at.", ""]
    elif any(_is_loopback(address) for address in addresses):
        lines += ["  Only nodes on this machine can reach it there; --listen 0.0.0.0 is for others, too.", ""]
    lines += ["  In the configuration of each other node:", *(f"    {line}" for line in _yaml(addresses, settings))]
    return "\n".join(lines)


def _yaml(addresses: list[str], settings: Settings) -> list[str]:
    lines = [
        "p2p:",
        "  enabled: true",
        "  peer_registry:",
        f"    bootstrap_nodes: [{', '.join(addresses)}]",
    ]
    return (
        [*lines, "    secret_file: FILE    # with the same secret"] if settings.p2p.peer_registry.secret_file else lines
    )


def reachable(address: str) -> str:
    """A multiaddr of which an unspecified IP address is replaced by the one of this machine that leads out."""
    _, kind, host, *rest = address.split("/")
    ip = ipaddress.ip_address(host)
    if not ip.is_unspecified:
        return address
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((_SOMEBODY[ip.version], 9))
            host = str(way.getsockname()[0])
        except OSError:
            host = "::1" if ip.version == 6 else "127.0.0.1"
    return "/".join(["", kind, host, *rest])


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("/")[2]).is_loopback


async def _node(directory: Directory) -> NodeShown | None:
    for entry in directory.entries:
        if entry.name == PEER_REGISTRY and entry.state == State.READY:
            try:
                async with open_socket(entry.socket) as channel:
                    reply = await channel.call("peers/me", None, timeout_s=_ANSWER_S)
            except MCPServerError:
                return None
            return msgspec.msgpack.decode(reply, type=NodeShown)
    await trio.lowlevel.checkpoint()
    return None
