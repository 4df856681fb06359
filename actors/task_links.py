# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payloads that name results of other tasks (`Enqueue.links`), and what stands in their place once these are known.

In the JSON of such a payload, at any place, stand for a value:

* `{"$task": "<id>", "path": "/a/0"}`: the output of that task (`output_of`), or the part of it that the JSON Pointer
  (RFC 6901) names; without `path`, or with an empty one, all of it.
* `{"$literal": ...}`: what is in it, as it is. So a payload can hold objects that look like links.

Outputs are data: whatever they look like, nothing in them is a link.

    text = filled(payload, {"t1": output_of(result)})

or, when not all outputs should be in memory at once, a `Filling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from actors.errors import InvalidArgumentsError, MCPServerError
from actors.json_pointer import NOTHING, part_of, tokens_of
from actors.task_messages import TaskState
from actors.task_views import TaskFact
from actors.tool_tasks import result_of

TASK: Final = "$task"
PATH: Final = "path"
LITERAL: Final = "$literal"
MOST_FILLED_BYTES: Final = 4 << 20
"""Of a payload with all that was put into it, unless whoever fills it has less room."""
MOST_LEVELS: Final = 200
"""Objects and arrays inside of one another: in a payload as it came, and in each part that is put into it."""

_SHOWN_CHARS: Final = 200
"""Of an id and of a path, in an error."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ReferenceMissingError(MCPServerError):
    """A value that is named is not there, and will not come: the task that names it can't be done. The text, and the
    details `task` and `path`, say which."""

    code = "REFERENCE_MISSING"


class LimitExceededError(MCPServerError):
    """The values that are named are larger, or nested deeper, than may be put in; the text says what the limit is."""

    code = "LIMIT_EXCEEDED"


class Link(NamedTuple):
    """A value that a payload names."""

    task: str
    path: str


def output_of(result_text: str) -> Any:  # noqa: ANN401 - JSON
    """The value that a task gave, from its result (`Task.result`); never raises.

    Of a tool: what the tool returned, whichever way MCP shows it. A string for a tool that answers with text, the
    object for one with structured content, the bare value (not `{"result": value}`) when that is no object, the list of
    content blocks for all others. Of an external worker: the JSON that it gave. What can't be read as JSON is a string
    as it is. Whether a tool said that it failed is not looked at: `result_of(...).is_error` tells.
    """
    try:
        return _decode(result_of(result_text).value)
    except (msgspec.MsgspecError, RecursionError):
        return result_text


def linked_ids(payload_text: str) -> list[str]:
    """Ids of the tasks that a payload names, each once, in the order of the text. Raises `InvalidArgumentsError` when
    it is malformed, and `LimitExceededError`."""
    return Filling(payload_text).ids


def filled(payload_text: str, outputs: Mapping[str, Any], *, most_bytes: int = MOST_FILLED_BYTES) -> str:
    """A payload with the values that it names; `outputs` are those of tasks, by id. Raises `ReferenceMissingError`,
    `LimitExceededError`, and `InvalidArgumentsError` when the payload is malformed."""
    filling = Filling(payload_text, most_bytes=most_bytes)
    for task_id in filling.ids:
        if task_id in outputs:
            filling.put(task_id, outputs[task_id])
    return filling.text()


def at_path(value: Any, path: str) -> Any:  # noqa: ANN401 - JSON
    """The part of a JSON value that a JSON Pointer (RFC 6901) names. Raises `LookupError` when there is none, and
    `InvalidArgumentsError` when it is no pointer."""
    try:
        tokens = tokens_of(path)
    except ValueError:
        raise InvalidArgumentsError(
            f"{path[:_SHOWN_CHARS]!r} is no JSON Pointer (RFC 6901): '' or '/name/0', with ~1 for /"
        ) from None
    for token in tokens:
        value = part_of(value, token)
        if value is NOTHING:
            raise LookupError(path)
    return value


class Filling:
    """A payload that is being filled. Holds no more of the outputs than what goes into it."""

    def __init__(self, payload_text: str, *, most_bytes: int = MOST_FILLED_BYTES) -> None:
        """Raises `InvalidArgumentsError` when the payload is malformed, and `LimitExceededError`."""
        self._most = most_bytes
        self._size = 0
        self._root = [_payload(payload_text)]
        self._open: dict[str, dict[Link, list[tuple[Any, Any]]]] = {}
        """Task -> its links -> where they stand: a list or an object, and the place in it."""
        self._find()
        self.ids = list(self._open)
        """Of the tasks that it names, each once, in the order of the text."""

    def _find(self) -> None:
        places: list[tuple[Any, Any]] = [(self._root, 0)]
        while places:
            holder, at = places.pop()
            value = holder[at]
            if isinstance(value, list):
                places += [(value, n) for n in reversed(range(len(value)))]
            elif isinstance(value, dict):
                if TASK in value:
                    link = _link(value)
                    self._open.setdefault(link.task, {}).setdefault(link, []).append((holder, at))
                elif LITERAL in value:
                    holder[at] = _literal(value)
                else:
                    places += [(value, name) for name in reversed(value)]

    def put(self, task_id: str, output: Any) -> None:  # noqa: ANN401 - JSON
        """Put in all that is named of this task, which gave `output`. Raises `ReferenceMissingError` when a part is not
        there, and `LimitExceededError`."""
        for link, places in self._open.pop(task_id, {}).items():
            try:
                part = at_path(output, link.path)
            except LookupError:
                _missing(link, "there is no such part")
            text = _encode(part)
            self._check_size(len(text) * len(places))
            _check_levels(text, part, f"the output of task {task_id}")
            for holder, at in places:
                holder[at] = msgspec.Raw(text)

    def put_result(self, task_id: str, result_text: str) -> None:
        """The same with the task's result. What a tool said when it failed is no output of it."""
        if result_of(result_text).is_error:
            self.lacks(task_id, "its tool said that it failed")
        self.put(task_id, output_of(result_text))

    def put_fact(self, fact: TaskFact, owner: str) -> None:
        """The same with what the queue tells of the task. One of another owner counts as unknown."""
        if fact.owner != owner:
            return
        if fact.state != TaskState.COMPLETED or fact.result is None:
            self.lacks(fact.id, f"that one has no result: it is {fact.state.value}")
        self.put_result(fact.id, fact.result)

    def lacks(self, task_id: str, why: str) -> NoReturn:
        """Raise the error for a task that has no output."""
        _missing(next(iter(self._open[task_id])), why)

    def missing(self) -> list[str]:
        """Ids of the tasks whose outputs were not put in."""
        return list(self._open)

    def text(self) -> str:
        """All of it. Raises `ReferenceMissingError` when something was not put in, and `LimitExceededError`."""
        for task_id in self._open:
            self.lacks(task_id, "there is no result of such a task (any more)")
        self._size = 0
        text = _encode(self._root[0])
        self._check_size(len(text))
        return text.decode()

    def _check_size(self, more: int) -> None:
        self._size += more
        if self._size > self._most:
            raise LimitExceededError(f"the payload with the results that it names is larger than {self._most} bytes")


def _payload(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        value = _decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidArgumentsError(f"a payload that names results is no JSON: {error}") from None
    except RecursionError:
        raise _too_deep("the payload") from None
    _check_levels(text.encode(), value, "the payload")
    return value


def _link(value: dict[str, Any]) -> Link:
    task_id, path = value[TASK], value.get(PATH, "")
    if not isinstance(task_id, str) or not isinstance(path, str) or not value.keys() <= {TASK, PATH}:
        raise InvalidArgumentsError(
            f'an object with {TASK} is no {{"{TASK}": "<id>", "{PATH}": "<JSON Pointer>"}}; what only looks so belongs '
            f'into {{"{LITERAL}": ...}}'
        )
    return Link(task_id, path)


def _literal(value: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if len(value) != 1:
        raise InvalidArgumentsError(f"an object with {LITERAL} has nothing else in it")
    return value[LITERAL]


def _check_levels(text: bytes, value: Any, what: str) -> None:  # noqa: ANN401 - JSON
    """Raise `LimitExceededError` when a value, of which this is the text, is nested too deeply."""
    if text.count(b"[") + text.count(b"{") <= MOST_LEVELS:
        return
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _too_deep(what)


def _too_deep(what: str) -> LimitExceededError:
    return LimitExceededError(f"{what} is nested deeper than {MOST_LEVELS} levels")


def _missing(link: Link, why: str) -> NoReturn:
    task, path = link.task[:_SHOWN_CHARS], link.path[:_SHOWN_CHARS]
    raise ReferenceMissingError(
        f"the payload names {path!r} of the output of task {task!r}, and {why}", task=task, path=path
    )
