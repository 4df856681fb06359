# SPDX-License-Identifier: AGPL-3.0-or-later
"""The dataset tools, called as a pool calls them, and some data for them."""

from __future__ import annotations

from pathlib import Path

from tool_calls import Caller

from actors.settings import ToolsSettings
from actors.tools.loader import load

TOOLS = load(ToolsSettings(), "general").tools


def caller(data_dir: Path, **settings) -> Caller:
    return Caller(TOOLS, data_dir, **settings)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


PEOPLE = "id,name,born\n1,Ada,1815-12-10\n2,Grace,1906-12-09\n3,Edsger,1930-05-11\n"
