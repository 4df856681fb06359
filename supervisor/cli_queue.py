# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom queue` and `greenroom task`: durable work, as operators see it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from supervisor.cli_common import (
    EXIT_FAILED,
    Verbs,
    ask,
    data_dir_of,
    data_dir_option,
    json_option,
    must_ask,
    run,
    yes_option,
)

count_option = click.option(
    "-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)
type_option = click.option("--type", "type_", help="Only tasks of this type.")


@click.group(cls=Verbs)
def queue() -> None:
    """The task queue: what waits, what failed, and putting it back."""


@queue.command("stats")
@data_dir_option
@json_option
def queue_stats(data_dir: Path | None, as_json: bool) -> None:
    """Counts, waiting times, rates, workers, and the file.

    Example: greenroom queue stats
    """
    from supervisor import client_queue, task_text

    stats = run(lambda: client_queue.stats(data_dir_of(data_dir)))
    click.echo(task_text.to_json(stats) if as_json else task_text.stats_text(stats))


@queue.command("peek")
@count_option
@type_option
@data_dir_option
@json_option
def queue_peek(count: int, type_: str | None, data_dir: Path | None, as_json: bool) -> None:
    """The next tasks, and why each of them waits.

    Tasks that can't start yet (scheduled, blocked) have no place; they are last.

    Example: greenroom queue peek -n 5
    """
    from supervisor import client_queue, task_text

    found = run(lambda: client_queue.peek(data_dir_of(data_dir), count, type_))
    click.echo(task_text.to_json(found) if as_json else task_text.peek_text(found))


@queue.command("dead")
@count_option
@type_option
@data_dir_option
@json_option
def queue_dead(count: int, type_: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Tasks that failed for good (dead letters), the latest first.

    Example: greenroom queue dead --type dataset_query
    """
    from supervisor import client_queue, task_text

    found = run(lambda: client_queue.dead(data_dir_of(data_dir), count, type_))
    click.echo(task_text.to_json(found) if as_json else task_text.dead_text(found))


@queue.command("requeue")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All tasks that failed.")
@type_option
@yes_option
@data_dir_option
@json_option
def queue_requeue(
    ids: tuple[str, ...], everything: bool, type_: str | None, yes: bool, data_dir: Path | None, as_json: bool
) -> None:
    """Do failed or cancelled tasks again, as new ones that name the old.

    Each is done again once, however often this is asked; when the new one fails too, requeue that one. The exit code
    is 1 when one of them could not be.

    Example: greenroom queue requeue --all --type http_fetch
    """
    from supervisor import client_queue, task_text

    if bool(ids) == everything:
        raise click.UsageError('give one or more IDs (see "greenroom queue dead"), or --all.')
    if ids and type_:
        raise click.UsageError("--type goes with --all.")
    if everything and must_ask(yes):
        ask(f"Do all failed tasks{f' of type {type_}' if type_ else ''} again?")
    done = run(lambda: client_queue.requeue(data_dir_of(data_dir), ids, type_))
    click.echo(task_text.to_json({"requeued": done}) if as_json else task_text.requeued_text(done))
    if any(one.error is not None for one in done):
        sys.exit(EXIT_FAILED)


@click.group(cls=Verbs)
def task() -> None:
    """One task of the queue."""


@task.command("show")
@click.argument("task_id", metavar="ID")
@data_dir_option
@json_option
def task_show(task_id: str, data_dir: Path | None, as_json: bool) -> None:
    """All that is known of a task, and what happened to it; the beginning of its ID is enough.

    Example: greenroom task show 01a21317442f
    """
    from supervisor import client_queue, task_text

    shown = run(lambda: client_queue.show(data_dir_of(data_dir), task_id))
    click.echo(task_text.to_json(shown) if as_json else task_text.task_text(shown))
