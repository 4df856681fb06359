# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node and its peers as text for people."""

from __future__ import annotations

import time

import msgspec

from actors.peer_messages import BanList, KnownPeer, NodeShown, PeerPage, PeerToolAnswer, PeerToolList
from supervisor.screen import duration


def node_text(node: NodeShown) -> str:
    """Who this node is, and whom it knows."""
    lines = [node.peer_id, *(f"  listens on {address}" for address in node.addresses or ["nothing: it only dials"])]
    lines.append(f"  {node.connected} connected, {node.linked} of them Greenroom nodes; {node.known} known")
    if node.sent or node.running:
        lines.append(f"  {node.sent} tasks are with peers, {node.running} of theirs run here")
    if node.latency_s is not None and node.latency_most_s is not None:
        lines.append(f"  pings: {node.latency_s * 1e3:.1f} ms (median), {node.latency_most_s * 1e3:.1f} ms (slowest)")
    if node.bans:
        lines.append(f"  {node.bans} bans hold: greenroom peers bans")
    if node.refused:
        lines.append("  refused: " + ", ".join(f"{count} x {code}" for code, count in sorted(node.refused.items())))
    return "\n".join(lines)


def list_text(page: PeerPage) -> str:
    """A line for each peer."""
    if not page.peers:
        return "no peer is known; greenroom peers connect ADDRESS makes the first one"
    lines = [_line(peer) for peer in page.peers]
    if page.total > len(page.peers):
        lines.append(f"{page.total - len(page.peers)} more")
    return "\n".join(lines)


def _line(peer: KnownPeer) -> str:
    facts: list[str] = [peer.status]
    now = time.time()
    if peer.connected_since is not None:
        facts.append(f"for {duration(max(0.0, now - peer.connected_since))}")
    elif peer.last_seen is not None:
        facts.append(f"seen {duration(max(0.0, now - peer.last_seen))} ago")
    if peer.latency_s is not None:
        facts.append(f"{peer.latency_s * 1e3:.1f} ms")
    if peer.reputation is not None:
        facts.append(f"reputation {peer.reputation:.2f}")
    if peer.banned_until is not None:
        facts.append(f"banned for {duration(max(0.0, peer.banned_until - now))} ({peer.ban_reason})")
    if peer.persistent:
        facts.append("kept")
    place = peer.address or next(iter(peer.addresses), "")
    return f"{peer.peer_id}  {', '.join(facts)}  {place}".rstrip()


def bans_text(found: BanList) -> str:
    """A line for each ban."""
    if not found.bans:
        return "nobody is banned"
    now = time.time()
    return "\n".join(f"{ban.subject}  for {duration(max(0.0, ban.until - now))}: {ban.reason}" for ban in found.bans)


def tools_text(found: PeerToolList) -> str:
    """A line for each tool of a peer."""
    if not found.tools:
        return "this peer lets us call nothing"
    lines = [" ".join([tool.name, "", *tool.description.split("\n")[:1]]).rstrip() for tool in found.tools]
    return "\n".join(map(_shown, lines))


def tools_json(found: PeerToolList) -> str:
    """The same with what each takes."""
    tools = [
        {"name": tool.name, "description": tool.description, "input_schema": msgspec.Raw(tool.input_schema)}
        for tool in found.tools
    ]
    return msgspec.json.encode({"tools": tools}).decode()


def answer_text(answer: PeerToolAnswer) -> str:
    """What a peer's tool gave: text as it is, all else as JSON."""
    value = msgspec.json.decode(answer.value)
    return _shown(value if isinstance(value, str) else msgspec.json.format(answer.value, indent=2).decode())


def _shown(text: str) -> str:
    """What a peer says, without what would steer a terminal."""
    return "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")


def answer_json(answer: PeerToolAnswer) -> str:
    """The same, and how it came."""
    return msgspec.json.encode({"result": msgspec.Raw(answer.value), "way": answer.way}).decode()
