# SPDX-License-Identifier: AGPL-3.0-or-later
"""The data directory and the runtime directory: private, held by one root, found by others, cleaned after a kill."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from actors.peers import socket_path
from actors.settings import PoolName
from supervisor import rundir
from supervisor.rundir import (
    NotRunningError,
    RunInfo,
    StartError,
    find_running,
    hold_data_dir,
    open_runtime_dir,
    process_start_time,
    read_run_info,
    write_run_info,
)


def info(runtime_dir: Path | str = "/run/x", *, pid: int | None = None, start_time: int | None = None) -> RunInfo:
    pid = pid or os.getpid()
    return RunInfo(
        root_pid=pid, start_time=start_time or process_start_time(pid) or 0, runtime_dir=str(runtime_dir), version="1"
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the data directory --------------------------------------------------------------------------------------------


def test_the_data_directory_is_made_for_this_user_alone(tmp_path):
    with hold_data_dir(tmp_path / "a" / "b"):
        assert mode(tmp_path / "a" / "b") == 0o700
        assert mode(tmp_path / "a" / "b" / "lock") == 0o600


def test_a_second_root_is_refused_and_told_who_has_it(tmp_path):
    with hold_data_dir(tmp_path):
        write_run_info(tmp_path, info())
        with (
            pytest.raises(StartError, match=rf"\(pid {os.getpid()}\) runs on .* already; stop it .* or choose another"),
            hold_data_dir(tmp_path),
        ):
            pass
        assert find_running(tmp_path).root_pid == os.getpid(), "the refusal takes nothing from the first"


def test_the_data_directory_is_free_again_afterwards(tmp_path):
    with hold_data_dir(tmp_path):
        write_run_info(tmp_path, info())
    assert read_run_info(tmp_path) is None
    with hold_data_dir(tmp_path):
        pass


@pytest.mark.parametrize("path", ["/proc/greenroom", "/dev/null/data"])
def test_a_data_directory_that_can_not_be_used_is_an_error_with_the_remedy(path):
    with (
        pytest.raises(StartError, match=r"can't be used \(.+\); choose another: --data-dir"),
        hold_data_dir(Path(path)),
    ):
        pass


def test_what_a_killed_root_left_is_removed(tmp_path):
    data, left = tmp_path / "data", tmp_path / "greenroom-abc"
    data.mkdir()
    left.mkdir()
    (left / "control.sock").touch()
    write_run_info(data, info(left, pid=2**22 - 3, start_time=1))
    (data / "run.json.4711").write_text("half a file")
    with hold_data_dir(data):
        assert not left.exists()
        assert [path.name for path in data.iterdir()] == ["lock"]


def test_nothing_but_a_runtime_directory_of_ours_is_ever_removed(tmp_path):
    data, precious = tmp_path / "data", tmp_path / "precious"
    data.mkdir()
    precious.mkdir()
    write_run_info(data, info(precious))
    with hold_data_dir(data):
        assert precious.exists()


# --- run.json ------------------------------------------------------------------------------------------------------


def test_run_json_holds_what_others_need(tmp_path):
    write_run_info(tmp_path, info("/run/greenroom-x"))
    assert msgspec.json.decode((tmp_path / "run.json").read_bytes()) == {
        "root_pid": os.getpid(),
        "start_time": process_start_time(os.getpid()),
        "runtime_dir": "/run/greenroom-x",
        "version": "1",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"], "it appears in one step"
    assert find_running(tmp_path) == read_run_info(tmp_path)


def test_a_pid_that_is_used_again_is_not_believed(tmp_path):
    write_run_info(tmp_path, info(start_time=1))
    with pytest.raises(NotRunningError, match=f"no Greenroom runs on {tmp_path}; start one: greenroom up"):
        find_running(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b'{"root_pid": "x"}'])
def test_without_a_readable_run_json_nothing_runs(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(NotRunningError):
        find_running(tmp_path)


def test_a_start_time_names_a_process_for_as_long_as_it_lives():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = process_start_time(child.pid)
    assert first is not None
    assert first >= process_start_time(os.getpid())
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_start_time(child.pid) is None, "a zombie does not run"
    child.wait()
    assert process_start_time(child.pid) is None


# --- the runtime directory -----------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    """A short folder: pytest's own are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(path)


def test_the_runtime_directory_is_private_and_goes_with_the_root(short):
    with open_runtime_dir(str(short / "made")) as path:
        assert path.parent == short / "made"
        assert mode(path) == 0o700
        (path / "x.sock").touch()
    assert not path.exists()


def test_the_runtime_directory_goes_with_an_error_too(short):
    with pytest.raises(ZeroDivisionError), open_runtime_dir(str(short)) as path:
        1 / 0  # noqa: B018
    assert not path.exists()


def test_two_roots_never_share_one(short):
    with open_runtime_dir(str(short)) as one, open_runtime_dir(str(short)) as other:
        assert one != other


def test_the_users_runtime_folder_is_preferred_and_may_be_missing(short, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    with open_runtime_dir("") as path:
        assert path.parent == short
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    with open_runtime_dir("") as path:
        assert path.parent == short


def test_a_relative_path_is_made_absolute_for_the_actors(short, monkeypatch):
    monkeypatch.chdir(short)
    with open_runtime_dir("here") as path:
        assert path.parent == short / "here"


def test_a_path_too_long_for_sockets_is_an_error_at_start_with_the_remedy(short):
    long = short / ("x" * 60)
    with (
        pytest.raises(
            StartError, match=r"is too long a path for Unix sockets .* set supervisor.runtime_dir to a shorter"
        ),
        open_runtime_dir(str(long)),
    ):
        pass
    assert list(long.iterdir()) == [], "nothing is left of it"


def test_the_longest_name_of_an_actor_is_what_the_check_counts_with():
    longest_pool = "p" * next(meta.max_length for meta in PoolName.__metadata__)
    for actor in (f"tools.{longest_pool}#spare99", "workflow_scheduler#spare99"):
        name = Path(socket_path("/r", actor, 999_999_999)).name
        assert len(name) <= rundir._LONGEST_SOCKET_NAME


def test_a_runtime_directory_that_can_not_be_made_is_an_error_with_the_remedy():
    with (
        pytest.raises(StartError, match=r"no runtime directory below /proc/x .* set supervisor.runtime_dir"),
        open_runtime_dir("/proc/x"),
    ):
        pass
