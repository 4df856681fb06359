# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may do what here, and how much of it: nobody anything unless it is said, and nobody more than its share."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import RULES, Clock, peer

from actors.errors import ForbiddenError, RateLimitedError, from_info, to_info
from actors.p2p.peer_registry.admission import MOST_NAME_CHARS, STRANGERS, Admission, Caller, Right, granted
from actors.p2p.peer_registry.bans import Bans
from actors.settings_p2p import PeerGrant, PeerLimits, PeerRegistrySettings

FRIEND, STRANGER, MEMBER = map(peer, range(3))
HOME, AWAY = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.9/tcp/1"
ECHO, HASH = Right("tool", "echo"), Right("tool", "file_hash")
ECHO_TASK = Right("task", "echo")
WIDE = PeerGrant(tools=["*"], tasks=["*"])


def limits(**more):
    return {"rate_per_s": 1e6, "burst": 1000, "max_in_flight": 1000, "max_bytes_per_s": 1 << 30} | more


@pytest.fixture
def clock():
    return Clock()


def admission_of(clock, *, most=5, secret=True, **settings):
    return Admission(
        PeerRegistrySettings(secret_file="/secret" if secret else "", **settings),
        Bans(RULES, clock, most=10),
        clock,
        most=most,
    )


def member(number=2, address=HOME):
    return Caller(peer(number), address, proved=True)


# --- rights --------------------------------------------------------------------------------------------------------


def test_by_default_nobody_may_do_anything(clock):
    admission = admission_of(clock, secret=False)
    for caller in (Caller(STRANGER), Caller(STRANGER, HOME, proved=True)):
        for ask in (lambda: admission.welcome(caller), lambda: admission.begin(caller, ECHO)):  # noqa: B023
            with pytest.raises(ForbiddenError, match=r"name it in p2p\.peer_registry\.allow, or set .*secret_file"):
                ask()
    assert admission.refused == {"FORBIDDEN": 4}


def test_a_peer_may_do_what_it_is_named_for_and_nothing_else(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["ec*", "time_now"], tasks=["file_*"])})
    friend = Caller(FRIEND, HOME)
    assert admission.welcome(friend).tools == ["ec*", "time_now"]
    admission.may(friend, ECHO)
    admission.may(friend, Right("task", "file_hash"))
    with pytest.raises(ForbiddenError, match=rf"may not call the tool 'file_hash' .*allow\.{FRIEND}\.tools"):
        admission.may(friend, HASH)
    with pytest.raises(ForbiddenError, match=rf"may not have tasks of type 'echo' done .*allow\.{FRIEND}\.tasks"):
        admission.may(friend, ECHO_TASK)
    with pytest.raises(ForbiddenError, match="may do nothing"):
        admission.may(Caller(STRANGER, HOME), ECHO)


def test_who_proves_the_secret_may_do_what_it_grants(clock):
    admission = admission_of(clock, secret_grants=PeerGrant(tools=["echo"]))
    admission.may(member(), ECHO)
    with pytest.raises(ForbiddenError, match=r"secret_grants\.tools"):
        admission.may(member(), HASH)
    with pytest.raises(ForbiddenError, match="can prove the shared secret"):
        admission.may(Caller(MEMBER, HOME, proved=False), ECHO)


def test_the_secret_grants_nothing_unless_told(clock):
    admission = admission_of(clock)
    assert admission.welcome(member()) == PeerGrant()
    with pytest.raises(ForbiddenError):
        admission.may(member(), ECHO)


def test_whoever_is_named_has_its_own_grant_also_when_it_proves_the_secret(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["echo"])}, secret_grants=WIDE)
    with pytest.raises(ForbiddenError):
        admission.may(Caller(FRIEND, HOME, proved=True), HASH)


def test_a_name_that_is_too_long_is_nobodys_right(clock):
    admission = admission_of(clock, allow={FRIEND: WIDE})
    admission.may(Caller(FRIEND), Right("tool", "x" * MOST_NAME_CHARS))
    with pytest.raises(ForbiddenError) as caught:
        admission.may(Caller(FRIEND), Right("tool", "x" * 1_000_000))
    assert len(str(caught.value)) < 500


