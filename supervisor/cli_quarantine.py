# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom quarantine`: the calls that are refused because they end processes."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from supervisor.cli_common import Verbs, ask, data_dir_of, data_dir_option, json_option, must_ask, run, yes_option

_TIMEOUT_S = 10.0


@click.group(cls=Verbs)
def quarantine() -> None:
    """Calls that are refused because they end processes.

    A tool that was running with the same arguments when two processes died, and was never answered in between, is
    refused with these arguments until it is released. A tool that ends processes with many arguments is refused for a
    while, then tried again by itself.
    """


@quarantine.command("list")
@data_dir_option
@json_option
def quarantine_list(data_dir: Path | None, as_json: bool) -> None:
    """What is refused: id, tool, deaths, when and how the last process ended.

    Example: greenroom quarantine list
    """
    from actors.messages import Marks
    from supervisor.admin import open_admin
    from supervisor.rundir import find_running

    async def ask_root() -> Marks:
        async with open_admin(find_running(data_dir_of(data_dir))) as admin:
            return msgspec.msgpack.decode(await admin.call("quarantine", None, timeout_s=_TIMEOUT_S), type=Marks)

    marks = run(ask_root)
    if as_json:
        shown = {"quarantined": marks.quarantined, "breakers": marks.breakers, "suspects": len(marks.watched)}
        click.echo(msgspec.json.encode(shown))
        return
    names = [one.tool for one in marks.quarantined] + [one.tool for one in marks.breakers]
    width = max(map(len, names), default=0)
    for one in marks.quarantined:
        click.echo(f"{one.id}  {one.tool.ljust(width)}  {one.deaths} processes ended, last {one.last_at} ({one.cause})")
    for breaker in marks.breakers:
        how = "tried again now" if breaker.half_open else f"tried again in {breaker.retry_after_s:.0f} s"
        click.echo(f"{'any'.ljust(12)}  {breaker.tool.ljust(width)}  {breaker.deaths} processes ended, {how}")
    if not names:
        click.echo("nothing is quarantined")


@quarantine.command("release")
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Release all.")
@yes_option
@data_dir_option
@json_option
def quarantine_release(
    names: tuple[str, ...], everything: bool, yes: bool, data_dir: Path | None, as_json: bool
) -> None:
    """Let a call in again, once what made it end processes is mended.

    ID is what "greenroom quarantine list" gives, or the name of a tool that is refused for a while.

    Example: greenroom quarantine release 3f2a91c04b7d
    """
    from supervisor.admin import open_admin
    from supervisor.admin_quarantine import Released, ReleaseRequest
    from supervisor.rundir import find_running

    if bool(names) == everything:
        raise click.UsageError('give one or more IDs (see "greenroom quarantine list"), or --all.')
    if everything and must_ask(yes):
        ask("Release everything that is quarantined?")
    order = ReleaseRequest(names=list(names), everything=everything)

    async def ask_root() -> Released:
        async with open_admin(find_running(data_dir_of(data_dir))) as admin:
            return msgspec.msgpack.decode(await admin.call("release", order, timeout_s=_TIMEOUT_S), type=Released)

    released = run(ask_root)
    if as_json:
        click.echo(msgspec.json.encode(released))
        return
    for one in released.released:
        click.echo(f"released {one.id} ({one.tool})" if one.id else f"released {one.tool}")
    if not released.released:
        click.echo("nothing is quarantined")
