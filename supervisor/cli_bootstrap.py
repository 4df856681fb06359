# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom bootstrap`: a node that others begin at."""

from __future__ import annotations

import time
from pathlib import Path

import click

from supervisor.cli_common import config_option, data_dir_option, json_option

_STARTED_AT = time.monotonic()


@click.command()
@click.option("--listen", metavar="IP", help="IP address to listen on (127.0.0.1: this machine only; 0.0.0.0: all).")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port for peers (4001; 0 takes a free one).")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with the secret of the network: only nodes that prove it are introduced to each other.",
)
@click.option("--open", "is_open", is_flag=True, help="Introduce everybody, in a network without a secret.")
@data_dir_option
@config_option
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: with the program that started this.")
@json_option
def bootstrap(
    listen: str | None,
    port: int | None,
    secret_file: Path | None,
    is_open: bool,
    data_dir: Path | None,
    config_file: Path | None,
    until_eof: bool,
    as_json: bool,
) -> None:
    """Run a node that others begin at, and stay in the foreground.

    It tells nodes that connect to it which others are there, and does nothing else: no tools, no queue, no HTTP. It
    prints its address with its peer id; other nodes have it in p2p.peer_registry.bootstrap_nodes. The peer id stays the
    same as long as the data directory does. "greenroom peers", "status" and "down" work as with any node.

    Example: greenroom bootstrap --listen 0.0.0.0 --secret-file network.secret
    """
    from supervisor.cli_up import run_and_tell

    flags: dict[str, object] = {
        "p2p.bootstrap_only": True,
        "p2p.connectivity.listen_host": listen,
        "p2p.connectivity.listen_port": port,
        "p2p.peer_registry.secret_file": str(secret_file.absolute()) if secret_file else None,
        "p2p.peer_registry.introduce_strangers": is_open or None,
    }
    run_and_tell(config_file, data_dir, flags, started_at=_STARTED_AT, until_eof=until_eof, as_json=as_json)
