# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything that can be configured, with its default, unit and bounds: one frozen value, built and checked once.

`supervisor.config` builds it from defaults, the file, the environment and flags; the root hands it to each actor as
JSON in `Boot.settings`. Bounds are part of the types, so a wrong value is refused before anything starts.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from actors.setting_types import Count, Limit, Port, Processes, Seconds, Size, Spares
from actors.settings_p2p import P2PSettings

PoolName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]*$", max_length=24)]
"""Part of a process's name and of its socket's path."""
Quirk = Literal[
    "legacy-version-header", "other-version-header", "no-version-header", "accept", "no-content-type", "stale-session",
    "no-task-name",
]  # fmt: skip
"""A deviation of real clients that can be tolerated; `gateway.mcp.quirks` says what each is."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients reach us, and what they may send."""

    host: str = "127.0.0.1"
    """Address to listen on. One that others can reach needs `allow_unauthenticated`."""
    port: Port = 8000
    """0 = any free port."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below it are not logged, in the root and in every actor."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """`json`: one object per line. `text`: the same events for people. `auto`: on a terminal text, and at level INFO
    only what goes wrong; elsewhere `json`."""
    gateways: Processes = 1
    """Gateway processes on the one port."""
    spares: Spares = 1
    """Gateways that stand by, ready to take the place of one that dies."""
    allowed_hosts: list[str] = []
    """Host header values besides the bound address and the loopback names; `*` allows any."""
    allowed_origins: list[str] = []
    """Origin header values besides those of the loopback names; `*` allows any."""
    allow_unauthenticated: bool = False
    """Serve an address that others can reach although nobody has to prove who they are."""
    max_body_bytes: Size = 4 * 1024 * 1024
    """A request's body; more is answered with 413."""
    max_header_bytes: Size = 16 * 1024
    """A request's head; more is answered with 431."""
    max_connections: Count = 2048
    """Open HTTP connections per gateway; more wait in the backlog."""
    read_timeout_s: Seconds = 5.0
    """Time for a request's head, and between two pieces of its body."""
    write_timeout_s: Seconds = 5.0
    """A client that takes nothing for so long is disconnected."""
    idle_timeout_s: Seconds = 75.0
    """A kept-alive connection without a request for so long is closed."""
    strict: bool = False
    """Refuse the known quirks of real clients instead of tolerating them, whatever `quirks` says."""
    quirks: list[Quirk] = msgspec.field(default_factory=lambda: list(get_args(Quirk)))
    """Those that are tolerated."""
    legacy_sse: bool = False
    """Serve the old HTTP+SSE transport of 2024-11-05 as well, under `/sse`; needs `gateways: 1`."""
    legacy_sse_streams: Count = 64
    """Clients of the old transport at once; more are refused."""


class StdioSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bridge to programs that start their server: `greenroom stdio`. It reads them when it starts."""

    max_requests: Count = 512
    """Open requests of one client; more are refused as busy."""
    patience_s: Seconds = 30.0
    """How long a request waits for a gateway when there is none."""
    end_s: Seconds = 10.0
    """Time for open requests when the client has closed its side."""


class McpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients are told of this server, and how much they may ask to be told."""

    title: str = ""
    """The server's name for people."""
    instructions: str = ""
    """How its tools are best used, for the model; clients read it once."""
    website_url: str = ""
    """Where people find more."""
    icons: list[str] = []
    """Pictures: `https:` or `data:` addresses."""
    page_size: Count = 1000
    """Entries on one page of a list. Large, because many clients read only the first."""
    max_subscriptions: Count = 256
    """Resources and tasks that one session or listen may subscribe to."""
    max_subscriptions_in_all: Count = 20_000
    """Subscriptions of all clients together, per gateway."""
    task_poll_s: Seconds = 1.0
    """How long clients are told to wait between two looks at a task."""
    task_keep_s: Seconds = 86400.0
    """How long a call that ran as a task can be read after its end; clients of 2025-11-25 may ask for less."""


class SessionsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sessions of the revisions before 2026-07-28."""

    max_age_s: Seconds = 30 * 24 * 3600.0
    """Time after which a session's id is stale. Long, because many clients never start again on their own."""
    max_remembered: Count = 4096
    """Sessions whose state (log level, subscriptions) is kept per gateway; the one that was idle for longest goes
    first, never one in use. The sessions themselves go on."""
    max_ended: Count = 16_384
    """Ended ids that are remembered per gateway; the oldest is forgotten first, and is then valid again."""
    max_streams: Count = 8
    """GET streams of one session; a further one ends the oldest."""


class QuestionsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tools may ask a client while they run (elicitation, sampling, roots)."""

    timeout_s: Seconds = 600.0
    """Time for a client to answer in a session (revisions before 2026-07-28); then the tool is told that it did not."""
    max_open: Count = 16
    """Questions of one session that wait for an answer at once; more are refused as busy."""
    max_rounds: Count = 32
    """Times that one call may come back with answers and be asked again (2026-07-28)."""
    state_max_age_s: Seconds = 3600.0
    """Time between a question and the call that brings the answer (2026-07-28); later ones have to start again."""
    max_state_bytes: Size = 256 * 1024
    """What a call's answers so far may take, sealed, on their way through the client (2026-07-28)."""
    task_timeout_s: Seconds = 3600.0
    """Time for a client to answer what a task asks; then the tool is told that it did not. The task keeps its place in
    the worker meanwhile."""


class StreamsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Event streams of sessions: what a client that lost its connection can still get, per gateway."""

    retry_s: Seconds = 0.5
    """How soon a client should come back when its connection was ended on purpose."""
    stream_after_s: Seconds = 1.0
    """A call that takes longer is answered as a stream that can be resumed (2025-11-25)."""
    keep_s: Seconds = 300.0
    """Time for which the events of an ended stream are kept."""
    max_events: Count = 1024
    """Events kept of one stream; the oldest go first, an answer never."""
    max_kept_bytes: Size = 32 * 1024 * 1024
    """All events that are kept; the oldest streams go first."""


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two runtimes."""

    enabled: bool = True
    """Off: its tools say that it is, and the other runtime works on."""
    workers: Processes = 1
    """Processes per pool, where the pool does not say."""
    timeout: Seconds = 60.0
    """Seconds for a call whose tool does not say."""


