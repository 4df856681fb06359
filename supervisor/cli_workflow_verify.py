# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom workflow verify` and `greenroom workflow export`: proof of what was done, for who did not see it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actors.errors import UnavailableError
from supervisor.cli_common import EXIT_FAILED, data_dir_of, data_dir_option, json_option, run

if TYPE_CHECKING:
    from actors.workflow_report import WorkflowReport

_VERIFIER = "actors.p2p.workflow_scheduler.verify"
_SUFFIX = ".car"


@click.command("verify")
@click.argument("what", metavar="ID|FILE")
@click.option("--signed-by", "signers", metavar="PEER", multiple=True, help="Who may have signed; repeatable.")
@data_dir_option
@json_option
def workflow_verify(what: str, signers: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Check all events of a workflow: signatures, links, the order of what happened, and outputs.

    A FILE needs no running system. The exit code is 1 when something is wrong. What it can't
    know is who should have signed, and which event is the newest: compare the peer and the head that it prints, or
    name the peers with --signed-by.

    Example: greenroom workflow verify audit.car
    """
    from supervisor import task_text, workflow_report_text

    data = _of_file(Path(what)) if _is_file(what) else _of_tree(data_dir, what)
    report = _verified(data, signers)
    click.echo(task_text.to_json(report) if as_json else workflow_report_text.report_text(report, what))
    if not report.sound:
        sys.exit(EXIT_FAILED)


@click.command("export")
@click.argument("workflow_id", metavar="ID")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file; it is replaced."
)
@data_dir_option
@json_option
def workflow_export(workflow_id: str, output: Path, data_dir: Path | None, as_json: bool) -> None:
    """Write a workflow's events, definition and outputs to a CAR file.

    "greenroom workflow verify" checks it, wherever it is.

    Example: greenroom workflow export nightly-1 -o audit.car
    """
    from supervisor import task_text

    data = _of_tree(data_dir, workflow_id)
    draft = output.with_name(f"{output.name}.part")
    try:
        draft.write_bytes(data)
        draft.replace(output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UnavailableError(f"{output} can't be written: {error.strerror}") from None
    if as_json:
        click.echo(task_text.to_json({"workflow_id": workflow_id, "file": str(output), "bytes": len(data)}))
    else:
        click.echo(f"{output}: {len(data)} bytes")


def _is_file(what: str) -> bool:
    return what.endswith(_SUFFIX) or Path(what).is_file()


def _of_file(path: Path) -> bytes:
    from actors.workflow_report import MOST_EXPORT_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MOST_EXPORT_BYTES + 1)
    except OSError as error:
        raise UnavailableError(f"{path} can't be read: {error.strerror}") from None


def _of_tree(data_dir: Path | None, workflow_id: str) -> bytes:
    from supervisor.client_workflow_export import export

    return run(lambda: export(data_dir_of(data_dir), workflow_id))


def _verified(data: bytes, signers: tuple[str, ...]) -> WorkflowReport:
    # By its name: the supervisor imports nothing of the actors. The verifier is pure and starts nothing.
    verifier = importlib.import_module(_VERIFIER)
    report: WorkflowReport = verifier.verified(data, signers=signers)
    return report
