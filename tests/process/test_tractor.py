# SPDX-License-Identifier: AGPL-3.0-or-later
"""tractor on modern trio, as `supervisor.tractor_compat` adapts it: what works, and what can't end the tree."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import actor_scripts
import msgspec
import pytest
import trio
import trio.testing
from spawning import SUPPORT, open_files

from supervisor import tractor_compat
from supervisor.orphan import LIFELINE, ROOT_PID, Lifeline
from supervisor.spawn_tractor import _free_port, tractor

pytestmark = pytest.mark.process

KEY = "k" * 64
FRAME = struct.Struct("<I")


class Launched:
    """The processes that tractor asked for, in order."""

    def __init__(self) -> None:
        self.processes: list[trio.Process] = []
        self.lifelines: list[Lifeline] = []

    async def __call__(self, command) -> trio.Process:
        lifeline = Lifeline(KEY)
        arguments = command[command.index("tractor._child") + 1 :]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "supervisor.child", *arguments],
            start_new_session=True,
            pass_fds=[lifeline.fd],
            env=os.environ | {"PYTHONPATH": SUPPORT, ROOT_PID: str(os.getpid()), LIFELINE: str(lifeline.fd)},
        )
        lifeline.tie(process.pid)
        self.processes.append(process)
        self.lifelines.append(lifeline)
        return process


@asynccontextmanager
async def tree(monkeypatch):
    """A root of tractor alone, without our spawner; its children end with the test, whatever happens."""
    launched = Launched()
    monkeypatch.setattr(tractor_compat, "tree_key", KEY)
    token = tractor_compat.launcher.set(launched)
    try:
        with trio.fail_after(20):
            async with tractor.open_root_actor(arbiter_addr=("127.0.0.1", _free_port()), name="root"):
                yield launched
    finally:
        tractor_compat.launcher.reset(token)
        for lifeline in launched.lifelines:
            lifeline.close()


@asynccontextmanager
async def child(monkeypatch):
    """One child that may be asked for what `actor_scripts` holds; it is cancelled at the end."""
    async with tree(monkeypatch) as launched, tractor.open_nursery() as actors:
        portal = await actors.start_actor("a_child", enable_modules=["actor_scripts"])
        yield portal, launched
        await portal.cancel_actor()


# --- what works ------------------------------------------------------------------------------------------------------


async def test_a_call_runs_in_the_child(monkeypatch):
    async with child(monkeypatch) as (portal, launched):
        assert await portal.run(actor_scripts.double, number=21) == 42
        found = await portal.run(actor_scripts.environment)
        assert found["pid"] == launched.processes[0].pid != os.getpid()


async def test_a_context_streams_both_ways_and_ends_with_a_result(monkeypatch):
    async with (
        child(monkeypatch) as (portal, _),
        portal.open_context(actor_scripts.count, start=10) as (context, first),
    ):
        assert first == 10
        async with context.open_stream() as stream:
            for number in range(200):
                await stream.send(number)
                assert await stream.receive() == number + 10
        assert await context.result() == "200 numbers"


async def test_cancelling_a_context_cancels_its_task_in_the_child(monkeypatch, tmp_path):
    async with child(monkeypatch) as (portal, _):
        async with portal.open_context(actor_scripts.wait_for_ever, path=str(tmp_path / "end")) as (context, _first):
            await context.cancel()
        assert (tmp_path / "end").read_text() == "cancelled"
        assert await portal.run(actor_scripts.double, number=1) == 2, "the actor lives on"


async def test_cancelling_an_actor_ends_its_process(monkeypatch, tmp_path):
    async with child(monkeypatch) as (portal, launched):
        with pytest.raises((tractor.ContextCancelled, trio.EndOfChannel)):  # noqa: PT012
            async with portal.open_context(actor_scripts.wait_for_ever, path=str(tmp_path / "end")) as (context, _):
                await portal.cancel_actor()
                await context.result()
        await launched.processes[0].wait()
        assert (tmp_path / "end").read_text() == "cancelled"
        assert launched.processes[0].returncode == 0


async def test_an_error_arrives_with_its_type_and_alone(monkeypatch):
    async with child(monkeypatch) as (portal, _):
        with pytest.raises(tractor.RemoteActorError, match="on purpose") as caught:
            await portal.run(actor_scripts.fail, kind="ValueError")
        assert caught.value.type is ValueError


async def test_an_error_of_a_type_that_only_the_child_knows_arrives_too(monkeypatch):
    async with child(monkeypatch) as (portal, _):
        with pytest.raises(tractor.RemoteActorError, match="OddError: on purpose") as caught:
            await portal.run(actor_scripts.fail, kind="OddError")
        assert caught.value.type is Exception
        assert await portal.run(actor_scripts.double, number=1) == 2


async def test_an_error_leaves_tractors_nursery_alone_not_in_a_group(monkeypatch):
    with pytest.raises(tractor.RemoteActorError):
        async with child(monkeypatch) as (portal, _):
            await portal.run(actor_scripts.fail, kind="ValueError")


async def test_our_own_nurseries_stay_strict_in_root_and_children(monkeypatch):
    async with child(monkeypatch) as (portal, _):
        with pytest.raises(ExceptionGroup):
            await actor_scripts.fail_in_a_task()
        with pytest.raises(tractor.RemoteActorError) as caught:
            await portal.run(actor_scripts.fail_in_a_task)
        assert caught.value.type is ExceptionGroup


async def test_a_killed_child_is_seen_by_its_process_and_its_siblings_live_on(monkeypatch):
    async with tree(monkeypatch) as launched, tractor.open_nursery() as siblings:
        sibling = await siblings.start_actor("sibling", enable_modules=["actor_scripts"])
        async with tractor.open_nursery() as actors:
            await actors.start_actor("victim", enable_modules=["actor_scripts"])
            victim = launched.processes[1]
            victim.kill()
            assert await victim.wait() == -signal.SIGKILL
        assert await sibling.run(actor_scripts.double, number=3) == 6
        await sibling.cancel_actor()


def test_nothing_warns_in_root_or_child():
    """All warnings are errors in both: one would end the child with a code of its own."""
    code = (
        "import os, trio\nfrom supervisor.spawn_tractor import open_tractor_spawner\nimport small_root\n"
        "trio.run(small_root.main, ['os._exit(7)'], True)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | {"PYTHONPATH": SUPPORT, "PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ended with 7" in done.stdout


def test_an_adapted_tractor_says_nothing_on_the_screen(capfd):
    code = "from supervisor.spawn_tractor import tractor\ntractor.log.get_logger('tractor').error('loud')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("", "")


# --- strangers -------------------------------------------------------------------------------------------------------


def frame(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return FRAME.pack(len(body)) + body


CANCEL = frame({"cmd": ("self", "cancel", {}, ("x", "y"), "1")})
STRAY = {
    "nothing": b"",
    "a web request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a length": b"\x01",
    "half a frame": FRAME.pack(100) + b"half",
    "2 GiB announced": FRAME.pack(2**31) + b"x" * 100_000,
    "4 GiB announced": FRAME.pack(2**32 - 1) + b"x" * 100_000,
    "no msgpack": FRAME.pack(4) + b"\xc1\xc1\xc1\xc1",
    "no msgpack, again and again": (FRAME.pack(4) + b"\xc1\xc1\xc1\xc1") * 10,
    "no text": FRAME.pack(3) + b"\xa2\xff\xff",
    "an empty frame": FRAME.pack(0),
    "no list": frame(7),
    "nil": frame(None),
    "a short list": frame(["name"]),
    "a list of odd things": frame([{}, [], 1.5]),
    "a name without a key, then cancel": frame(["root", "uuid"]) + CANCEL,
    "an empty key, then cancel": frame(["root", "uuid", ""]) + CANCEL,
    "a wrong key, then cancel": frame(["root", "uuid", "K" * 64]) + CANCEL,
    "a key that is no text, then cancel": frame(["root", "uuid", KEY.encode()]) + CANCEL,
    "a key that is no ASCII": frame(["root", "uuid", "\u00e9" * 64]) + CANCEL,
}
AFTER_THE_KEY = {
    "half a frame": FRAME.pack(100) + b"half",
    "2 GiB announced": FRAME.pack(2**31) + b"x" * 100_000,
    "no msgpack, again and again": (FRAME.pack(4) + b"\xc1\xc1\xc1\xc1") * 10,
    "no mapping": frame(7),
    "an answer to nothing": frame({"cid": "1", "return": 1}),
    "an error of its own inner life": frame({"error": {"tb_str": "", "type_str": "ValueError"}}),
    "a command of odd form": frame({"cmd": 7}),
    "an unknown function": frame({"cmd": ("self", "no_such_thing", {}, ("x", "y"), "1")}),
    "a module that is not offered": frame({"cmd": ("os", "getpid", {}, ("x", "y"), "1")}),
    "the end": frame(None),
}


def intrude(address: tuple[str, int], data: bytes, *, reset: bool) -> None:
    """Connect, say this, and leave: by a reset, or in order after the other side has closed."""
    with socket.create_connection(address, timeout=5) as stray:
        try:
            stray.sendall(data)
            if reset:
                stray.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            stray.shutdown(socket.SHUT_WR)
            while stray.recv(65536):
                pass
        except OSError as error:
            # Shown out before it was done talking.
            if error.errno not in {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}:
                raise


@asynccontextmanager
async def both_addresses(monkeypatch):
    """The ports of the root and of a child, and a check that both still work."""
    async with child(monkeypatch) as (portal, launched):
        addresses = tractor.current_actor().accept_addr, tuple(await portal.run(actor_scripts.address))
        yield addresses, launched
        assert await portal.run(actor_scripts.double, number=4) == 8
        async with tractor.open_nursery() as actors:
            late = await actors.start_actor("late", enable_modules=["actor_scripts"])
            assert await late.run(actor_scripts.double, number=5) == 10, "new children still find the root"
            await late.cancel_actor()


async def test_nobody_ends_the_tree_from_outside(monkeypatch):
    """Every kind of stray connection, to root and child, closed in order and by a reset."""
    async with both_addresses(monkeypatch) as (addresses, _):
        for data in STRAY.values():
            for address in addresses:
                for reset in (False, True):
                    await trio.to_thread.run_sync(lambda: intrude(address, data, reset=reset))  # noqa: B023


async def test_nobody_ends_the_tree_who_has_the_key_but_talks_nonsense(monkeypatch):
    hello = frame(["a_child", "uuid", KEY])
    async with both_addresses(monkeypatch) as (addresses, _):
        for data in AFTER_THE_KEY.values():
            for reset in (False, True):
                await trio.to_thread.run_sync(lambda: intrude(addresses[0], hello + data, reset=reset))  # noqa: B023


async def test_a_stranger_gets_not_a_word(monkeypatch):
    """Neither the root's name and identity nor, above all, the key."""
    async with both_addresses(monkeypatch) as (addresses, _):
        for address in addresses:
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                with trio.move_on_after(0.1):
                    pytest.fail(f"got {await stream.receive_some()}")
                await stream.send_all(frame(["root", "uuid", "wrong"]))
                assert await stream.receive_some() == b""


