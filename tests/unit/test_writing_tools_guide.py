# SPDX-License-Identifier: AGPL-3.0-or-later
"""The guide for tool authors: every snippet in it is a file that works, and what it says of defaults is so."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
from tool_calls import Caller

from actors import toolkit
from actors.errors import ForbiddenError, InvalidArgumentsError, UnavailableError
from actors.questions import Asks
from actors.settings import PoolSettings, Settings, ToolsSettings
from actors.tools import execution, host
from actors.tools.loader import load

GUIDE = (Path(__file__).parents[2] / "docs" / "writing-tools.md").read_text()
SNIPPETS: dict[str, str] = dict(re.findall(r"```python\n# my_tools/(\w+\.py)\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture
def folder(tmp_path):
    """The reader's folder, with all the guide's files in it."""
    place = tmp_path / "my_tools"
    place.mkdir()
    for name, text in SNIPPETS.items():
        (place / name).write_text(text)
    return place


@pytest.fixture
async def call(folder, tmp_path):
    found = load(ToolsSettings(paths=[str(folder)], enabled_categories=["my_tools"]), "general")
    assert found.broken == []
    return Caller(found.tools, tmp_path / "data")


def test_every_snippet_names_its_file():
    assert GUIDE.count("```python") == len(SNIPPETS)


async def test_the_first_tool_greets(call):
    assert await call("greet", name="Ada", excited=True) == "Hello, Ada!"


async def test_types_are_read_as_the_guide_says(call):
    order = await call("paint", walls=[{"width": 12.0}, {"width": 6, "height": 5}], finish="gloss", coats=1)
    assert order == {"litres": 4.0, "tins": 1}
    with pytest.raises(InvalidArgumentsError, match="choose one of 'gloss', 'matt'"):
        await call("paint", walls=[{"width": 12.0}], finish="shiny")


async def test_a_tool_with_a_context_copies_and_reports(call):
    (call.home / "old.txt").write_text("one\ntwo\n")
    assert await call("copy_text", source="old.txt", destination="new.txt") == 2
    assert (call.home / "new.txt").read_text() == "one\ntwo\n"
    assert call.items[-1].data == b'{"copied":"new.txt"}'


@pytest.mark.parametrize(
    ("printer", "page", "error"),
    [("hall", 0, InvalidArgumentsError), ("vault", 1, ForbiddenError), ("hall", 1, UnavailableError)],
)
async def test_errors_keep_their_meaning(call, printer, page, error):
    with pytest.raises(error):
        await call("send_page", printer=printer, page=page)


def test_the_readers_test_runs_as_it_stands(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    # Have the module that the test imports forgotten afterwards.
    monkeypatch.setitem(sys.modules, "paint", None)
    del sys.modules["paint"]
    tests = runpy.run_path(os.fspath(folder / "test_paint.py"))
    tests["test_two_coats_need_twice_the_paint"]()


def test_every_option_is_in_the_table_and_nothing_else():
    table = GUIDE[GUIDE.index("## Options") : GUIDE.index("### `retry_safe`")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(inspect.signature(toolkit.tool).parameters)


def test_everything_of_the_context_that_is_for_tools_is_in_the_guide():
    for_the_pool = {"cancel", "end", "flush", "cancelled", "settings", "deadline", "asker"}
    names = {*vars(toolkit.ToolContext), *vars(Asks)}
    context = {name for name in names if not name.startswith("_")} - for_the_pool
    assert {name for name in context if f"`ctx.{name}" not in GUIDE} == set()


def test_the_limits_are_those_in_force():
    settings = Settings()
    assert settings.runtimes.general.timeout == 60
    assert settings.server.max_body_bytes == 4 * 1024**2
    assert settings.tools.max_result_bytes == 8 * 1024**2
    assert settings.tools.threads == 16
    assert PoolSettings().max_calls_at_once == 256
    assert settings.supervisor.hung_after_s == 5
    assert (execution.MAX_ERROR_CHARS, toolkit._MAX_WAITING_LOGS, host._ABANDONED_GRACE_S) == (2000, 256, 30)
