# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool that asks the user. Serve it: greenroom up --tools examples

Its client has to declare `elicitation`, as desktop clients do. Everything before the last question may run more than
once, so the booking itself comes last.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.toolkit import ToolContext, choices, tool


class Wish(msgspec.Struct):
    """The form that the user sees."""

    day: dt.date
    guests: Annotated[int, Meta(ge=1, le=12, description="How many of you?")] = 2
    place: Annotated[str, choices({"in": "Inside", "out": "In the garden"})] = "in"


class Consent(msgspec.Struct):
    """The second form."""

    sure: bool = True


@tool(open_world=False)
async def book_table(ctx: ToolContext, restaurant: str) -> str:
    """Book a table; the user is asked when and for how many.

    Args:
        restaurant: Its name.
    """
    wish = (await ctx.elicit(f"A table at {restaurant}", Wish, key="wish")).content
    if wish is None:
        return "not booked"
    text = f"{restaurant}, {wish.day:%d %B}, {wish.guests} guests, {'inside' if wish.place == 'in' else 'garden'}"
    consent = (await ctx.elicit(f"Book {text}?", Consent, key="consent")).content
    if consent is None or not consent.sure:
        return "not booked"
    book = ctx.data_dir / "book_table"
    book.mkdir(exist_ok=True)
    (book / f"{ctx.call_id}.txt").write_text(text)  # takes effect: after the last question
    return f"booked: {text}"
