# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a tool asks the client while it runs: forms and addresses for the user, the client's model, its folders.

Each question is an `Inquiry`: an async tool awaits it, a plain tool (in its thread) says `.wait()`. Questions that are
asked in the same turn of the loop, and those of one `ask_all`, reach the client together.

What becomes of a question is the gateway's to say. In a session the client is asked while the tool waits. At revision
2026-07-28 the call ends with the question, and the tool is run again from its start when the client comes back with
the answer: each question that was answered before then returns at once. So **nothing may take effect before the last
question**, and the same arguments and answers must lead to the same questions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import trio

from actors.calls import Message
from actors.errors import CannotAskError
from actors.tool_messages import ASK, Answers, Question, QuestionMethod, Questions

T = TypeVar("T")
MAX_KEY_CHARS: Final = 128
MAX_QUESTIONS: Final = 1000
"""Questions of one call; a tool that asks more is in a loop."""
_decode_answers = msgspec.msgpack.Decoder(Answers).decode


class CallCancelledError(Exception):
    """The call was cancelled or ran out of time; raised in a plain tool's thread so that it ends. Don't catch it."""


class Ask(Protocol):
    """The way to whoever called, such as `IncomingCall.ask`."""

    async def __call__(self, method: str, value: Message, /) -> msgspec.Raw:
        """Ask, and wait for the answer. Raises `MCPServerError`."""
        ...


class Draft(msgspec.Struct, frozen=True):
    """A question before it has its final key."""

    method: QuestionMethod
    params: bytes
    key: str | None
    needs: str
    """The capability, as in `ToolCall.can`."""


class _Batch:
    """Drafts that are asked together, and what came of them."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.done = trio.Event()
        self.answers: list[bytes] | None = None
        self.error: Exception | None = None


class Asker:
    """The questions of one call. `ask` belongs to the loop; `from_thread` to the tool's threads."""

    def __init__(
        self,
        way: Ask | None,
        can: Sequence[str],
        loop: trio.lowlevel.TrioToken,
        task: trio.lowlevel.Task,
        on_wait: Callable[[bool], object],
    ) -> None:
        """`task`: the call's own. `on_wait` hears when nothing of the call runs while it asks, and when that ends."""
        self._task = task
        self._on_wait = on_wait
        self.can = frozenset(can) if way is not None else frozenset()
        self._way = way
        self._loop = loop
        self._batch: _Batch | None = None
        self._keys: set[str] = set()
        self._unnamed = 0
        self._waits: set[trio.CancelScope] = set()
        self._over = False

    async def ask(self, drafts: list[Draft]) -> list[bytes]:
        """The answers to these questions, in their order. Raises `CannotAskError` and `NoAnswerError`."""
        for draft in drafts:
            if draft.needs not in self.can:
                raise cannot_ask(draft.needs)
        while True:
            batch, start = self._batch, 0
            if batch is None:
                batch = self._batch = _Batch()
                batch.drafts.extend(drafts)
                await self._lead(batch)
            else:
                start = len(batch.drafts)
                batch.drafts.extend(drafts)
                await batch.done.wait()
            if batch.error is not None:
                raise batch.error
            if batch.answers is not None:
                return batch.answers[start : start + len(drafts)]
            # The task that asked for all was cancelled alone: ask for ourselves.

    async def _lead(self, batch: _Batch) -> None:
        """Ask for all who come in this turn of the loop."""
        try:
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._batch = None
            questions = self._named(batch.drafts)
            answers = _decode_answers(await self._wait(Questions(questions=questions))).answers
            batch.answers = [answers[question.key] for question in questions]
        except Exception as error:  # noqa: BLE001 - every member of the batch raises it
            batch.error = error
        finally:
            batch.done.set()

    async def _wait(self, questions: Questions) -> msgspec.Raw:
        # Tasks that the tool started may run while one of them asks.
        alone = not any(nursery.child_tasks for nursery in self._task.child_nurseries)
        if not alone:
            return await self.tell(ASK, questions)
        self._on_wait(True)
        try:
            return await self.tell(ASK, questions)
        finally:
            self._on_wait(False)

    def _named(self, drafts: list[Draft]) -> list[Question]:
        """The questions with keys that are unique in the call and the same in each run of it."""
        if len(self._keys) + len(drafts) > MAX_QUESTIONS:
            raise RuntimeError(f"a call may ask {MAX_QUESTIONS} questions; this one is in a loop")
        # Tasks of one turn run in any order, so that the order of asking may not decide who is called what.
        order = sorted(range(len(drafts)), key=lambda at: (drafts[at].method, drafts[at].params))
        keys = [""] * len(drafts)
        for at in order:
            wanted = drafts[at].key
            if wanted is None:
                self._unnamed += 1
                wanted = f"q{self._unnamed}"
            keys[at] = self._unique(wanted)
        return [
            Question(key=key, method=draft.method, params=draft.params) for key, draft in zip(keys, drafts, strict=True)
        ]

    def _unique(self, wanted: str) -> str:
        key, number = wanted, 1
        while key in self._keys:
            number += 1
            key = f"{wanted}-{number}"
        self._keys.add(key)
        return key

    async def tell(self, method: str, value: Message) -> msgspec.Raw:
        """Ask the caller for something else than answers."""
        if self._way is None:
            raise cannot_ask("elicitation")
        return await self._way(method, value)

    def from_thread(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` on the loop, from a thread of the tool. Raises `CallCancelledError` when the call ends."""

        async def run() -> T:
            if not self._over:
                with trio.CancelScope() as scope:
                    self._waits.add(scope)
                    try:
                        return await work()
                    finally:
                        self._waits.discard(scope)
            raise CallCancelledError

        # Without the token the thread of a cancelled call would not be allowed to wait for its own end.
        return trio.from_thread.run(run, trio_token=self._loop)

    def interrupt(self) -> bool:
        """Wake the threads that wait for an answer: nobody will use it. True when there were some."""
        for scope in self._waits:
            scope.cancel()
        return bool(self._waits)

    def end(self) -> None:
        """The call is over."""
        self._over = True
        self.interrupt()


class Waitable(Generic[T]):
    """Something that the caller is asked for: await it in an async tool, `.wait()` for it in a plain one."""

    def __init__(self, asker: Asker, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._asker = asker
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work().__await__()

    def wait(self) -> T:
        """Wait in a thread. Raises `CallCancelledError` when the call is cancelled meanwhile."""
        return self._asker.from_thread(self._work)


class Inquiry(Waitable[T]):
    """A question, or several, not asked before it is awaited."""

    def __init__(self, asker: Asker, drafts: list[Draft], read: Callable[[list[bytes]], T]) -> None:
        super().__init__(asker, self._asked)
        self.drafts = drafts
        self.read = read

    async def _asked(self) -> T:
        return self.read(await self._asker.ask(self.drafts))


def capability_tree(needs: Sequence[str]) -> dict[str, Any]:
    """`ClientCapabilities` with these members: `["sampling.tools"]` -> `{"sampling": {"tools": {}}}`."""
    tree: dict[str, Any] = {}
    for need in needs:
        place = tree
        for name in need.split("."):
            place = place.setdefault(name, {})
    return tree


def cannot_ask(need: str) -> CannotAskError:
    """The error for a capability that the caller does not have."""
    return CannotAskError(
        f"the client can't be asked: it has not declared the capability {need}, or this request takes no questions",
        capabilities=capability_tree([need]),
    )


def check_key(key: str | None) -> None:
    """Raise ValueError for a key that is no short text."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARS):
        raise ValueError(f"a question's key is a text of 1 to {MAX_KEY_CHARS} characters")
