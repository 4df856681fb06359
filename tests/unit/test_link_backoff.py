# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pauses between attempts at a peer grow, are drawn, and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.peer_registry.link.backoff import Backoff
from actors.p2p.peer_registry.link.rules import LinkRules

RULES = LinkRules(retry_base_s=0.5, retry_cap_s=60, steady_after_s=30)


def pauses(draws: list[float]) -> list[float]:
    numbers = iter(draws)
    backoff = Backoff(RULES, lambda: next(numbers))
    found = []
    for _ in draws:
        backoff.failed(100.0)
        found.append(backoff.next_at - 100.0)
    return found


def test_the_bound_doubles_up_to_the_cap():
    assert pauses([0.0] * 10) == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=2000))
def test_each_pause_lies_between_half_its_bound_and_the_bound(draws):
    for n, pause in enumerate(pauses(draws)):
        bound = min(60, 0.5 * 2 ** min(n, 100))
        assert bound / 2 <= round(pause, 9) <= bound


def test_only_a_link_that_lived_long_makes_the_pauses_begin_anew():
    backoff = Backoff(RULES, lambda: 0.0)
    for _ in range(5):
        backoff.failed(0)
    backoff.ended(0, lived_s=29)
    assert backoff.next_at == 8
    backoff.ended(0, lived_s=30)
    assert backoff.next_at == 0.25


def test_what_is_hopeless_is_tried_seldom_and_what_was_forgotten_at_once():
    backoff = Backoff(RULES, lambda: 0.0)
    backoff.discourage()
    backoff.failed(0)
    assert backoff.next_at == 30
    backoff.forget()
    assert backoff.next_at < -1e9