@given(st.lists(st.text("ab*", max_size=6), max_size=3), st.text("ab", max_size=8))
def test_a_star_stands_for_any_text(patterns, name):
    assert granted(name, patterns) == any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def test_nothing_but_a_star_is_special():
    assert granted("a?[b].c", ["a?[b].c"])
    assert not granted("axb.c", ["a?[b].c"])
    assert not granted("xyc", ["x.c"])


# --- bans ----------------------------------------------------------------------------------------------------------


def test_whoever_is_banned_may_do_nothing_until_its_time_is_over(clock):
    admission = admission_of(clock, allow={FRIEND: WIDE})
    admission._bans.lie(FRIEND, "", "wrong output")
    for ask in (lambda: admission.welcome(Caller(FRIEND)), lambda: admission.begin(Caller(FRIEND), ECHO)):
        with pytest.raises(ForbiddenError, match=r"is banned by this node for 960 s more \(wrong output\)") as caught:
            ask()
        assert caught.value.details["banned_for_s"] == 960.0
    clock.now += 960.0
    admission.may(Caller(FRIEND), ECHO)


def test_a_banned_address_shuts_out_all_that_are_not_named(clock):
    admission = admission_of(clock, allow={FRIEND: WIDE}, secret_grants=WIDE)
    admission._bans.violation(STRANGER, HOME, "no frame")
    admission.may(Caller(FRIEND, HOME), ECHO)
    with pytest.raises(ForbiddenError, match=r"address 192\.0\.2\.1 is banned"):
        admission.may(member(), ECHO)
    admission.may(member(address=AWAY), ECHO)


# --- shares --------------------------------------------------------------------------------------------------------


def refused(admission, caller, limit, retry_after_s, right=ECHO, size=0):
    with pytest.raises(RateLimitedError, match="try again in") as caught:
        admission.begin(caller, right, size)
    assert caught.value.details["limit"] == limit
    assert caught.value.details["retry_after_s"] == pytest.approx(retry_after_s)
    return str(caught.value)


def test_calls_come_as_fast_as_their_rate_after_a_burst(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["*"], **limits(rate_per_s=2.0, burst=3))})
    for _ in range(3):
        admission.begin(Caller(FRIEND), ECHO)
    said = refused(admission, Caller(FRIEND), "rate_per_s", 0.5)
    assert f"raise p2p.peer_registry.allow.{FRIEND}.rate_per_s" in said
    clock.now += 0.25
    refused(admission, Caller(FRIEND), "rate_per_s", 0.25)
    clock.now += 0.25
    admission.begin(Caller(FRIEND), ECHO)
    refused(admission, Caller(FRIEND), "rate_per_s", 0.5)
    clock.now += 1000.0
    for _ in range(3):
        admission.begin(Caller(FRIEND), ECHO)
    refused(admission, Caller(FRIEND), "rate_per_s", 0.5)


def test_so_many_are_in_flight_at_once(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["*"], **limits(max_in_flight=2))})
    with admission.begin(Caller(FRIEND), ECHO), admission.begin(Caller(FRIEND), ECHO) as second:
        refused(admission, Caller(FRIEND), "max_in_flight", 1.0)
        second.end()
        second.end()
        with admission.begin(Caller(FRIEND), ECHO):
            refused(admission, Caller(FRIEND), "max_in_flight", 1.0)
    for _ in range(2):
        admission.begin(Caller(FRIEND), ECHO)
    refused(admission, Caller(FRIEND), "max_in_flight", 1.0)


def test_bytes_have_to_be_made_good_before_the_next_call(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["*"], **limits(max_bytes_per_s=1024))})
    friend = Caller(FRIEND)
    assert admission.pause_s(friend) == 0.0
    admission.begin(friend, ECHO, 1024)
    admission.begin(friend, ECHO, 512)
    refused(admission, friend, "max_bytes_per_s", 0.5)
    admission.passed(friend, 1024)
    assert admission.pause_s(friend) == pytest.approx(1.5)
    clock.now += 1.5
    assert admission.pause_s(friend) == pytest.approx(0.0)
    admission.begin(friend, ECHO)


