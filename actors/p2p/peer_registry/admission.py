# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may do what here, and how much of it. By default nobody may do anything: a peer id is no permission unless it is
named in `p2p.peer_registry.allow`, or the peer has proven the shared secret.

Each peer has limits of its own. Since ids cost nothing, all peers at one IP address that are not named in `allow` share
the limits of an address too, and its ban: whoever is named by id is not made to suffer for its neighbours. What is
remembered is bounded, however many ids come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Literal

import msgspec

from actors.errors import ForbiddenError, MCPServerError, RateLimitedError
from actors.p2p.peer_registry.addresses import is_own_machine, neighbour
from actors.p2p.peer_registry.bans import Ban, Bans
from actors.p2p.peer_registry.refusals import Refusals
from actors.p2p.peer_registry.shares import IN_FLIGHT_RETRY_S, Over, Share, Shares
from actors.settings_p2p import PeerGrant, PeerLimits, PeerRegistrySettings

MOST_SHARES: Final = 10_000
"""Peers that are not named in `allow`, and as many addresses, whose use is counted at once."""
STRANGERS: Final = PeerLimits(rate_per_s=1.0, burst=20, max_in_flight=4, max_bytes_per_s=256 * 1024)
"""Of one peer that may do nothing here but ask what everybody may: who this node is, and whom it knows."""
MOST_NAME_CHARS: Final = 256
"""Of a tool or type of task; nobody may anything with a longer one."""
_SECTION: Final = "p2p.peer_registry"
_SOME: Final = "strangers"
_SHOWN_CHARS: Final = 60


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    peer_id: str
    """As the secure channel proves it."""
    address: str = ""
    """The multiaddr that it comes from; empty = unknown."""
    proved: bool = False
    """It has proven the shared secret."""


class Right(msgspec.Struct, frozen=True):
    """To call a tool here, or to have a task of a type done here."""

    kind: Literal["tool", "task"]
    name: str


