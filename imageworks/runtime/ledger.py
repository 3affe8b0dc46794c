"""What must outlive the proxy: leases, fencing tokens, measured load times, and what was wanted of each model.

Owns `{state}/state.sqlite` (WAL) and the lock that keeps a second runtime off the same state folder. Every write is
committed before it returns, so that what was told is what was written. Times in the file are epoch seconds and only
told to people: nothing is decided by comparing them. Judges nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from imageworks.runtime.leases import Lease

LOG = logging.getLogger(__name__)
SCHEMA = 1
BUSY_MS = 1000
LOAD_WEIGHT = 0.3
"""Share of the newest measurement in a model's load time: a cold disk once must not be believed for ever."""
_TABLES = """
create table if not exists meta (name text primary key, value text not null) without rowid;
create table if not exists tokens (uuid text primary key, token integer not null) without rowid;
create table if not exists leases (id text primary key, boot text not null, body text not null) without rowid;
create table if not exists loads (model text primary key, seconds real not null, measured real not null) without rowid;
create table if not exists wanted (model text primary key, state text not null) without rowid;
"""
Wanted = Literal["up", "waking", "stopping"]


class LedgerError(Exception):
    """The ledger cannot be used for this; one sentence for the user."""


class TakenError(LedgerError):
    """Another runtime has this state folder."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a life before this one left. `leases` by the boot they were given in; `tokens` by GPU UUID."""

    leases: tuple[tuple[str, Lease], ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)
    wanted: Mapping[str, Wanted] = field(default_factory=dict)


