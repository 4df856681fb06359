# SPDX-License-Identifier: AGPL-3.0-or-later
"""The control socket: who may connect, what is told there, and what nonsense costs.

Lives are tasks in this process and follow plans (`supervisor/spawn_fake.py`); core, runtime, control server and
channels are the real ones. Seconds are those of the mock clock: they cost nothing.
"""

from __future__ import annotations

import pytest
import trio
from driving import child
from fake_tree import tree
from trio.testing import wait_all_tasks_blocked

from actors.channel import Channel, ChannelClosedError
from actors.messages import Beat, Drain, Ready
from actors.peers import hello
from supervisor.rundir import CONTROL_SOCKET
from supervisor.spawn_fake import Plan


async def knock(tmp_path, greeting):
    """Connect to the control socket by oneself. Returns why the connection ended."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with sock:
        await sock.connect(str(tmp_path / CONTROL_SOCKET))
        try:
            return await Channel(sock, me=greeting).run()
        except ChannelClosedError as error:
            return str(error)


@pytest.mark.parametrize("fault", ["wrong token", "older incarnation", "unknown actor", "second connection"])
async def test_only_the_life_that_was_started_may_connect_and_only_once(autojump_clock, tmp_path, fault):
    async with tree(tmp_path, child("a")) as t:
        token = t.process("a").boot.token
        greeting = {
            "wrong token": hello("a", 1, "x" * len(token)),
            "older incarnation": hello("a", 0, token),
            "unknown actor": hello("z", 1, token),
            "second connection": hello("a", 1, token),
        }[fault]
        await knock(tmp_path, greeting)
        assert [f["reason"] for _, event, f in t.reports if event == "control connection refused"] == [
            f"no connection: refused {greeting.actor}: it proved no life that was started here"
        ]
        assert t.states() == {"a": "ready"}
        assert not t.process("a").ended.is_set()


async def test_a_child_gets_the_directory_as_soon_as_it_has_connected(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(connect_s=3.0, boot_s=10.0)]}, up=False) as t:
        await trio.sleep(3.5)
        assert [entry.name for entry in t.process("a").directories[0].entries] == ["a"]


async def test_the_control_socket_is_private(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")):
        assert (tmp_path / CONTROL_SOCKET).stat().st_mode & 0o777 == 0o600


async def test_a_child_that_sends_nonsense_is_replaced_and_the_root_lives(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        t.process("a").control.post(hello("not", 1, "a control message"))
        await t.until("a", "ready", lives=2)
        assert "a bad message" in t.reason("a")
        assert t.spawner.lives("b") == 1


async def test_a_second_ready_and_orders_from_a_child_change_nothing(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        started = t.said("started")
        t.process("a").tell(Ready(socket="/tmp/elsewhere"))
        t.process("a").tell(Drain())
        await wait_all_tasks_blocked()
        assert t.said("started") == started
        assert t.runtime.directory().entries[0].socket != "/tmp/elsewhere"


async def test_the_last_beat_of_a_child_is_kept(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.process("a").tell(Beat(loop_lag_s=0.25, open_calls=7, rss_bytes=1))
        await wait_all_tasks_blocked()
        assert t.runtime.lives.get("a").beat.open_calls == 7
