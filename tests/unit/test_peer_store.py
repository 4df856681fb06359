# SPDX-License-Identifier: AGPL-3.0-or-later
"""The file of peers: what was stored is known again, changes are gathered, and a fault of the disk loses nothing."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager

import pytest
import trio
from peer_books import Clock, book_of, peer

from actors.errors import UnavailableError
from actors.p2p.peer_registry import peer_keeper
from actors.p2p.peer_registry.peer_keeper import GATHER_S, RETRY_S, PeerKeeper, open_keeper
from actors.p2p.peer_registry.peer_store import PeerBatch, PeerStore
from actors.p2p.peer_registry.peers import POINT_S
from actors.p2p.peer_registry.reputation import Outcome
from actors.p2p.peer_registry.unsaved import Unsaved

A, B, C = map(peer, range(3))
HOME = "/ip4/192.0.2.1/tcp/1"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    made = PeerStore(tmp_path / "peers.sqlite")
    made.open()
    yield made
    made.close()


def filled(clock):
    """A book with much of A, a bit of B, and bans."""
    book = book_of(clock)
    book.heard(B, [HOME])
    book.connected(A, HOME, inbound=False)
    book.seen(A, capabilities=["gpu"], protocols=["/a"], agent="x/1")
    book.latency(A, 0.1)
    book.transferred(A, 1 << 20, 1.0)
    book.outcome(A, Outcome(ok=True, seconds=2.0))
    clock.now += POINT_S
    book.latency(A, 0.2)
    book.persist(A)
    book.disconnected(A)
    book.lied(B, HOME, "wrong output")
    return book


async def flushed(book, store):
    await PeerKeeper(book, store).finish()


def again(store, clock, **more):
    """The book of a new life."""
    store.close()
    assert store.open() is None
    book = book_of(clock, **more)
    peers, offences = store.load()
    book.bans.restore(offences)
    book.restore(peers)
    return book


async def test_all_that_is_known_is_known_in_another_life(store, clock):
    book = filled(clock)
    await flushed(book, store)
    known = again(store, clock)
    assert set(known) == {A, B}
    assert [known.get(one) for one in (A, B)] == [book.get(one) for one in (A, B)]
    assert len(known.get(A).history) == 1
    assert known.bans.holding() == book.bans.holding()
    assert not known.unsaved
    assert not known.bans.unsaved


async def test_a_history_that_has_no_new_point_stays_as_it_was_stored(store, clock):
    book = filled(clock)
    await flushed(book, store)
    book.latency(A, 0.3)
    assert book.stored(A).history is None
    await flushed(book, store)
    assert again(store, clock).get(A).history == book.get(A).history != []


async def test_what_is_forgotten_is_not_stored_any_more(store, clock):
    book = filled(clock)
    await flushed(book, store)
    book.forget(A)
    book.bans.forgive(B)
    book.bans.forgive("192.0.2.1")
    await flushed(book, store)
    known = again(store, clock)
    assert set(known) == {B}
    assert len(known.bans) == 0


async def test_a_new_life_with_less_room_and_less_patience_forgets(store, clock):
    book = book_of(clock)
    book.heard(A)
    clock.now += 100.0
    for one in (B, C):
        book.seen(one)
        clock.now += 1.0
    await flushed(book, store)
    assert set(again(store, clock, keep_s=50.0)) == {B, C}
    smaller = again(store, clock, max_peers=1)
    assert set(smaller) == {C}
    await flushed(smaller, store)
    assert set(again(store, clock)) == {C}


async def test_after_a_flood_only_those_in_the_book_stay_stored(store, clock):
    book = book_of(clock, max_peers=3, most_bans=2)
    for begin in (100, 200):
        for number in range(begin, begin + 50):
            book.heard(peer(number))
            book.violated(peer(number), f"/ip4/192.0.2.{number}/tcp/1", "x")
        await flushed(book, store)
    known = again(store, clock, max_peers=1000, most_bans=1000)
    assert set(known) == set(book) == {peer(number) for number in (247, 248, 249)}
    assert {one.subject for one in known.bans.all()} == {one.subject for one in book.bans.all()}
    assert len(known.bans) == 4


def test_what_is_not_saved_is_remembered_within_bounds():
    unsaved = Unsaved(3)
    for number in range(100):
        unsaved.put(str(number))
        unsaved.drop(str(number))
    assert len(unsaved._gone) <= 3
    assert unsaved.take(10, ["x"]) == ([], [], ["x"])
    assert not unsaved


def test_a_batch_is_written_wholly_or_not_at_all(store, clock):
    batch = PeerBatch()
    batch.put(filled(clock).stored(A))
    batch.offences.append((B, None))
    with pytest.raises(sqlite3.IntegrityError):
        store.write(batch)
    assert store.load() == ([], [])


async def test_what_an_older_version_wrote_is_left_out(store, clock):
    await flushed(filled(clock), store)
    store.write(PeerBatch(peers=[(C, b"\x01", None)], offences=[(C, b"no msgpack")]))
    peers, offences = store.load()
    assert {one.record.peer_id for one in peers} == {A, B}
    assert len(offences) == 2


# --- files that can't be used --------------------------------------------------------------------------------------


def test_a_file_that_another_process_has_is_not_touched(store):
    with pytest.raises(UnavailableError, match="is in use by pid"):
        PeerStore(store.path).open()


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b""])
async def test_a_damaged_file_is_put_aside_and_a_new_one_begun(store, clock, damage):
    await flushed(filled(clock), store)
    store.close()
    whole = store.path.read_bytes()
    store.path.write_bytes(damage or whole[:4096] + b"\xff" * 4096 + whole[8192:])
    aside = store.open()
    assert aside.read_bytes()
    assert store.load() == ([], [])


def test_a_file_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE theirs(x)")
    con.close()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="another program's"):
            PeerStore(path).open()
    assert path.read_bytes() == before


def test_a_place_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "peers.sqlite").mkdir()
    with pytest.raises(UnavailableError, match="can't be used"):
        PeerStore(tmp_path / "peers.sqlite").open()


# --- the keeper ----------------------------------------------------------------------------------------------------


class Disk:
    """A store that counts what is written, and fails when told."""

    def __init__(self):
        self.batches = []
        self.full = False
        self.during = lambda: None
        """What happens while it writes."""
        self.written = trio.Event()
        self.closed = False

    path = "disk"

    def open(self):
        return None

    def load(self):
        return [], []

    def write(self, batch):
        self.batches.append(batch)
        self.during()
        self.written.set()
        if self.full:
            raise sqlite3.OperationalError("disk full")

    def close(self):
        self.closed = True

    async def next(self):
        await self.written.wait()
        self.written = trio.Event()
        return self.batches[-1]


@pytest.fixture
def no_threads(monkeypatch):
    """A clock that jumps would jump while a thread works."""

    async def here(function, *args):
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", here)


@asynccontextmanager
async def kept(book, disk):
    """The book, while a keeper runs."""
    async with open_keeper(book, disk) as keeper, trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield
        nursery.cancel_scope.cancel()


def ids(batch):
    return [one for one, _, _ in batch.peers]


async def test_changes_are_gathered_and_written_together(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock)
    async with kept(book, disk):
        book.heard(A)
        began = trio.current_time()
        await trio.sleep(GATHER_S / 2)
        book.heard(B)
        book.heard(A, [HOME])
        book.violated(C, "", "x")
        batch = await disk.next()
        assert trio.current_time() - began == pytest.approx(GATHER_S)
        assert (ids(batch), [one for one, _ in batch.offences]) == ([A, B], [C])
        await trio.sleep(100 * GATHER_S)
        assert len(disk.batches) == 1
        book.forget(A)
        assert (await disk.next()).peers_gone == [A]
    assert disk.closed


async def test_a_peer_that_is_merely_alive_is_stored_once_in_a_minute(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock)
    async with kept(book, disk):
        for _ in range(120):
            clock.now += 1.0
            book.seen(A)
            await trio.sleep(1.0)
    assert len(disk.batches) in {2, 3}


async def test_what_is_left_is_written_at_the_end(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock)
    async with kept(book, disk):
        book.heard(A)
    assert [ids(batch) for batch in disk.batches] == [[A]]
    assert disk.closed


async def test_many_changes_are_written_in_several_batches(clock, no_threads, autojump_clock, monkeypatch):
    monkeypatch.setattr(peer_keeper, "MOST_AT_ONCE", 2)
    disk, book = Disk(), book_of(clock)
    async with kept(book, disk):
        for number in range(5):
            book.heard(peer(number))
            book.violated(peer(number), "", "x")
    assert [len(batch.peers) for batch in disk.batches] == [2, 2, 1]
    assert [len(batch.offences) for batch in disk.batches] == [2, 2, 1]


async def test_a_fault_of_the_disk_loses_nothing_and_ends_nothing(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock)
    book.seen(A)
    book.latency(A, 0.1)
    clock.now += POINT_S
    book.sweep()
    book.heard(B)
    async with kept(book, disk):

        def meanwhile():
            book.heard(B)
            book.bans.forgive(C)
            disk.during = lambda: None

        disk.full, disk.during = True, meanwhile
        book.forget(B)
        book.violated(C, "", "x")
        await disk.next()
        disk.full = False
        batch = await disk.next()
    assert ids(batch) == [B, A]
    assert batch.peers[1][2] is not None
    assert (batch.peers_gone, batch.offences, batch.offences_gone) == ([], [], [C])
    assert len(disk.batches) == 2


async def test_after_a_flood_and_a_fault_of_the_disk_what_is_stored_is_compared(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock, max_peers=2, most_bans=2)
    async with kept(book, disk):
        disk.full = True
        for number in range(50):
            book.heard(peer(number))
            book.violated(peer(number), "", "x")
        for _ in range(2):
            batch = await disk.next()
            assert set(batch.only_peers) == set(book) == {peer(48), peer(49)}
            assert set(batch.only_offences) == {one.subject for one in book.bans.all()}
            disk.full = False
    assert len(disk.batches) == 2


async def test_a_disk_that_stays_full_does_not_keep_the_end(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock)
    began = trio.current_time()
    disk.full = True
    async with kept(book, disk):
        book.heard(A)
        await trio.sleep(GATHER_S + 3 * RETRY_S)
    assert trio.current_time() - began < GATHER_S + 4 * RETRY_S
    assert disk.closed
    assert book.unsaved


async def test_old_peers_are_forgotten_by_and_by(clock, no_threads, autojump_clock):
    disk, book = Disk(), book_of(clock, keep_s=100.0)
    async with kept(book, disk):
        book.heard(A)
        clock.now += 101.0
        await trio.sleep(120.0)
        assert len(book) == 0
