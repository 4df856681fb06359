# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shared secret: whose file it may be, and what it proves in a call."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import peer

from actors.errors import ForbiddenError, RateLimitedError, UnavailableError
from actors.p2p.peer_registry.call_tokens import MOST_AGE_S, MOST_AHEAD_S, Checker, make
from actors.p2p.peer_registry.shared_secret import LEAST_BYTES, MOST_BYTES, SharedSecret, load_secret

A, B, C = map(peer, range(3))
SECRET = SharedSecret(b"s" * LEAST_BYTES)
OTHER = SharedSecret(b"o" * LEAST_BYTES)
NOW = 1_000_000.0
TOKEN = make(SECRET, A, B, NOW)


# --- the file ------------------------------------------------------------------------------------------------------


def written(path, data, mode=0o600):
    path.write_bytes(data)
    path.chmod(mode)
    return path


def refusal(path):
    with pytest.raises(UnavailableError, match=r"secret_file\) can't be used") as caught:
        load_secret(path)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secret"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_this_users_own_is_read(path, mode):
    secret = load_secret(written(path, b"s" * LEAST_BYTES + b"\r\n", mode))
    assert secret.key("x") == SECRET.key("x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o610])
def test_a_file_that_others_may_use_is_refused(path, mode):
    assert f"chmod 600 {path}" in refusal(written(path, b"s" * LEAST_BYTES, mode))


def test_a_file_of_somebody_else_is_refused(path, monkeypatch):
    written(path, b"s" * LEAST_BYTES)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "chown" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"\n" * 100, b"s" * (LEAST_BYTES - 1), b"s" * (LEAST_BYTES - 1) + b"\n"])
def test_a_short_secret_is_refused(path, data):
    assert "32 are needed; make one with" in refusal(written(path, data))


def test_a_huge_file_is_refused(path):
    assert f"more than {MOST_BYTES}" in refusal(written(path, b"s" * (MOST_BYTES + 1)))


def test_what_is_no_file_is_refused(path, tmp_path):
    assert "can't be opened" in refusal(path)
    assert "it is no file" in refusal(tmp_path)
    os.mkfifo(path, 0o600)
    assert "it is no file" in refusal(path)


def test_a_secret_is_not_shown(path):
    assert "sss" not in repr(SECRET) + str(SECRET)
    assert "sss" not in refusal(written(path, b"s" * 31))


def test_a_key_is_of_one_purpose_and_one_secret():
    assert len({SECRET.key("a"), SECRET.key("b"), OTHER.key("a")}) == 3
    with pytest.raises(ValueError, match="at least 32"):
        SharedSecret(b"short")


# --- tokens --------------------------------------------------------------------------------------------------------


@pytest.fixture
def checker():
    return Checker(SECRET, B, NOW - 1000.0, most=3)


def refused(checker, token, caller=A, now=NOW):
    with pytest.raises(ForbiddenError) as caught:
        checker.check(token, caller, now)
    return caught.value


def test_a_token_is_good_once(checker):
    token = make(SECRET, A, B, NOW)
    checker.check(token, A, NOW)
    error = refused(checker, token)
    assert "used before" in str(error)
    assert error.retryable


def test_every_token_is_another():
    assert make(SECRET, A, B, NOW) != make(SECRET, A, B, NOW)


@pytest.mark.parametrize(
    ("token", "caller"),
    [
        (make(OTHER, A, B, NOW), A),
        (make(SECRET, A, C, NOW), A),
        (make(SECRET, A, B, NOW), C),
        (make(SECRET, B, A, NOW), A),
        (make(SECRET, A + "1", B[1:], NOW), A),
    ],
    ids=["another secret", "another callee", "another caller", "turned round", "ids cut elsewhere"],
)
def test_a_token_is_of_one_secret_one_caller_and_one_callee(checker, token, caller):
    error = refused(checker, token, caller)
    assert "does not prove" in str(error)
    assert not error.retryable
    assert len(checker) == 0


@given(st.binary(max_size=80) | st.text(max_size=100))
def test_what_is_no_token_is_refused(given_):
    text = given_ if isinstance(given_, str) else base64.urlsafe_b64encode(given_).decode()
    assert "does not prove" in str(refused(Checker(SECRET, B, NOW), text))


@given(st.data())
def test_a_changed_token_is_refused(data):
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    changed = TOKEN[:at] + data.draw(st.sampled_from("ABCDwxyz0189-_=")) + TOKEN[at + 1 :]
    if changed != TOKEN:
        assert "does not prove" in str(refused(Checker(SECRET, B, NOW - 1), changed))


@pytest.mark.parametrize("late", [-MOST_AHEAD_S, 0.0, MOST_AGE_S])
def test_clocks_may_differ_a_little(checker, late):
    checker.check(make(SECRET, A, B, NOW), A, NOW + late)


@pytest.mark.parametrize("late", [-MOST_AHEAD_S - 1.0, MOST_AGE_S + 1.0])
def test_a_token_that_is_too_old_or_of_the_future_is_refused(checker, late):
    error = refused(checker, make(SECRET, A, B, NOW), now=NOW + late)
    assert f"made {late:.0f} s ago by this node's clock" in str(error)


def test_a_token_that_may_have_been_used_in_an_earlier_life_is_refused():
    error = refused(Checker(SECRET, B, NOW), make(SECRET, A, B, NOW - 1.0))
    assert "before this node started" in str(error)
    assert error.retryable


def test_used_tokens_are_remembered_as_long_as_they_count_and_no_longer(checker):
    first, *others = [make(SECRET, A, B, NOW + late) for late in (0.0, 1.0, MOST_AHEAD_S)]
    for token in (first, *others):
        checker.check(token, A, NOW)
    with pytest.raises(RateLimitedError, match="try again in a minute"):
        checker.check(make(SECRET, A, B, NOW), A, NOW)
    assert len(checker) == 3
    for token in (first, *others):
        assert "used before" in str(refused(checker, token, now=NOW + MOST_AGE_S))
    later = NOW + MOST_AHEAD_S + 2 * MOST_AGE_S
    checker.check(make(SECRET, A, B, later), A, later)
    assert len(checker) == 1


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(-30.0, 60.0), st.integers(0, 5)), max_size=40))
def test_no_token_counts_twice_in_any_order_and_memory_stays_bounded(steps):
    checker, now = Checker(SECRET, B, 0.0, most=5), NOW
    seen, good = [], set()
    for later, age, again in steps:
        now += later
        seen.append(make(SECRET, A, B, now - age))
        for token in (seen[-1], seen[-1 - again % len(seen)]):
            try:
                checker.check(token, A, now)
            except (ForbiddenError, RateLimitedError):
                continue
            assert token not in good
            good.add(token)
        assert len(checker) <= 5
