# SPDX-License-Identifier: AGPL-3.0-or-later
"""The command line. `up` runs the tree; every other verb is a client of a running one.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no running system, 4 it runs but is degraded. Results go to stdout,
notes and errors to stderr; `--json` prints one documented object, also for an error: `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec

from actors.errors import MCPServerError, code_of
from actors.peers import is_spare
from supervisor import cli_operate
from supervisor.chaos.cli import chaos
from supervisor.cli_bootstrap import bootstrap
from supervisor.cli_common import (
    EXIT_DEGRADED,
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    Verbs,
    ask,
    config_option,
    data_dir_of,
    data_dir_option,
    json_option,
    load_settings,
    must_ask,
    run,
    yes_option,
)
from supervisor.cli_offers import prompts, resources
from supervisor.cli_peers import peers
from supervisor.cli_quarantine import quarantine
from supervisor.cli_queue import queue, task
from supervisor.cli_stdio import stdio
from supervisor.cli_workflow import workflow

_STARTED_AT = time.monotonic()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="greenroom")
def greenroom() -> None:
    """An MCP server whose gateway, router and tools are supervised processes of their own.

    Start one with "greenroom up"; the other verbs speak to it from a second terminal.

    \b
    Exit codes:  0 done            3 no running system
                 1 it failed       4 it runs, but something is not ready
                 2 wrong usage
    """


for verb in (cli_operate.restart, cli_operate.drain, cli_operate.resume, cli_operate.scale, cli_operate.reload):
    greenroom.add_command(verb)
greenroom.add_command(quarantine)
greenroom.add_command(queue)
greenroom.add_command(task)
greenroom.add_command(workflow)
greenroom.add_command(peers)
greenroom.add_command(bootstrap)
greenroom.add_command(chaos)
greenroom.add_command(resources)
greenroom.add_command(prompts)
greenroom.add_command(stdio)


@greenroom.command()
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8000; 0 takes a free one).")
@data_dir_option
@config_option
@click.option("--tools", "tools", multiple=True, help="A module, file or folder with tools of your own; repeatable.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: with the program that started this.")
@json_option
def up(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    config_file: Path | None,
    tools: tuple[str, ...],
    until_eof: bool,
    as_json: bool,
) -> None:
    """Start the system and stay in the foreground.

    Example: greenroom up --port 8000 --tools ./my_tools
    """
    from supervisor.cli_up import run_and_tell

    flags: dict[str, object] = {"server.host": host, "server.port": port, "tools.paths": list(tools) or None}
    run_and_tell(config_file, data_dir, flags, started_at=_STARTED_AT, until_eof=until_eof, as_json=as_json)


@greenroom.command()
@click.option("--now", is_flag=True, help="Do not wait for open calls.")
@yes_option
@data_dir_option
@json_option
def down(now: bool, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    """Stop the running system, in order.

    On a terminal it says what it will stop, and asks.

    Example: greenroom down --yes
    """
    from supervisor import client

    if must_ask(yes):
        running = run(lambda: client.status(data_dir_of(data_dir)))
        names = ", ".join(actor.name for actor in running.actors if actor.pid and not is_spare(actor.name))
        ask(f"Stop {names} and the root (pid {running.root_pid})?")
    stopped = run(lambda: client.stop(data_dir_of(data_dir), now=now))
    if as_json:
        click.echo(msgspec.json.encode(stopped))
    else:
        names = ", ".join(reversed(stopped.actors))
        click.echo(f"stopped {names} and the root (pid {stopped.root_pid}) in {stopped.seconds:.2f} s")


@greenroom.command()
@data_dir_option
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """One line: ready or degraded, since when, what is wrong.

    The exit code is 0 when all is ready, 4 when something is not or calls are quarantined, 3 when nothing runs.

    Example: greenroom status --json
    """
    from supervisor import client
    from supervisor.screen import is_degraded, status_line

    tree_status = run(lambda: client.status(data_dir_of(data_dir)))
    click.echo(msgspec.json.encode(tree_status) if as_json else status_line(tree_status))
    if is_degraded(tree_status):
        sys.exit(EXIT_DEGRADED)


@greenroom.command()
@data_dir_option
@json_option
def tree(data_dir: Path | None, as_json: bool) -> None:
    """The supervision tree: state, pid, restarts.

    Example: greenroom tree
    """
    from supervisor import client
    from supervisor.screen import tree_text

    tree_status = run(lambda: client.status(data_dir_of(data_dir)))
    click.echo(msgspec.json.encode(tree_status) if as_json else tree_text(tree_status))


@greenroom.command()
@click.argument("actor")
@click.option("--last", default=3, show_default=True, help="How many exits.")
@data_dir_option
@json_option
def why(actor: str, last: int, data_dir: Path | None, as_json: bool) -> None:
    """Why an actor ended lately: how, what was decided, what it wrote last, how long until it was back.

    Works without a running system, too: exits are kept in the data directory.

    Example: greenroom why router
    """
    from supervisor.incident_log import read_exits
    from supervisor.incident_text import exit_story, exits_of

    found = exits_of(read_exits(data_dir_of(data_dir)), actor)[-last:]
    if as_json:
        click.echo(msgspec.json.encode({"actor": actor, "exits": found}))
    elif not found:
        click.echo(f"no exit of {actor} is known")
    for one in found if not as_json else []:
        click.echo(exit_story(one))


@greenroom.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones as they come.")
@click.option("--last", default=20, show_default=True, help="How many of the past.")
@data_dir_option
@json_option
def events(follow: bool, last: int, data_dir: Path | None, as_json: bool) -> None:
    """Exits of all actors that nobody asked for, one line each.

    Example: greenroom events -f
    """
    from supervisor.incident_log import follow_exits, read_exits
    from supervisor.incident_text import exit_line

    where = data_dir_of(data_dir)
    for one in follow_exits(where, last) if follow else read_exits(where)[-last:]:
        click.echo(msgspec.json.encode(one) if as_json else exit_line(one))


@greenroom.group(cls=Verbs)
def tools() -> None:
    """List tools and call them."""


@tools.command("list")
@data_dir_option
@json_option
def tools_list(data_dir: Path | None, as_json: bool) -> None:
    """Signatures, with category and pool; broken tools with the reason.

    Example: greenroom tools list
    """
    from supervisor import client

    catalogue = run(lambda: client.catalogue(data_dir_of(data_dir)))
    if as_json:
        click.echo(client.catalogue_json(catalogue))
        return
    for tool in catalogue.tools:
        click.echo(client.signature(tool))


@tools.command("call", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1)
@data_dir_option
@json_option
def tools_call(name: str, arguments: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Call a tool; each argument is KEY=VALUE, read by the tool's schema.

    Example: greenroom tools call echo text=hello
    """
    from supervisor import client

    def progress(text: str) -> None:
        click.echo(text, err=True)

    result = run(lambda: client.call_tool(data_dir_of(data_dir), name, arguments, progress))
    click.echo(client.result_json(result) if as_json else client.result_text(result))
    if result.is_error:
        sys.exit(EXIT_FAILED)


@greenroom.group(cls=Verbs)
def config() -> None:
    """Look at the configuration."""


@config.command("show")
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@data_dir_option
@config_option
@json_option
def config_show(origin: bool, data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Every setting with its value; secrets are hidden.

    Example: greenroom config show --origin
    """
    from supervisor.config import describe

    loaded, _ = load_settings(config_file, data_dir, {})
    lines = describe(loaded)
    if as_json:
        click.echo(msgspec.json.encode([msgspec.to_builtins(line) for line in lines]))
        return
    width = max(len(line.key) for line in lines)
    for line in lines:
        value = msgspec.json.encode(line.value).decode()
        click.echo(f"{line.key.ljust(width)}  {value}" + (f"    # {line.origin}" if origin else ""))


def main() -> None:
    """Entry of the console script."""
    from supervisor.rundir import NotRunningError

    try:
        greenroom()
    except MCPServerError as error:
        click.echo(f"greenroom: {error} [{code_of(error)}]", err=True)
        if "--json" in sys.argv:
            click.echo(msgspec.json.encode({"error": {"code": code_of(error), "message": str(error)}}))
        sys.exit(EXIT_NOT_RUNNING if isinstance(error, NotRunningError) else EXIT_FAILED)


if __name__ == "__main__":
    main()
