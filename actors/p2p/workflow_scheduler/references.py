# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values that stand for other values: finding them, and putting what they stand for in their place.

The forms are those of `actors/workflow_messages.py`. An object with one of their keys is one of them and has no other
keys; what a tool takes in such a form goes into `$literal`. What was put in is data: it is never looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from actors import json_pointer

FROM: Final = "$from"
ITEM: Final = "$item"
INDEX: Final = "$index"
LITERAL: Final = "$literal"
TASK: Final = "$task"
"""Of the queue's own links (`actors/task_links.py`): nothing that a workflow may write."""
PATH: Final = "path"
_FORMS: Final = frozenset({FROM, ITEM, INDEX, LITERAL, TASK})


class _Nothing:
    """Type of the two marks below."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NO_ITEM: Final = _Nothing("NO_ITEM")
"""There is no item: the step has no `for_each`."""
MISSING: Final = _Nothing("MISSING")
"""The output of a step that is not known yet."""


class MalformedReferenceError(ValueError):
    """An object looks like one of the forms and is none; the text says what is wrong."""


class ReferenceMissingError(LookupError):
    """A reference leads nowhere; the text says which one, and why."""


class Reference(NamedTuple):
    """A part of a step's output."""

    step: str
    path: str = ""
    """JSON Pointer; empty = all of it."""


class Item(NamedTuple):
    """A part of the item of `for_each`."""

    path: str


class Index(NamedTuple):
    """The place of that item."""


class Literal(NamedTuple):
    """A value as it is."""

    value: Any


Form = Reference | Item | Index | Literal
Lookup = Callable[[Reference], Any]
"""What a reference stands for. Raises `ReferenceMissingError`."""


def form_of(value: dict[str, Any]) -> Form | None:
    """What an object stands for; None when it is a plain one. Raises `MalformedReferenceError`."""
    if _FORMS.isdisjoint(value):
        return None
    if FROM in value:
        return _reference_of(value)
    if len(value) > 1:
        found = next(key for key in value if key in _FORMS)
        raise MalformedReferenceError(f"an object with `{found}` has no other keys")
    if LITERAL in value:
        return Literal(value[LITERAL])
    if ITEM in value:
        return Item(_pointer_of(ITEM, value[ITEM]))
    if INDEX in value:
        if value[INDEX] is not True:
            raise MalformedReferenceError(f'it is written {{"{INDEX}": true}}')
        return Index()
    raise MalformedReferenceError(f'`{TASK}` has no meaning here; data goes into {{"{LITERAL}": ...}}')


def _reference_of(value: dict[str, Any]) -> Reference:
    others = [key for key in value if key not in (FROM, PATH)]
    if others:
        raise MalformedReferenceError(f"an object with `{FROM}` has no other key than `{PATH}`: not `{others[0]}`")
    step = value[FROM]
    if not isinstance(step, str) or not step:
        raise MalformedReferenceError(f"`{FROM}` is the id of a step, as text")
    return Reference(step, _pointer_of(PATH, value.get(PATH, "")))


def _pointer_of(key: str, pointer: object) -> str:
    if not isinstance(pointer, str):
        raise MalformedReferenceError(f"`{key}` is a JSON Pointer, as text")
    tokens_of(pointer)
    return pointer


# --- pointers ------------------------------------------------------------------------------------------------------


def tokens_of(pointer: str) -> list[str]:
    """The keys that a JSON Pointer (RFC 6901) goes along. Raises `MalformedReferenceError`."""
    try:
        return json_pointer.tokens_of(pointer)
    except ValueError as error:
        raise MalformedReferenceError(f"`{pointer}` is no JSON Pointer: {error}") from None


