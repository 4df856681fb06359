# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom peers`: this node in the peer-to-peer network, as operators see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from supervisor.cli_common import Verbs, ask, data_dir_of, data_dir_option, json_option, must_ask, run, yes_option

if TYPE_CHECKING:
    from actors.peer_client import PeerClient

T = TypeVar("T")
reason_option = click.option("--reason", default="", help="Why; it is kept with the ban, or told to the peer.")


@click.group(cls=Verbs)
def peers() -> None:
    """Peers: other nodes that this one knows, and this node's own identity."""


def _ask(data_dir: Path | None, question: Callable[[PeerClient], Awaitable[T]]) -> T:
    from supervisor.client_peers import open_registry

    async def asked() -> T:
        async with open_registry(data_dir_of(data_dir)) as registry:
            return await question(registry)

    return run(asked)


@peers.command("id")
@data_dir_option
@json_option
def peers_id(data_dir: Path | None, as_json: bool) -> None:
    """This node's peer id, where it listens, and its peers in numbers.

    Example: greenroom peers id
    """
    from supervisor import peers_text, task_text

    node = _ask(data_dir, lambda registry: registry.me())
    click.echo(task_text.to_json(node) if as_json else peers_text.node_text(node))


@peers.command("list")
@click.option("--status", type=click.Choice(["connected", "connecting", "disconnected"]), help="Only those.")
@click.option("--sort", "sort_by", type=click.Choice(["last_seen", "latency", "bandwidth", "peer_id"]), help="Order.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")
@data_dir_option
@json_option
def peers_list(status: str | None, sort_by: str | None, count: int, data_dir: Path | None, as_json: bool) -> None:
    """Peers that are known, with what was measured of them.

    Example: greenroom peers list --status connected
    """
    import msgspec

    from actors.peer_messages import ListPeers
    from supervisor import peers_text, task_text

    query = msgspec.convert({"status": status, "sort_by": sort_by or "last_seen", "limit": count}, ListPeers)
    page = _ask(data_dir, lambda registry: registry.list(query))
    click.echo(task_text.to_json(page) if as_json else peers_text.list_text(page))


@peers.command("connect")
@click.argument("address")
@click.option("--once", is_flag=True, help="Do not connect again when the connection ends.")
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=30.0, show_default=True, help="Seconds.")
@data_dir_option
@json_option
def peers_connect(address: str, once: bool, timeout: float, data_dir: Path | None, as_json: bool) -> None:
    """Connect to the peer at ADDRESS, a multiaddr with its peer id.

    Example: greenroom peers connect /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...
    """
    from actors.peer_messages import ConnectPeer, PeerPage
    from supervisor import peers_text, task_text

    wanted = ConnectPeer(address=address, timeout_s=timeout, persist=not once)
    peer = _ask(data_dir, lambda registry: registry.connect(wanted))
    click.echo(task_text.to_json(peer) if as_json else peers_text.list_text(PeerPage(peers=[peer], total=1)))


@peers.command("disconnect")
@click.argument("peer_id", metavar="ID")
@reason_option
@data_dir_option
def peers_disconnect(peer_id: str, reason: str, data_dir: Path | None) -> None:
    """End the connection with a peer, and do not connect again.

    Example: greenroom peers disconnect 12D3KooW...
    """
    from actors.peer_messages import DisconnectPeer

    was = _ask(data_dir, lambda registry: registry.disconnect(DisconnectPeer(peer_id=peer_id, reason=reason)))
    click.echo("disconnected" if was else "there was no connection")


@peers.command("ban")
@click.argument("peer_id", metavar="ID")
@reason_option
@yes_option
@data_dir_option
@json_option
def peers_ban(peer_id: str, reason: str, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    """Have nothing to do with a peer for p2p.peer_registry.ban_max_s (a day).

    Example: greenroom peers ban 12D3KooW... --reason "floods us"
    """
    from actors.peer_messages import BanList, BanPeer
    from supervisor import peers_text, task_text

    if must_ask(yes):
        ask(f"ban {peer_id} and end its connection?")
    ban = _ask(data_dir, lambda registry: registry.ban(BanPeer(peer_id=peer_id, reason=reason)))
    click.echo(task_text.to_json(ban) if as_json else peers_text.bans_text(BanList(bans=[ban])))


@peers.command("bans")
@data_dir_option
@json_option
def peers_bans(data_dir: Path | None, as_json: bool) -> None:
    """Peers and addresses that are banned, and for how long.

    Example: greenroom peers bans
    """
    from supervisor import peers_text, task_text

    found = _ask(data_dir, lambda registry: registry.bans())
    click.echo(task_text.to_json(found) if as_json else peers_text.bans_text(found))


@peers.command("forgive")
@click.argument("subject", metavar="ID_OR_ADDRESS")
@data_dir_option
def peers_forgive(subject: str, data_dir: Path | None) -> None:
    """Lift the ban of a peer or an IP address.

    Example: greenroom peers forgive 192.0.2.7
    """
    from actors.peer_messages import ForgivePeer

    was = _ask(data_dir, lambda registry: registry.forgive(ForgivePeer(subject=subject)))
    click.echo("forgiven" if was else "there was nothing to forgive")


@peers.command("tools")
@click.argument("peer_id", metavar="ID")
@data_dir_option
@json_option
def peers_tools(peer_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Tools that a connected peer lets this node call.

    Example: greenroom peers tools 12D3KooW...
    """
    from actors.peer_messages import ListPeerTools
    from supervisor import peers_text

    found = _ask(data_dir, lambda registry: registry.tools(ListPeerTools(peer_id=peer_id)))
    click.echo(peers_text.tools_json(found) if as_json else peers_text.tools_text(found))


@peers.command("call")
@click.argument("peer_id", metavar="ID")
@click.argument("tool")
@click.argument("arguments", metavar="[JSON]", default="{}")
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=30.0, show_default=True, help="Seconds.")
@data_dir_option
@json_option
def peers_call(peer_id: str, tool: str, arguments: str, timeout: float, data_dir: Path | None, as_json: bool) -> None:
    """Call a TOOL of a connected peer, once, with arguments that are a JSON object.

    Example: greenroom peers call 12D3KooW... echo '{"text": "hello"}'
    """
    from actors.peer_messages import CallPeerTool
    from supervisor import peers_text

    wanted = CallPeerTool(peer_id=peer_id, tool=tool, arguments=arguments.encode(errors="replace"), timeout_s=timeout)
    answer = _ask(data_dir, lambda registry: registry.call(wanted))
    click.echo(peers_text.answer_json(answer) if as_json else peers_text.answer_text(answer))
