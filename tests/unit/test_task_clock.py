# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue's clock goes forward, whatever happens to the system's."""

from __future__ import annotations

import time

import pytest

from actors.p2p.clock import SteadyClock


class Machine:
    def __init__(self):
        self.wall = 1_000_000.0
        self.boot = 50.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.boot)

    def passes(self, seconds):
        self.wall += seconds
        self.boot += seconds


def test_it_tells_the_systems_time():
    assert SteadyClock()() == pytest.approx(time.time(), abs=1)
    machine = Machine()
    machine.passes(7)
    assert machine.clock() == machine.wall


def test_it_follows_a_clock_that_is_put_forward():
    machine = Machine()
    machine.wall += 3600
    machine.passes(1)
    assert machine.clock() == machine.wall


def test_it_goes_on_when_the_clock_is_put_back():
    machine = Machine()
    before = machine.clock()
    machine.wall -= 3600
    machine.passes(5)
    assert machine.clock() == before + 5
    machine.passes(5)
    assert machine.clock() == before + 10