def pointer_to(*keys: str | int) -> str:
    """The JSON Pointer that goes along these keys."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def at_path(value: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    """The part of a value that a pointer names. Raises `ReferenceMissingError`, `MalformedReferenceError`."""
    for token in tokens_of(pointer):
        part = json_pointer.part_of(value, token)
        if part is json_pointer.NOTHING:
            raise ReferenceMissingError(f"there is nothing at `{pointer}`: {_why_nothing(value, token)}")
        value = part
    return value


def _why_nothing(value: Any, token: str) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return f"no key `{token}`"
    if not isinstance(value, list):
        return f"`{token}` is looked for in what is no object and no list"
    if json_pointer.index_of(token) is None:
        return f"`{token}` is no place in a list"
    return f"`{token}` is behind the end of a list of {len(value)}"


def looked_up_in(output_of: Callable[[str], Any]) -> Lookup:
    """A lookup for `filled` and `holds`, made of a function from a step's id to its output, which raises
    `ReferenceMissingError` or gives `MISSING` when there is none."""

    def lookup(reference: Reference) -> Any:  # noqa: ANN401 - JSON
        output = output_of(reference.step)
        if output is MISSING:
            raise ReferenceMissingError(f"step `{reference.step}` has no output")
        return _part(output, reference)

    return lookup


def _part(output: Any, reference: Reference) -> Any:  # noqa: ANN401 - JSON
    try:
        return at_path(output, reference.path)
    except ReferenceMissingError as error:
        raise ReferenceMissingError(f"output of step `{reference.step}`: {error}") from None


# --- values --------------------------------------------------------------------------------------------------------


def forms_in(value: Any) -> Iterator[Form]:  # noqa: ANN401 - JSON
    """All forms in a value but literals, in order. Raises `MalformedReferenceError`."""
    if isinstance(value, dict):
        form = form_of(value)
        if form is None:
            for part in value.values():
                if isinstance(part, (dict, list)):
                    yield from forms_in(part)
        elif not isinstance(form, Literal):
            yield form
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, (dict, list)):
                yield from forms_in(part)


def references(value: Any) -> list[Reference]:  # noqa: ANN401 - JSON
    """The references to steps in a value, in order; repeated ones repeatedly. Raises `MalformedReferenceError`."""
    return [form for form in forms_in(value) if isinstance(form, Reference)]


def filled(value: Any, lookup: Lookup, *, item: Any = NO_ITEM, index: int | None = None) -> Any:  # noqa: ANN401
    """The value with everything in its place: plain JSON, which may share parts with what was looked up. Raises
    `ReferenceMissingError`, also without an item where one is meant, and `MalformedReferenceError`."""
    if isinstance(value, list):
        return [filled(part, lookup, item=item, index=index) for part in value]
    if not isinstance(value, dict):
        return value
    form = form_of(value)
    if form is None:
        return {key: filled(part, lookup, item=item, index=index) for key, part in value.items()}
    if isinstance(form, Literal):
        return form.value
    if isinstance(form, Reference):
        return lookup(form)
    if isinstance(form, Item):
        if item is NO_ITEM:
            raise ReferenceMissingError(f"`{ITEM}` is used without `for_each`")
        try:
            return at_path(item, form.path)
        except ReferenceMissingError as error:
            raise ReferenceMissingError(f"item of `for_each`: {error}") from None
    if index is None:
        raise ReferenceMissingError(f"`{INDEX}` is used without `for_each`")
    return index


def as_links(
    value: Any,  # noqa: ANN401 - JSON
    known: Callable[[str], Any],
    task_of: Callable[[str], str],
) -> tuple[Any, bool]:
    """A task's payload, and whether it has links to results of other tasks.

    `known`: a step's output, or `MISSING`. `task_of`: the task that does a step whose output is missing. Without
    links the payload is plain JSON as of `filled`; with links data that could be taken for one is in `$literal`.
    Raises `ReferenceMissingError`, `MalformedReferenceError`.
    """
    if all(known(reference.step) is not MISSING for reference in references(value)):
        return filled(value, looked_up_in(known)), False
    return _linked(value, known, task_of), True


def _linked(value: Any, known: Callable[[str], Any], task_of: Callable[[str], str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_linked(part, known, task_of) for part in value]
    if not isinstance(value, dict):
        return value
    form = form_of(value)
    if form is None:
        return {key: _linked(part, known, task_of) for key, part in value.items()}
    if isinstance(form, Literal):
        return _protected(form.value)
    if not isinstance(form, Reference):
        raise ReferenceMissingError("a step with `for_each` has no links: the steps before it have ended")
    output = known(form.step)
    if output is not MISSING:
        return _protected(_part(output, form))
    link = {TASK: task_of(form.step)}
    return {**link, PATH: form.path} if form.path else link


def _protected(value: Any) -> Any:  # noqa: ANN401 - JSON
    return {LITERAL: value} if isinstance(value, (dict, list)) else value
