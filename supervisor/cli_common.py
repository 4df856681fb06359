# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of the command line share: options, questions, and the way into trio."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from supervisor.config import LoadedConfig

EXIT_FAILED, EXIT_NOT_RUNNING, EXIT_DEGRADED = 1, 3, 4
T = TypeVar("T")


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
config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The YAML file to read."
)


def data_dir_of(given: Path | None) -> Path:
    """Where the state lives: as given, or by the environment."""
    from supervisor.config import find_data_dir

    return find_data_dir(given, os.environ)


def load_settings(
    config_file: Path | None, data_dir: Path | None, flags: Mapping[str, object]
) -> tuple[LoadedConfig, Path]:
    """The configuration, and where the state lives. A flag that is None was not given. Raises `ConfigError`."""
    from supervisor.config import find_config_file, load

    where = data_dir_of(data_dir)
    given = {key: value for key, value in flags.items() if value is not None}
    return load(find_config_file(config_file, where, os.environ), os.environ, given), where


def must_ask(yes: bool) -> bool:
    """Whether somebody is there to be asked."""
    return not yes and sys.stdin.isatty()


def ask(question: str) -> None:
    """Ask, and end here when the answer is no."""
    if not click.confirm(question, err=True):
        click.echo("nothing was done", err=True)
        sys.exit(EXIT_FAILED)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work from a verb."""
    import trio

    async def main() -> T:
        return await work()

    return trio.run(main)