class GeneralRuntimeSettings(RuntimeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The runtime of the tool pools."""

    spares: Spares = 1
    """Processes per pool that stand by, where the pool does not say."""


class RuntimesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The isolated halves of the system: general tools, and P2P services."""

    general: GeneralRuntimeSettings = GeneralRuntimeSettings()
    p2p: RuntimeSettings = RuntimeSettings()


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pool of tool processes."""

    workers: Processes | None = None
    """Processes; None = `runtimes.general.workers`."""
    spares: Spares | None = None
    """Processes that stand by; None = `runtimes.general.spares`."""
    max_calls_at_once: Count = 256
    """Per process; more are held by the callers, then refused as busy."""
    categories: list[str] = []
    """Tool categories that run here. The pool `general` takes all that no other pool names."""
    open_files: Limit | None = None
    """Limit of open files per process; None = the system's."""
    cpu_s: Limit | None = None
    """Seconds of CPU time after which a process is ended (and replaced)."""
    file_size_bytes: Limit | None = None
    """Size of a file that a process may write."""
    address_space_bytes: Limit | None = None
    """Virtual memory of a process."""
    memory_high_bytes: Limit | None = None
    """Resident memory above which a process is replaced, in order: the next one takes its place, and it finishes its
    calls."""
    max_calls: Limit | None = None
    """Calls after which a process is replaced, in order."""
    max_processes: Limit | None = None
    """Processes and threads that a process and all that it starts may have; needs a control group that can be
    written, else it is reported as not enforced."""


class ToolsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tools there are, and what they may touch."""

    enabled_categories: list[str] = msgspec.field(default_factory=lambda: ["all"])
    """`all`, or the categories to load."""
    paths: list[str] = []
    """Modules and folders with the user's own tools (`--tools`)."""
    roots: list[str] = []
    """Folders that tools may read and write files in. Always among them: `files/` in the data directory."""
    threads: Count = 16
    """Plain (not async) tools that run at once in one process."""
    max_result_bytes: Size = 8 * 1024 * 1024
    """A tool's result as JSON; more is an error."""
    max_catalogue_bytes: Size = 1024 * 1024
    """Descriptions and schemas of all that one pool offers; what comes after is left out, and said to be."""
    allow_private_addresses: bool = False
    """Let network tools reach loopback and private addresses."""
    max_fetch_bytes: Size = 32 * 1024 * 1024
    """What a tool may download in one call."""
    pools: dict[PoolName, PoolSettings] = {}
    """Pools by name, with the keys below. `general` is always there."""
    max_concurrent: dict[str, Count] = {}
    """Tool name -> calls at once in the whole system."""


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls wait and retry."""

    spares: Spares = 1
    """Routers that stand by."""
    max_held_calls: Count = 1024
    """Calls that wait for a process, per caller; more are refused as busy."""
    carry: bool = False
    """Carry every call through the router instead of sending it straight to a pool."""


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connections between actors."""

    max_frame_bytes: Size = 16 * 1024 * 1024
    """One message; must be able to carry the largest body and the largest result."""
    max_calls_at_once: Count = 1024
    """Open calls on one connection; more are refused as busy."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restarts and liveness."""

    restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    """A group gives up when it needs more restarts than this within `within_s`."""
    within_s: Seconds = 30.0
    """The time in which restarts are counted."""
    backoff_first_s: Seconds = 0.1
    """The first restart has no delay; the second waits a random time up to this, the bound doubles with each more."""
    backoff_cap_s: Seconds = 10.0
    """The longest delay before a restart."""
    backoff_reset_s: Seconds = 30.0
    """An actor that was ready for so long starts again without delay."""
    heartbeat_s: Seconds = 1.0
    """Time between two signs of life of an actor."""
    hung_after_s: Seconds = 5.0
    """An actor that is silent for so long is killed and replaced; at least twice `heartbeat_s`."""
    ready_timeout_s: Seconds = 20.0
    """Time for a new process until it does its work."""
    fork_server: bool = True
    """Start children by forking a process that has everything loaded: in milliseconds, and with shared memory."""
    shutdown_s: Seconds = 5.0
    """Time for an actor to finish its open calls when it is stopped; then it is killed."""
    drain_s: Seconds = 60.0
    """Time for a process to finish its open calls when another one has taken its place: by `restart --drain`, `reload`,
    a limit, or because its pool shrinks."""
    quarantine_after: Annotated[int, Meta(ge=1, le=1000)] = 2
    """A tool is refused with the very arguments that it ran with when so many processes died, until an operator
    releases it. A call of them that is answered sets the count back."""
    quarantine_max: Annotated[int, Meta(ge=1, le=2000)] = 1000
    """Quarantined calls that are remembered, and as many suspect ones; the oldest are forgotten first."""
    breaker_deaths: Annotated[int, Meta(ge=1, le=1000)] = 3
    """A tool is refused for a while when so many processes died with it within `breaker_within_s`, whatever the
    arguments, and no call of it was answered in between."""
    breaker_within_s: Seconds = 60.0
    """The time in which such deaths are counted."""
    breaker_open_s: Seconds = 30.0
    """How long such a tool is refused before it is tried again; doubled each time that the trial ends a process."""
    breaker_open_cap_s: Seconds = 600.0
    """The longest such time."""
    runtime_dir: str = ""
    """Folder for sockets; empty = one of our own below the system's runtime or temporary folder."""


class MonitoringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics and traces."""

    enabled: bool = True
    """Serve metrics."""
    metrics_port: Port = 0
    """0 = metrics are served on the gateway's own port only, under /metrics."""
    enable_tracing: bool = False
    """Send traces to `tracing_endpoint`."""
    tracing_endpoint: str = "http://localhost:4318"
    """An OpenTelemetry collector (OTLP over HTTP)."""


class ChaosSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults on purpose."""

    enabled: bool = False
    """Allow `greenroom chaos run` here, and load the tools that break their process, in the pool `chaos`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    stdio: StdioSettings = StdioSettings()
    mcp: McpSettings = McpSettings()
    sessions: SessionsSettings = SessionsSettings()
    questions: QuestionsSettings = QuestionsSettings()
    streams: StreamsSettings = StreamsSettings()
    runtimes: RuntimesSettings = RuntimesSettings()
    tools: ToolsSettings = ToolsSettings()
    router: RouterSettings = RouterSettings()
    channel: ChannelSettings = ChannelSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    p2p: P2PSettings = P2PSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    chaos: ChaosSettings = ChaosSettings()
