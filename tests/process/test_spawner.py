# SPDX-License-Identifier: AGPL-3.0-or-later
"""Processes through tractor, without a runtime: how they end, what they inherit, and that nothing of them is left."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
from spawning import open_files, spawner, state, wait_gone

from supervisor import spawn_tractor
from supervisor.spec import Limits

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("way")]

UP = "say('up')\n"
FOR_EVER = UP + "await trio.sleep_forever()"
GRANDCHILD = 'import subprocess\nsay(f\'grandchild {subprocess.Popen(["sleep", "600"]).pid}\')\n'


@pytest.mark.parametrize(
    ("code", "returncode"),
    [
        ("pass", 0),
        ("os._exit(7)", 7),
        ("raise SystemExit", 0),
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('a word')", 1),
        ("raise ValueError('on purpose')", 1),
        ("raise KeyboardInterrupt", 1),
        ("import sys; sys.stderr.close(); sys.stdout.close(); raise ValueError", 1),
    ],
)
async def test_the_exit_code_is_the_actors_own(monkeypatch, code, returncode):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            status = await (await spawn(code)).wait()
    assert (status.returncode, status.signal, status.error) == (returncode, None, "")


@pytest.mark.parametrize(
    ("raised", "returncode"), [("SystemExit(4)", 4), ("SystemExit(0)", 0), ("ValueError('from a task')", 1)]
)
async def test_the_exit_code_is_the_same_from_a_task_of_the_actor(monkeypatch, raised, returncode):
    code = f"async def end(): raise {raised}\nasync with trio.open_nursery() as nursery:\n"
    code += "    nursery.start_soon(trio.sleep_forever)\n    nursery.start_soon(end)"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            status = await (await spawn(code)).wait()
    assert (status.returncode, status.signal) == (returncode, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
async def test_a_signal_is_told_from_an_exit(monkeypatch, number):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            await child.said("up")
            os.kill(child.pid, number)
            status = await child.wait()
    assert (status.returncode, status.signal) == (None, number)


async def test_ctrl_c_on_the_terminal_is_not_for_children(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            await child.said("up")
            os.kill(child.pid, signal.SIGINT)
            await child.stop()
            assert (await child.wait()).returncode == 0


async def test_the_error_and_its_place_are_in_what_is_kept_of_stderr(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            status = await (await spawn("1 / 0")).wait()
    assert '"error":"ZeroDivisionError: division by zero"' in status.stderr_tail
    assert "<a_child>" in status.stderr_tail


@pytest.mark.parametrize("entry", ["no_module_of_this_name:main", "actor_scripts:no_function_of_this_name"])
async def test_an_entry_that_can_not_be_imported_is_named(monkeypatch, entry):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            status = await (await spawn("", entry=entry)).wait()
    assert status.returncode == 1
    assert "of_this_name" in status.stderr_tail


async def test_a_kill_in_boot_shows_as_any_other(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            child.kill()
            status = await child.wait()
    assert (status.signal, bytes(child.output)) == (signal.SIGKILL, b"")


async def test_wait_gives_the_same_to_everybody_and_again(monkeypatch):
    found = []

    async def wait(child):
        found.append(await child.wait())

    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn("raise SystemExit(3)")
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait, child)
            await wait(child)
    assert len(found) == 4
    assert len(set(found)) == 1


async def test_only_the_end_of_what_was_written_is_kept(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn("for number in range(20_000): say(f'line {number}')")
            status = await child.wait()
    assert child.output.count(b"\n") == 20_000, "all of it was passed on"
    assert status.stderr_tail.endswith("line 19999\n")
    assert len(status.stderr_tail) == 8192


async def test_output_that_is_no_text_is_kept_readable(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            status = await (await spawn("os.write(2, b'\\xff\\xfe end')")).wait()
    assert status.stderr_tail.endswith(" end")


async def test_a_child_that_writes_far_more_than_a_pipe_holds_is_not_blocked(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn("for _ in range(500): os.write(1, b'x' * 65536)")
            assert (await child.wait()).returncode == 0
    assert len(child.output) == 500 * 65536


# --- ending ----------------------------------------------------------------------------------------------------------


async def test_stop_cancels_the_actor_which_ends_in_order(monkeypatch):
    code = "try:\n    say('up'); await trio.sleep_forever()\nfinally:\n    say('cleaned up')"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(code)
            await child.said("up")
            await child.stop()
            status = await child.wait()
    assert (status.returncode, status.signal) == (0, None)
    assert "cleaned up" in status.stderr_tail
    assert "ERROR" not in status.stderr_tail


async def test_stop_with_tasks_running_is_an_orderly_end_too(monkeypatch):
    code = "async with trio.open_nursery() as nursery:\n    nursery.start_soon(trio.sleep_forever)\n    say('up')"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(code)
            await child.said("up")
            await child.stop()
            status = await child.wait()
    assert (status.returncode, status.stderr_tail) == (0, "up\n")


@pytest.mark.parametrize("when", ["in boot", "stopped", "dead"])
async def test_stop_is_bounded_and_never_raises(monkeypatch, when):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            if when != "in boot":
                await child.said("up")
            if when == "stopped":
                os.kill(child.pid, signal.SIGSTOP)
            if when == "dead":
                child.kill()
                await child.wait()
            with trio.fail_after(1.5):
                await child.stop()
            child.kill()
            assert (await child.wait()).signal == signal.SIGKILL


@pytest.mark.parametrize(
    "deaf",
    [
        "while True: pass",
        "import re; re.match('(a+)+b', 'a' * 100)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); await trio.sleep_forever()",
        "os.kill(os.getpid(), 19)",
        "with trio.CancelScope(shield=True): await trio.sleep_forever()",
        "os.closerange(3, 4096)\nwhile True: pass",
    ],
    ids=["loop", "C call", "blocked signals", "stopped", "shielded", "files closed"],
)
async def test_kill_ends_what_listens_to_nothing(monkeypatch, deaf):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(UP + deaf)
            await child.said("up")
            child.kill()
            with trio.fail_after(2):
                assert (await child.wait()).signal == signal.SIGKILL


@pytest.mark.parametrize("end", ["killed", "killed from outside", "ends by itself"])
async def test_what_a_child_started_ends_with_it(monkeypatch, end):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(GRANDCHILD + ("" if end == "ends by itself" else "await trio.sleep_forever()"))
            grandchild = await child.number("grandchild ")
            if end == "killed":
                child.kill()
            elif end == "killed from outside":
                os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            await wait_gone(grandchild)


async def test_a_kill_after_the_end_hits_nobody(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn("pass")
            await child.wait()
            monkeypatch.setattr(os, "kill", partial(pytest.fail, "a signal was sent"))
            monkeypatch.setattr(os, "killpg", partial(pytest.fail, "a signal was sent"))
            child.kill()


async def test_leaving_the_spawner_ends_every_child(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            up = [await spawn(FOR_EVER) for _ in range(3)]
            for child in up:
                await child.said("up")
            stopped, booting = up[0], await spawn(FOR_EVER)
            os.kill(stopped.pid, signal.SIGSTOP)
    assert all(state(child.pid) == "" for child in [*up, booting]), "dead and reaped"


async def test_a_dead_child_is_not_asked_to_end(monkeypatch):
    """tractor would, and wait half a second for the answer."""
    asked = []
    monkeypatch.setattr(spawn_tractor.tractor.Context, "cancel", lambda context: asked.append(context))
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            await child.said("up")
            child.kill()
            await child.wait()
    assert not asked


# --- what a child gets -----------------------------------------------------------------------------------------------


async def test_limits_are_set_from_outside(monkeypatch):
    limits = Limits(cpu_s=11, open_files=77, file_size_bytes=5_000_000, address_space_bytes=3_000_000_000)
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER, limits=limits)
            bare = await spawn(FOR_EVER)
            found, unlimited = (Path(f"/proc/{one.pid}/limits").read_text() for one in (child, bare))
            own = Path("/proc/self/limits").read_text()
            await child.said("up")
    soft_and_hard = {name: re.search(rf"{name} +(\d+) +(\d+)", found).groups() for name in NAMES}
    assert soft_and_hard == {
        "Max cpu time": ("11", "12"),
        "Max open files": ("77", "77"),
        "Max file size": ("5000000", "5000000"),
        "Max address space": ("3000000000", "3000000000"),
    }
    assert unlimited == own


NAMES = ["Max cpu time", "Max open files", "Max file size", "Max address space"]


async def test_a_stricter_limit_of_the_root_stays(monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
            child = await spawn(FOR_EVER, limits=Limits(open_files=before[1] + 1))
            assert "Max open files            100                  100" in Path(f"/proc/{child.pid}/limits").read_text()
            await child.said("up")


async def test_used_up_cpu_time_ends_the_child_by_a_signal_that_names_it(monkeypatch):
    with trio.fail_after(30):
        async with spawner(monkeypatch) as spawn:
            child = await spawn("while True: pass", limits=Limits(cpu_s=1))
            assert (await child.wait()).signal == signal.SIGXCPU


async def test_a_child_inherits_its_listener_and_nothing_else(monkeypatch):
    own_child = "import subprocess\nsubprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False)\n"
    read, write = os.pipe()
    os.set_inheritable(read, True)
    with trio.fail_after(20), socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        async with spawner(monkeypatch) as spawn:
            child = await spawn(own_child + FOR_EVER, listen_fd=number)
            plain = await spawn(FOR_EVER)
            await child.said("up")
            await plain.said("up")
            files, plain_files, own = open_files(child.pid), open_files(plain.pid), open_files()
    os.close(read)
    os.close(write)
    address = own[number]
    (lifeline,) = shared(files, own) - {address, files[1]}
    assert files[number] == address
    assert shared(plain_files, own) - {plain_files[1]} != {lifeline}, "each has a lifeline of its own"
    assert len(shared(plain_files, own)) == 2
    assert (files[0], files[1]) == ("/dev/null", files[2])
    of_its_child = child.output.decode()
    assert files[1] in of_its_child
    assert address not in of_its_child
    assert lifeline not in of_its_child


def shared(files: dict[int, str], others: dict[int, str]) -> set[str]:
    """The sockets and pipes that two processes both have a hand on."""
    return {what for what in files.values() if what in others.values() and what.startswith(("socket:", "pipe:"))}


async def test_a_child_knows_its_root_and_keeps_the_rest_of_the_environment(monkeypatch):
    monkeypatch.setenv("A_VARIABLE", "its value")
    code = "say({name: value for name, value in os.environ.items() if 'GREENROOM' in name or name == 'A_VARIABLE'})"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            line = await (await spawn(code)).said("GREENROOM")
    assert eval(line) == {"GREENROOM_ROOT_PID": str(os.getpid()), "A_VARIABLE": "its value"}


async def test_the_key_of_the_tree_is_in_no_environment_and_on_no_command_line(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            await child.said("up")
            key = spawn_tractor.tractor_compat.tree_key.encode()
            assert len(key) == 64
            assert key not in Path(f"/proc/{child.pid}/environ").read_bytes()
            assert key not in Path(f"/proc/{child.pid}/cmdline").read_bytes()


async def test_a_child_leads_a_session_of_its_own(monkeypatch):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(FOR_EVER)
            assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
            assert child.pid != os.getsid(0)


async def test_a_child_that_connects_before_anybody_waits_for_it_is_not_lost(monkeypatch):
    launch = spawn_tractor.TractorSpawner._open

    async def slow_to_come_back(self, *arguments):
        process = await launch(self, *arguments)
        await trio.sleep(1)  # the child is up and connected long before
        return process

    monkeypatch.setattr(spawn_tractor.TractorSpawner, "_open", slow_to_come_back)
    with trio.fail_after(10):
        async with spawner(monkeypatch) as spawn:
            await (await spawn(FOR_EVER)).said("up")
