# SPDX-License-Identifier: AGPL-3.0-or-later
"""What crosses process borders: frames, and what the root and its actors tell each other.

Three planes use it:

* `Frame`: what a channel carries. A frame's `body` is one encoded value of the planes below and stays encoded until the
  party that needs it decodes it.
* `ControlMessage`: between the root and an actor, as one-way events on the control socket.
* the values of calls, named beside the method that carries them: of tools in `actors.tool_messages`, of the task queue
  in `actors.task_messages`.

Values are msgspec Structs in msgpack. Frames are arrays (they are the hot path), all others are maps. Unknown fields
are refused everywhere, so two versions never misread each other; `PROTOCOL_VERSION` is compared in the first frame.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

PROTOCOL_VERSION = 2
"""Compared in `Hello`; parties of different versions refuse each other."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An error as it crosses a border; `actors.errors` turns it into an exception and back."""

    code: str
    """Stable, upper case: what programs test."""
    message: str
    """What happened and what to do, for people."""
    retryable: bool = False
    """True when the same request may succeed later without a change."""
    details: dict[str, Any] = {}
    """Fields of this kind of error, JSON values only."""


# --- frames of a channel -------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """First frame in each direction. A `token` is wanted on the control socket only."""

    version: int
    actor: str
    incarnation: int
    token: str = ""


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Run `method`. `id` is unique on its connection; `timeout_s` is the time that is left, not a clock reading."""

    id: int
    method: str
    timeout_s: float
    body: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A call's result. Its last frame."""

    id: int
    body: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """A call's error. Its last frame."""

    id: int
    error: ErrorInfo


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """One element of a call's stream (progress, log), from callee to caller, before the last frame."""

    id: int
    body: msgspec.Raw


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """A request from the callee back to the caller, inside call `id`."""

    id: int
    ask_id: int
    method: str
    body: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """The caller's answer to an `Ask`: a body, or (with an empty body) an error."""

    id: int
    ask_id: int
    body: msgspec.Raw
    error: ErrorInfo | None = None


class Cancel(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """The caller no longer waits for call `id`; the callee stops it. There is no answer to it."""

    id: int
    reason: str


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """A one-way message outside of any call."""

    body: msgspec.Raw


class Leaving(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """This side is about to end, and takes no new calls. The other side answers with `NoMore`."""


class NoMore(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """The last of this side's calls was sent before this: so the other side knows that none lies unread."""


Frame = Hello | Call | Reply | Failure | Item | Ask | Answer | Cancel | Event | Leaving | NoMore


# --- the root and its actors ---------------------------------------------------------------------------------------


class State(StrEnum):
    """What can be said of one actor, by the root, everywhere."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    RESTARTING = "restarting"
    SPARE = "spare"
    FAILED = "failed"
    OFF = "off"


class Boot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new process is told by the root before its actor's main function runs."""

    actor: str
    """Its name: `router`, `tools.general#0`."""
    incarnation: int
    """Larger than that of every earlier life in this tree, of any actor."""
    entry: str
    token: str
    """Proves on the control socket that this process is the one that the root started. For one life."""
    runtime_dir: str
    """Holds the sockets; private to the user (mode 0700)."""
    data_dir: str
    beat_every_s: float
    root_pid: int
    settings: bytes
    """The configuration as JSON (`actors.settings.Settings`)."""
    spare: bool = False
    """It prepares itself and says ready, but does no work until it is told whose place it takes (`Promote`)."""
    listen_fds: dict[str, int] = {}
    """Name -> listening TCP socket that the root opened (gateways only); a spare has those of all whose place it may
    take."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ready"):
    """Actor to root, once: calls are answered on `socket` from now on ('' when it serves none)."""

    socket: str
    note: str = ""
    """One short remark for the first screen, such as `12 tasks recovered`."""


class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="beat"):
    """Actor to root, at a fixed pace, from the actor's own loop."""

    loop_lag_s: float
    """How much later than planned this beat was sent."""
    open_calls: int
    rss_bytes: int
    calls_total: int = 0
    errors_total: int = 0


class DirectoryEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an actor is and how it is."""

    name: str
    group: str
    state: State
    pid: int | None = None
    incarnation: int = 0
    restarts: int = 0
    socket: str = ""
    reason: str = ""
    """Why it is failed or off, and what would change that."""
    exits: dict[str, int] = {}
    """Ends of its lives that nobody asked for, by cause (`supervisor.events.ExitKind`), since the root's start."""


class Directory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="directory"):
    """Root to actor, after `Ready` and on each change: the whole list."""

    entries: list[DirectoryEntry]


class Drain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="drain"):
    """Root to actor: take no new work, finish what you have."""


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resume"):
    """Root to actor: take calls again."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stop"):
    """Root to actor: end within `grace_s` seconds. The root kills what is left afterwards."""

    grace_s: float
    replaced: bool = False
    """Another life does its work already: nobody waits for its end."""


class Promote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="promote"):
    """Root to a spare: from now on you are the actor of this name, and do its work."""

    name: str


class QuarantinedCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool with arguments that ended processes again and again: refused until somebody releases it."""

    id: str
    """What people type: the start of the digest."""
    digest: str
    """Keyed digest of tool and arguments, in hex."""
    tool: str
    deaths: int
    """Processes that ended while they ran it."""
    last_at: str
    """UTC, ISO 8601."""
    cause: str
    """How the last of them ended, in words."""


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that ended processes with many arguments: refused for a while, then tried again."""

    tool: str
    deaths: int
    half_open: bool = False
    """It is being tried again: one call at a time in each process."""
    retry_after_s: float = 0.0
    """Until it is tried again, when this was said."""


class Marks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="marks"):
    """Root to actor, after the first `Directory` and on each change: the calls and tools that end processes."""

    watched: list[str] = []
    """Digests of suspects: the root wants to hear when one is answered."""
    watched_tools: list[str] = []
    quarantined: list[QuarantinedCall] = []
    breakers: list[Breaker] = []


class Survived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="survived"):
    """Actor to root: this call, itself watched or of a watched tool, was answered, and the process lives."""

    tool: str
    digest: str


ControlMessage = Ready | Beat | Directory | Drain | Resume | Stop | Promote | Marks | Survived


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One actor in `greenroom status --json`."""

    name: str
    group: str
    pid: int | None
    incarnation: int
    state: State
    restarts: int
    uptime_s: float
    rss_bytes: int
    strategy: str = ""
    note: str = ""
    reason: str = ""
    loop_lag_s: float = 0.0
    open_calls: int = 0


class TreeStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Admin method `status`: the whole tree."""

    root_pid: int
    version: str
    uptime_s: float
    url: str
    groups: dict[str, str]
    """Group name -> strategy, in start order."""
    actors: list[ActorStatus]
    quarantined: int = 0
    """Calls that are refused because they end processes (`greenroom quarantine list`)."""
    breakers_open: list[str] = []
    """Tools that are refused for a while, or tried again, for the same reason."""