async def test_a_silent_stranger_is_shown_out(monkeypatch):
    monkeypatch.setattr(tractor_compat, "HANDSHAKE_S", 0.05)
    async with tree(monkeypatch), await trio.open_tcp_stream(*tractor.current_actor().accept_addr) as stream:
        assert await stream.receive_some() == b""


async def test_without_a_key_nobody_is_let_in(monkeypatch):
    async with tree(monkeypatch):
        monkeypatch.setattr(tractor_compat, "tree_key", "")
        async with await trio.open_tcp_stream(*tractor.current_actor().accept_addr) as stream:
            await stream.send_all(frame(["root", "uuid", ""]))
            assert await stream.receive_some() == b""


@pytest.mark.parametrize("size", [tractor_compat.MAX_FRAME_BYTES + 1, 2**31, 2**32 - 1])
async def test_a_length_beyond_the_limit_is_refused_before_anything_is_read(monkeypatch, size):
    async with both_addresses(monkeypatch) as (addresses, launched):
        pids = [os.getpid(), launched.processes[0].pid]
        before = [peak_bytes(pid) for pid in pids]
        for address in addresses:
            async with await trio.open_tcp_stream(*address) as stream:
                with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):  # noqa: PT012
                    await stream.send_all(FRAME.pack(size))
                    while True:
                        await stream.send_all(b"x" * 65536)
        assert all(peak_bytes(pid) - was < 4 * 1024**2 for pid, was in zip(pids, before, strict=True))


