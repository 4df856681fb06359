# SPDX-License-Identifier: AGPL-3.0-or-later
"""News of a pool process: gathered, bounded, and nothing lost."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.notices import MAX_URIS, Notices
from actors.tool_messages import Changed
from actors.uris import UriError


def test_many_changes_of_one_thing_are_one_piece_of_news():
    notices = Notices()
    for _ in range(3):
        notices.resource("a:1")
        notices.list("tools")
    notices.resource("a:2")
    assert notices.take() == Changed(uris=["a:1", "a:2"], lists=["tools"])
    assert notices.take() is None


def test_more_than_fit_become_any():
    notices = Notices()
    for number in range(MAX_URIS):
        notices.resource(f"a:{number}")
    notices.resource("a:0")
    full = notices.take()
    assert (len(full.uris), full.any_uri) == (MAX_URIS, False)
    for number in range(MAX_URIS + 1):
        notices.resource(f"a:{number}")
    assert notices.take() == Changed(any_uri=True)
    notices.resource("a:1")
    assert notices.take() == Changed(uris=["a:1"])


def test_what_is_no_uri_and_no_list_is_refused():
    with pytest.raises(UriError):
        Notices().resource("none")
    with pytest.raises(ValueError, match="tools, resources, prompts"):
        Notices().list("rooms")


async def test_news_from_threads_are_sent_with_a_pause(autojump_clock):
    notices, posted = Notices(), []

    def post(news):
        posted.append((trio.current_time() - began, news.uris))

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(notices.send, post)
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(notices.resource, "a:1")
        while not posted:
            await trio.lowlevel.checkpoint()
        notices.resource("a:2")
        notices.resource("a:3")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [uris for _, uris in posted] == [["a:1"], ["a:2", "a:3"]]
    assert posted[1][0] - posted[0][0] >= 0.05


async def test_news_gather_while_there_is_no_room_for_them(autojump_clock):
    notices, posted, room = Notices(), [], []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notices.send, posted.append, lambda: bool(room))
        for number in range(5):
            notices.resource(f"a:{number % 2}")
            await trio.sleep(1)
        assert posted == []
        room.append(True)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert posted == [Changed(uris=["a:0", "a:1"])]


def test_without_a_loop_nothing_waits_and_little_is_kept():
    notices = Notices()
    for number in range(10 * MAX_URIS):
        notices.resource(f"a:{number}")
    assert len(notices._uris) == MAX_URIS
