# SPDX-License-Identifier: AGPL-3.0-or-later
"""`text_chunk`: chunks are bounded, cover everything, and end where units end."""

from __future__ import annotations

import random
import time

import pytest
from tool_calls import Caller, loaded

from actors.errors import InvalidArgumentsError
from actors.tools.text_tools.text_chunk import text_chunk

STRATEGIES = ["characters", "words", "sentences", "paragraphs", "lines"]


@pytest.fixture
async def call(tmp_path):
    return Caller(loaded(text_chunk), tmp_path)


async def texts(call, **arguments):
    return [chunk["text"] for chunk in (await call("text_chunk", **arguments))["chunks"]]


@pytest.mark.parametrize(
    ("strategy", "text", "chunks"),
    [
        ("characters", "abcdefgh", ["abc", "def", "gh"]),
        ("words", "a bc def g", ["a ", "bc ", "def", " g"]),
        ("lines", "a\nb\nc\n", ["a\n", "b\n", "c\n"]),
        ("words", "", []),
        ("words", "ab", ["ab"]),
    ],
)
async def test_small_texts_are_cut_as_expected(call, strategy, text, chunks):
    assert await texts(call, text=text, size=3, overlap=0, strategy=strategy) == chunks


async def test_sentences_stay_whole(call):
    text = "One is here. “Two?” Three! 四。\n\nFive"
    assert await texts(call, text=text, size=13, overlap=0) == ["One is here. ", "“Two?” ", "Three! 四。\n\n", "Five"]


async def test_paragraphs_stay_whole_and_lines_within_them_do_not_matter(call):
    text = "a\nb\n\nc\n \nd"
    assert await texts(call, text=text, size=5, overlap=0, strategy="paragraphs") == ["a\nb\n\n", "c\n \nd"]


async def test_a_chunk_repeats_whole_units_of_the_one_before(call):
    assert await texts(call, text="aa bb cc dd ", size=6, overlap=3, strategy="words") == ["aa bb ", "bb cc ", "cc dd "]


async def test_positions_count_characters_and_not_bytes(call):
    chunks = (await call("text_chunk", text="äö🎈ü", size=3, overlap=1, strategy="characters"))["chunks"]
    assert [(chunk["start"], chunk["end"], chunk["text"]) for chunk in chunks] == [(0, 3, "äö🎈"), (2, 4, "🎈ü")]


@pytest.mark.parametrize(
    "arguments",
    [{"size": 0}, {"overlap": -1}, {"size": 10, "overlap": 10}, {"size": 1_000_001}, {"strategy": "pages"}],
)
async def test_impossible_wishes_are_refused_by_name(call, arguments):
    with pytest.raises(InvalidArgumentsError) as refused:
        await call("text_chunk", text="abc", **arguments)
    assert refused.value.details["parameter"] in arguments


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_random_texts_are_covered_by_bounded_chunks_that_move_on(call, strategy):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(20):
        text = "".join(chance.choices("ab. \n\n", k=chance.randrange(120)))
        size = chance.randrange(1, 30)
        overlap = chance.randrange(size)
        answer = await call("text_chunk", text=text, size=size, overlap=overlap, strategy=strategy)
        chunks, covered, start = answer["chunks"], 0, -1
        assert answer["chunk_count"] == len(chunks)
        assert answer["characters"] == len(text)
        for chunk in chunks:
            assert chunk["text"] == text[chunk["start"] : chunk["end"]]
            assert 0 < len(chunk["text"]) <= size
            assert start < chunk["start"] <= covered < chunk["end"]
            assert covered - chunk["start"] <= overlap
            covered, start = chunk["end"], chunk["start"]
        assert covered == len(text)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", [" " * 20_000, "\n" * 20_000, "." * 20_000, ". \n\t" * 5_000, "\n \n" * 7_000])
async def test_text_made_to_be_slow_is_not(call, strategy, text):
    started = time.process_time()
    await call("text_chunk", text=text, size=1000, overlap=100, strategy=strategy)
    assert time.process_time() - started < 1
