# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the verbs of the command line have in common: options, exit codes, how one asks and how one runs."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

T = TypeVar("T")

EXIT_FAILED, EXIT_NOT_RUNNING, EXIT_DEGRADED = 1, 3, 4


class Verbs(click.Group):
    """Names the nearest verb for a misspelt one, and turns our errors into two sentences and an exit code."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not nearest:
                raise
            raise click.UsageError(f"{error.message} Did you mean {nearest[0]!r}?", ctx) from None


data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="State lives here (~/.local/share/greenroom)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def data_dir_of(given: Path | None) -> Path:
    """The data directory: what was given, else what the environment says, else the usual one."""
    from supervisor.config import find_data_dir

    return find_data_dir(given, os.environ)


def must_ask(yes: bool) -> bool:
    """Whether somebody sits there who can be asked, and did not say that he need not be."""
    return not yes and sys.stdin.isatty()


def ask(question: str) -> None:
    """Ask; end with 1 when the answer is no."""
    if not click.confirm(question, err=True):
        click.echo("nothing was done", err=True)
        sys.exit(EXIT_FAILED)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run something that waits."""
    import trio

    async def main() -> T:
        return await work()

    return trio.run(main)
