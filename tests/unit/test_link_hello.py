# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two nodes agree at the beginning of a link, or each knows why not; nobody gets through without the secret."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_streams import A, B, C

from actors.p2p.peer_registry.link import hello as hello_module
from actors.p2p.peer_registry.link.frames import Cutter, Op
from actors.p2p.peer_registry.link.hello import About, Handshake, Hello, Limits, Proof, Ready
from actors.p2p.peer_registry.link.messages import Echo, End
from actors.p2p.peer_registry.link.reasons import Cause, LinkEndError, LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules

SECRET = b"s" * 32
RULES = LinkRules()
NOTHING = About()
encode = msgspec.msgpack.encode
secrets = st.none() | st.just(SECRET) | st.binary(min_size=1, max_size=64)


def side(me, other, *, inbound, secret=SECRET, about=NOTHING, rules=RULES, **more):
    return Handshake(
        me, other, inbound=inbound, instance=me[-16:].encode(), about=about, rules=rules, secret=secret, **more
    )


def pair(secret=SECRET, other_secret=SECRET, **more):
    return side(A, B, inbound=False, secret=secret, **more), side(B, A, inbound=True, secret=other_secret, **more)


def frames_of(data: bytes) -> list[bytes]:
    cutter = Cutter(RULES.max_hello_bytes)
    cutter.feed(data)
    return [bytes(frame) for frame in iter(cutter.cut, None)]


def talk(left: Handshake, right: Handshake) -> list[tuple[Handshake, bytes]]:
    """Let both speak until neither has more to say. Returns all frames in order, each with who sent it."""
    waiting = [(left, right, frame) for frame in frames_of(left.first())]
    waiting += [(right, left, frame) for frame in frames_of(right.first())]
    said = []
    while waiting:
        sender, receiver, frame = waiting.pop(0)
        said.append((sender, frame))
        waiting += [(receiver, sender, answer) for answer in frames_of(receiver.take(frame))]
    return said


def violation_of(handshake: Handshake, frame: bytes) -> Violation:
    with pytest.raises(LinkViolation) as refused:
        handshake.take(frame)
    return refused.value.kind


@given(st.none() | st.binary(min_size=1, max_size=64))
def test_two_that_share_what_there_is_to_share_come_together_and_can_seal(secret):
    about = About(agent="greenroom/1", capabilities=["gpu"], tools=["math_*"])
    dialler = side(A, B, inbound=False, secret=secret, about=about)
    other = side(B, A, inbound=True, secret=secret, rules=LinkRules(max_serving=7))
    talk(dialler, other)
    assert dialler.peer is not None
    assert other.peer is not None
    assert (other.peer.peer_id, other.peer.inbound, other.peer.about) == (A, True, about)
    assert (dialler.peer.peer_id, dialler.peer.inbound, dialler.peer.limits.max_serving) == (B, False, 7)
    assert dialler.peer.version == other.peer.version == 1
    assert dialler.peer.instance == B[-16:].encode().hex()
    assert dialler.peer.proven == other.peer.proven == (secret is not None)
    if secret is None:
        assert dialler.sending is dialler.receiving is other.sending is other.receiving is None
    else:
        for sending, receiving in ((dialler.sending, other.receiving), (other.sending, dialler.receiving)):
            assert receiving.opened(b"frame" + sending.code(b"frame")) == b"frame"
        assert dialler.sending.code(b"frame") != other.sending.code(b"frame")


@given(secrets, secrets)
def test_two_that_share_nothing_do_not_come_together(secret, other_secret):
    if secret == other_secret:
        return
    dialler, other = pair(secret, other_secret)
    with pytest.raises(LinkEndError) as ended:
        talk(dialler, other)
    assert dialler.peer is other.peer is None
    if secret is None or other_secret is None:
        assert ended.value.ending.cause is Cause.INCOMPATIBLE
    else:
        assert ended.value.ending.violation is Violation.UNPROVEN


def test_a_stranger_who_dials_gets_nothing_that_was_made_with_the_secret():
    victim = side(B, A, inbound=True)
    (first,) = frames_of(victim.first())
    stranger = side(A, B, inbound=False, secret=b"guess")
    (hello,) = frames_of(stranger.first())
    assert victim.take(hello) == b""
    (proof,) = frames_of(stranger.take(first))
    assert violation_of(victim, proof) is Violation.UNPROVEN
    assert victim.sending is None


def test_a_proof_can_not_be_reflected_repeated_or_passed_on():
    said = [frame for sender, frame in talk(*pair())]
    proofs = [frame for frame in said if encode((0, Op.PROOF))[1:3] == frame[1:3]]
    assert len(proofs) == 2
    for me, other, proof in itertools.product((A, B, C), (A, B, C), proofs):
        if me != other:
            victim = side(me, other, inbound=True)
            stranger = side(other, me, inbound=False)
            victim.take(*frames_of(stranger.first()))
            assert violation_of(victim, proof) is Violation.UNPROVEN
    # its own, from a link that the victim dialled at the same time
    dialler = side(A, B, inbound=False)
    (proof,) = frames_of(dialler.take(*frames_of(side(B, A, inbound=True).first())))
    assert violation_of(dialler, proof) is Violation.UNPROVEN


def test_a_hello_with_our_own_nonce_is_refused():
    dialler = side(A, B, inbound=False)
    assert violation_of(dialler, *frames_of(dialler.first())) is Violation.UNPROVEN


