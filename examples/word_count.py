# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool of your own, in one file. Serve it: greenroom up --tools examples

Then, in another terminal, with a text file in `files/` of the data directory:
greenroom tools call word_count path=story.txt top=3
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.toolkit import InvalidArgumentsError, ToolContext, tool

MAX_BYTES = 100 * 1024 * 1024
LINES_PER_REPORT = 1000


class Count(msgspec.Struct):
    """A word and how often it stands in the text."""

    word: str
    count: int


class WordCount(msgspec.Struct):
    """What `word_count` answers; clients get it as structured content, with a schema."""

    lines: int
    words: int
    top: list[Count]


@tool(read_only=True, idempotent=True, open_world=False, timeout=120)
def word_count(
    ctx: ToolContext,
    path: str,
    top: Annotated[int, Meta(ge=0, le=1000)] = 10,
    fold_case: bool = True,
) -> WordCount:
    """Count the words of a text file and list the most frequent ones.

    Args:
        path: Path below the configured roots; relative to the home folder `files/`.
        top: How many words to list.
        fold_case: Take "The" and "the" for the same word.
    """
    place = ctx.files.existing_file(path, max_bytes=MAX_BYTES)
    size, done, lines = place.stat().st_size, 0, 0
    words: Counter[str] = Counter()
    with place.open("rb") as file:
        for line in file:
            words.update(words_of(line, fold_case=fold_case, name=path))
            done, lines = done + len(line), lines + 1
            if lines % LINES_PER_REPORT == 0:
                ctx.check_cancelled()
                ctx.progress(done, size, "bytes")
    most = [Count(word, count) for word, count in words.most_common(top)]
    return WordCount(lines=lines, words=words.total(), top=most)


def words_of(line: bytes, *, fold_case: bool, name: str) -> list[str]:
    """The words of a line. Knows nothing of calls, so a test needs nothing but bytes."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentsError(f"{name} is not UTF-8 text", parameter="path") from None
    return re.findall(r"\w+", text.casefold() if fold_case else text)
