# SPDX-License-Identifier: AGPL-3.0-or-later
"""A file of peers: what stands in it is wanted, and what is wrong in it is named."""

from __future__ import annotations

import os
import threading
import time

import pytest
import structlog.testing
import trio
import trio.testing

from actors.p2p.peer_registry.discovery import peer_file
from actors.p2p.peer_registry.discovery.peer_file import EVERY_S, MOST_BYTES, MOST_NAMED, MOST_PEERS, PeerFile, parse
from actors.p2p.peer_registry.peers import MOST_ADDRESSES

A = "12D3KooWGuEhyjCQTdBV6dVWELDWtRgVXfbBMuVGKUzoRN93Nmjk"
B = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
PLACE = "/ip4/192.0.2.1/tcp/4001"
LINE = f"{PLACE}/p2p/{A}"


def test_each_line_names_a_peer_and_the_rest_is_comment():
    found = parse(
        f"# ours\n\n  {LINE}  # the first\n/dns4/b.example/tcp/2/p2p/{B}\r\n{LINE}\n/ip4/192.0.2.2/tcp/1/p2p/{A}"
    )
    assert found.peers == {A: [PLACE, "/ip4/192.0.2.2/tcp/1"], B: ["/dns4/b.example/tcp/2"]}
    assert found.wrong == []


def test_a_wrong_line_costs_itself_and_says_why():
    found = parse(f"{LINE}\nnode7\n/ip4/192.0.2.1/udp/1/p2p/{B}\n")
    assert found.peers == {A: [PLACE]}
    first, second = map(str, found.wrong)
    assert first == "2: 'node7': it is no address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."
    assert second.startswith(f"3: '/ip4/192.0.2.1/udp/1/p2p/{B}': only addresses such as")


def test_it_names_no_more_peers_and_addresses_than_there_is_room_for():
    ids = [f"Qm{n:z>44}".replace("0", "z") for n in range(1, 10 * MOST_PEERS) if "0" not in str(n)]
    many = parse("\n".join(f"{PLACE}/p2p/{one}" for one in ids[: MOST_PEERS + 1]))
    assert len(many.peers) == MOST_PEERS
    assert [one.reason for one in many.wrong] == [f"there are more than {MOST_PEERS} peers"]
    moved = parse("\n".join(f"/ip4/192.0.2.{n}/tcp/1/p2p/{A}" for n in range(1, 20)))
    assert len(moved.peers[A]) == MOST_ADDRESSES
    assert len(moved.wrong) == 19 - MOST_ADDRESSES


def test_a_long_line_is_shown_in_short():
    assert len(str(parse("x" * 100_000).wrong[0])) < 200


class Watched:
    """A file that is looked at when the test says so."""

    def __init__(self, path):
        self.path = path
        self.told = []
        self.file = PeerFile(path, self.told.append)

    def write(self, text):
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.path)


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path / "peers.txt")


async def test_it_is_read_again_when_it_changes_and_only_then(watched):
    watched.write(LINE)
    assert await watched.file.look() == 1
    assert await watched.file.look() == 0
    watched.write(f"{LINE}\n{PLACE}/p2p/{B}\n")
    assert await watched.file.look() == 1
    watched.write(f"# {LINE}\n{PLACE}/p2p/{B}\n")
    assert await watched.file.look() == 0
    assert watched.told == [{A: [PLACE]}, {A: [PLACE], B: [PLACE]}, {B: [PLACE]}]
    assert watched.file.state == "ok"


async def test_a_change_within_the_same_size_is_seen(watched):
    watched.path.write_text(LINE)
    await watched.file.look()
    before = watched.path.stat().st_ctime_ns
    while watched.path.stat().st_ctime_ns == before:
        watched.path.write_text(LINE.replace("4001", "4002"))
    assert await watched.file.look() == 0
    assert watched.told[-1] == {A: ["/ip4/192.0.2.1/tcp/4002"]}


async def test_a_comment_that_changes_wants_nothing_else(watched):
    watched.write(LINE)
    await watched.file.look()
    watched.write(f"{LINE} # moved")
    await watched.file.look()
    assert len(watched.told) == 1


async def test_a_file_that_is_gone_names_nobody_until_it_comes(watched):
    with structlog.testing.capture_logs() as logs:
        await watched.file.look()
        await watched.file.look()
    assert [one["event"] for one in logs] == ["there is no file of peers; it is looked for again"]
    assert watched.file.state == "there is no such file"
    watched.write(LINE)
    await watched.file.look()
    watched.path.unlink()
    await watched.file.look()
    assert watched.told == [{A: [PLACE]}, {}]


async def test_a_file_that_can_not_be_read_leaves_all_as_it_was(watched):
    watched.write(LINE)
    await watched.file.look()
    watched.write("#" * (MOST_BYTES + 1))
    await watched.file.look()
    assert watched.told == [{A: [PLACE]}]
    assert str(MOST_BYTES) in watched.file.state


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
async def test_what_is_no_file_is_not_read(watched, make):
    make(watched.path)
    with trio.fail_after(2):
        await watched.file.look()
    assert watched.told == []
    assert "no file" in watched.file.state or "directory" in watched.file.state


async def test_what_is_no_text_is_wrong_line_by_line(watched):
    watched.path.write_bytes(b"\xff\xfe\x00\n" + LINE.encode() + b"\n")
    await watched.file.look()
    assert watched.told == [{A: [PLACE]}]


async def test_wrong_lines_are_named_in_the_log_but_not_all_of_thousands(watched):
    watched.write("\n".join(f"wrong{n}" for n in range(1000)))
    with structlog.testing.capture_logs() as logs:
        await watched.file.look()
    (warning,) = [one for one in logs if one["log_level"] == "warning"]
    assert warning["wrong"] == 1000
    assert len(warning["lines"]) == MOST_NAMED
    assert warning["lines"][0].startswith("1: 'wrong0'")
    assert "1000 wrong lines" in watched.file.state


async def test_it_is_looked_at_again_and_again(watched, nursery, mock_clock):
    nursery.start_soon(watched.file.run)
    await trio.testing.wait_all_tasks_blocked()
    watched.write(LINE)
    while not watched.told:
        mock_clock.jump(EVERY_S)
        await trio.testing.wait_all_tasks_blocked(0.001)
        time.sleep(0.001)
    assert watched.told == [{A: [PLACE]}]
    nursery.cancel_scope.cancel()


async def test_a_disk_that_hangs_costs_one_thread(watched, monkeypatch):
    running, hold = [], threading.Event()

    def hang(path):
        running.append(path)
        hold.wait(5)
        return ()

    monkeypatch.setattr(peer_file, "mark", hang)
    try:
        for _ in range(3):
            assert await watched.file.look(0.01) == 0
        assert len(running) == 1
    finally:
        hold.set()