def test_a_hello_that_was_changed_on_the_way_makes_the_proof_wrong():
    dialler, other = pair()
    (frame,) = frames_of(dialler.first())
    frame_id, op, hello = msgspec.msgpack.decode(frame, type=tuple[int, int, Hello])
    changed = encode((frame_id, op, msgspec.structs.replace(hello, versions=[1, 9])))
    other.take(changed)
    (proof,) = frames_of(dialler.take(*frames_of(other.first())))
    assert violation_of(other, proof) is Violation.UNPROVEN


def test_the_highest_common_version_is_taken(monkeypatch):
    monkeypatch.setattr(hello_module, "VERSIONS", (1, 2, 3))
    dialler = side(A, B, inbound=False)
    monkeypatch.setattr(hello_module, "VERSIONS", (2, 3, 4))
    other = side(B, A, inbound=True)
    talk(dialler, other)
    assert dialler.peer.version == other.peer.version == 3


def test_without_a_common_version_both_hear_so(monkeypatch):
    dialler = side(A, B, inbound=False)
    monkeypatch.setattr(hello_module, "VERSIONS", (2,))
    other = side(B, A, inbound=True)
    with pytest.raises(LinkEndError) as ended:
        talk(dialler, other)
    assert ended.value.ending.cause is Cause.INCOMPATIBLE
    assert "version 1" in ended.value.ending.text


def test_what_a_later_version_says_in_its_hello_does_no_harm():
    dialler, other = pair()
    (frame,) = frames_of(dialler.first())
    frame_id, op, fields = msgspec.msgpack.decode(frame)
    other.take(encode((frame_id, op, fields | {"later": [1, 2]})))
    assert violation_of(pair()[0], encode((0, Op.PROOF, {"kind": "proof", "code": b"", "later": 1}))) is Violation.FRAME


@pytest.mark.parametrize("secret", [None, SECRET])
def test_an_end_is_understood_at_any_moment(secret):
    """Both for the one who has said more, and for the one who has said less than the other."""
    for moment in range(6):
        for quits in (0, 1):
            sides = pair(secret, secret)
            waiting = [(n, frame) for n in (0, 1) for frame in frames_of(sides[n].first())]
            for _ in range(moment):
                if waiting:
                    n, frame = waiting.pop(0)
                    waiting += [(1 - n, answer) for answer in frames_of(sides[1 - n].take(frame))]
            waiting = [(n, frame) for n, frame in waiting if n == quits]
            waiting += [(quits, frame) for frame in frames_of(sides[quits].refusal("no more"))]
            receiver = sides[1 - quits]
            for _, frame in waiting[:-1]:
                receiver.take(frame)
            with pytest.raises(LinkEndError) as ended:
                receiver.take(waiting[-1][1])
            assert (ended.value.ending.cause, ended.value.ending.text) == (Cause.ENDED, "no more")


def test_what_is_offered_must_fit_into_the_hello():
    with pytest.raises(ValueError, match="more than 32768 bytes"):
        side(A, B, inbound=False, about=About(tools=["x" * 200] * 200))


def test_a_node_has_no_link_to_itself():
    with pytest.raises(ValueError, match="itself"):
        side(A, A, inbound=False)


HELLO = Hello(versions=[1], instance=bytes(16), nonce=bytes(32), secret=True)
READY = Ready(About(), Limits(4096, 1, 1.0))
SOME = {
    "hello": (0, Op.HELLO, HELLO),
    "proof": (0, Op.PROOF, Proof(bytes(32))),
    "ready": (0, Op.READY, READY),
    "request": (1, Op.REQUEST, Echo()),
    "hello with id": (1, Op.HELLO, HELLO),
    "hello as ready": (0, Op.READY, HELLO),
    "no version": (0, Op.HELLO, msgspec.structs.replace(HELLO, versions=[])),
    "short nonce": (0, Op.HELLO, msgspec.structs.replace(HELLO, nonce=b"x")),
    "not a triple": (0, Op.HELLO),
    "nothing": (0, Op.HELLO, None),
    "negative": (-1, Op.HELLO, HELLO),
    "end": (0, Op.END, End("bye")),
}


@given(
    st.booleans(),
    st.none() | st.just(SECRET),
    st.lists(st.sampled_from([encode(value) for value in SOME.values()]) | st.binary(max_size=200), max_size=5),
)
def test_whatever_comes_the_hello_ends_with_a_reason_and_is_never_done_by_it(inbound, secret, frames):
    handshake = side(A, B, inbound=inbound, secret=secret)
    cause = None
    try:
        for frame in frames:
            handshake.take(frame)
    except LinkEndError as error:
        cause = error.ending.cause
    assert cause in (None, Cause.ENDED, Cause.INCOMPATIBLE, Cause.VIOLATION)
    assert secret is None or handshake.peer is None


@pytest.mark.parametrize("name", [name for name in SOME if name not in ("hello", "end")])
def test_a_wrong_first_frame_is_a_violation(name):
    kind = violation_of(side(A, B, inbound=True), encode(SOME[name]))
    assert kind is (Violation.ORDER if name in ("proof", "ready") else Violation.FRAME)


def test_frames_after_the_hello_are_refused_by_it():
    dialler, other = pair(None, None)
    talk(dialler, other)
    assert violation_of(other, encode(SOME["hello"])) is Violation.ORDER


def test_the_secret_is_in_no_frame():
    said = b"".join(frame for _, frame in talk(*pair()))
    assert SECRET not in said
