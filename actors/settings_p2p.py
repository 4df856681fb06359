# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be configured of the services with the runtime tag `p2p`; part of `actors/settings.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.setting_types import Count, Port, Seconds, Size

PeerId = Annotated[str, Meta(pattern="^(12D3KooW|16Uiu2HA[1-9A-HJ-NP-Za-km-z]|Qm)[1-9A-HJ-NP-Za-km-z]{44}$")]
"""As libp2p writes it, for keys of the kinds Ed25519, secp256k1 and RSA."""
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
"""Things per second."""


class WorkflowSchedulerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workflow scheduler."""

    enabled: bool = True
    """Run it, when the task queue runs. It needs no `p2p.enabled`: it is on this node alone."""
    tools: bool = False
    """Offer its tools also when `p2p.enabled` is false."""
    max_concurrent_workflows: Count = 100
    """Workflows that run at once; others wait."""
    workflow_timeout: Seconds = 3600.0
    """Seconds for a whole workflow from its beginning, where it has no deadline of its own."""
    store_path: str = ""
    """Empty = `workflows.sqlite` in the data directory. Its neighbours begin with the same name."""
    keep_s: Seconds = 7 * 86400.0
    """How long an ended workflow can be read. Its id is free no sooner than the queue has forgotten its tasks: about a
    day after the latest end that it could have had."""
    memo_s: Seconds = 86400.0
    """How long the result of a step with `memo` is taken for equal work."""
    max_waiting_workflows: Count = 10000
    """Workflows that have not ended; more are refused."""
    max_definition_bytes: Size = 4 * 1024 * 1024
    """Of one workflow as it is submitted."""
    max_steps: Count = 10000
    """Of one workflow."""
    max_items: Count = 10000
    """Of one step with `for_each`."""
    max_queued_steps: Count = 2000
    """Tasks of one workflow that are in the queue at once; the others follow."""


class TaskTypeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one type of task."""

    max_running: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Tasks of it that run at once; 0 = no limit."""
    rate_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """Tasks of it that begin per second; 0 = no limit."""
    burst: Count = 1
    """So many may begin at once after a pause, where there is a rate."""


class TaskQueueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The task queue."""

    enabled: bool = True
    """Run it. It needs no `p2p.enabled`: it is on this node alone."""
    tools: bool = False
    """Offer its tools also when `p2p.enabled` is false."""
    aliases: bool = False
    """Offer also the tools by whose names other MCP++ servers have it (`p2p_taskqueue_submit`, ...)."""
    operators: list[str] = []
    """Principals that may pause, resume and clear it, and see to the tasks of others. Where nobody has to say who they
    are, everybody may."""
    workers: list[str] = []
    """Principals that may register workers and take tasks; operators may, too. Where nobody has to say who they are,
    everybody may."""
    store: Literal["duckdb", "sqlite"] = "duckdb"
    """What keeps the log; each opens its own files only."""
    checkpoint_bytes: Size = 16 * 1024 * 1024
    """What the log's WAL may grow by before it is moved into the log's file. The process holds about as much in
    memory; a small value costs speed."""
    queue_path: str = ""
    """Empty = `task_queue.duckdb` (or `.sqlite`) in the data directory. Its neighbours begin with the same name."""
    max_queue_size: Count = 10000
    """Tasks that wait; more are refused."""
    max_payload_bytes: Size = 256 * 1024
    """Of one task; larger things are passed by reference."""
    max_result_bytes: Size = 1024 * 1024
    """Of one task."""
    lease_s: Seconds = 300.0
    """How long a claimed task belongs to its worker without a sign of life of that worker."""
    ageing_s: Seconds = 60.0
    """Waiting time that is worth as much as one step of priority."""
    keep_s: Seconds = 7 * 86400.0
    """How long an ended task and its result can be read."""
    worker_timeout_s: Seconds = 90.0
    """An external worker that is silent for so long is offline."""
    max_running_per_key: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Tasks of one fairness key that run at once; 0 = no limit."""
    types: dict[str, TaskTypeSettings] = {}
    """Limits by type."""


class TaskWorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What does the tasks whose type is the name of a tool."""

    enabled: bool = True
    """Run it, when the task queue runs."""
    concurrency: Annotated[int, Meta(ge=1, le=500)] = 8
    """Tasks that it does at once."""
    max_waiting: Annotated[int, Meta(ge=0, le=500)] = 100
    """So many tasks that wait for an answer of their owner do not count as being done."""


class PeerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is taken from one side at most."""

    rate_per_s: Rate = 50.0
    """Calls and offers of work per second."""
    burst: Count = 100
    """So many may come at once after a pause."""
    max_in_flight: Count = 64
    """That are being answered or done at once."""
    max_bytes_per_s: Annotated[int, Meta(ge=1024, le=2**40)] = 8 * 1024 * 1024
    """Bytes per second, in both directions together."""


class PeerGrant(PeerLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a peer may do here. Nothing that is not named."""

    tools: list[str] = []
    """Tools that it may call: names, in which `*` stands for any text."""
    tasks: list[str] = []
    """Types of tasks that it may have done here, written in the same way."""


class PeerMcpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MCP over streams between nodes (`/mcp+p2p/1.0.0`)."""

    enabled: bool = True
    """Answer it. Which peer may call which tool is decided elsewhere."""
    p2p_messages: bool = False
    """Answer also the messages of older nodes that are no JSON-RPC, one for each stream."""
    max_frame_bytes: Size = 1024 * 1024
    """Of one message in either direction."""
    max_streams: Count = 32
    """Open streams of one peer."""
    max_requests: Count = 64
    """Requests of one peer that are being answered."""
    max_requests_in_all: Count = 256
    """Requests of all peers together that are being answered."""
    rate_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 50.0
    """Messages of one peer per second."""
    burst: Count = 100
    """So many may come at once after a pause."""
    idle_timeout_s: Seconds = 60.0
    """A stream on which nothing is asked or answered for so long is closed."""
    request_timeout_s: Seconds = 30.0
    """Time for one request."""


class QueueProtocolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The task queue for older nodes (`/ipfs-datasets/task-queue/1.0.0`)."""

    enabled: bool = False
    """Answer it. It needs `secret_file`."""
    secret_file: str = ""
    """Holds what older nodes have to show in each request. They send it as it is, so it is to be of use for nothing
    else. Empty = everybody is refused."""
    max_message_bytes: Size = 1024 * 1024
    """Of one request and of one answer."""
    request_timeout_s: Seconds = 30.0
    """Time for a request to come, and to be answered; what a request waits for is added."""
    cache_entries: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Values that are kept for peers, in memory; 0 = none."""
    cache_bytes: Size = 16 * 1024 * 1024
    """Of all of them, keys included."""


class SharingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work that nodes do for each other. What others may have done here is decided by what they are granted."""

    enabled: bool = True
    """Send tasks that have to go to peers, and take those of peers."""
    types: list[str] = []
    """Types of tasks that may also go to peers when this node has no room: names, in which `*` stands for any text."""
    slots: Annotated[int, Meta(ge=0, le=10_000)] = 4
    """Tasks of peers that run here at once; 0 = none."""
    max_assigned: Count = 500
    """Tasks of this node that are with peers at once."""
    lease_s: Seconds = 60.0
    """How long a task belongs to a peer without a sign of life of it."""
    grace_s: Seconds = 10.0
    """A peer whose connection ended may come back for so long before its tasks are given to others."""


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Further ways to find peers. All are off until they are switched on; who is found may do nothing by that."""

    peer_file: str = ""
    """A file with an address such as `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...` on each line: these peers are connected,
    and the file is read again when it changes. Empty = none."""
    mdns: bool = False
    """Find nodes in the local network, and be found there, by multicast DNS. It is spoken where the host listens: with
    a loopback address on this machine only."""
    rendezvous: Annotated[list[str], Meta(max_length=16)] = []
    """Addresses of meeting points, such as `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`: this node registers there, and
    asks who else has."""
    rendezvous_namespace: Annotated[str, Meta(min_length=1, max_length=255)] = "greenroom"
    """The name under which nodes meet there."""
    rendezvous_point: bool = False
    """Be a meeting point for others."""
    dht: bool = False
    """Kademlia; not provided: true is refused."""


class PeerRegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which peers are known, and how others are found."""

    enabled: bool = True
    """Run it (when `p2p.enabled`)."""
    bootstrap_nodes: list[str] = []
    """Addresses of nodes to begin with, such as `/ip4/192.0.2.1/tcp/4001/p2p/Qm...`."""
    peer_discovery_interval: Seconds = 60.0
    """Seconds between two searches for peers."""
    wanted_connections: Annotated[int, Meta(ge=0, le=1000)] = 8
    """As long as fewer peers are connected, others are looked for and tried; 0 = only those that are named."""
    discovery: DiscoverySettings = DiscoverySettings()
    store_path: str = ""
    """Empty = `peers.sqlite` in the data directory. Its neighbours begin with the same name."""
    max_peers: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Peers that are remembered; who was useful stays longest."""
    keep_s: Seconds = 30 * 86400.0
    """A peer of which nothing was heard for so long is forgotten, unless it was connected to persistently."""
    allow: dict[PeerId, PeerGrant] = {}
    """What a peer may do here, by its peer id. Nobody may do anything who is not named, or proves the secret."""
    secret_file: str = ""
    """A file with a secret of at least 32 bytes that nodes share; this user's own, with mode 0600. Empty = none."""
    secret_grants: PeerGrant = PeerGrant()
    """What peers that prove the secret may do here, if they are not named in `allow`."""
    introduce_strangers: bool = False
    """Have links also with peers that may do nothing here, and tell them which others are here: for nodes that others
    begin at. A node with a secret has links only with peers that prove it."""
    per_address: PeerLimits = PeerLimits()
    """For all peers at one IP address together (IPv6: in one /64), but for those that are named in `allow`."""
    ban_s: Seconds = 60.0
    """A first violation of the protocol bans its peer and its address for so long, each further one twice as long."""
    ban_max_s: Seconds = 86400.0
    """The longest ban; that for a result that proves wrong."""
    forgive_s: Seconds = 3600.0
    """After so long without another violation one is forgiven."""
    max_refused: Count = 100
    """Calls and offers that a peer was not granted, and those of all peers at one IP address that are not named in
    `allow`; one more is a violation of the protocol."""
    refused_forgive_s: Seconds = 10.0
    """After so long one of these is forgiven."""
    sharing: SharingSettings = SharingSettings()
    mcp: PeerMcpSettings = PeerMcpSettings()
    queue_protocol: QueueProtocolSettings = QueueProtocolSettings()


class ConnectivitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The libp2p host."""

    listen_host: str = "127.0.0.1"
    """IP address to listen on: with the default only peers on this machine can connect; empty = listen nowhere, and
    only connect to others."""
    listen_port: Port = 4001
    """TCP port of the libp2p host; 0 = any free port, and after a restart the same one if it is still free."""
    max_connections: Count = 100
    """Connections with peers at once."""
    connection_timeout: Seconds = 30.0
    """Seconds for reaching a peer."""
    circuit_relay: bool = False
    """Not provided: true is refused."""
    autonat: bool = False
    """Not provided: true is refused."""
    hole_punching: bool = False
    """Not provided: true is refused."""


class McpPlusPlusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MCP++ features."""

    enabled: bool = True
    """Offer them (when `p2p.enabled`)."""


class P2PSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Services between nodes. Off until told otherwise."""

    enabled: bool = False
    """Run the services between nodes."""
    bootstrap_only: bool = False
    """Be a node that others begin at, as `greenroom bootstrap` is: the peer registry and nothing else."""
    mcplusplus: McpPlusPlusSettings = McpPlusPlusSettings()
    workflow_scheduler: WorkflowSchedulerSettings = WorkflowSchedulerSettings()
    task_queue: TaskQueueSettings = TaskQueueSettings()
    task_worker: TaskWorkerSettings = TaskWorkerSettings()
    peer_registry: PeerRegistrySettings = PeerRegistrySettings()
    connectivity: ConnectivitySettings = ConnectivitySettings()
