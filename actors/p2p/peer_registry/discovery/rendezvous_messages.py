# SPDX-License-Identifier: AGPL-3.0-or-later
"""The messages of `/rendezvous/1.0.0` in the form that libp2p for Python speaks: peers register with a meeting point
under a name, and ask it who else has."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import base58
import msgspec

from actors.p2p.peer_registry.addresses import as_text

PROTOCOL: Final = "/rendezvous/1.0.0"
MOST_ADDRESSES: Final = 16
"""Of one peer that are looked at."""
MOST_REGISTRATIONS: Final = 100
"""In one answer."""
_MOST_ID_BYTES: Final = 64
_MOST_TEXT: Final = 200


class UnknownMessageError(ValueError):
    """A message of a kind that is not spoken here."""


class Status(IntEnum):
    """What became of a request."""

    OK = 0
    INVALID_NAMESPACE = 100
    INVALID_PEER = 101
    INVALID_TTL = 102
    INVALID_COOKIE = 103
    NOT_AUTHORIZED = 200
    INTERNAL = 300
    UNAVAILABLE = 400


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """This peer is at these addresses (multiaddrs without the peer id), for so many seconds."""

    namespace: str
    peer_id: str
    addresses: list[str]
    ttl_s: int


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to it."""

    status: int
    text: str = ""
    ttl_s: int = 0


class Unregister(msgspec.Struct, frozen=True, kw_only=True):
    """Forget this peer under that name. It has no answer."""

    namespace: str
    peer_id: str


class Discover(msgspec.Struct, frozen=True, kw_only=True):
    """Who is registered under that name?"""

    namespace: str
    most: int
    cookie: bytes = b""
    """From the answer before: where to go on."""


class Discovered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to it."""

    status: int
    text: str = ""
    registrations: list[Register] = []
    cookie: bytes = b""


Message = Register | Registered | Unregister | Discover | Discovered


def encode(message: Message) -> bytes:
    """As it is sent."""
    raw = _new()
    match message:
        case Register():
            raw.type = raw.REGISTER
            _put(raw.register, message)
        case Registered():
            raw.type = raw.REGISTER_RESPONSE
            raw.registerResponse.status = message.status
            raw.registerResponse.statusText = message.text
            raw.registerResponse.ttl = message.ttl_s
        case Unregister():
            raw.type = raw.UNREGISTER
            raw.unregister.ns = message.namespace
            raw.unregister.id = base58.b58decode(message.peer_id)
        case Discover():
            raw.type = raw.DISCOVER
            raw.discover.ns = message.namespace
            raw.discover.limit = message.most
            raw.discover.cookie = message.cookie
        case Discovered():
            raw.type = raw.DISCOVER_RESPONSE
            raw.discoverResponse.status = message.status
            raw.discoverResponse.statusText = message.text
            raw.discoverResponse.cookie = message.cookie
            for one in message.registrations:
                _put(raw.discoverResponse.registrations.add(), one)
    data: bytes = raw.SerializeToString()
    return data


def decode(data: bytes) -> Message:
    """What was sent. Raises `ValueError` for what is no such message."""
    from google.protobuf.message import DecodeError

    raw = _new()
    try:
        raw.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"no message of {PROTOCOL}: {error}") from None
    if raw.type == raw.REGISTER:
        return _register(raw.register)
    if raw.type == raw.REGISTER_RESPONSE:
        answer = raw.registerResponse
        return Registered(status=answer.status, text=_plain(answer.statusText), ttl_s=answer.ttl)
    if raw.type == raw.UNREGISTER:
        return Unregister(namespace=raw.unregister.ns, peer_id=_peer_id(raw.unregister.id))
    if raw.type == raw.DISCOVER:
        return Discover(namespace=raw.discover.ns, most=raw.discover.limit, cookie=raw.discover.cookie)
    if raw.type == raw.DISCOVER_RESPONSE:
        answer = raw.discoverResponse
        return Discovered(
            status=answer.status,
            text=_plain(answer.statusText),
            registrations=[_register(one) for one in answer.registrations[:MOST_REGISTRATIONS]],
            cookie=answer.cookie,
        )
    raise UnknownMessageError(f"{PROTOCOL} has no message of type {raw.type} here")


def _new() -> Any:  # noqa: ANN401
    from libp2p.discovery.rendezvous.pb.rendezvous_pb2 import Message as Raw

    return Raw()


def _put(raw: Any, message: Register) -> None:  # noqa: ANN401
    from multiaddr import Multiaddr

    raw.ns = message.namespace
    raw.ttl = message.ttl_s
    raw.peer.id = base58.b58decode(message.peer_id)
    raw.peer.addrs.extend(Multiaddr(one).to_bytes() for one in message.addresses)


def _register(raw: Any) -> Register:  # noqa: ANN401
    addresses = list(filter(None, map(as_text, raw.peer.addrs[:MOST_ADDRESSES])))
    return Register(namespace=raw.ns, peer_id=_peer_id(raw.peer.id), addresses=addresses, ttl_s=raw.ttl)


def _peer_id(raw: bytes) -> str:
    """As text; '' for what is far too long."""
    return base58.b58encode(raw).decode() if len(raw) <= _MOST_ID_BYTES else ""


def _plain(text: str) -> str:
    return "".join(filter(str.isprintable, text[:_MOST_TEXT]))