def test_what_is_refused_takes_nothing(clock):
    admission = admission_of(
        clock, secret_grants=PeerGrant(tools=["echo"], **limits(burst=1)), per_address=PeerLimits(**limits(burst=2))
    )
    admission.begin(member(1), ECHO)
    refused(admission, member(1), "rate_per_s", 1e-6)
    with pytest.raises(ForbiddenError):
        admission.begin(member(2), HASH)
    admission.begin(member(2), ECHO)
    assert "per_address" in refused(admission, member(3), "rate_per_s", 1e-6)


def test_ids_at_one_address_share_its_limits_however_many_they_are(clock):
    admission = admission_of(clock, secret_grants=WIDE, per_address=PeerLimits(**limits(rate_per_s=1.0, burst=2)))
    admission.begin(member(1), ECHO)
    admission.begin(member(2), ECHO)
    for number in range(3, 50):
        refused(admission, member(number), "rate_per_s", 1.0)
    admission.begin(member(3, AWAY), ECHO)


def test_whoever_is_named_has_no_part_in_its_neighbours_limits(clock):
    admission = admission_of(
        clock, allow={FRIEND: WIDE}, secret_grants=WIDE, per_address=PeerLimits(**limits(max_in_flight=1))
    )
    admission.begin(member(), ECHO)
    refused(admission, member(4), "max_in_flight", 1.0)
    admission.begin(Caller(FRIEND, HOME), ECHO)


def test_a_peer_whose_address_is_unknown_shares_with_all_such_peers(clock):
    admission = admission_of(clock, secret_grants=WIDE, per_address=PeerLimits(**limits(max_in_flight=1)))
    admission.begin(member(1, ""), ECHO)
    refused(admission, member(2, "/dns4/x.org/tcp/1"), "max_in_flight", 1.0)


def test_memory_is_bounded_however_many_ids_come(clock):
    admission = admission_of(clock, most=5, allow={FRIEND: WIDE}, secret_grants=WIDE)
    held = admission.begin(member(1, "/ip4/192.0.2.77/tcp/1"), ECHO)
    admission.begin(Caller(FRIEND, HOME), ECHO)
    for number in range(10, 1000):
        with pytest.raises(ForbiddenError):
            admission.begin(Caller(peer(number)), ECHO)
        admission.passed(Caller(peer(number)), 10)
        address = f"/ip4/10.0.{number >> 8}.{number & 255}/tcp/1"
        with admission.begin(member(number, address), ECHO):
            pass
    assert len(admission) == 11
    held.end()


def test_when_everybody_counted_is_busy_others_have_to_wait(clock):
    admission = admission_of(clock, most=2, secret_grants=WIDE)
    turns = [admission.begin(member(number, HOME), ECHO) for number in range(2)]
    refused(admission, member(3), "peers", 1.0)
    admission.passed(member(3), 10)
    assert admission.pause_s(member(3)) == 0.0
    turns[0].end()
    admission.begin(member(3), ECHO)


def test_the_error_crosses_borders_and_may_be_tried_again():
    error = from_info(to_info(RateLimitedError("too fast", retry_after_s=0.5)))
    assert isinstance(error, RateLimitedError)
    assert (error.code, error.retryable, error.details) == ("RATE_LIMITED", True, {"retry_after_s": 0.5})


STEPS = st.tuples(st.sampled_from(["begin", "end", "passed", "wait"]), st.integers(0, 7))


