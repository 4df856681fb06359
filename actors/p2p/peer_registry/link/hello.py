# SPDX-License-Identifier: AGPL-3.0-or-later
"""How two nodes begin a link: they agree on a version, prove to each other that they know the shared secret, if there
is one, and say what they offer. Bytes in, bytes out: no stream, no clock.

    dialler                             the other
    HELLO  versions, instance, nonce    HELLO        both at once
    PROOF                               -
    -                                   PROOF READY  once the dialler's proof was right
    READY                               -

So a stranger who dials hears nothing that was made with the secret. A proof is the HMAC-SHA256 of both peer ids (as the
secure channel has proven them), both nonces and both hellos, the prover's first: it can't be reflected, repeated or
passed on. From the same follow two keys, one per direction, for the codes of all frames after PROOF.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from actors.p2p.peer_registry.link.frames import CODE_BYTES, Op, Seal, joined
from actors.p2p.peer_registry.link.messages import End, NameOrNone, Names, Said
from actors.p2p.peer_registry.link.reasons import Cause, LinkEndError, LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules

VERSIONS: Final = (1,)
"""Of the protocol; those that this side speaks."""
NONCE_BYTES: Final = 32
INSTANCE_BYTES: Final = 16
_CONTEXT: Final = b"/greenroom/link/1.0.0 "

B = TypeVar("B")
Parts: TypeAlias = tuple[int, int, B]
_encode = msgspec.msgpack.Encoder().encode
_hello_bytes = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a side keeps, and the other has to respect."""

    max_frame_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)]
    max_serving: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Requests that it works on at once."""
    heartbeat_s: Annotated[float, Meta(ge=0.01, le=60)]
    """It says something at least so often."""


class Hello(Said, frozen=True, forbid_unknown_fields=False, tag="hello"):
    """The first frame of each side. What later versions say in it besides is for those that speak them."""

    versions: Annotated[list[Annotated[int, Meta(ge=1, le=65535)]], Meta(min_length=1, max_length=16)]
    instance: Annotated[bytes, Meta(min_length=INSTANCE_BYTES, max_length=INSTANCE_BYTES)]
    """Drawn when the process started."""
    nonce: _hello_bytes
    """Drawn for this link."""
    secret: bool
    """It has a shared secret, and wants it proven."""


class Proof(Said, frozen=True, tag="proof"):
    """Empty where there is no secret."""

    code: Annotated[bytes, Meta(max_length=hashlib.sha256().digest_size)]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a side offers the other one. May be another thing for each peer."""

    agent: NameOrNone = ""
    """Program and version."""
    capabilities: Names = []
    task_types: Names = []
    tools: Names = []
    """Globs of those that the other side may call."""


class Ready(Said, frozen=True, tag="ready"):
    """The ack: from now on the other side may send."""

    about: About
    limits: Limits


class PeerHello(msgspec.Struct, frozen=True, kw_only=True):
    """The other side of a link: what is proven of it, and what it said of itself."""

    peer_id: str
    """Proven."""
    address: str
    inbound: bool
    """It dialled."""
    proven: bool
    """It knows the shared secret."""
    version: int
    """That both speak."""
    instance: str
    """Another one after each start of its process."""
    about: About
    limits: Limits


_decode = msgspec.msgpack.Decoder(tuple[int, int, Hello | Proof | Ready | End]).decode
_KINDS: Final[dict[type[Said], Op]] = {Hello: Op.HELLO, Proof: Op.PROOF, Ready: Op.READY, End: Op.END}


def read_body(decode: Callable[[bytes | bytearray], Parts[B]], frame: bytes | bytearray) -> Parts[B]:
    """A frame's three parts. Raises `LinkViolation` when there are no such parts in it."""
    try:
        return decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LinkViolation(Violation.FRAME, f"a frame that can't be read: {error}"[:200]) from None


