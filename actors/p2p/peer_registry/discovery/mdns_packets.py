# SPDX-License-Identifier: AGPL-3.0-or-later
"""The packets by which libp2p nodes find each other in a local network
(https://github.com/libp2p/specs/blob/master/discovery/mdns.md): one asks who is there, all others name their addresses.
"""

from __future__ import annotations

import re
import secrets
import struct
from typing import Final

import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec
from dns.rdtypes.ANY.TXT import TXT

MOST_BYTES: Final = 2048
"""Of a packet that is taken apart, so that this takes some milliseconds at most."""
MOST_RECORDS: Final = 64
"""In one packet, questions included."""
MOST_ADDRESSES: Final = 16
"""Of one packet that are looked at."""
TTL_S: Final = 120

_HEADER: Final = struct.Struct("!4x4H")
"""How many records of each kind there are."""
_SERVICE: Final = dns.name.from_text("_p2p._udp.local.")
_MENTION: Final = b"\x04_p2p\x04_udp\x05local"
"""Without it a packet is no matter of ours. What is written for people does not have to be taken apart."""
_NAMES: Final = b"dnsaddr"
_KEY: Final = re.compile(rb"dnsaddr\d*=")
"""Some number theirs, since their library keeps each key once."""


class Packet(msgspec.Struct, frozen=True):
    """What a packet says, as far as we care."""

    asks: bool
    """Who is there?"""
    addresses: list[str]
    """Where somebody says that he is; anything may stand there."""


def new_name() -> str:
    """A node's name in the network; it means nothing, and nobody else has it."""
    return secrets.token_hex(20)


def question() -> bytes:
    """Who is there?"""
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.Flag(0)
    message.find_rrset(message.question, _SERVICE, dns.rdataclass.IN, dns.rdatatype.PTR, create=True, force_unique=True)
    return message.to_wire()


def answer(name: str, addresses: list[str]) -> bytes:
    """We are here. The addresses are multiaddrs with the peer id at their end."""
    mine = dns.name.from_text(name, _SERVICE)
    named = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.PTR, mine.to_text())
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.QR | dns.flags.AA
    message.answer.append(dns.rrset.from_rdata(_SERVICE, TTL_S, named))
    texts = [_NAMES + b"=" + address.encode() for address in addresses]
    message.additional.append(dns.rrset.from_rdata(mine, TTL_S, TXT(dns.rdataclass.IN, dns.rdatatype.TXT, texts)))
    return message.to_wire()


def read(data: bytes) -> Packet | None:
    """What a packet says; None = nothing that we care for, or no sense."""
    if not _HEADER.size < len(data) <= MOST_BYTES or _MENTION not in data.lower():
        return None
    if sum(_HEADER.unpack_from(data)) > MOST_RECORDS:
        return None
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except Exception:  # noqa: BLE001
        return None
    if not message.flags & dns.flags.QR:
        asks = any(one.name == _SERVICE and one.rdtype == dns.rdatatype.PTR for one in message.question)
        return Packet(asks=True, addresses=[]) if asks else None
    texts = [
        text
        for records in (message.answer, message.additional)
        for one in records
        if one.rdtype == dns.rdatatype.TXT and one.name != _SERVICE and one.name.is_subdomain(_SERVICE) and one.ttl
        for record in one
        for text in record.strings
    ]
    named = [text.partition(b"=")[2] for text in texts if _KEY.match(text)]
    return Packet(asks=False, addresses=[one.decode(errors="replace") for one in named[:MOST_ADDRESSES]])
