# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom stdio`: MCP on standard input and output."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli_common import config_option, data_dir_of, data_dir_option, run

if TYPE_CHECKING:
    from supervisor.stdio_tree import Choice

_BRIDGE = "gateway.stdio"


@click.command()
@click.option("--own", is_flag=True, help="Always start a system of its own; without --data-dir in a scratch folder.")
@click.option("--attach", is_flag=True, help="Never start one: fail (exit code 3) when none runs.")
@data_dir_option
@config_option
@click.option("--tools", "tools", multiple=True, help="Tools of your own, for a system that is started; repeatable.")
def stdio(own: bool, attach: bool, data_dir: Path | None, config_file: Path | None, tools: tuple[str, ...]) -> None:
    """Speak MCP on standard input and output, for programs that start their server: Claude Desktop and others.

    It is a bridge to the system that runs on the data directory. When none runs there it starts one, which ends with
    it. Standard output carries nothing but the protocol, one JSON-RPC message per line; notes go to standard error.

    Example: greenroom stdio --attach
    """
    from supervisor.config import find_config_file, load
    from supervisor.stdio_tree import Choice, private_data_dir, silence_stdout

    if own and attach:
        raise click.UsageError("--own and --attach exclude each other")
    choice = Choice.OWN if own else Choice.ATTACH if attach else Choice.EITHER
    out = silence_stdout()
    private = own and data_dir is None and not os.environ.get("GREENROOM_DATA_DIR")
    where = private_data_dir() if private else data_dir_of(data_dir)
    settings = load(find_config_file(config_file, where, os.environ), os.environ, {}).settings
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="greenroom stdio: %(message)s")
    arguments = [] if config_file is None else ["--config", str(config_file)]
    for path in tools:
        arguments += ["--tools", path]
    run(lambda: _serve(where, choice, arguments, settings, out, private=private))


async def _serve(
    where: Path, choice: Choice, arguments: list[str], settings: object, out: int, *, private: bool
) -> None:
    from supervisor.stdio_tree import open_tree

    # By its name: the supervisor imports nothing of the gateway.
    bridge = importlib.import_module(_BRIDGE)
    async with open_tree(where, choice, arguments, private=private) as tree:
        await bridge.run(tree, settings, stdin=0, stdout=out)
