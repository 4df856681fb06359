# SPDX-License-Identifier: AGPL-3.0-or-later
"""The decorators of resources and prompts. They only mark; `actors.tools.offers` reads the marks and builds the rest.

    @resource("notes://{id}", mime_type="text/markdown")
    def note(id: str) -> str:
        '''One note.'''

    @prompt()
    def review(code: str, tone: Literal["kind", "strict"] = "kind") -> str:
        '''Ask for a review.'''

Both kinds run as tools do: plain functions in threads, async ones on the loop, with a `ToolContext` if they take one.
Authors import these names from `actors.toolkit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from actors.questions import Capability, checked_capabilities
from actors.tool_messages import Annotations, Icon

RESOURCE_ATTRIBUTE: Final = "__greenroom_resource__"
PROMPT_ATTRIBUTE: Final = "__greenroom_prompt__"
MAX_COMPLETIONS: Final = 100
"""Values in one answer. Source: MCP."""

JsonObject = dict[str, Any]
Completer = Callable[..., Any]
"""`(value)` or `(value, arguments)`, plain or async, and a `ToolContext` if it takes one: gives the values that fit
what was typed so far, best first, as strings or as a `Completion`."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Completion(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Values that fit, when there is more to say than the list; up to 100 are sent."""

    values: list[str]
    total: int | None = None
    """How many there are in all."""
    has_more: bool = False


class ResourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What `resource` was told about a function; read by the loader."""

    uri: str
    name: str
    title: str | None
    description: str | None
    mime_type: str | None
    icons: tuple[Icon, ...]
    annotations: Annotations
    size: int | None
    fresh_s: float
    complete: Mapping[str, Completer]
    pool: str | None
    timeout_s: float | None
    category: str | None
    requires: tuple[str, ...]
    meta: JsonObject | None


class PromptSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What `prompt` was told about a function; read by the loader."""

    name: str
    title: str | None
    description: str | None
    icons: tuple[Icon, ...]
    complete: Mapping[str, Completer]
    pool: str | None
    timeout_s: float | None
    category: str | None
    requires: tuple[str, ...]
    meta: JsonObject | None


def resource(
    uri: str,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    mime_type: str | None = None,
    icons: Sequence[Icon] = (),
    annotations: Annotations | None = None,
    size: int | None = None,
    fresh_for: float = 0.0,
    complete: Mapping[str, Completer] | None = None,
    pool: str | None = None,
    timeout: float | None = None,
    category: str | None = None,
    requires: Sequence[Capability] | None = None,
    meta: JsonObject | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a function as a resource that clients can read. It returns `str`, `bytes`, `ResourceContents` or a list.

    * `uri`: where clients find it: a URI, or a template whose `{variables}` are the function's parameters. `{name}`
      takes one piece of a path, `{+name}` the rest of it. Unique.
    * `name`: for programs; default the function's name. `title`: for people; default made from the name.
    * `description`: default the docstring's first paragraph.
    * `mime_type`: of what is read; default `text/plain` for text, `application/octet-stream` for bytes.
    * `size`: bytes, where that is known beforehand. `annotations`, `icons`, `meta`: as MCP has them.
    * `fresh_for`: seconds that a client may keep what it read, where its protocol knows of that.
    * `complete`: variable -> function that completes it. `Literal` and enums complete themselves.
    * `pool`, `timeout`, `category`, `requires`: as for tools.
    """

    needed = checked_capabilities(requires)

    def mark(function: _Function) -> _Function:
        spec = ResourceSpec(
            uri=uri,
            name=name if name is not None else function.__name__,
            title=title,
            description=description,
            mime_type=mime_type,
            icons=tuple(icons),
            annotations=annotations or Annotations(),
            size=size,
            fresh_s=fresh_for,
            complete=complete or {},
            pool=pool,
            timeout_s=timeout,
            category=category,
            requires=needed,
            meta=meta,
        )
        setattr(function, RESOURCE_ATTRIBUTE, spec)
        return function

    return mark


def prompt(
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    icons: Sequence[Icon] = (),
    complete: Mapping[str, Completer] | None = None,
    pool: str | None = None,
    timeout: float | None = None,
    category: str | None = None,
    requires: Sequence[Capability] | None = None,
    meta: JsonObject | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a function as a prompt. It returns `str` (what the user says), a `PromptMessage`, or a list of them.

    * `name`: 1-128 letters, digits, `_` `.` `-`; unique; default the function's name. `title`: default made from it.
    * `description`: default the docstring's first paragraph.
    * `complete`: argument -> function that completes it. `Literal` and enums complete themselves.
    * `icons`, `meta`: as MCP has them. `pool`, `timeout`, `category`, `requires`: as for tools.

    Arguments travel as text and are turned into what the annotations say: one word, number or choice each.
    """

    needed = checked_capabilities(requires)

    def mark(function: _Function) -> _Function:
        spec = PromptSpec(
            name=name if name is not None else function.__name__,
            title=title,
            description=description,
            icons=tuple(icons),
            complete=complete or {},
            pool=pool,
            timeout_s=timeout,
            category=category,
            requires=needed,
            meta=meta,
        )
        setattr(function, PROMPT_ATTRIBUTE, spec)
        return function

    return mark