@given(st.lists(STEPS, max_size=60))
def test_nobody_ever_takes_more_than_its_share(steps):
    clock = Clock()
    admission = admission_of(
        clock,
        most=3,
        secret_grants=PeerGrant(tools=["*"], **limits(rate_per_s=1.0, burst=2, max_in_flight=2)),
        per_address=PeerLimits(**limits(rate_per_s=2.0, burst=3, max_in_flight=3)),
    )
    turns, starts = [], {}
    for what, number in steps:
        caller = member(number, f"/ip4/192.0.2.{number % 2}/tcp/1")
        match what:
            case "wait":
                clock.now += number * 0.25
            case "passed":
                admission.passed(caller, 100)
            case "end" if turns:
                turns.pop(number % len(turns))[1].end()
            case "begin":
                try:
                    turn = admission.begin(caller, ECHO)
                except RateLimitedError as error:
                    assert error.details["retry_after_s"] > 0.0  # noqa: PT017
                    continue
                turns.append((caller, turn))
                starts.setdefault(caller.address, []).append(clock.now)
        assert len(admission) <= 6
        for address in {caller.address for caller, _ in turns}:
            assert sum(caller.address == address for caller, _ in turns) <= 3
        for one in {caller for caller, _ in turns}:
            assert sum(caller == one for caller, _ in turns) <= 2
    for times in starts.values():
        for first, begin in enumerate(times):
            for last, end in enumerate(times[first:], first):
                assert last - first + 1 <= 3 + 2.0 * (end - begin) + 1e-6


def test_who_only_looks_at_what_is_granted_is_not_counted_as_refused(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant(tools=["a"])}, secret_grants=PeerGrant(tools=["b"]))
    assert admission.grant_of(Caller(FRIEND)).tools == ["a"]
    assert admission.grant_of(member()).tools == ["b"]
    assert admission.grant_of(Caller(STRANGER)) is None
    assert not admission.refused


# --- introductions -------------------------------------------------------------------------------------------------


def test_where_strangers_are_introduced_they_are_welcome_and_may_do_nothing(clock):
    admission = admission_of(clock, secret=False, introduce_strangers=True)
    stranger = Caller(STRANGER, HOME)
    assert admission.welcome(stranger) == PeerGrant()
    assert admission.is_introduced(stranger)
    for right in (ECHO, ECHO_TASK):
        with pytest.raises(ForbiddenError, match="may do nothing"):
            admission.begin(stranger, right)


def test_elsewhere_only_those_are_introduced_that_are_known(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant()})
    assert admission.is_introduced(Caller(FRIEND, HOME))
    assert admission.is_introduced(member())
    assert not admission.is_introduced(Caller(STRANGER, HOME))


@pytest.mark.parametrize("caller", [Caller(STRANGER, AWAY), Caller(MEMBER, HOME)])
def test_nobody_who_is_banned_is_introduced(clock, caller):
    bans = Bans(RULES, clock, most=10)
    admission = Admission(PeerRegistrySettings(introduce_strangers=True), bans, clock)
    bans.violation(STRANGER, HOME, "noise")
    assert not admission.is_introduced(caller), "neither by its id nor by its address"
    with pytest.raises(ForbiddenError, match="banned"):
        admission.welcome(caller)


def test_strangers_ask_a_few_things_and_then_slowly(clock):
    admission = admission_of(clock, introduce_strangers=True)
    stranger = Caller(STRANGER, HOME)
    for _ in range(STRANGERS.burst):
        admission.ask(stranger).end()
    with pytest.raises(RateLimitedError) as refused:
        admission.ask(stranger)
    assert "operator" not in str(refused.value), "there is no setting for it"
    clock.now += refused.value.details["retry_after_s"]
    admission.ask(stranger).end()


def test_who_may_do_something_asks_without_that_limit(clock):
    admission = admission_of(clock, allow={FRIEND: PeerGrant()})
    for _ in range(3 * STRANGERS.burst):
        admission.ask(Caller(FRIEND, HOME)).end()
        admission.ask(member()).end()


def test_many_strangers_at_one_address_share_its_limits(clock):
    admission = admission_of(clock, most=1000, secret=False, per_address=PeerLimits(**limits(burst=30, rate_per_s=0.1)))
    for number in range(30):
        admission.ask(Caller(peer(number), HOME)).end()
    with pytest.raises(RateLimitedError, match="per_address"):
        admission.ask(Caller(peer(30), HOME))
    admission.ask(Caller(peer(99), AWAY)).end()
