# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything that can be configured, with its default, unit and bounds: one frozen value, built and checked once.

`supervisor.config` builds it from defaults, the file, the environment and flags; the root hands it to each actor as
JSON in `Boot.settings`. Bounds are part of the types, so a wrong value is refused before anything starts.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Size = Annotated[int, Meta(ge=1)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients reach us, and what they may send."""

    host: str = "127.0.0.1"
    port: Port = 8000
    """0 = any free port."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal and JSON lines elsewhere."""
    gateways: Count = 1
    """Gateway processes on the one port."""
    allowed_hosts: list[str] = []
    """Host header values besides the bound address and the loopback names; `*` allows any."""
    allowed_origins: list[str] = []
    """Origin header values besides those of the loopback names; `*` allows any."""
    allow_unauthenticated: bool = False
    """Serve an address that others can reach although nobody has to prove who they are."""
    max_body_bytes: Size = 4 * 1024 * 1024
    max_header_bytes: Size = 16 * 1024
    max_connections: Count = 2048
    """Open HTTP connections per gateway; more wait in the backlog."""
    read_timeout_s: Seconds = 5.0
    """Time for a request's head, and between two pieces of its body."""
    write_timeout_s: Seconds = 5.0
    """A client that takes nothing for so long is disconnected."""
    idle_timeout_s: Seconds = 75.0
    """A kept-alive connection without a request for so long is closed."""
    strict: bool = False
    """Refuse the known quirks of real clients instead of tolerating them."""


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two runtimes."""

    enabled: bool = True
    workers: Count = 1
    """Processes per pool, where the pool does not say."""
    timeout: Seconds = 60.0
    """Seconds for a call whose tool does not say."""


class RuntimesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The isolated halves of the system: general tools, and P2P services."""

    general: RuntimeSettings = RuntimeSettings()
    p2p: RuntimeSettings = RuntimeSettings()


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pool of tool processes."""

    workers: Count | None = None
    """Processes; None = `runtimes.general.workers`."""
    max_calls_at_once: Count = 256
    """Per process; more are held by the callers, then refused as busy."""
    categories: list[str] = []
    """Tool categories that run here. The pool `general` takes all that no other pool names."""
    open_files: Count | None = None
    cpu_s: Count | None = None
    file_size_bytes: Size | None = None
    address_space_bytes: Size | None = None


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
    allow_private_addresses: bool = False
    """Let network tools reach loopback and private addresses."""
    max_fetch_bytes: Size = 32 * 1024 * 1024
    pools: dict[str, PoolSettings] = {}
    max_concurrent: dict[str, Count] = {}
    """Tool name -> calls at once in the whole system."""


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls wait and retry."""

    max_held_calls: Count = 1024
    """Calls that wait for a process, per caller; more are refused as busy."""
    carry: bool = False
    """Carry every call through the router instead of sending it straight to a pool."""


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connections between actors."""

    max_frame_bytes: Size = 16 * 1024 * 1024
    max_calls_at_once: Count = 1024
    """Open calls on one connection; more are refused as busy."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restarts and liveness."""

    restarts: Annotated[int, Meta(ge=0)] = 5
    within_s: Seconds = 30.0
    heartbeat_s: Seconds = 1.0
    hung_after_s: Seconds = 5.0
    ready_timeout_s: Seconds = 20.0
    shutdown_s: Seconds = 5.0
    runtime_dir: str = ""
    """Folder for sockets; empty = one of our own below the system's runtime or temporary folder."""


class WorkflowSchedulerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workflow scheduler."""

    enabled: bool = True
    max_concurrent_workflows: Count = 100
    workflow_timeout: Seconds = 3600.0


class TaskQueueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The task queue."""

    enabled: bool = True
    queue_path: str = ""
    """Empty = `task_queue.duckdb` in the data directory."""
    max_queue_size: Count = 10000


class PeerRegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which peers are known, and how others are found."""

    enabled: bool = True
    bootstrap_nodes: list[str] = []
    peer_discovery_interval: Seconds = 60.0


class ConnectivitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The libp2p host."""

    listen_port: Port = 4001
    max_connections: Count = 100
    connection_timeout: Seconds = 30.0


class McpPlusPlusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seed's switch for MCP++ features."""

    enabled: bool = True


class P2PSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Services between nodes. Off until told otherwise."""

    enabled: bool = False
    mcplusplus: McpPlusPlusSettings = McpPlusPlusSettings()
    workflow_scheduler: WorkflowSchedulerSettings = WorkflowSchedulerSettings()
    task_queue: TaskQueueSettings = TaskQueueSettings()
    peer_registry: PeerRegistrySettings = PeerRegistrySettings()
    connectivity: ConnectivitySettings = ConnectivitySettings()


class MonitoringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics and traces."""

    enabled: bool = True
    metrics_port: Port = 0
    """0 = metrics are served on the gateway's own port only, under /metrics."""
    enable_tracing: bool = False
    tracing_endpoint: str = "http://localhost:4318"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    runtimes: RuntimesSettings = RuntimesSettings()
    tools: ToolsSettings = ToolsSettings()
    router: RouterSettings = RouterSettings()
    channel: ChannelSettings = ChannelSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    p2p: P2PSettings = P2PSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
