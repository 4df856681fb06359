# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a caller is told whose arguments do not fit, before the tool runs."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from tool_calls import Caller, loaded

from actors.errors import (
    InvalidArgumentsError,
)
from actors.toolkit import tool


def caller(tmp_path, *functions, **settings):
    return Caller(loaded(*functions), tmp_path, **settings)


class Side(enum.Enum):
    TOP = "top"
    LEFT = "left"


class Box(msgspec.Struct, forbid_unknown_fields=True):
    width: Annotated[int, Meta(gt=0)]
    tags: list[str] = []
    open: list[Side] = []


@tool()
async def pack(name: str, box: Box, mode: Literal["tight", "loose"] = "tight", weight: float = 1.0) -> dict[str, Any]:
    """Pack a box."""
    return {"name": name, "width": box.width, "tags": box.tags, "mode": mode, "weight": weight}


@tool()
async def nothing() -> str:
    """Take no arguments."""
    return "done"


@tool()
async def anything(value: Any) -> str:
    """Take any value."""
    return type(value).__name__


@pytest.fixture
async def packer(tmp_path):
    return caller(tmp_path, pack, nothing, anything)


@tool()
async def wrap(box: Box | None = None) -> str:
    """Wrap a box, or nothing."""
    return "done"


async def test_what_may_be_null_is_explained_as_what_it_is_otherwise(tmp_path):
    call = caller(tmp_path, wrap)
    with pytest.raises(InvalidArgumentsError, match="`box`: unknown parameter `tag`; did you mean `tags`"):
        await call("wrap", box={"width": 1, "tag": 2})


async def test_defaults_stand_in_for_what_the_caller_leaves_out(packer):
    assert await packer("pack", name="a", box={"width": 2}) == {
        "name": "a", "width": 2, "tags": [], "mode": "tight", "weight": 1.0,
    }  # fmt: skip


async def test_no_bytes_at_all_are_no_arguments(packer):
    assert json.loads((await packer.result("nothing", b"")).value) == "done"


@pytest.mark.parametrize(
    ("arguments", "said", "parameter"),
    [
        ('{"naem": "a"}', "unknown parameter `naem`; did you mean `name`?", "naem"),
        ('{"zzzzzz": 1}', "unknown parameter `zzzzzz`; it takes `name`, `box`, `mode`, `weight`", "zzzzzz"),
        ('{"name": "a"}', "missing parameter `box`", "box"),
        ('{"name": 1}', "`name`: expected text, got a whole number", "name"),
        ('{"name": null}', "`name`: expected text, got null", "name"),
        ('{"name": "a", "box": []}', "`box`: expected an object, got a list", "box"),
        ('{"name": "a", "box": {}}', "`box`: missing parameter `width`", "box"),
        ('{"name": "a", "box": {"width": 1, "hight": 2}}', "`box`: unknown parameter `hight`; it takes `width`", "box"),
        ('{"name": "a", "box": {"width": 1, "tag": 2}}', "`box`: unknown parameter `tag`; did you mean `tags`?", "box"),
        ('{"name": "a", "box": {"width": 1, "open": ["up"]}}', "`box.open[0]`: not a valid choice: 'up'; ", "box"),
        ('{"name": "a", "box": {"width": "1"}}', "`box.width`: expected a whole number, got text", "box"),
        ('{"name": "a", "box": {"width": 0}}', "`box.width`: expected a whole number, at least 1", "box"),
        ('{"name": "a", "box": {"width": 1, "tags": ["x", 2]}}', "`box.tags[1]`: expected text", "box"),
        ('{"name": "a", "box": {"width": 1}, "mode": "lose"}', "choose one of 'loose', 'tight'", "mode"),
        ('{"name": "a", "box": {"width": 1}, "weight": true}', "`weight`: expected a number, got", "weight"),
        ("[]", "the arguments must be a JSON object: expected an object, got a list", ""),
        ("null", "the arguments must be a JSON object", ""),
    ],
)  # fmt: skip
async def test_arguments_that_do_not_fit_are_refused_by_name(packer, arguments, said, parameter):
    with pytest.raises(InvalidArgumentsError) as refused:
        await packer.result("pack", arguments.encode())
    assert refused.value.message.startswith("pack: ")
    assert said in refused.value.message
    assert refused.value.details["parameter"] == parameter


async def test_a_tool_without_parameters_says_so(packer):
    with pytest.raises(InvalidArgumentsError, match="unknown parameter `x`; it takes none"):
        await packer("nothing", x=1)


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        b'{"name": }',
        b'{"name": "a", "box": {"width": 1}} {}',
        b'{"name": "\xff"}',
        b"\xff",
        b'{"name": NaN}',
        b" ",
    ],
)
async def test_broken_json_is_the_callers_fault(packer, broken):
    with pytest.raises(InvalidArgumentsError, match="not valid JSON"):
        await packer.result("pack", broken)


@pytest.mark.parametrize("deep", [b'{"value":' * 100_000, b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
async def test_arguments_nested_without_end_are_the_callers_fault(packer, deep):
    with pytest.raises(InvalidArgumentsError, match="nested too deeply"):
        await packer.result("anything", deep)
