# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a peer uses is counted over all its streams, and leaving gives it no new allowance."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from actors.p2p.peer_registry import stream_use
from actors.p2p.peer_registry.stream_use import StreamUse, UseLimits


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_streams_are_counted_for_each_peer(clock):
    use = StreamUse(UseLimits(streams=2), clock)
    with use.stream("a") as first, use.stream("a") as second, use.stream("a") as third, use.stream("b") as other:
        assert (first, second, third, other) == (True, True, False, True)
    with use.stream("a") as again:
        assert again


def test_messages_may_come_in_a_burst_and_then_at_a_rate(clock):
    use = StreamUse(UseLimits(burst=3, per_s=2), clock)
    with use.stream("a"):
        assert [use.spend("a") for _ in range(3)] == [0, 0, 0]
        assert use.spend("a") == pytest.approx(0.5)
        clock.now += 0.25
        assert use.spend("a") == pytest.approx(0.25)
        clock.now += 0.25
        assert use.spend("a") == 0
        clock.now += 1000
        assert [use.spend("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


def test_a_new_stream_is_no_new_allowance(clock):
    use = StreamUse(UseLimits(burst=2, per_s=1), clock)
    with use.stream("a"):
        assert [use.spend("a"), use.spend("a")] == [0, 0]
    with use.stream("a"):
        assert use.spend("a") > 0


def test_open_requests_are_bounded_for_each_peer_and_in_all(clock):
    use = StreamUse(UseLimits(requests=2, requests_in_all=3), clock)
    with use.stream("a"), use.stream("b"):
        assert [use.begin("a"), use.begin("a"), use.begin("a")] == [True, True, False]
        assert [use.begin("b"), use.begin("b")] == [True, False]
        use.end("a")
        assert use.begin("b")
        assert use.requests == 3


def test_a_peer_is_forgotten_once_nothing_of_it_matters(clock):
    use = StreamUse(UseLimits(burst=1, per_s=1), clock)
    with use.stream("a"):
        use.spend("a")
    assert len(use) == 1
    clock.now += 1
    with use.stream("a"):
        pass
    assert len(use) == 0


def test_those_who_come_and_go_take_no_more_than_so_much_memory(clock, monkeypatch):
    monkeypatch.setattr(stream_use, "MOST_PEERS", 3)
    use = StreamUse(UseLimits(burst=1, per_s=1), clock)
    for name in "abc":
        with use.stream(name):
            use.spend(name)
    with use.stream("d") as room:
        assert not room
    clock.now += 1
    with use.stream("d") as room:
        assert room
    assert len(use) == 0
    with ExitStack() as held:
        rooms = [held.enter_context(use.stream(name)) for name in "abcd"]
    assert rooms == [True, True, True, False]
