# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources, a template, a prompt and a tool around one thing: notes. Serve them: greenroom up --tools examples

Then, in another terminal:
greenroom tools call add_note name=milk text="buy milk"
greenroom resources read notes://milk
greenroom prompts get plan_day tone=short
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from actors.toolkit import (
    Annotations,
    EmbeddedResource,
    InvalidArgumentsError,
    NotFoundError,
    PromptMessage,
    ResourceContents,
    ToolContext,
    prompt,
    resource,
    tool,
)


def folder_of(ctx: ToolContext) -> Path:
    """Where all processes keep the notes: a tool's process may die, its notes stay."""
    folder = ctx.data_dir / "notes"
    folder.mkdir(exist_ok=True)
    return folder


def note_names(ctx: ToolContext, typed: str = "") -> list[str]:
    return sorted(file.stem for file in folder_of(ctx).glob("*.txt") if file.stem.startswith(typed))


@tool(idempotent=True, open_world=False)
def add_note(ctx: ToolContext, name: str, text: str) -> str:
    """Write a note; one of the same name is replaced.

    Args:
        name: Its name: letters, digits, `-` and `_`.
        text: What it says.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise InvalidArgumentsError("a note's name has 1-64 letters, digits, '-' and '_'", parameter="name")
    (folder_of(ctx) / f"{name}.txt").write_text(text)
    ctx.resource_changed(f"notes://{name}")
    ctx.resource_changed("notes://")
    return f"notes://{name}"


@resource("notes://", title="All notes", annotations=Annotations(audience=["user"], priority=0.5))
def notes(ctx: ToolContext) -> str:
    """The names of all notes, one on a line."""
    return "\n".join(note_names(ctx))


def complete_name(value: str, ctx: ToolContext) -> list[str]:
    return note_names(ctx, value)


@resource("notes://{name}", complete={"name": complete_name})
def note(ctx: ToolContext, name: str) -> str:
    """One note.

    Args:
        name: Its name.
    """
    # The name comes from a client and may hold anything, so it is looked up and never made a path.
    if name not in note_names(ctx):
        raise NotFoundError(f"there is no note {name!r}")
    return (folder_of(ctx) / f"{name}.txt").read_text()


@prompt(title="Plan my day")
def plan_day(ctx: ToolContext, tone: Literal["short", "friendly"] = "friendly", hours: int = 8) -> list[PromptMessage]:
    """Have the day planned from all notes.

    Args:
        tone: How the plan is written.
        hours: How long the day is.
    """
    texts = "\n".join((folder_of(ctx) / f"{name}.txt").read_text() for name in note_names(ctx))
    return [
        PromptMessage.user(EmbeddedResource(resource=ResourceContents(uri="notes://", text=texts))),
        PromptMessage.user(f"Plan my day of {hours} hours from these notes. Be {tone}."),
    ]