class Turn:
    """Something of a caller is in flight; it ends with the `with` block, or when `end` is called."""

    def __init__(self, shares: Sequence[tuple[Shares, Share]]) -> None:
        self._shares = shares

    def end(self) -> None:
        """It is over; a second time does nothing."""
        shares, self._shares = self._shares, ()
        for table, share in shares:
            table.ended(share)

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Admission:
    """See the module's text. Times are Unix seconds of the clock that is given."""

    def __init__(
        self, settings: PeerRegistrySettings, bans: Bans, now: Callable[[], float], *, most: int = MOST_SHARES
    ) -> None:
        self.refused: Counter[str] = Counter()
        """Refusals by error code."""
        self.on_abuse: Callable[[str, str], None] = lambda *_: None
        """Told the peer that asked too often for what it was not granted, and what it did."""
        self._settings = settings
        self._bans = bans
        self._now = now
        self._named = Shares(len(settings.allow) + 1)
        self._others = Shares(most)
        self._strangers = Shares(most)
        self._addresses = Shares(most)
        self._not_granted = Refusals(settings.max_refused, settings.refused_forgive_s, subjects=2 * most)

    def __len__(self) -> int:
        """Peers and addresses whose use is counted."""
        return len(self._named) + len(self._others) + len(self._strangers) + len(self._addresses)

    # --- rights ------------------------------------------------------------------------------------------------------

    def check_ban(self, caller: Caller) -> None:
        """Raises `ForbiddenError` for one that is banned, or comes from an address that is."""
        ban = self._ban_of(caller)
        if ban is not None:
            who = f"peer {caller.peer_id}" if ban.subject == caller.peer_id else f"address {ban.subject}"
            raise self._refused(self._banned(ban, who))

    def _ban_of(self, caller: Caller) -> Ban | None:
        ban = self._bans.of_peer(caller.peer_id)
        if ban is None and caller.peer_id not in self._settings.allow:
            ban = self._bans.of_address(caller.address)
        return ban

    def welcome(self, caller: Caller) -> PeerGrant:
        """What it may do here. Raises `ForbiddenError` for one that is banned, or may do nothing at all where strangers
        are not introduced."""
        self.check_ban(caller)
        if self._settings.introduce_strangers and self.grant_of(caller) is None:
            return PeerGrant()
        return self._grant(caller)[1]

    def is_introduced(self, caller: Caller) -> bool:
        """Whether it may know who else is here, and others that it is."""
        if self.grant_of(caller) is not None:
            return True
        return self._settings.introduce_strangers and self._ban_of(caller) is None

    def grant_of(self, caller: Caller) -> PeerGrant | None:
        """What it may do here, for those who only look: nothing is counted. None = nothing at all."""
        settings = self._settings
        if self._ban_of(caller) is not None:
            return None
        if caller.peer_id in settings.allow:
            return settings.allow[caller.peer_id]
        return settings.secret_grants if caller.proved and settings.secret_file else None

    def may(self, caller: Caller, right: Right) -> None:
        """Raises `ForbiddenError` that says what is missing; whoever goes on asking breaks the protocol."""
        self.check_ban(caller)
        try:
            self._check(caller, right)
        except ForbiddenError:
            self.not_granted(caller)
            raise

    def not_granted(self, caller: Caller) -> None:
        """It has asked for what it may not have. One that does so too often is reported; so is the one that is one too
        many at an IP address, unless it is named in `allow`, or comes from this machine."""
        now = self._now()
        subjects = [caller.peer_id]
        address = neighbour(caller.address)
        if address and caller.peer_id not in self._settings.allow and not is_own_machine(address):
            subjects.append(address)
        too_many = [subject for subject in subjects if self._not_granted.add(subject, now)]
        if too_many:
            self.on_abuse(caller.peer_id, "it asks on and on for what it was not granted")

    def _check(self, caller: Caller, right: Right) -> None:
        section, grant = self._grant(caller)
        names = grant.tools if right.kind == "tool" else grant.tasks
        if len(right.name) > MOST_NAME_CHARS or not granted(right.name, names):
            shown = right.name[:_SHOWN_CHARS]
            what = f"call the tool {shown!r}" if right.kind == "tool" else f"have tasks of type {shown!r} done"
            key = f"{_SECTION}.{section}.{'tools' if right.kind == 'tool' else 'tasks'}"
            raise self._refused(
                ForbiddenError(
                    f"peer {caller.peer_id} may not {what} at this node: its operator can add the name to {key}",
                    setting=key,
                )
            )

    def _grant(self, caller: Caller) -> tuple[str, PeerGrant]:
        grant = self._settings.allow.get(caller.peer_id)
        if grant is not None:
            return f"allow.{caller.peer_id}", grant
        if caller.proved and self._settings.secret_file:
            return "secret_grants", self._settings.secret_grants
        how = f"name it in {_SECTION}.allow"
        if self._settings.secret_file:
            how += f", or the peer can prove the shared secret ({_SECTION}.secret_file on both sides)"
        else:
            how += f", or set {_SECTION}.secret_file on both sides"
        raise self._refused(
            ForbiddenError(f"peer {caller.peer_id[:_SHOWN_CHARS]} may do nothing at this node: its operator can {how}")
        )

    def _banned(self, ban: Ban, who: str) -> ForbiddenError:
        left_s = max(0.0, ban.until - self._now())
        return ForbiddenError(
            f"{who} is banned by this node for {left_s:.0f} s more ({ban.reason}); wait, or ask its operator",
            banned_for_s=left_s,
        )

    # --- shares ------------------------------------------------------------------------------------------------------

    def begin(self, caller: Caller, right: Right, size: int = 0) -> Turn:
        """Something of so many bytes begins that it may do. Raises as `may` does, and `RateLimitedError` when there
        is too much of it; then nothing counts."""
        self.may(caller, right)
        return self._turn(self._shares(caller, self._now()), caller, size)

    def ask(self, caller: Caller, size: int = 0) -> Turn:
        """It asks something that needs no right. Raises `RateLimitedError` for strangers that ask too often."""
        if self.grant_of(caller) is not None:
            return Turn(())
        now = self._now()
        address, of_address = neighbour(caller.address), self._settings.per_address
        shares = [
            (self._strangers, self._strangers.get(caller.peer_id, STRANGERS, now), _SOME),
            (self._addresses, self._addresses.get(address, of_address, now), "per_address"),
        ]
        return self._turn(shares, caller, size)

    def _turn(self, wanted: list[tuple[Shares, Share | None, str]], caller: Caller, size: int) -> Turn:
        now = self._now()
        shares = []
        for table, share, section in wanted:
            if share is None:
                raise self._refused(_too_many(table))
            over = share.over(now)
            if over is not None:
                raise self._refused(_too_much(caller, section, over))
            shares.append((table, share))
        for table, share in shares:
            share.call(size)
            table.began(share)
        return Turn(shares)

    def passed(self, caller: Caller, size: int) -> None:
        """So many bytes went either way besides those that calls began with, such as an answer."""
        now = self._now()
        for _, share, _ in self._shares(caller, now):
            if share is not None:
                share.passed(size, now)

    def pause_s(self, caller: Caller) -> float:
        """For how long nothing more should be read from it, to keep it to its bytes per second."""
        now = self._now()
        return max((share.owes_s(now) for _, share, _ in self._shares(caller, now) if share is not None), default=0.0)

    def _shares(self, caller: Caller, now: float) -> list[tuple[Shares, Share | None, str]]:
        named = self._settings.allow.get(caller.peer_id)
        if named is not None:
            return [(self._named, self._named.get(caller.peer_id, named, now), f"allow.{caller.peer_id}")]
        if not (caller.proved and self._settings.secret_file):
            return []
        limits: PeerLimits = self._settings.secret_grants
        address, of_address = neighbour(caller.address), self._settings.per_address
        return [
            (self._others, self._others.get(caller.peer_id, limits, now), "secret_grants"),
            (self._addresses, self._addresses.get(address, of_address, now), "per_address"),
        ]

    def _refused(self, error: MCPServerError) -> MCPServerError:
        self.refused[error.code] += 1
        return error


def granted(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is this name, where `*` stands for any text."""
    return any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    *middle, last = others
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _too_much(caller: Caller, section: str, over: Over) -> RateLimitedError:
    whose = f"peers at the address of {caller.peer_id}" if section == "per_address" else f"peer {caller.peer_id}"
    how = "" if section == _SOME else f", or its operator can raise {_SECTION}.{section}.{over.limit}"
    return RateLimitedError(
        f"{whose}: the limit {over.limit} = {over.most:g} of this node is reached; try again in "
        f"{over.retry_after_s:.2g} s{how}",
        retry_after_s=over.retry_after_s,
        limit=over.limit,
    )


def _too_many(table: Shares) -> RateLimitedError:
    return RateLimitedError(
        f"{len(table)} peers have something in flight at this node already; try again in {IN_FLIGHT_RETRY_S:g} s",
        retry_after_s=IN_FLIGHT_RETRY_S,
        limit="peers",
    )
