# SPDX-License-Identifier: AGPL-3.0-or-later
"""The fork server saves time and memory, and nobody depends on it: without it, each child gets an interpreter of its
own."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import spawning
import trio
from spawning import SUPPORT, open_files, spawner, start, state

from supervisor import forked, spawn_tractor
from supervisor.forked import ForkServer
from supervisor.spawn_tractor import open_tractor_spawner

pytestmark = pytest.mark.process

FOR_EVER = "print('up', flush=True); await trio.sleep_forever()"


@asynccontextmanager
async def fork_server(monkeypatch, *modules):
    """A server, what it told, and a shorthand to start a child."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    server = ForkServer(["actors.base", *modules])
    told = []
    server.tell = lambda level, text: told.append((level, text))
    async with open_tractor_spawner(server) as real:
        yield server, partial(start, real), told


async def until(condition):
    while not condition():
        await trio.sleep(0.01)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_children_are_forks_of_the_server(monkeypatch):
    with trio.fail_after(20):
        async with fork_server(monkeypatch) as (server, spawn, told):
            child = await spawn(FOR_EVER)
            await child.said("up")
            assert parent(child.pid) == server.pid
            assert told == []


async def test_its_death_ends_no_child_and_it_is_replaced(monkeypatch):
    with trio.fail_after(30):
        async with fork_server(monkeypatch) as (server, spawn, told):
            child = await spawn(FOR_EVER)
            await child.said("up")
            dead = server.pid
            os.kill(dead, signal.SIGKILL)
            await until(lambda: server.pid not in (0, dead))
            assert state(child.pid) in ("S", "R")
            assert parent(child.pid) == os.getpid(), "inherited"
            assert told[0][0] == "ERROR"
            assert "signal 9" in told[0][1]
            second = await spawn(FOR_EVER)
            await second.said("up")
            assert parent(second.pid) == server.pid
            for one in (child, second):
                one.kill()
                assert (await one.wait()).signal == signal.SIGKILL
                assert state(one.pid) == "", "reaped"


@pytest.mark.parametrize("code", [0, 3])
async def test_how_an_inherited_child_ended_is_known(monkeypatch, code):
    with trio.fail_after(20):
        async with fork_server(monkeypatch) as (server, spawn, _):
            child = await spawn(f"print('up', flush=True); await trio.sleep(0.3); raise SystemExit({code})")
            await child.said("up")
            os.kill(server.pid, signal.SIGKILL)
            status = await child.wait()
            assert (status.returncode, status.signal) == (code, None)


async def test_a_server_that_hangs_costs_a_moment_and_is_replaced(monkeypatch):
    monkeypatch.setattr(forked, "ANSWER_S", 0.3)
    with trio.fail_after(30):
        async with fork_server(monkeypatch) as (server, spawn, told):
            dead = server.pid
            os.kill(dead, signal.SIGSTOP)
            child = await spawn(FOR_EVER)
            await child.said("up")
            assert parent(child.pid) == os.getpid()
            assert any("slowly" in text for _, text in told)
            await until(lambda: server.pid not in (0, dead))
            assert state(dead) == ""


async def test_a_module_that_can_not_be_loaded_does_not_stop_it(monkeypatch):
    with trio.fail_after(20):
        async with fork_server(monkeypatch, "no_module_of_this_name") as (_, spawn, told):
            child = await spawn("print('up', flush=True)")
            await child.said("up")
            assert (await child.wait()).returncode == 0
            assert told == []


async def test_the_server_ends_with_its_root(monkeypatch):
    with trio.fail_after(20):
        async with fork_server(monkeypatch) as (server, spawn, _):
            await (await spawn("pass")).wait()
            pid = server.pid
        assert state(pid) == ""


async def test_memory_of_forks_is_shared(monkeypatch):
    def private_kib(pid):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

    with trio.fail_after(20):
        async with fork_server(monkeypatch) as (_, spawn, _):
            forked_child = await spawn(FOR_EVER)
            await forked_child.said("up")
            shared = private_kib(forked_child.pid)
        async with spawner(monkeypatch) as spawn:
            own_child = await spawn(FOR_EVER)
            await own_child.said("up")
            assert shared < 0.6 * private_kib(own_child.pid)


# --- without a server ----------------------------------------------------------------------------------------------


async def test_a_death_in_boot_shows_as_any_other(monkeypatch, tmp_path):
    (tmp_path / "msgspec.py").write_text("raise SystemExit('dead in boot')")
    with trio.fail_after(20):
        assert not spawning.forked
        async with spawner(monkeypatch) as spawn:
            monkeypatch.setenv("PYTHONPATH", str(tmp_path))
            dead = await (await spawn("pass")).wait()
            monkeypatch.undo()
            monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
            assert (await (await spawn("pass")).wait()).returncode == 0, "the next start works"
    assert dead.returncode == 1
    assert dead.stderr_tail == "dead in boot\n"


async def test_what_can_not_be_started_is_an_os_error_and_leaves_nothing(monkeypatch):
    with trio.fail_after(1):
        async with spawner(monkeypatch) as spawn:
            before = open_files()
            monkeypatch.setattr(spawn_tractor.sys, "executable", "/no/python/here")
            with pytest.raises(OSError, match="/no/python/here"):
                await spawn("pass")
            assert open_files() == before
