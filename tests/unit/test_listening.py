# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process without a free file waits for one instead of losing its socket."""

from __future__ import annotations

import errno

import pytest
import trio

from actors.listening import OUT_OF_FILES, accept


class Listener:
    """Fails with these errors, then has a connection."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    async def accept(self):
        await trio.lowlevel.checkpoint()
        if self.numbers:
            raise OSError(self.numbers.pop(0), "no")
        return "a connection"


@pytest.mark.parametrize("number", sorted(OUT_OF_FILES))
async def test_accepting_goes_on_when_there_are_files_again(autojump_clock, number):
    with trio.fail_after(1):
        assert await accept(Listener(number, number)) == "a connection"
    assert trio.current_time() > 0.1


async def test_any_other_error_is_an_error(autojump_clock):
    with pytest.raises(OSError, match="no") as failed:
        await accept(Listener(errno.EBADF))
    assert failed.value.errno == errno.EBADF
