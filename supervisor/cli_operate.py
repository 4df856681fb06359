# SPDX-License-Identifier: AGPL-3.0-or-later
"""The verbs that change a running tree: restart, drain, resume, scale, reload."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from supervisor.cli_common import ask, data_dir_of, data_dir_option, json_option, must_ask, run, yes_option


@click.command()
@click.argument("actor")
@click.option("--drain", is_flag=True, help="Start the new process first; the old one then finishes its calls.")
@yes_option
@data_dir_option
@json_option
def restart(actor: str, drain: bool, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    """Give one actor a new process: stop it in order, start its next life.

    ACTOR is a name as "greenroom status --json" gives it. On a terminal it asks first.

    Example: greenroom restart tools.general#0 --drain --yes
    """
    from supervisor import orders_client

    if must_ask(yes):
        ask(f"Restart {actor}?")
    change = run(lambda: orders_client.restart(data_dir_of(data_dir), actor, drain=drain))
    if as_json:
        click.echo(msgspec.json.encode(change))
    else:
        click.echo(f"{change.name}: pid {change.old_pid} -> {change.new_pid}, {change.seconds:.2f} s without it")


@click.command()
@click.argument("actor")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Seconds to wait until no call is open.")
@yes_option
@data_dir_option
@json_option
def drain(actor: str, wait_s: float, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    """Take an actor, or all processes of a pool, out of service: it finishes its calls and gets no new ones.

    Calls for a pool of which no process is left in service wait for one, up to their deadline. "greenroom resume" ends
    it; so does "greenroom restart". On a terminal it asks first.

    Example: greenroom drain tools.general#1 --yes
    """
    from supervisor import orders_client

    if must_ask(yes):
        ask(f"Take {actor} out of service?")
    done = run(lambda: orders_client.drain(data_dir_of(data_dir), actor, wait_s))
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(f"{', '.join(done.names)}: out of service, {done.open_calls} calls still open")


@click.command()
@click.argument("actor")
@data_dir_option
@json_option
def resume(actor: str, data_dir: Path | None, as_json: bool) -> None:
    """Put a drained actor, or all processes of a pool, back into service.

    Example: greenroom resume tools.general#1
    """
    from supervisor import orders_client

    done = run(lambda: orders_client.resume(data_dir_of(data_dir), actor))
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(f"{', '.join(done.names)}: in service")


@click.command()
@click.argument("pool")
@click.argument("size", type=click.IntRange(1))
@yes_option
@data_dir_option
@json_option
def scale(pool: str, size: int, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    """Give a pool of tools SIZE processes, until the next reload or start. Those that go finish their calls.

    On a terminal it asks before it shrinks a pool.

    Example: greenroom scale general 4
    """
    from supervisor import orders_client

    if must_ask(yes):
        ask(f"Give the pool {pool} {size} processes?")
    done = run(lambda: orders_client.scale(data_dir_of(data_dir), pool, size))
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    click.echo(f"{done.pool}: {done.before} -> {done.after} processes")
    for verb, names in (("added", done.added), ("finishing their calls", done.removed)):
        if names:
            click.echo(f"  {verb}: {', '.join(names)}")


@click.command()
@data_dir_option
@json_option
def reload(data_dir: Path | None, as_json: bool) -> None:
    """Read the configuration and the tool files again, without losing a call. The same as SIGHUP to the root.

    New tool processes start beside the old ones and take their places; the old ones finish their calls. A configuration
    that is wrong changes nothing.

    Example: greenroom reload
    """
    from supervisor import orders_client

    done = run(lambda: orders_client.reload(data_dir_of(data_dir)))
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    for words, names in (
        ("settings that count now", done.changed),
        ("settings that need a new start", done.needs_restart),
        ("new processes", done.replaced),
        ("added", done.added),
        ("finishing their calls", done.removed),
    ):
        if names:
            click.echo(f"{words}: {', '.join(names)}")
