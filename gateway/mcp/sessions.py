# SPDX-License-Identifier: AGPL-3.0-or-later
"""Legacy sessions: ids that carry what was negotiated, and the little that one gateway remembers about each.

An id is a signed token (HMAC-SHA256), so that any gateway process with the same secret, also one that was started
later, serves the session. What is *not* in the token lives in the processes: the log level, running calls, open
streams, and the ids that were ended by DELETE. What a client says of these to one gateway is told to the
others (`take_note`); a gateway that starts later does not know it. Subscriptions are kept outside (`keeping`), and
only read into the processes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.settings import SessionsSettings
from actors.tool_messages import SessionNote
from gateway.mcp.tokens import Signer

if TYPE_CHECKING:
    import trio

    from gateway.mcp.calls import Outbox

CLOCK_SLACK_S: Final = 300
"""An id may come from this far in the future: another gateway's clock."""

_PURPOSE: Final = b"greenroom mcp session 1\n"
_MAX_LENGTH: Final = 512

CAPABILITY_BITS: Final = (
    ("roots",),
    ("roots", "listChanged"),
    ("sampling",),
    ("sampling", "tools"),
    ("sampling", "context"),
    ("elicitation",),
    ("elicitation", "form"),
    ("elicitation", "url"),
    ("tasks",),
)
"""Client capabilities that a token keeps, each as a path into the capabilities object; bit n is entry n."""


class Claims(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a session id says."""

    revision: int
    issued_at: int
    """Seconds since 1970."""
    nonce: bytes
    """Makes the id unique."""
    client: bytes
    """Digest of the client's name and version."""
    capabilities: int
    """See `CAPABILITY_BITS`."""
    principal: bytes
    """Digest of who opened the session; others can't use it."""
    issued_ms: int = 0
    """Milliseconds beyond `issued_at`, rounded up: the client does not have the id before then."""


class Session:
    """A live session as this process knows it."""

    __slots__ = (
        "calls",
        "claims",
        "dropped",
        "left_at",
        "log_level",
        "restored",
        "revision",
        "streams",
        "subscriptions",
    )

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.revision = claims.revision
        self.log_level = ""
        """Set by the client; '' = it has not asked for log messages."""
        self.calls: dict[int | str, trio.CancelScope] = {}
        """Request id -> its running call."""
        self.streams: list[Outbox] = []
        """Open GET streams, the newest last."""
        self.subscriptions: set[str] = set()
        """URIs of resources whose changes it wants to hear of, as far as they were read."""
        self.restored = False
        """What is kept of it was read."""
        self.left_at: int | None = None
        """When its last GET stream was closed, by the clock of `news`; None when it had none here."""
        self.dropped = False
        """This object stands for no session any more."""

    @property
    def busy(self) -> bool:
        """Whether something here would be lost with this object."""
        return bool(self.calls or self.streams)

    def declared(self, *path: str) -> bool:
        """Whether the client declared a capability of `CAPABILITY_BITS`."""
        return bool(self.claims.capabilities >> CAPABILITY_BITS.index(path) & 1)


class Sessions:
    """Makes, checks and ends session ids."""

    def __init__(
        self,
        secret: bytes,
        now: Callable[[], float],
        settings: SessionsSettings,
        on_drop: Callable[[Session], None] = lambda _: None,
    ) -> None:
        """`on_drop` hears of each session whose state is dropped here."""
        self._settings = settings
        self._on_drop = on_drop
        self._signer = Signer(secret, _PURPOSE, _MAX_LENGTH)
        self._now = now
        self._live: OrderedDict[str, Session] = OrderedDict()
        self._revoked: OrderedDict[bytes, None] = OrderedDict()
        self._levels: OrderedDict[bytes, str] = OrderedDict()
        """Log levels that clients set at other gateways, by session."""

    def open(self, revision: int, *, client: object, capabilities: object, principal: str) -> str:
        """A new session's id. `client` and `capabilities` are JSON values from the handshake."""
        seconds, part = divmod(self._now(), 1)
        claims = Claims(
            revision=revision,
            issued_at=int(seconds),
            issued_ms=int(part * 1000) + 1,
            nonce=secrets.token_bytes(12),
            client=_digest(msgspec.json.encode(client, order="deterministic")),
            capabilities=_bits(capabilities),
            principal=_digest(principal.encode()),
        )
        return self._signer.seal(msgspec.msgpack.encode(claims))

    def find(self, token: str, principal: str) -> Session | None:
        """The session of an id; None when it is forged, stale, ended or somebody else's."""
        session = self._live.get(token)
        if session is None:
            claims = self._verify(token)
            if claims is None or claims.nonce in self._revoked:
                return None
            session = self._live[token] = Session(claims)
            session.log_level = self._levels.get(claims.nonce, "")
            self._forget_idle()
        else:
            self._live.move_to_end(token)
        claims = session.claims
        if not -CLOCK_SLACK_S <= self._now() - claims.issued_at <= self._settings.max_age_s:
            return None
        return session if claims.principal == _digest(principal.encode()) else None

    def end(self, token: str, session: Session) -> None:
        """Revoke an id, cancel its calls and close its streams."""
        self._live.pop(token, None)
        self._levels.pop(session.claims.nonce, None)
        self._revoke(session.claims.nonce)
        for scope in list(session.calls.values()):
            scope.cancel()
        for stream in list(session.streams):
            stream.finish()
        self._drop(session)

    def take_note(self, note: SessionNote) -> Session | None:
        """Another gateway was told something by a client of this session, which is returned if it is known here."""
        nonce = note.session
        found = next(((token, known) for token, known in self._live.items() if known.claims.nonce == nonce), None)
        if note.ended:
            if found is not None:
                self.end(*found)
            else:
                self._revoke(nonce)
        if note.log_level is not None:
            self._levels[nonce] = note.log_level
            if len(self._levels) > self._settings.max_remembered:
                self._levels.popitem(last=False)
            if found is not None:
                found[1].log_level = note.log_level
        if note.cancelled and found is not None:
            scope = found[1].calls.get(msgspec.json.decode(note.cancelled))
            if scope is not None:
                scope.cancel()
        return None if found is None else found[1]

    def age_s(self, session: Session) -> float:
        """Seconds since it was opened."""
        return self._now() - session.claims.issued_at - session.claims.issued_ms / 1000

    def __len__(self) -> int:
        return len(self._live)

    @property
    def revoked(self) -> int:
        """Ended ids that are remembered."""
        return len(self._revoked)

    def _revoke(self, nonce: bytes) -> None:
        self._revoked[nonce] = None
        if len(self._revoked) > self._settings.max_ended:
            self._revoked.popitem(last=False)

    def _forget_idle(self) -> None:
        if len(self._live) <= self._settings.max_remembered:
            return
        for token, session in self._live.items():
            if not session.busy:
                del self._live[token]
                self._drop(session)
                return

    def _drop(self, session: Session) -> None:
        session.dropped = True
        self._on_drop(session)

    def _verify(self, token: str) -> Claims | None:
        payload = self._signer.open(token)
        try:
            return None if payload is None else msgspec.msgpack.decode(payload, type=Claims)
        except msgspec.MsgspecError:
            return None


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:8] if data else b""


def _bits(capabilities: Any) -> int:  # noqa: ANN401 - a JSON value
    bits = 0
    for number, path in enumerate(CAPABILITY_BITS):
        value = capabilities
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        # An empty object declares a capability; `false` and null do not.
        if value is not None and value is not False:
            bits |= 1 << number
    return bits