async def test_strays_leave_no_file_behind(monkeypatch):
    async with tree(monkeypatch):
        before = open_files()
        for data in STRAY.values():
            await trio.to_thread.run_sync(
                lambda: intrude(tractor.current_actor().accept_addr, data, reset=False)  # noqa: B023
            )
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert open_files() == before


def peak_bytes(pid: int) -> int:
    """The most virtual memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak"))


# --- the adaptation itself -------------------------------------------------------------------------------------------


def run_python(code: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, env=os.environ | settings
    )


def test_a_text_that_no_longer_matches_is_named():
    done = run_python(
        "from supervisor import tractor_compat\n"
        "tractor_compat._EDITS['tractor._ipc'].append(('a text of another release', ''))\n"
        "tractor_compat.install()\nimport tractor"
    )
    assert done.returncode == 1
    assert "tractor._ipc does not have the text 'a text of another release'" in done.stderr
    assert "AdaptationError" in done.stderr


def test_a_tractor_that_was_imported_before_is_refused():
    done = run_python(
        "import sys, types\nsys.modules['tractor'] = types.ModuleType('tractor')\n"
        "from supervisor import tractor_compat\ntractor_compat.install()"
    )
    assert done.returncode == 1
    assert "AdaptationError: tractor was imported before" in done.stderr


def test_byte_code_is_kept_for_this_text_and_these_edits_only(tmp_path):
    """Also a cache that was cut short or is of other edits does no harm."""
    edit = "tractor_compat._EDITS['tractor._state'] = [('import trio\\n', 'import trio\\nmark = {}\\n')]\n"
    code = "from supervisor import tractor_compat\n{}tractor_compat.install()\nimport tractor._state\n"
    code += "print(tractor._state.mark)"
    settings = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    for mark in ("1", "1", "2", "1"):
        assert run_python(code.format(edit.format(mark)), **settings).stdout == f"{mark}\n"
    (cache,) = tmp_path.rglob("tractor/_state.*opt-greenroom.pyc")
    whole = cache.read_bytes()
    for broken in (whole[:-100], whole[:9], whole[:3], b""):
        cache.write_bytes(broken)
        assert run_python(code.format(edit.format("1")), **settings).stdout == "1\n"
        assert cache.read_bytes() == whole


def test_every_module_that_is_edited_loads():
    done = run_python(
        "import importlib\nfrom supervisor import tractor_compat\ntractor_compat.install()\ntractor_compat.install()\n"
        "[importlib.import_module(name) for name in tractor_compat._EDITS]"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_trio_itself_is_left_alone():
    done = run_python(
        "import trio\nbefore = dict(vars(trio))\nimport supervisor.spawn_tractor\n"
        "changed = [name for name, value in vars(trio).items() if before.get(name, value) is not value]\n"
        "assert not changed, changed"
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_environment_of_the_root_is_left_alone(monkeypatch):
    before = dict(os.environ)
    async with tree(monkeypatch):
        assert dict(os.environ) == before
