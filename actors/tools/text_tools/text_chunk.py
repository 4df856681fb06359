# SPDX-License-Identifier: AGPL-3.0-or-later
"""`text_chunk`: text in pieces of a bounded size, for indexes and models."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.toolkit import InvalidArgumentsError, ToolContext, tool

Strategy = Literal["characters", "words", "sentences", "paragraphs", "lines"]

_BREAKS: dict[str, re.Pattern[str]] = {
    "words": re.compile(r"\s+"),
    "sentences": re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n\s*\n"),  # noqa: RUF001 - these end sentences, too
    "paragraphs": re.compile(r"\n\s*\n"),
    "lines": re.compile(r"\n"),
}


class Chunk(msgspec.Struct, frozen=True):
    """`text[start:end]` of what was given; positions count Unicode characters."""

    index: int
    start: int
    end: int
    text: str


class Chunks(msgspec.Struct, frozen=True, kw_only=True):
    """What `text_chunk` answers."""

    chunks: list[Chunk]
    chunk_count: int
    characters: int
    """Of the whole text."""


@tool(read_only=True, idempotent=True, open_world=False)
def text_chunk(
    ctx: ToolContext,
    text: str,
    size: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000,
    overlap: Annotated[int, Meta(ge=0)] = 100,
    strategy: Strategy = "sentences",
) -> Chunks:
    """Split text into chunks of at most `size` characters that together cover all of it.

    A chunk ends where a unit ends (word, sentence, ...); only a unit that is longer than a chunk is cut inside.

    Args:
        text: The text.
        size: Most characters in a chunk.
        overlap: About how many characters a chunk repeats of the one before: whole units, never more; less than size.
        strategy: Where chunks may end. With `characters` they are cut at exactly `size`.
    """
    if overlap >= size:
        raise InvalidArgumentsError(f"overlap ({overlap}) must be less than size ({size})", parameter="overlap")
    borders = _borders(text, strategy)
    spans = _spans(ctx, borders, len(text), size, overlap)
    chunks = [Chunk(index, start, end, text[start:end]) for index, (start, end) in enumerate(spans)]
    return Chunks(chunks=chunks, chunk_count=len(chunks), characters=len(text))


def _borders(text: str, strategy: Strategy) -> list[int]:
    """Where units begin, after the start of the text and before its end, ascending."""
    breaks = _BREAKS.get(strategy)
    return [found.end() for found in breaks.finditer(text) if 0 < found.end() < len(text)] if breaks else []


def _spans(ctx: ToolContext, borders: list[int], length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = covered = 0
    while covered < length:
        ctx.check_cancelled()
        end = start + size
        if end < length:
            # The last border within reach that lies beyond what is covered: every chunk adds something.
            last = bisect_right(borders, end) - 1
            if last >= 0 and borders[last] > covered:
                end = borders[last]
        covered = min(end, length)
        spans.append((start, covered))
        start = _next_start(borders, start, covered, length, size, overlap)
    return spans


def _next_start(borders: list[int], start: int, end: int, length: int, size: int, overlap: int) -> int:
    earliest = max(end - overlap, start + 1)
    following = bisect_right(borders, end)
    unit_end = borders[following] if following < len(borders) else length
    if borders and unit_end - end <= size:
        # Rather less overlap than a cut in the unit that follows.
        earliest = max(earliest, unit_end - size)
    first = bisect_left(borders, earliest)
    return borders[first] if first < len(borders) and borders[first] <= end else earliest
