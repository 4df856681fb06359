# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions of a running task to its owner."""

from __future__ import annotations

import msgspec
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.task_messages import AnswerOwner, AskOwner, Beat, Complete, Fail, Retry


async def test_a_question_is_asked_answered_and_told_to_the_holder(box):
    await box.put("t")
    lease = await box.take()
    asked = await box.do(AskOwner(id="t", token=lease.token, questions={"a": '{"q":1}', "b": "{}"}))
    assert asked.asked == {"a": '{"q":1}', "b": "{}"}
    assert (await box.task("t")).asked == asked.asked
    answered = await box.do(AnswerOwner(id="t", answers={"a": "1", "nobody asked": "2"}))
    assert (answered.asked, answered.answers) == ({"b": "{}"}, {"a": "1"})
    assert (await box.do(Beat(id="t", token=lease.token))).answers == {"a": "1"}


async def test_what_was_answered_is_not_asked_again(box):
    await box.put("t", retry=Retry(base_s=0.0))
    lease = await box.take()
    await box.do(AskOwner(id="t", token=lease.token, questions={"a": "{}"}))
    await box.do(AnswerOwner(id="t", answers={"a": "1"}))
    await box.do(Fail(id="t", token=lease.token, error=ErrorInfo(code="X", message="x", retryable=True)))
    await box.reopen()
    lease = await box.take()
    assert lease.answers == {"a": "1"}
    asked = await box.do(AskOwner(id="t", token=lease.token, questions={"a": "{}", "b": "{}"}))
    assert (asked.asked, asked.answers) == ({"b": "{}"}, {"a": "1"})


async def test_a_second_answer_is_ignored(box):
    await box.put("t")
    lease = await box.take()
    await box.do(AskOwner(id="t", token=lease.token, questions={"a": "{}"}))
    await box.do(AnswerOwner(id="t", answers={"a": "1"}))
    assert (await box.do(AnswerOwner(id="t", answers={"a": "2"}))).answers == {"a": "1"}


async def test_questions_end_with_the_task(box):
    await box.put("t")
    lease = await box.take()
    await box.do(AskOwner(id="t", token=lease.token, questions={"a": "{}"}))
    await box.do(Complete(id="t", token=lease.token))
    assert (await box.task("t")).asked == {}
    assert code(await box.do(AnswerOwner(id="t", answers={"a": "1"}))) == "INVALID_STATE"
    await box.settle()
    assert code(await box.do(AnswerOwner(id="t", answers={"a": "1"}))) == "INVALID_STATE"
    assert code(await box.do(AnswerOwner(id="nobody", answers={"a": "1"}))) == "NOT_FOUND"


async def test_the_number_and_size_of_questions_is_limited(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_questions=3, max_question_bytes=10))
    await box.put("t")
    lease = await box.take()

    async def ask(**questions):
        return code(await box.do(AskOwner(id="t", token=lease.token, questions=questions)))

    assert await ask(a="x" * 11) == "LIMIT_EXCEEDED"
    assert await ask(a="1", b="1", c="1", d="1") == "LIMIT_EXCEEDED"
    assert await ask(a="1", b="1") == ""
    assert code(await box.do(AnswerOwner(id="t", answers={"a": "x" * 11}))) == "LIMIT_EXCEEDED"
    await box.do(AnswerOwner(id="t", answers={"a": "1"}))
    assert await ask(c="1") == ""
    assert await ask(d="1") == "LIMIT_EXCEEDED"
    assert (await box.task("t")).asked == {"b": "1", "c": "1"}
