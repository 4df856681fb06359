# SPDX-License-Identifier: AGPL-3.0-or-later
"""A group of commands that knows what a misspelt one was meant to be."""

from __future__ import annotations

import difflib

import click


class Verbs(click.Group):
    """Names the nearest verb for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not nearest:
                raise
            raise click.UsageError(f"{error.message} Did you mean {nearest[0]!r}?", ctx) from None
