# SPDX-License-Identifier: AGPL-3.0-or-later
"""What all verbs of the command line share."""

from __future__ import annotations

import difflib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

T = TypeVar("T")


class Verbs(click.Group):
    """Names the nearest verb for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a hint."""
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


def data_dir_of(given: Path | None) -> Path:
    """The data directory that is meant."""
    from supervisor.config import find_data_dir

    return find_data_dir(given, os.environ)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work to its end."""
    import trio

    async def main() -> T:
        return await work()

    return trio.run(main)
