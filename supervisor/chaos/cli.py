# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom chaos`: the verbs `run` and `faults`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from supervisor.cli_common import Verbs

if TYPE_CHECKING:
    from supervisor.chaos.runner import Plan, Run

LONGEST_MIN = 120.0
"""Minutes: the history of all calls is kept in memory."""


@click.group(cls=Verbs)
def chaos() -> None:
    """Break a running system on purpose and check what it promises."""


@chaos.command("faults")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def chaos_faults(as_json: bool) -> None:
    """The faults, with what is expected of each.

    Example: greenroom chaos faults
    """
    from supervisor.chaos.faults import FAULTS
    from supervisor.chaos.report import faults_text

    click.echo(msgspec.json.encode({"faults": list(FAULTS.values())}) if as_json else faults_text())


@chaos.command("run")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Repeats the schedule of the run with this seed.")
@click.option(
    "--minutes", type=click.FloatRange(0.1, LONGEST_MIN), default=2.0, show_default=True, help="How long it takes."
)
@click.option("--faults", help="Only these, separated by commas (see: greenroom chaos faults).")
@click.option("--own", is_flag=True, help="Start a system of its own in a scratch folder, and end it afterwards.")
@click.option("--keep", is_flag=True, help="With --own: leave its data directory and log.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="State lives here (~/.local/share/greenroom)."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def chaos_run(
    seed: int | None,
    minutes: float,
    faults: str | None,
    own: bool,
    keep: bool,
    data_dir: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Inject faults into a running system under load, and check that it keeps its promises.

    IT KILLS PROCESSES OF THAT SYSTEM. It must allow that (chaos.enabled: true), and on a terminal you are asked; with
    --own a new one is started for it. The exit code is 0 when no rule was broken.

    Example: greenroom chaos run --own --minutes 2 --faults kill,stop
    """
    from supervisor.chaos.faults import chosen
    from supervisor.chaos.report import report_text, summarize
    from supervisor.chaos.runner import Plan, new_seed

    plan = Plan(
        seed=seed if seed is not None else new_seed(),
        minutes=minutes,
        faults=chosen(faults, own=own),
        faults_given=faults is not None,
        own=own,
    )
    if not own and not yes and sys.stdin.isatty():
        _ask(plan, data_dir)
    summary = summarize(_run(plan, data_dir, keep=keep))
    click.echo(msgspec.json.encode(summary) if as_json else report_text(summary))
    if not summary.ok:
        sys.exit(1)


def _ask(plan: Plan, data_dir: Path | None) -> None:
    """Name what will be harmed, and go on only when that is meant. A system that does not allow it says so first."""
    import trio

    from supervisor.chaos.view import TreeView
    from supervisor.config import find_data_dir

    where = find_data_dir(data_dir, os.environ)
    trio.run(TreeView(where).info)
    question = f"Kill, stop and break processes of the system on {where} for {plan.minutes:g} min?"
    if not click.confirm(question, err=True):
        click.echo("nothing was done", err=True)
        sys.exit(1)


def _run(plan: Plan, data_dir: Path | None, *, keep: bool) -> Run:
    import trio

    from supervisor.chaos.own_tree import own_tree
    from supervisor.chaos.runner import run_chaos
    from supervisor.config import find_data_dir

    live = sys.stderr.isatty()

    def tell(line: str) -> None:
        click.echo(f"\r\x1b[2K{line[:100]}" if live else f"chaos: {line}", err=True, nl=not live)

    async def run() -> Run:
        if not plan.own:
            return await run_chaos(find_data_dir(data_dir, os.environ), plan, tell)
        async with own_tree(keep=keep) as tree:
            tell(f"its own system is up; data and log: {tree.data_dir.parent}")
            return await run_chaos(tree.data_dir, plan, tell, tree)

    click.echo(f"chaos: seed {plan.seed}, {plan.minutes:g} min", err=True)
    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        raise _one_of(group) from None
    finally:
        if live:
            click.echo("\r\x1b[2K", err=True, nl=False)


def _one_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the run, without the nurseries around it: Ctrl-C, or the one error; else the whole group."""
    interrupts, others = group.split(KeyboardInterrupt)
    if interrupts is not None:
        return KeyboardInterrupt()
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup) and len(first.exceptions) == 1:
        first = first.exceptions[0]
    return others if isinstance(first, BaseExceptionGroup) and others is not None else first
