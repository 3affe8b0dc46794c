"""What was told is written, what is written comes back, and one runtime at a time has a state folder."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.leases import Holder, Lease, LeaseAsk
from imageworks.runtime.ledger import Kept, Ledger, LedgerError, TakenError

LEASE = Lease(
    id="l1",
    ask=LeaseAsk(request="r1", owner="trainer", mib=6144, gpus=(0, 1), exclusive=True, holder=Holder(7, 99)),
    state="active",
    tokens={0: 5, 1: 9},
    uuids={0: "GPU-a", 1: "GPU-b"},
    expires=12.5,
    restore=("qwen",),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """A new life over the same folder."""
    made: list[Ledger] = []

    def begin() -> Ledger:
        if made:
            made[-1].close()
        made.append(Ledger(tmp_path / "state"))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_the_next_life_finds_all_that_was_written(ledger: Callable[[], Ledger]) -> None:
    first = ledger()
    assert first.open() == Kept()
    first.keep_lease(LEASE, "boot-1")
    first.keep_lease(replace(LEASE, id="l2"), "boot-1")
    first.drop_lease("l2")
    first.want("a", "up", {"GPU-a": 12})
    first.want("b", "up")
    first.want("b", "stopping")
    first.want("c", "up")
    first.want("c", None)
    first.loaded("a", 10.0)
    first.loaded("a", 20.0)
    kept = ledger().open()
    assert kept.leases == (("boot-1", LEASE),)
    assert kept.tokens == {"GPU-a": 12, "GPU-b": 9}
    assert kept.wanted == {"a": "up", "b": "stopping"}
    assert kept.load_s == {"a": pytest.approx(13.0)}


@given(given=st.lists(st.tuples(st.sampled_from(["GPU-a", "GPU-b"]), st.integers(1, 1 << 52)), max_size=20))
def test_a_token_on_file_never_gets_lower(given: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    ledger.open()
    for uuid, token in given:
        ledger.want("m", "up", {uuid: token})
    assert ledger._db is not None
    found = dict(ledger._db.execute("select uuid, token from tokens").fetchall())
    assert found == {uuid: max(token for each, token in given if each == uuid) for uuid in {each for each, _ in given}}
    ledger.close()


def test_the_floor_is_above_a_thousand_tokens_a_second_of_an_earlier_life() -> None:
    earlier, later = Ledger(wall=lambda: 1_800_000_000.0), Ledger(wall=lambda: 1_800_000_001.0)
    assert earlier.floor() + 1000 <= later.floor() < 1 << 53


def test_a_second_runtime_is_refused_and_told_who_is_there(tmp_path: Path, ledger: Callable[[], Ledger]) -> None:
    first = ledger()
    first.open()
    second = Ledger(tmp_path / "state")
    with pytest.raises(TakenError, match=f"another runtime .pid {os.getpid()}. uses the state folder"):
        second.open()
    first.close()
    second.open()
    second.close()


WRITER = """
import sys
from pathlib import Path
from imageworks.runtime.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.open()
for number in range(1, 1 << 30):
    ledger.want("a", "up", {"GPU-a": number})
    print(number, flush=True)
"""


def test_what_was_told_before_a_kill_is_on_file_and_the_lock_is_free(
    tmp_path: Path, ledger: Callable[[], Ledger]
) -> None:
    folder = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = [200, *(int(line) for line in process.stdout.read().splitlines() if line.isdecimal())]
    assert ledger().open().tokens["GPU-a"] >= told[-1] - 1  # the last line may have been cut off


@pytest.mark.parametrize("damage", ["garbage", "half", "lease"])
def test_a_damaged_file_is_put_aside_and_said_to_be_forgotten(
    tmp_path: Path, ledger: Callable[[], Ledger], damage: str
) -> None:
    first = ledger()
    first.open()
    first.keep_lease(LEASE, "b")
    first.close()
    file = tmp_path / "state" / "state.sqlite"
    if damage == "lease":
        with sqlite3.connect(file) as db:
            db.execute("update leases set body = ?", (json.dumps({"id": 1}),))
        db.close()
    else:
        file.write_bytes(b"not a database" * 99 if damage == "garbage" else file.read_bytes()[:5000])
    again = ledger()
    assert again.open() == Kept()
    assert again.forgot
    again.keep_lease(LEASE, "b")
    assert again.trouble is None
    assert [path for path in (tmp_path / "state").iterdir() if path.name.startswith("state.damaged-")]


def test_a_newer_file_is_left_alone(tmp_path: Path, ledger: Callable[[], Ledger]) -> None:
    first = ledger()
    first.open()
    first.close()
    with sqlite3.connect(tmp_path / "state" / "state.sqlite") as db:
        db.execute("update meta set value = '2' where name = 'schema'")
    db.close()
    with pytest.raises(LedgerError, match="newer ImageWorks"):
        ledger().open()


def test_a_full_disk_refuses_the_write_and_says_so_until_there_is_room(ledger: Callable[[], Ledger]) -> None:
    """SQLite's own page limit stands for the disk: it raises the very error of a full one."""
    full = ledger()
    full.open()
    full.keep_lease(LEASE, "b")
    assert full._db is not None
    pages = full._db.execute("pragma page_count").fetchone()[0]
    full._db.execute(f"pragma max_page_count = {pages}")
    big = replace(LEASE, id="l2", ask=replace(LEASE.ask, reason="x" * 100_000))
    with pytest.raises(LedgerError, match="full"):
        full.keep_lease(big, "b")
    assert "full" in (full.trouble or "")
    full._db.execute("pragma max_page_count = 100000")
    assert full.probe()
    assert full.trouble is None
    assert [lease.id for _, lease in ledger().open().leases] == ["l1"]


def test_the_end_of_a_lease_that_could_not_be_written_is_written_later(
    ledger: Callable[[], Ledger],
) -> None:
    first = ledger()
    first.open()
    first.keep_lease(LEASE, "b")
    db = first._db
    assert db is not None
    db.execute("pragma query_only = on")
    with pytest.raises(LedgerError):
        first.drop_lease("l1")
    db.execute("pragma query_only = off")
    first.want("a", "up")
    assert ledger().open().leases == ()


def test_a_folder_that_cannot_be_written_is_still_read(
    ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is put in by hand: the tests may run as root, who writes everywhere."""
    first = ledger()
    first.open()
    first.keep_lease(LEASE, "b")
    again = ledger()

    def refuse() -> sqlite3.Connection:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(again, "_connect", refuse)
    assert again.open().leases == (("b", LEASE),)
    assert again.trouble == "attempt to write a readonly database"
    assert not again.probe()


def test_a_folder_that_is_a_file_leaves_trouble_and_heals(tmp_path: Path, ledger: Callable[[], Ledger]) -> None:
    (tmp_path / "state").write_text("in the way")
    broken = ledger()
    assert broken.open() == Kept()
    assert broken.trouble
    with pytest.raises(LedgerError, match="cannot be written"):
        broken.keep_lease(LEASE, "b")
    (tmp_path / "state").unlink()
    broken.keep_lease(LEASE, "b")
    assert broken.trouble is None
    assert ledger().open().leases == (("b", LEASE),)
