# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root's relay of logs: pieces become lines, anything becomes an event, and nothing blocks."""

from __future__ import annotations

import json
import os
import re
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor.log_relay import LogRelay

LINE = b'{"timestamp":"2026-02-17T19:25:31.123Z","level":"INFO","event":"x","actor":"router"}'


class Reader:
    """Who reads the root's stderr: a pipe, and all that came through it."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.file = os.fdopen(self.write_fd, "wb", buffering=0)

    async def relay(self, fill, form: str = "json", level: str = "INFO", **options) -> bytes:
        """What is written when `fill(relay)` is called and then all ends."""
        relay = LogRelay(form, self.file, level, **options)
        taken: list[bytes] = []
        reader = threading.Thread(target=self._drain, args=(taken,))
        reader.start()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                await nursery.start(relay.run)
                fill(relay)
                nursery.cancel_scope.cancel()
        self.file.close()
        reader.join()
        return b"".join(taken)

    def _drain(self, taken: list[bytes]) -> None:
        while chunk := os.read(self.read_fd, 65536):
            taken.append(chunk)


@pytest.fixture
def reader():
    reader = Reader()
    yield reader
    reader.file.close()
    os.close(reader.read_fd)


def events(written: bytes) -> list[dict]:
    return [json.loads(line) for line in written.splitlines()]


async def test_lines_pass_as_they_are_however_they_are_split(reader):
    data = LINE + b"\n" + LINE.replace(b'"x"', b'"y"') + b"\n"

    def fill(relay):
        for size in (1, 7, len(LINE) - 1, len(LINE), len(LINE) + 1, len(data)):
            for start in range(0, len(data), size):
                relay.feed("router", data[start : start + size])

    assert await reader.relay(fill) == data * 6


async def test_pieces_of_several_actors_are_kept_apart(reader):
    def fill(relay):
        relay.feed("router", LINE[:20])
        relay.feed("gateway", LINE[:30])
        relay.feed("router", LINE[20:] + b"\n")
        relay.feed("gateway", LINE[30:] + b"\n")

    assert await reader.relay(fill) == (LINE + b"\n") * 2


@pytest.mark.parametrize(
    "written",
    [
        b"a library's print",
        b"{'a': 'dict'}",
        b'{"a": "json of somebody else"}',
        b"[1]",
        b"{",
        LINE[:-1],
        LINE + b" trailing",
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("form", ["json", "text"])
async def test_what_is_no_event_of_ours_becomes_one_with_the_actors_name(reader, written, form):
    out = await reader.relay(lambda relay: relay.feed("tools.general#0", written + b"\n" + LINE + b"\n"), form)
    if form == "json":
        event, other = events(out)
        assert (event["event"], event["actor"], event["level"]) == ("stderr", "tools.general#0", "WARNING")
        assert event["text"] == written.decode(errors="replace")
        assert other["event"] == "x"
    else:
        assert out.count(b"\n") == 2
        assert b"tools.general#0" in out


async def test_each_line_of_a_traceback_is_an_event_and_empty_lines_are_none(reader):
    traceback = b"Traceback (most recent call last):\n  File x\n\nValueError: wrong\n"
    out = events(await reader.relay(lambda relay: relay.feed("router", traceback)))
    assert [event["text"] for event in out] == ["Traceback (most recent call last):", "  File x", "ValueError: wrong"]


async def test_what_a_process_wrote_last_is_a_line_of_its_own_life(reader):
    def fill(relay):
        relay.feed("router", b"Fatal Python error")
        relay.finish("router")
        relay.feed("router", LINE + b"\n")
        relay.feed("gateway", b"the end of all")

    out = events(await reader.relay(fill))
    assert [event.get("text") for event in out] == ["Fatal Python error", None, "the end of all"]


async def test_a_line_without_end_is_cut_and_its_rest_left_out(reader):
    def fill(relay):
        for _ in range(100):
            relay.feed("router", b"x" * 10_000)
        relay.feed("router", b"rest\n" + LINE + b"\n")

    cut, whole = events(await reader.relay(fill))
    assert 60_000 < len(cut["text"]) <= 64 * 1024
    assert cut["cut_from_bytes"] > 64 * 1024
    assert whole["event"] == "x"


async def test_a_long_line_in_one_piece_is_cut(reader):
    long = LINE[:-1] + b',"text":"' + b"x" * 200_000 + b'"}'
    cut, whole = events(await reader.relay(lambda relay: relay.feed("router", long + b"\n" + LINE + b"\n")))
    assert len(cut["text"]) == 64 * 1024
    assert whole["event"] == "x"


# --- the root's own events, levels ---------------------------------------------------------------------------------


async def test_the_roots_own_events_have_the_same_fields_and_masks(reader):
    [event] = events(
        await reader.relay(lambda relay: relay.emit("ERROR", "exited", offender="router", token="hunter2"))
    )
    assert event.pop("timestamp")
    assert event == {"level": "ERROR", "event": "exited", "actor": "root", "offender": "router", "token": "***"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("form", ["json", "text"])
async def test_the_level_holds_for_the_roots_own_events(reader, level, form):
    order = ["DEBUG", "INFO", "WARNING", "ERROR"]
    out = await reader.relay(lambda relay: [relay.emit(each, f"event{each}") for each in order], form, level)
    assert re.findall(rb"event([A-Z]+)", out) == [each.encode() for each in order[order.index(level) :]]


async def test_the_level_holds_for_rendered_events(reader):
    assert await reader.relay(lambda relay: relay.feed("router", LINE + b"\n"), "text", "WARNING") == b""


# --- for people ----------------------------------------------------------------------------------------------------


async def test_the_readable_form_shows_time_actor_event_and_fields(reader):
    line = LINE[:-1] + b',"tool":"echo","text":"two words","pid":3}\n'
    out = (await reader.relay(lambda relay: relay.feed("router", line), "text")).decode()
    assert re.fullmatch(r'\d\d:\d\d:\d\d router +x tool=echo text="two words"\n', out)


async def test_the_readable_form_shows_a_traceback_below(reader):
    line = LINE[:-1] + b',"traceback":"Traceback:\\n  File\\nValueError"}\n'
    out = (await reader.relay(lambda relay: relay.feed("router", line), "text")).decode()
    assert out.splitlines()[1:] == ["Traceback:", "  File", "ValueError"]


async def test_no_text_can_forge_a_line_or_steer_the_terminal(reader):
    def fill(relay):
        relay.feed("router", LINE[:-1] + b',"tool":"a\\n12:00:00 root all is well\\u001b[2J"}\n')
        relay.feed("router", b"\x1b[31mred\x1b[0m\x07\n")

    out = await reader.relay(fill, "text")
    assert out.count(b"\n") == 2
    assert b"\x1b" not in out
    assert b"\\n12:00:00 root all is well\\x1b[2J" in out


async def test_a_terminal_gets_text_and_only_what_people_must_know(reader):
    def fill(relay):
        relay.feed("router", LINE + b"\n")
        relay.feed("router", LINE.replace(b"INFO", b"WARNING") + b"\n")
        relay.say("WARNING", "router died (signal 9), back in 7 ms", "incident", offender="router")

    warning, incident = (await reader.relay(fill, "auto", terminal=True)).decode().splitlines()
    assert "router" in warning
    assert re.fullmatch(r"\x1b\[33m\d\d:\d\d:\d\d router died \(signal 9\), back in 7 ms\x1b\[0m", incident)


async def test_a_terminal_gets_everything_when_it_is_asked_for(reader):
    for form, level in (("text", "INFO"), ("auto", "DEBUG")):
        relay = LogRelay(form, reader.file, level, terminal=True)
        assert relay.text
        assert not relay.brief


async def test_no_color_is_honoured(reader, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b" not in await reader.relay(lambda relay: relay.emit("ERROR", "x"), "auto", terminal=True)


async def test_elsewhere_than_on_a_terminal_auto_is_json_and_a_sentence_is_an_event(reader):
    out = await reader.relay(lambda relay: relay.say("WARNING", "router died", "incident", offender="router"), "auto")
    [event] = events(out)
    assert (event["event"], event["offender"], event["text"]) == ("incident", "router", "router died")


# --- a slow reader -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_reader_that_reads_nothing_blocks_nobody_and_what_was_dropped_is_told(reader, form):
    relay = LogRelay(form, reader.file)
    big = LINE[:-1] + b',"text":"' + b"x" * 30_000 + b'"}\n'
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            relay.feed("router", big * 4)
            await wait_all_tasks_blocked()
            for _ in range(400):
                relay.feed("router", big)
            assert relay.dropped > 100
            lost = relay.dropped
            taken: list[bytes] = []
            thread = threading.Thread(target=reader._drain, args=(taken,))
            thread.start()
            while relay._waiting or relay.dropped:
                await trio.sleep(0.001)
            relay.feed("router", LINE + b"\n")
            nursery.cancel_scope.cancel()
    reader.file.close()
    thread.join()
    out = b"".join(taken)
    assert out.count(b"\n") == 404 - lost + 2
    assert b"log lines dropped" in out
    assert str(lost).encode() in out


async def test_a_reader_that_is_gone_disturbs_nobody(reader):
    os.close(reader.read_fd)
    reader.read_fd = os.open(os.devnull, os.O_RDONLY)
    relay = LogRelay("json", reader.file)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            relay.feed("router", LINE + b"\n")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
