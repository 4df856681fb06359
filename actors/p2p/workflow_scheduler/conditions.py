# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a step runs: conditions over how the steps before it ended and over their outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, assert_never

from actors.p2p.workflow_scheduler.references import (
    FROM,
    Lookup,
    MalformedReferenceError,
    Reference,
    ReferenceMissingError,
    filled,
    form_of,
)
from actors.workflow_messages import STEP_ENDED, Condition, Operator, StepStatus, When


def holds(
    when: When,
    ended: Mapping[str, StepStatus],
    depends: Sequence[str],
    lookup: Lookup,
    *,
    skipped_for_failure: Collection[str] = (),
) -> bool:
    """Whether a step runs, once all that it depends on has ended.

    `skipped_for_failure`: those of the skipped steps that are skipped because a step failed or was cancelled, not by a
    condition of their own. `on_failure` counts these, and failed and cancelled ones.
    """
    if isinstance(when, Condition):
        return _true(when, ended, lookup)
    if when == "on_success":
        return all(ended.get(step) == "completed" for step in depends)
    if when == "on_failure":
        return any(is_failure(step, ended, skipped_for_failure) for step in depends)
    return all(ended.get(step) in STEP_ENDED for step in depends)


def is_failure(step: str, ended: Mapping[str, StepStatus], skipped_for_failure: Collection[str] = ()) -> bool:
    """Whether a step failed, was cancelled, or was skipped because of such a step."""
    status = ended.get(step)
    return status in ("failed", "cancelled") or (status == "skipped" and step in skipped_for_failure)


def _true(condition: Condition, ended: Mapping[str, StepStatus], lookup: Lookup) -> bool:
    if condition.all is not None:
        return all(_true(part, ended, lookup) for part in condition.all)
    if condition.any is not None:
        return any(_true(part, ended, lookup) for part in condition.any)
    if condition.not_ is not None:
        return not _true(condition.not_, ended, lookup)
    if condition.op is None:
        return ended.get(condition.step) in condition.ended
    try:
        left = filled(condition.left, lookup)
        return condition.op == "exists" or compared(condition.op, left, filled(condition.right, lookup))
    except ReferenceMissingError:
        return False


# --- comparing -----------------------------------------------------------------------------------------------------


def compared(op: Operator, left: Any, right: Any) -> bool:  # noqa: ANN401 - JSON
    """Compare two JSON values.

    Any two can be equal or not. `<` and the like order numbers, or texts by their characters; all else is false.
    `in`: an element of a list, a key of an object, a part of a text; `contains` is the same with sides changed.
    """
    match op:
        case "==":
            return equal(left, right)
        case "!=":
            return not equal(left, right)
        case "in":
            return _contains(right, left)
        case "contains":
            return _contains(left, right)
        case "exists":
            return True
        case "<" | "<=" | ">" | ">=":
            return _ordered(op, left, right)
        case _:
            assert_never(op)


def _ordered(op: str, left: Any, right: Any) -> bool:  # noqa: ANN401 - JSON
    if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        return False
    if op in ("<", "<="):
        return bool(left < right or (op == "<=" and left == right))
    return bool(left > right or (op == ">=" and left == right))


def _contains(whole: Any, part: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(whole, list):
        return any(equal(one, part) for one in whole)
    return isinstance(part, str) and isinstance(whole, (str, dict)) and part in whole


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(left: Any, right: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    # No recursion: outputs may be nested more deeply than the stack allows.
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, dict):
            if not isinstance(other, dict) or one.keys() != other.keys():
                return False
            pairs += [(part, other[key]) for key, part in one.items()]
        elif isinstance(one, list):
            if not isinstance(other, list) or len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif isinstance(one, bool) or isinstance(other, bool):
            if one is not other:
                return False
        elif one != other:
            return False
    return True


# --- checking ------------------------------------------------------------------------------------------------------


def parts_of(condition: Condition) -> Iterator[Condition]:
    """The condition and all within it."""
    yield condition
    for part in (*(condition.all or ()), *(condition.any or ())):
        yield from parts_of(part)
    if condition.not_ is not None:
        yield from parts_of(condition.not_)


def problem_with(condition: Condition) -> str:
    """Why one condition, without those within it, is malformed; empty when it is not."""
    forms = {
        "step": bool(condition.step or condition.ended),
        "op": condition.op is not None or condition.left is not None or condition.right is not None,
        "all": condition.all is not None,
        "any": condition.any is not None,
        "not": condition.not_ is not None,
    }
    used = [name for name, is_used in forms.items() if is_used]
    if len(used) != 1:
        got = f"it has {' and '.join(f'`{name}`' for name in used)}" if used else "it is empty"
        return f"a condition is exactly one of `step` with `ended`, `op` with `left`, `all`, `any`, `not`; {got}"
    if used == ["step"] and not (condition.step and condition.ended):
        return "`step` and `ended` belong together"
    if used in (["all"], ["any"]) and not (condition.all or condition.any):
        return f"`{used[0]}` needs a condition in it"
    if used == ["op"]:
        return _problem_with_comparison(condition)
    return ""


def _problem_with_comparison(condition: Condition) -> str:
    if condition.op is None:
        return "`left` and `right` need an `op`"
    if condition.op != "exists":
        return ""
    if condition.right is not None:
        return "`exists` has no `right`"
    try:
        form = form_of(condition.left) if isinstance(condition.left, dict) else None
    except MalformedReferenceError as error:
        return str(error)
    return "" if isinstance(form, Reference) else f"the `left` of `exists` is a reference (`{FROM}`)"
