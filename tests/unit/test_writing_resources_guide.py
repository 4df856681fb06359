# SPDX-License-Identifier: AGPL-3.0-or-later
"""The guide for authors of resources and prompts: every snippet is a file that works, and its tables are complete."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import msgspec
import pytest
import trio
from tool_calls import Caller

from actors import notices, toolkit, uris
from actors.declare import MAX_COMPLETIONS
from actors.errors import NotFoundError
from actors.settings import Settings, ToolsSettings
from actors.tool_messages import CompletionAsk, PromptGet, ResourceRead
from actors.tools.loader import load

GUIDE = (Path(__file__).parents[2] / "docs" / "writing-resources-and-prompts.md").read_text()
SNIPPETS: dict[str, str] = dict(re.findall(r"```python\n# my_tools/(\w+\.py)\n(.*?)```", GUIDE, re.DOTALL))


class Reader:
    """Reads and gets as a pool does."""

    def __init__(self, found, data_dir) -> None:
        self.offers = found.offers
        self.call = Caller(found.tools, data_dir)

    async def _run(self, one, call):
        with trio.fail_after(5):
            return json.loads((await one.run(call, self.call.environment, None)).value)

    async def read(self, uri):
        return (await self._run(*self.offers.reading(ResourceRead(name=uri, arguments=b"{}", call_id="1"))))[0]

    async def get(self, name, **arguments):
        call = PromptGet(name=name, arguments=msgspec.json.encode(arguments), call_id="1")
        return await self._run(self.offers.prompt(call), call)

    async def complete(self, name, argument, value, **known):
        arguments = msgspec.json.encode({"value": value, "arguments": known})
        call = CompletionAsk(of="prompts", name=name, argument=argument, arguments=arguments, call_id="1")
        return (await self._run(self.offers.completing(call), call))["values"]


@pytest.fixture
async def reader(tmp_path):
    place = tmp_path / "my_tools"
    place.mkdir()
    for name, text in SNIPPETS.items():
        (place / name).write_text(text)
    found = load(ToolsSettings(paths=[str(place)], enabled_categories=["my_tools"]), "general")
    assert found.broken + found.offers.broken_resources + found.offers.broken_prompts == []
    return Reader(found, tmp_path / "data")


def test_every_snippet_names_its_file():
    assert GUIDE.count("```python") == len(SNIPPETS)


async def test_the_weather_is_read(reader):
    assert (await reader.read("weather://places"))["text"] == "oslo\nrome"
    assert (await reader.read("weather://rome/now/f"))["text"] == "57"
    assert (await reader.read("weather://map"))["blob"] == "iVBORw=="
    with pytest.raises(NotFoundError, match="no place 'bonn'"):
        await reader.read("weather://bonn/now/c")


async def test_the_prompts_are_filled_in_and_completed(reader):
    messages = await reader.get("review", code="x = 1", language="python")
    assert [message["role"] for message in messages] == ["user", "user", "assistant"]
    assert messages[1]["content"]["text"] == "Review this python code. Be kind."
    assert (await reader.get("haiku"))[0]["content"]["text"] == "Write a haiku about rain."
    assert await reader.complete("review", "language", "p") == ["python", "prolog"]
    assert await reader.complete("review", "tone", "s") == ["strict"]


async def test_a_click_is_counted_and_announced(reader):
    notices.notices.take()
    assert [await reader.call("click") for _ in range(2)] == [1, 2]
    assert (await reader.read("counter://value"))["text"] == "2"
    assert notices.notices.take().uris == ["counter://value"]


def test_every_option_is_in_the_table_and_nothing_else():
    table = GUIDE[GUIDE.index("## Options") : GUIDE.index("## When something")]
    rows = re.findall(r"^\| (`[^|]+) \| (yes)? ?\| (yes)? ?\|", table, re.MULTILINE)
    for column, function in ((1, toolkit.resource), (2, toolkit.prompt)):
        named = {name for row in rows if row[column] for name in re.findall(r"`(\w+)`", row[0])}
        assert named == set(inspect.signature(function).parameters)


def test_the_limits_are_those_in_force():
    settings = Settings()
    assert settings.tools.max_result_bytes == 8 * 1024**2
    assert settings.tools.max_catalogue_bytes == 1024**2
    told = settings.mcp
    assert (told.max_subscriptions, told.max_subscriptions_in_all, told.page_size) == (256, 20_000, 1000)
    assert (uris.MAX_URI_CHARS, MAX_COMPLETIONS, notices.MAX_URIS, notices.PAUSE_S) == (2048, 100, 256, 0.05)