class Handshake:
    """One side's part in the beginning of a link. Send `first`, then give each frame that comes to `take` and send what
    it returns, until `peer` is set."""

    def __init__(
        self,
        me: str,
        other: str,
        *,
        address: str = "",
        inbound: bool,
        instance: bytes,
        about: About,
        rules: LinkRules,
        secret: bytes | None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`me` and `other` are peer ids; `inbound`: the other one dialled. Raises `ValueError` when they are the same,
        and when `about` is too long."""
        if me == other:
            raise ValueError("a node can't have a link to itself")
        limits = Limits(rules.max_frame_bytes, rules.max_serving, rules.heartbeat_s)
        self._ready_frame = _encode((0, Op.READY, Ready(about, limits)))
        if len(self._ready_frame) + CODE_BYTES > rules.max_hello_bytes:
            raise ValueError(f"what a peer is told has more than {rules.max_hello_bytes} bytes")
        self.peer: PeerHello | None = None
        """Set when all was said."""
        self.sending: Seal | None = None
        """Of all frames from here after PROOF."""
        self.receiving: Seal | None = None
        self._me = me
        self._other = other
        self._address = address
        self._inbound = inbound
        self._secret = secret
        self._hello = Hello(
            versions=list(VERSIONS), instance=instance, nonce=draw(NONCE_BYTES), secret=secret is not None
        )
        self._own_frame = _encode((0, Op.HELLO, self._hello))
        self._their_frame = b""
        self._their_hello: Hello | None = None
        self._version = 0
        self._awaited = Op.HELLO

    def first(self) -> bytes:
        """What is sent at once."""
        return joined([self._own_frame], None)

    def take(self, frame: bytes | bytearray) -> bytes:
        """A frame has come; returns what is sent now. Raises `LinkEndError`, `LinkViolation`."""
        if self.receiving is not None:
            frame = self.receiving.opened(frame)
        frame_id, op, body = read_body(_decode, frame)
        if frame_id or op != _KINDS[type(body)]:
            raise LinkViolation(Violation.FRAME, f"frame {op} does not hold what it should")
        if isinstance(body, End):
            raise LinkEndError(Cause.ENDED, body.reason)
        if op != self._awaited:
            raise LinkViolation(Violation.ORDER, f"frame {op} came where {int(self._awaited)} had to")
        if isinstance(body, Hello):
            self._their_frame = bytes(frame)
            return self._take_hello(body)
        if isinstance(body, Proof):
            return self._take_proof(body)
        assert isinstance(body, Ready)
        return self._take_ready(body)

    def refusal(self, reason: str) -> bytes:
        """What tells the other side that there will be no link."""
        return joined([_encode((0, Op.END, End(reason=reason[:200])))], self.sending)

    def _take_hello(self, hello: Hello) -> bytes:
        own = self._hello.versions
        common = set(hello.versions) & set(own)
        if not common:
            spoken = ", ".join(map(str, sorted(hello.versions)))
            raise LinkEndError(Cause.INCOMPATIBLE, f"it speaks version {spoken}, this side {max(own)}")
        if hello.secret != self._hello.secret:
            raise LinkEndError(Cause.INCOMPATIBLE, "only one side has a shared secret")
        if hello.nonce == self._hello.nonce:
            raise LinkViolation(Violation.UNPROVEN, "a hello with our own nonce")
        self._version = max(common)
        self._their_hello = hello
        self._awaited = Op.PROOF
        return b"" if self._inbound else self._prove()

    def _take_proof(self, proof: Proof) -> bytes:
        if not hmac.compare_digest(proof.code, self._code(b"proof", mine=False)):
            raise LinkViolation(Violation.UNPROVEN, "it does not know the shared secret")
        if self._secret is not None:
            self.receiving = Seal(self._code(b"key", mine=False))
        first = self._prove() if self._inbound else b""
        self._awaited = Op.READY
        return first + joined([self._ready_frame], self.sending)

    def _take_ready(self, ready: Ready) -> bytes:
        assert self._their_hello is not None
        self.peer = PeerHello(
            peer_id=self._other,
            address=self._address,
            inbound=self._inbound,
            proven=self._secret is not None,
            version=self._version,
            instance=self._their_hello.instance.hex(),
            about=ready.about,
            limits=ready.limits,
        )
        self._awaited = Op.END
        return b""

    def _prove(self) -> bytes:
        frame = joined([_encode((0, Op.PROOF, Proof(self._code(b"proof", mine=True))))], None)
        if self._secret is not None:
            self.sending = Seal(self._code(b"key", mine=True))
        return frame

    def _code(self, purpose: bytes, *, mine: bool) -> bytes:
        """Of the direction from here, or of the other; empty without a secret."""
        if self._secret is None:
            return b""
        assert self._their_hello is not None
        own = (self._me.encode(), self._hello.nonce, self._own_frame)
        theirs = (self._other.encode(), self._their_hello.nonce, self._their_frame)
        parts = zip(own, theirs, strict=True) if mine else zip(theirs, own, strict=True)
        said = b"".join(len(part).to_bytes(4, "big") + part for pair in parts for part in pair)
        return hmac.digest(self._secret, _CONTEXT + purpose + b"\0" + said, "sha256")
