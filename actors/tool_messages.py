# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is said of tools, resources and prompts, and of the clients that use them: the values of calls.

They cross process borders, so they keep the rules of `actors/messages.py`. Each is named beside the method that
carries it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Runtime = Literal["general", "p2p"]


class ToolAnnotations(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Hints for clients, under MCP's names. None = not said."""

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class Icon(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A picture that clients may show."""

    src: str
    """An `https:` or `data:` address."""
    mime_type: str | None = None
    sizes: list[str] | None = None
    """Such as `48x48`, or `any`."""
    theme: Literal["light", "dark"] | None = None


class Annotations(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Hints about contents and resources, under MCP's names. None = not said."""

    audience: list[Literal["user", "assistant"]] | None = None
    priority: float | None = None
    """From 0 (optional) to 1 (required)."""
    last_modified: str | None = None
    """ISO 8601."""


class Offered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tools, resources and prompts have in common as the registry lists them."""

    name: str
    title: str
    description: str
    category: str
    runtime: Runtime
    pool: str
    """The actor group that runs it: `general` stands for the processes `tools.general#...`."""
    timeout_s: float = 60.0
    retry_safe: bool = False
    """A call that was already running when its process died may be run again. Reading always may."""
    icons: list[Icon] = []
    meta: bytes = b""
    """`_meta` as its author gave it: JSON text, or nothing."""
    asks: bool = False
    """It takes a context, so it may ask the client while it runs."""
    requires: tuple[str, ...] = ()
    """Capabilities that a client must have declared, such as `sampling` or `elicitation.url`."""
    broken: str = ""
    """Why it can't be used; empty when it can."""
    source: str = ""
    """File that defines it, relative to its package or folder."""


TaskSupport = Literal["forbidden", "optional", "required"]
"""Whether calls of a tool may, must or must not be MCP tasks."""


TOP_LEVEL = "greenroom/topLevel"
"""In `_meta` of a tool: names of fields of its result that REST answers also beside `result`."""


class ToolDescriptor(Offered, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool as the registry lists it."""

    input_schema: bytes
    """JSON Schema (2020-12) of the arguments, as JSON text."""
    output_schema: bytes | None = None
    annotations: ToolAnnotations = ToolAnnotations()
    max_concurrent: int | None = None
    """Calls of this tool at once in the whole system. None = as many as its pool takes."""
    task: TaskSupport = "forbidden"
    begins_task: bool = False
    """It says itself when its call becomes a task (`BEGIN_TASK`); else the task is there before the tool runs."""


class ResourceDescriptor(Offered, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A resource, or a template for many, as the registry lists it. Its URI is unique, its name need not be."""

    uri: str
    """Of a template: with `{variables}`; see `actors.uris`."""
    template: bool = False
    mime_type: str | None = None
    size: int | None = None
    """Bytes, where that is known beforehand."""
    annotations: Annotations = Annotations()
    fresh_s: float = 0.0
    """Seconds that a client may keep what it read."""
    completes: list[str] = []
    """Variables that `completion/complete` has values for."""


class PromptArgument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One argument of a prompt. Its value travels as text."""

    name: str
    description: str = ""
    required: bool = True


class PromptDescriptor(Offered, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt as the registry lists it."""

    arguments: list[PromptArgument] = []
    completes: list[str] = []
    """Arguments that `completion/complete` has values for."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="catalogue"):
    """What a pool offers (method `catalogue` of a pool), and what the router lists (event to its callers)."""

    tools: list[ToolDescriptor]
    resources: list[ResourceDescriptor] = []
    """Templates are among them."""
    prompts: list[PromptDescriptor] = []
    version: int = 0
    """Grows with each change of the router's list."""


Kind = Literal["tools", "resources", "prompts"]
"""What lists there are."""


class Changed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="changed"):
    """Event of a pool to all that are connected: contents or lists are not what they were."""

    uris: list[str] = []
    """Resources that have other contents now."""
    any_uri: bool = False
    """There were more than could be listed: take each resource for a changed one."""
    lists: list[Kind] = []
    """Clients should list these again."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `tools/call` of a pool, a P2P actor and the router. The other methods below take the same fields."""

    METHOD: ClassVar[str] = "tools/call"
    """The channel's method that carries it."""

    name: str
    arguments: bytes
    """A JSON object, as the client sent it: parsed once, by the actor that runs the tool."""
    call_id: str
    """Never repeats."""
    progress: bool = False
    """The caller wants progress items."""
    log_level: str = ""
    """The caller wants log items of this level (MCP's names) and above."""
    principal: str = ""
    """Who calls; '' when nobody had to say."""
    can: tuple[str, ...] = ()
    """What the caller can be asked for (`Ask` frames, method `ASK`): `elicitation`, `sampling.tools`, ..."""


ASK = "client/ask"
"""Method of an `Ask` inside `tools/call`: `Questions` for the client -> `Answers`."""
STREAM = "stream"
"""In `ToolCall.can`: the caller understands `CLOSE_STREAM`."""
CLOSE_STREAM = "client/close_stream"
"""Method of an `Ask`: end the client's connection and let it come back for the rest (null -> null)."""
URL_DONE = "client/url_done"
"""Method of an `Ask`: what the user had to do elsewhere is done (the elicitation's id -> null)."""

TASK = "task"
"""In `ToolCall.can`: the call becomes a task with `BEGIN_TASK`."""
BEGIN_TASK = "client/begin_task"
"""Method of an `Ask`: nothing will be asked any more before the work (null). There is no answer: the call is cancelled,
and the tool runs again in a task, with the answers that it got."""

QuestionMethod = Literal["elicitation/create", "sampling/createMessage", "roots/list"]


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question for the client."""

    key: str
    """Names it among all questions of its call; the same in each run of the call."""
    method: QuestionMethod
    params: bytes
    """JSON text: an object, in the words of the newest revision."""


class Questions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Questions that are asked together."""

    questions: list[Question]


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The client's answers to all `Questions`: key -> result, as JSON text."""

    answers: dict[str, bytes]


class PassedOn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `answer` of a gateway: a client of this session answered a question of that gateway elsewhere."""

    session: bytes
    answer: bytes
    """The JSON-RPC response, as it came."""


class SessionNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `note` of a gateway: what a client said of its session to another gateway."""

    session: bytes
    cancelled: bytes = b""
    """Id of a request that is to be cancelled, as JSON: a number may be too large for msgpack."""
    log_level: str | None = None
    ended: bool = False
    """The session was ended: its id is good for nothing any more."""
    subscriptions: bool = False
    """Its subscriptions are others now; where they are kept they can be read."""


class ResumeStream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `resume` of a gateway: a client of this session came to another gateway for the rest of a stream. Items
    are frames of the stream, as bytes."""

    session: bytes
    event_id: str


class ResourceRead(ToolCall, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `resources/read`: `name` is the URI that is wanted; there are no arguments."""

    METHOD: ClassVar[str] = "resources/read"


class PromptGet(ToolCall, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `prompts/get`."""

    METHOD: ClassVar[str] = "prompts/get"


class CompletionAsk(ToolCall, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `completion/complete`: `name` is a prompt's name or a template's URI, `arguments` holds `value` (what was
    typed so far) and `arguments` (name -> text of those that are known already)."""

    METHOD: ClassVar[str] = "completion/complete"

    of: Literal["prompts", "resources"]
    argument: str
    """Which argument or variable is being typed."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="progress"):
    """Item of `tools/call`: how far the tool is."""

    progress: float
    total: float | None = None
    message: str = ""


class LogItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="log"):
    """Item of `tools/call`: what the tool wants the client to read."""

    level: str
    data: bytes
    """JSON text."""
    logger: str = ""


ToolItem = Progress | LogItem

Shape = Literal["text", "object", "wrapped", "content", "contents", "messages", "completion"]


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reply of `tools/call`.

    `value` is JSON, encoded once where the tool ran; `shape` says how MCP shows it: `text` (a string, shown as a text
    block), `object` (structured content as it is), `wrapped` (structured content `{"result": value}`), `content` (an
    array of MCP content blocks). The other methods answer `contents` (an array of a resource's contents), `messages`
    (an array of a prompt's messages) and `completion` (MCP's object of that name).
    """

    value: bytes
    shape: Shape
    runtime: Runtime
    duration_ms: float
    is_error: bool = False
