# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom workflow verify` and `export`: what is printed, exit codes, and pieces that come from a running tree."""

from __future__ import annotations

import msgspec
import pytest
import trio
from click.testing import CliRunner
from outcome import acapture
from workflow_clocks import signer
from workflow_exports import begun, done, step

from actors.channel import Channel
from actors.errors import MCPServerError, NotFoundError, UnavailableError
from actors.p2p.cids import cid_text
from actors.peers import hello
from actors.workflow_messages import ExportWorkflow
from supervisor import client_workflow_export
from supervisor.cli import greenroom
from supervisor.client_workflow_export import read_export

FILE = done().file()


def verify(*arguments):
    return CliRunner().invoke(greenroom, ["workflow", "verify", *map(str, arguments)])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "audit.car"
    path.write_bytes(FILE)
    return path


def test_a_sound_file_is_a_table_and_one_sentence(path):
    found = verify(path)
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0] == "workflow wf (story) of me: completed"
    assert [line.split()[:3] for line in lines[4:7]] == [
        ["step", "action", "status"],
        ["a", "echo", "completed"],
        ["b", "echo", "completed"],
    ]
    (head,) = done().clock.heads
    signed = f"signed by {signer('ann').peer}, head {cid_text(head)}"
    assert lines[-1] == f"all 17 events of workflow wf are sound: {signed}"
    assert msgspec.json.decode(verify(path, "--json").output)["sound"] is True


def test_what_is_wrong_is_said_and_is_the_exit_code(path):
    path.write_bytes(FILE.replace(b"[20, 10]", b"[20, 11]"))
    found = verify(path)
    assert found.exit_code == 1
    assert f"1 thing wrong with {path}:\n  BLOCK: the block is not what its CID says (bafkrei" in found.output
    found = verify(path, "--json")
    assert found.exit_code == 1
    report = msgspec.json.decode(found.output)
    assert (report["sound"], [finding["code"] for finding in report["findings"]]) == (False, ["BLOCK"])


def test_the_signers_can_be_named(path):
    ann, bob = signer("ann").peer, signer("bob").peer
    assert verify(path, "--signed-by", ann, "--signed-by", bob).exit_code == 0
    found = verify(path, "--signed-by", bob)
    assert found.exit_code == 1
    assert f"SIGNER: 17 signed by {ann}, this one first" in found.output


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    found = verify(path)
    assert found.exit_code == 1
    assert "FILE: " in found.output
    assert isinstance(verify(tmp_path / "none.car").exception, UnavailableError)


def test_what_strangers_wrote_does_not_steer_the_terminal(tmp_path):
    story = begun(step("a"))
    story.say("step_cancelled", step="a", reason="\x1b[2Jgone\nall 9 events are sound")
    (tmp_path / "bad.car").write_bytes(story.file())
    output = verify(tmp_path / "bad.car").output
    assert "\x1b" not in output
    assert "\N{REPLACEMENT CHARACTER}[2Jgone all 9 events are sound" in output


def test_missing_outputs_and_blocks_of_no_use_are_notes(tmp_path):
    story = begun(step("a"))
    story.output("nobody's")
    story.say("step_completed", step="a", result=story.output(1, kept=False))
    (tmp_path / "part.car").write_bytes(story.file())
    found = verify(tmp_path / "part.car")
    assert found.exit_code == 0
    assert "not in the file: 1 output that the events name\n1 block in the file that nothing names" in found.output


# --- from a running tree -------------------------------------------------------------------------------------------


@pytest.fixture
def tree(monkeypatch):
    async def export(data_dir, workflow_id):
        if workflow_id != "wf":
            raise NotFoundError("no workflow")
        return FILE

    monkeypatch.setattr(client_workflow_export, "export", export)


def test_an_id_is_asked_of_the_running_tree(tree):
    assert verify("wf").exit_code == 0
    assert isinstance(verify("other").exception, NotFoundError)


def test_an_export_is_written_whole(tree, tmp_path):
    path = tmp_path / "audit.car"
    path.write_bytes(b"older")
    found = CliRunner().invoke(greenroom, ["workflow", "export", "wf", "-o", str(path)])
    assert (found.exit_code, found.output) == (0, f"{path}: {len(FILE)} bytes\n")
    assert path.read_bytes() == FILE
    assert [one.name for one in tmp_path.iterdir()] == ["audit.car"]
    failed = CliRunner().invoke(greenroom, ["workflow", "export", "other", "-o", str(path)])
    assert isinstance(failed.exception, NotFoundError)
    assert path.read_bytes() == FILE
    failed = CliRunner().invoke(greenroom, ["workflow", "export", "wf", "-o", str(tmp_path / "no" / "folder")])
    assert isinstance(failed.exception, UnavailableError)


async def pieces_read(pieces, **options):
    asked = []

    async def handle(call):
        asked.append((call.method, msgspec.msgpack.decode(call.body, type=ExportWorkflow)))
        for piece in pieces:
            assert call.item(msgspec.Raw(msgspec.msgpack.encode(piece)))

    left, right = trio.socket.socketpair()
    caller, callee = Channel(left, me=hello("caller", 1)), Channel(right, me=hello("callee", 2), handler=handle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callee.run)
        await nursery.start(caller.run)
        data = await acapture(read_export, caller, ExportWorkflow(workflow_id="wf"), **options)
        nursery.cancel_scope.cancel()
    assert asked == [("workflows/export", ExportWorkflow(workflow_id="wf"))]
    return data.unwrap()


async def test_the_pieces_of_an_export_are_put_together():
    assert await pieces_read([FILE[:100], FILE[100:5000], FILE[5000:]]) == FILE
    assert await pieces_read([FILE], most_bytes=len(FILE)) == FILE


async def test_an_export_that_is_too_large_is_left():
    with pytest.raises(MCPServerError, match="larger than 99 bytes"):
        await pieces_read([FILE[:100], FILE[100:]], most_bytes=99)
