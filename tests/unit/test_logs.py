# SPDX-License-Identifier: AGPL-3.0-or-later
"""Logs of one actor: one JSON object per event, secrets masked, and a pipe that is full never blocks."""

from __future__ import annotations

import contextlib
import json
import os
import re

import pytest
import trio

from actors import logs


class Pipe:
    """The pipe between an actor and the root, in one process."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)

    def take(self, most: int = 1 << 22) -> bytes:
        taken = b""
        while len(taken) < most:
            try:
                taken += os.read(self.read_fd, min(65536, most - len(taken)))
            except BlockingIOError:
                break
        return taken

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.take().splitlines()]

    def line(self) -> dict:
        [line] = self.lines()
        return line

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipe(monkeypatch):
    pipe = Pipe()
    monkeypatch.setattr(logs, "_sink", logs._Sink(pipe.write_fd))
    yield pipe
    pipe.close()


@pytest.fixture
def log(pipe):
    return set_up(pipe)


def set_up(pipe, level: str = "INFO"):
    logs.setup("tools.general#0", 7, level, fd=pipe.write_fd)
    return logs.get_logger()


def test_an_event_is_one_json_object_in_the_documented_fields(pipe, log):
    log.info("dataset loaded", rows=3, tool="load_dataset")
    line = pipe.line()
    assert list(line) == ["timestamp", "level", "event", "actor", "incarnation", "pid", "rows", "tool"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "event": "dataset loaded",
        "actor": "tools.general#0",
        "incarnation": 7,
        "pid": os.getpid(),
        "rows": 3,
        "tool": "load_dataset",
    }


def test_an_execution_has_the_seeds_fields(pipe, log):
    logs.log_execution("submit_workflow", "p2p", 45.0, "success", call_id="1-2")
    logs.log_execution("echo", "general", 1.0, "error", error="TOOL_FAILED")
    logs._flush()
    good, bad = pipe.lines()
    assert {"timestamp", "level", "runtime", "tool", "duration_ms", "status", "actor", "pid"} <= set(good)
    assert (good["level"], good["runtime"], good["tool"]) == ("INFO", "p2p", "submit_workflow")
    assert (good["duration_ms"], good["status"], good["call_id"]) == (45.0, "success", "1-2")
    assert (bad["level"], bad["status"], bad["error"]) == ("ERROR", "error", "TOOL_FAILED")


def test_executions_are_gathered_and_never_overtaken_by_other_events(pipe, log):
    logs.log_execution("echo", "general", 1.0, "success")
    assert pipe.take() == b""
    log.info("later")
    assert [line["event"] for line in pipe.lines()] == ["tool execution", "later"]


async def test_gathered_executions_are_written_in_time_and_at_the_end(pipe, log, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.flush_loop)
        logs.log_execution("echo", "general", 1.0, "success")
        await trio.sleep(0.1)
        assert len(pipe.lines()) == 1
        logs.log_execution("echo", "general", 1.0, "success")
        nursery.cancel_scope.cancel()
    assert len(pipe.lines()) == 1


def test_many_executions_are_written_without_waiting(pipe, log):
    for _ in range(200):
        logs.log_execution("echo", "general", 1.0, "success")
    assert len(pipe.lines()) > 100


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_what_is_below_the_level_is_not_written(pipe, level):
    log = set_up(pipe, level)
    order = ["DEBUG", "INFO", "WARNING", "ERROR"]
    for each in order:
        getattr(log, each.lower())("event")
    logs.log_execution("echo", "general", 1.0, "success")
    logs.log_execution("echo", "general", 1.0, "error")
    logs._flush()
    wanted = order[order.index(level) :]
    assert [line["level"] for line in pipe.lines()] == [*wanted, *(["INFO"] if "INFO" in wanted else []), "ERROR"]


def test_an_exception_has_its_type_and_traceback(pipe, log):
    try:
        raise ValueError("wrong")
    except ValueError as error:
        log.error("failed", exc_info=error)
    line = pipe.line()
    assert line["error"] == "ValueError"
    assert line["traceback"].startswith("Traceback")
    assert line["traceback"].endswith("ValueError: wrong\n")


def test_what_json_does_not_know_is_written_as_text(pipe, log):
    log.info("event", path=os, many={1: {2}})
    assert "module 'os'" in pipe.line()["path"]


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "hunter2"},
        {"api_key": "hunter2"},
        {"Authorization": "hunter2"},
        {"client_secret": ["hunter2"]},
        {"db_password": {"x": "hunter2"}},
        {"headers": {"Cookie": "hunter2"}},
        {"requests": [{"headers": [{"X-Auth-Token": "hunter2"}]}]},
        {"header": "Authorization: Bearer hunter2"},
        {"header": "basic aHVudGVyMg-hunter2"},
        {"url": "https://somebody:hunter2@example.org/x"},
        {"texts": ["postgresql://u:hunter2@db/x"]},
    ],
)
def test_secrets_are_masked(pipe, log, fields):
    log.info("event", **fields)
    written = pipe.take()
    assert b"hunter2" not in written
    assert b"***" in written


def test_secrets_in_a_traceback_are_masked(pipe, log):
    log.error("failed", exc_info=RuntimeError("GET https://a:hunter2@example.org failed"))
    assert "hunter2" not in pipe.line()["traceback"]


def test_what_is_no_secret_is_left_alone(pipe, log):
    log.info("event", url="https://example.org:8000/a@b", text="a bearer of news", key="x")
    line = pipe.line()
    assert (line["url"], line["key"]) == ("https://example.org:8000/a@b", "x")


# --- bounds --------------------------------------------------------------------------------------------------------


def test_a_long_event_is_cut(pipe, log):
    log.info("x" * 1000, text="y" * 1_000_000)
    line = pipe.line()
    assert len(json.dumps(line)) < 32 * 1024
    assert line["cut_from_bytes"] > 1_000_000
    assert line["level"] == "INFO"
    assert line["actor"] == "tools.general#0"


def test_a_long_name_of_a_tool_is_cut(pipe, log):
    logs.log_execution("x" * 1_000_000, "unknown", 0.0, "error")
    logs._flush()
    assert len(pipe.line()["tool"]) == 200


def test_a_full_pipe_never_blocks_and_what_was_dropped_is_told(pipe, log):
    sent = 0
    while not logs.dropped_lines():
        log.info("event", number=sent)
        sent += 1
    for _ in range(9):
        log.info("event", number=sent)  # not shorter, or it might still fit
    assert logs.dropped_lines() == 10
    before = pipe.lines()
    assert [line["number"] for line in before] == list(range(sent - 1))
    log.info("again")
    told, again = pipe.lines()
    assert (told["level"], told["event"], told["count"]) == ("WARNING", "log lines dropped", 10)
    assert again["event"] == "again"
    log.info("and again")
    assert pipe.line()["event"] == "and again", "a loss is told once"


def test_a_line_is_never_torn_when_the_pipe_fills_within_a_batch(pipe, log):
    """A batch is larger than what the kernel writes at once: part of a line may be in the pipe already."""
    sent = 0
    while not logs.dropped_lines():
        logs.log_execution(f"tool{sent}", "general", 1.0, "success")
        sent += 1
    read = b""
    for step in range(20):
        read += pipe.take(5000)
        log.info("step", number=step)
    read += pipe.take()
    log.info("end")
    read += pipe.take()
    lines = [json.loads(line) for line in read.splitlines()]
    assert lines[-1]["event"] == "end"
    lost = sum(line["count"] for line in lines if line["event"] == "log lines dropped")
    assert lost == logs.dropped_lines()
    kept = [line for line in lines if line["event"] in {"tool execution", "step"}]
    assert len(kept) + lost + len(logs._sink.waiting) == sent + 20
    assert len({(line["event"], line.get("tool"), line.get("number")) for line in kept}) == len(kept)


def test_a_root_that_is_gone_does_not_disturb(pipe, log):
    os.close(pipe.read_fd)
    log.info("nobody reads this")
    assert logs.dropped_lines() == 0