class Ledger:
    """The file of one state folder, None for one that only lives in memory. `trouble` says why writing fails now, None while it works.

    `forgot`: a file was there and could not be read, so what it held is unknown.
    """

    def __init__(self, folder: Path | None = None, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._wall = folder, wall
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._over: set[str] = set()
        self.trouble: str | None = None
        self.forgot = False

    def open(self) -> Kept:
        """Take the folder and read what is there. Raises TakenError when another runtime has it.

        A damaged file is put aside and a new one begun; a folder that cannot be written leaves `trouble`.
        """
        try:
            if self._folder is not None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _take(self._folder)
            return self._begin()
        except LedgerError:
            raise
        except (sqlite3.Error, OSError) as error:
            self.trouble = _reason(error)
            return self._read_only()

    def close(self) -> None:
        """Give the folder back."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def floor(self) -> int:
        """A token that none before this moment has reached, also where the file was lost: milliseconds since the epoch.

        Holds while fewer than 1,000 tokens are given per second and GPU, and the clock was not set back meanwhile.
        """
        return int(self._wall() * 1000)

    def keep_lease(self, lease: Lease, boot: str) -> None:
        """Write a lease down with its tokens, whole or not at all. Raises LedgerError."""
        body = msgspec.json.encode(lease).decode()
        with self._writing() as db:
            db.execute("insert or replace into leases values (?, ?, ?)", (lease.id, boot, body))
            _keep_tokens(db, {lease.uuids[slot]: token for slot, token in lease.tokens.items()})

    def drop_lease(self, lease: str) -> None:
        """Forget a lease that is over. Raises LedgerError."""
        self._over.add(lease)
        with self._writing():
            pass  # every transaction begins with what is over: also what could not be written when it ended

    def want(self, model: str, state: Wanted | None, tokens: Mapping[str, int] | None = None) -> None:
        """What is wanted of a model from now, and the tokens (by UUID) of its start. None: nothing. Raises LedgerError."""
        with self._writing() as db:
            if state is None:
                db.execute("delete from wanted where model = ?", (model,))
            else:
                db.execute("insert or replace into wanted values (?, ?)", (model, state))
            _keep_tokens(db, tokens or {})

    def loaded(self, model: str, seconds: float) -> None:
        """A model took `seconds` from its start to its readiness. Raises LedgerError."""
        with self._writing() as db:
            db.execute(
                "insert into loads values (?1, ?2, ?3) on conflict (model) do update"
                " set seconds = seconds + ?4 * (?2 - seconds), measured = ?3",
                (model, seconds, self._wall(), LOAD_WEIGHT),
            )

    def probe(self) -> bool:
        """Try to write now, so that `trouble` says what is true; True when it works."""
        with suppress(LedgerError), self._writing() as db:
            db.execute("insert or replace into meta values ('probed', ?)", (str(self._wall()),))
        return self.trouble is None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._db is None:
                self._reopen()
            assert self._db is not None  # noqa: S101 - _reopen raises otherwise
            before = self._db.total_changes
            with self._db:
                self._db.executemany("delete from leases where id = ?", [(lease,) for lease in self._over])
                yield self._db
        except (sqlite3.Error, OSError, TakenError) as error:
            self.trouble = _reason(error)
            raise LedgerError(f"the state in {self._folder} cannot be written: {self.trouble}") from None
        if self._db.total_changes > before:  # what changes nothing writes nothing, and proves nothing
            self.trouble = None
        self._over.clear()

    def _reopen(self) -> None:
        """The folder could not be written when we began; perhaps it can now. What it holds was read then."""
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = _take(self._folder)
        self._db = self._connect()

    def _begin(self) -> Kept:
        try:
            self._db = self._connect()
            return _read(self._db)
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            if isinstance(error, sqlite3.OperationalError) or self._folder is None:
                raise
            self._put_aside()
            self._db = self._connect()
            return _read(self._db)

    def _connect(self) -> sqlite3.Connection:
        place = ":memory:" if self._folder is None else str(self._folder / "state.sqlite")
        db = sqlite3.connect(place, timeout=BUSY_MS / 1000, isolation_level="IMMEDIATE")
        try:
            db.execute("pragma journal_mode = wal")
            # a commit survives the death of every process; what only a power cut can take ends with it: the holders
            db.execute("pragma synchronous = normal")
            db.executescript(_TABLES)
            with db:
                db.execute("insert or ignore into meta values ('schema', ?)", (str(SCHEMA),))
            _check_schema(db, place)
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self) -> None:
        assert self._folder is not None  # noqa: S101 - only files can be damaged
        self.forgot = True
        if self._db is not None:
            self._db.close()
        stamp = int(self._wall())
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                (self._folder / f"state.sqlite{suffix}").rename(self._folder / f"state.damaged-{stamp}.sqlite{suffix}")

    def _read_only(self) -> Kept:
        """What can be read of a folder that cannot be written."""
        if self._folder is None or not (self._folder / "state.sqlite").exists():
            return Kept()
        try:
            # without `immutable` even reading wants to write the index of the journal
            db = sqlite3.connect(f"file:{self._folder / 'state.sqlite'}?immutable=1", uri=True)
        except sqlite3.Error:
            self.forgot = True
            return Kept()
        try:
            return _read(db)
        except (sqlite3.Error, msgspec.MsgspecError):
            self.forgot = True
            return Kept()
        finally:
            db.close()


def _check_schema(db: sqlite3.Connection, place: str) -> None:
    (known,) = db.execute("select value from meta where name = 'schema'").fetchone()
    if int(known) > SCHEMA:
        raise LedgerError(
            f"{place} was written by a newer ImageWorks (schema {known}, known: {SCHEMA}); update this installation"
        )


def _keep_tokens(db: sqlite3.Connection, tokens: Mapping[str, int]) -> None:
    db.executemany(
        "insert into tokens values (?1, ?2) on conflict (uuid) do update set token = max(token, ?2)", tokens.items()
    )


def _read(db: sqlite3.Connection) -> Kept:
    leases = tuple(
        (boot, msgspec.json.decode(body, type=Lease))
        for boot, body in db.execute("select boot, body from leases order by id")
    )
    return Kept(
        leases=leases,
        tokens=dict(db.execute("select uuid, token from tokens").fetchall()),
        load_s=dict(db.execute("select model, seconds from loads").fetchall()),
        wanted=dict(db.execute("select model, state from wanted").fetchall()),
    )


def _take(folder: Path) -> int:
    """Lock the folder for this process; the kernel gives it back however the process ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        inode = os.fstat(handle).st_ino
        os.close(handle)
        pid = _holder_of(inode)
        who = f" (pid {pid})" if pid else ""
        raise TakenError(
            f"another runtime{who} uses the state folder {folder}; stop it: imageworks down, or give this one its own: IMAGEWORKS_STATE"
        ) from None
    except OSError as error:
        LOG.warning("%s cannot be locked (%s): two runtimes are not kept apart there", folder, error.strerror)
    return handle


def _holder_of(inode: int) -> int | None:
    """Who holds the lock, after /proc/locks (proc(5))."""
    with suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            if found := re.match(rf"\d+: FLOCK +\S+ +WRITE (\d+) \S+:{inode} ", line):
                return int(found[1])
    return None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
