# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom workflow`: graphs of tool calls, as operators see them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from actors.errors import InvalidArgumentsError
from actors.workflow_messages import WorkflowStatus
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
from supervisor.cli_workflow_verify import workflow_export, workflow_verify

if TYPE_CHECKING:
    from actors.workflow_messages import WorkflowView

id_argument = click.argument("workflow_id", metavar="ID")


@click.group(cls=Verbs)
def workflow() -> None:
    """Workflows: graphs of tool calls that are done step by step."""


workflow.add_command(workflow_verify)
workflow.add_command(workflow_export)


@workflow.command("submit")
@click.argument("file")
@click.option("--id", "workflow_id", help="Its id, instead of the one in the file.")
@click.option("--wait", is_flag=True, help="Wait for its end, as watch does.")
@data_dir_option
@json_option
def workflow_submit(file: str, workflow_id: str | None, wait: bool, data_dir: Path | None, as_json: bool) -> None:
    """Run the workflow in FILE (YAML or JSON; - reads standard input).

    It is on disk when this returns. The same file with the same id again is harmless. With --wait the exit code is 1
    unless it completes, and --json prints the workflow with its outputs.

    Example: greenroom workflow submit nightly.yaml --wait
    """
    import msgspec

    from supervisor import client_workflows, task_text, workflow_file, workflow_text

    read = workflow_file.read_workflow(file)
    if workflow_id is not None:
        read.workflow = msgspec.structs.replace(read.workflow, workflow_id=workflow_id)
    where = data_dir_of(data_dir)
    try:
        made = run(lambda: client_workflows.submit(where, read.workflow))
    except InvalidArgumentsError as error:
        raise workflow_file.with_lines(error, read) from None
    if not wait:
        click.echo(task_text.to_json(made) if as_json else workflow_text.submitted_text(made, len(read.workflow.steps)))
        return
    view = _follow(where, made.workflow_id, quiet=as_json, as_json=False)
    if as_json:
        whole = run(lambda: client_workflows.show(where, made.workflow_id, outputs=True))
        click.echo(workflow_text.view_json(whole))
    _exit_as(view)


@workflow.command("list")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--status", type=click.Choice(get_args(WorkflowStatus)), help="Only those.")
@click.option("--tag", "tags", multiple=True, help="Only those with this tag; repeatable.")
@click.option("--owner", help="Only those of this principal.")
@data_dir_option
@json_option
def workflow_list(
    count: int,
    status: WorkflowStatus | None,
    tags: tuple[str, ...],
    owner: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """The newest workflows, one line each.

    Example: greenroom workflow list --status running
    """
    from supervisor import client_workflows, task_text, workflow_text

    page = run(lambda: client_workflows.page(data_dir_of(data_dir), count, status, tags, owner))
    click.echo(task_text.to_json(page) if as_json else workflow_text.list_text(page))


@workflow.command("show")
@id_argument
@click.option("--outputs", is_flag=True, help="With what its steps gave.")
@data_dir_option
@json_option
def workflow_show(workflow_id: str, outputs: bool, data_dir: Path | None, as_json: bool) -> None:
    """All that is known of a workflow: its steps with attempts and times.

    Example: greenroom workflow show nightly-1 --outputs
    """
    from supervisor import client_workflows, workflow_text

    view = run(lambda: client_workflows.show(data_dir_of(data_dir), workflow_id, outputs=outputs))
    click.echo(workflow_text.view_json(view) if as_json else workflow_text.show_text(view))


@workflow.command("watch")
@id_argument
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per change.")
def workflow_watch(workflow_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Look at a workflow until it has ended: live on a terminal, else one line per change.

    The exit code is 0 when it completed, 1 when it failed or was cancelled.

    Example: greenroom workflow watch nightly-1
    """
    _exit_as(_follow(data_dir_of(data_dir), workflow_id, quiet=False, as_json=as_json))


@workflow.command("cancel")
@id_argument
@click.option("--reason", default="", help="Kept with it.")
@click.option("--force", is_flag=True, help="Take running steps from their workers now.")
@yes_option
@data_dir_option
@json_option
def workflow_cancel(
    workflow_id: str, reason: str, force: bool, yes: bool, data_dir: Path | None, as_json: bool
) -> None:
    """Cancel a workflow: steps that wait at once, running ones when their workers hear of it.

    Example: greenroom workflow cancel nightly-1 --reason "wrong day" --yes
    """
    from supervisor import client_workflows, workflow_text

    where = data_dir_of(data_dir)
    if must_ask(yes):
        view = run(lambda: client_workflows.show(where, workflow_id, outputs=False))
        ask(f"Cancel {workflow_id} ({workflow_text.state_of(view)}, {workflow_text.share_of(view)} steps have ended)?")
    _control(where, workflow_id, "cancel", as_json, reason=reason, force=force)


@workflow.command("pause")
@id_argument
@click.option("--reason", default="", help="Kept with it.")
@data_dir_option
@json_option
def workflow_pause(workflow_id: str, reason: str, data_dir: Path | None, as_json: bool) -> None:
    """Begin no more steps of a workflow, also after a restart; those that run go on.

    Example: greenroom workflow pause nightly-1
    """
    _control(data_dir_of(data_dir), workflow_id, "pause", as_json, reason=reason)


@workflow.command("resume")
@id_argument
@data_dir_option
@json_option
def workflow_resume(workflow_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Go on with a workflow that was paused.

    Example: greenroom workflow resume nightly-1
    """
    _control(data_dir_of(data_dir), workflow_id, "resume", as_json)


def _control(
    where: Path,
    workflow_id: str,
    what: Literal["cancel", "pause", "resume"],
    as_json: bool,
    *,
    reason: str = "",
    force: bool = False,
) -> None:
    from supervisor import client_workflows, task_text, workflow_text

    done = run(lambda: client_workflows.control(where, workflow_id, what, reason=reason, force=force))
    click.echo(task_text.to_json(done) if as_json else workflow_text.controlled_text(done, what))


def _follow(where: Path, workflow_id: str, *, quiet: bool, as_json: bool) -> WorkflowView:
    from rich.console import Console

    from supervisor import client_workflows, workflow_screen

    console = Console()
    showing: AbstractContextManager[Callable[[WorkflowView], None]]
    if quiet:
        showing = nullcontext(lambda _: None)
    elif console.is_terminal and not as_json:
        showing = workflow_screen.live(console)
    else:
        showing = nullcontext(workflow_screen.lines(as_json=as_json))
    with showing as show:
        return run(lambda: client_workflows.follow(where, workflow_id, show))


def _exit_as(view: WorkflowView) -> None:
    if view.status != "completed":
        sys.exit(EXIT_FAILED)
