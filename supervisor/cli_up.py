# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the verbs share that run a tree in the foreground: `up` and `bootstrap`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from supervisor.cli_common import load_settings
from supervisor.incidents import failure_screen
from supervisor.screen import duration
from supervisor.up import Outcome, run_up


def run_and_tell(
    config_file: Path | None,
    data_dir: Path | None,
    flags: Mapping[str, object],
    *,
    started_at: float,
    until_eof: bool,
    as_json: bool,
) -> NoReturn:
    """Run a tree until it ends, and exit with its code. `flags`: dotted key -> value, None = not given; `started_at`: a
    `time.monotonic()` reading."""
    loaded, where = load_settings(config_file, data_dir, flags)
    end = run_up(
        loaded.settings,
        where,
        load=lambda: load_settings(config_file, data_dir, flags)[0].settings,
        started_at=started_at,
        show=lambda status, text: click.echo(msgspec.json.encode(status).decode() if as_json else text),
        notices=loaded.notices,
        until_eof=until_eof,
    )
    if end.exit_code:
        _tell_failed(end, as_json=as_json)
    elif sys.stderr.isatty():
        click.echo(f"stopped ({end.reason}) after {duration(time.monotonic() - started_at)}", err=True)
    sys.exit(end.exit_code)


def _tell_failed(end: Outcome, *, as_json: bool) -> None:
    if end.failure is None:
        click.echo(f"greenroom: {end.reason}", err=True)
    else:
        click.echo(failure_screen(end.failure), err=True)
    if as_json:
        error = {"code": "START_FAILED" if end.failure else "GAVE_UP", "message": end.reason}
        details = msgspec.to_builtins(end.failure) if end.failure else {}
        click.echo(msgspec.json.encode({"error": error | details}))
