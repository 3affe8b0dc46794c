"""The loop between the scheduler and the world, with an engine that obeys at once and a clock the test moves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imageworks.contract import Gpu
from imageworks.runtime import processes, recovery
from imageworks.runtime.backends.protocol import Look, Status
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.events import (
    Acquire,
    Adopt,
    Died,
    Event,
    Finish,
    Handover,
    LeaseAnswered,
    Measured,
    Reading,
    Release,
    Reload,
    Renew,
    Tick,
    Unload,
)
from imageworks.runtime.gpus import Gpus
from imageworks.runtime.gpus import Look as Seen
from imageworks.runtime.leases import Lease, LeaseAsk
from imageworks.runtime.ledger import Ledger, LedgerError


class Obedient:
    """An engine that is there as soon as it is asked for; `gone` is set when it was stopped."""

    def __init__(self) -> None:
        self.alive, self.slept = False, 0
        self.gone = asyncio.Event()

    async def start(self) -> None:
        self.alive = True

    async def stop(self) -> None:
        self.alive = False
        self.gone.set()

    async def status(self) -> Status:
        return Status(self.alive, "here" if self.alive else "gone")

    async def ready(self) -> bool:
        return self.alive

    def log(self) -> str:
        return ""

    def obstacle(self) -> str:
        return ""

    async def pids(self) -> tuple[int, ...]:
        return ()

    async def sleep(self, level: int) -> None:
        self.slept = level

    async def wake(self) -> None:
        self.slept = 0

    async def asleep(self) -> bool:
        return bool(self.slept)

    async def look(self) -> Look:
        return Look("ok")

    async def canary(self, timeout_s: float) -> bool | None:
        return True if timeout_s else None


class Clock:
    """Says the time the test set, then moves on by `drift` each time it is read."""

    def __init__(self) -> None:
        self.now, self.drift = 100.0, 0.0

    def __call__(self) -> float:
        now = self.now
        self.now += self.drift
        return now


def test_a_moment_that_passes_while_the_timer_is_set_is_not_lost(
    route: Callable[..., Any], table: Callable[..., Any], play: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """The unload falls due between the step (a hair before) and the setting of the timer (a hair after)."""

    async def story() -> None:
        engine, clock = Obedient(), Clock()
        drive = Drive(table(route("a", 1, grace_s=10.0), port=2), {"a": engine}, clock)
        await drive.open()
        assert await drive.acquire("r1", ("a",), 1000.0) == "a"
        drive.say(Finish("r1"))
        clock.now, clock.drift = 109.9999, 0.001
        drive.say(Tick())
        await engine.gone.wait()
        await drive.close()

    play(story())


CARD = {"gpus": (Gpu(0, 20000, 24576),)}
Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]


def ask(name: str, **changes: Any) -> LeaseAsk:
    return LeaseAsk(name, "trainer", 15000, **changes)


async def leased(drive: Drive, wanted: LeaseAsk) -> Lease:
    return await drive.leases.ask(Acquire(drive.leases.call_id(), wanted, drive.clock() + 10))


class Life:
    """Drives over one state folder and one engine, one after the other."""

    def __init__(self, table: Any, engine: Obedient, folder: Path) -> None:
        self._table, self._engine, self._folder = table, engine, folder
        self.ledger = Ledger()

    async def begin(self) -> Drive:
        """As after kill -9: the last drive is not told, only its lock is gone."""
        self.ledger.close()
        self.ledger = Ledger(self._folder)
        drive = Drive(self._table, {"a": self._engine}, ledger=self.ledger, kept=self.ledger.open())
        await drive.open()
        return drive


def test_a_lease_outlives_the_proxy_and_the_model_it_displaced_comes_back(
    route: Make, table: Make, play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        engine = Obedient()
        life = Life(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), engine, tmp_path)
        first = await life.begin()
        assert await first.acquire("r1", ("a",), 1e9) == "a"
        first.say(Finish("r1"))
        held = await leased(first, ask("job", exclusive=True))
        assert not engine.alive
        second = await life.begin()
        assert second.state.leases[held.id].tokens == held.tokens
        answered = await second.leases.ask(Renew("c", held.id, held.token))
        assert answered.state == "active"
        await second.leases.ask(Release("c", held.id, held.token))
        while second.state.slots["a"].residency != "ready":  # noqa: ASYNC110 - the inside of the scheduler has no event
            await asyncio.sleep(0)
        assert engine.alive
        third = await life.begin()
        assert third.state.leases == {}
        later = await leased(third, ask("next"))
        assert later.token > held.token
        for drive in (first, second, third):
            await drive.close()
        life.ledger.close()

    play(story())


def test_a_request_under_a_lease_of_the_last_life_waits_for_the_books(
    route: Make, table: Make, play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        engine = Obedient()
        plan = table(route("a", 1, gpu_mib={"0": 8000}), **CARD)
        first = await Life(plan, engine, tmp_path).begin()
        held = await leased(first, ask("job", exclusive=True))
        first.ledger.close()
        ledger = Ledger(tmp_path)
        second = Drive(plan, {"a": engine}, ledger=ledger, kept=ledger.open())
        asking = asyncio.create_task(second.acquire("r1", ("a",), 1e9, lease=(held.id, held.token)))
        await asyncio.sleep(0)
        await second.open()
        assert await asking == "a"
        for drive in (first, second):
            await drive.close()
        ledger.close()

    play(story())


class Slow(Obedient):
    """Does not answer at the first look, as a loaded machine may make it."""

    async def ready(self) -> bool:
        first, self.looked_at = not self.looked_at, True
        return self.alive and not first

    looked_at = True


@pytest.mark.parametrize("looked_at", [True, False], ids=["found ready", "found starting"])
def test_a_model_that_was_being_stopped_when_the_proxy_died_is_stopped_by_the_next(
    route: Make, table: Make, play: Play, tmp_path: Path, *, looked_at: bool
) -> None:
    async def story() -> None:
        engine = Slow()
        life = Life(table(route("a", 1)), engine, tmp_path)
        first = await life.begin()
        await first.acquire("r1", ("a",), 1e9)
        life.ledger.want("a", "stopping")  # the last thing that was written
        engine.gone.clear()
        engine.looked_at = looked_at
        second = await life.begin()
        await engine.gone.wait()
        for drive in (first, second):
            await drive.close()
        life.ledger.close()

    play(story())


def test_a_lease_of_another_boot_has_no_holder_any_more(
    route: Make, table: Make, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        life = Life(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), Obedient(), tmp_path)
        first = await life.begin()
        held = await leased(first, ask("job"))
        monkeypatch.setattr(processes, "boot_id", lambda: "another")
        second = await life.begin()
        assert second.state.leases == {}
        assert (await leased(second, ask("job 2"))).token > held.token
        for drive in (first, second):
            await drive.close()
        life.ledger.close()

    play(story())


def test_a_lease_that_cannot_be_written_down_is_not_given(
    route: Make, table: Make, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        life = Life(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), Obedient(), tmp_path)
        drive = await life.begin()

        def refuse(_lease: Lease, _boot: str) -> None:
            raise LedgerError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(life.ledger, "keep_lease", refuse)
            with pytest.raises(ApiError) as refused:
                await leased(drive, ask("job"))
        assert (refused.value.status, refused.value.code) == (503, "state_unwritable")
        assert drive.state.leases == {}
        assert (await leased(drive, ask("job"))).state == "active"
        await drive.close()
        life.ledger.close()

    play(story())


def test_after_the_ledger_was_lost_earlier_holders_hear_it_before_anyone_gets_their_memory(
    route: Make, table: Make, play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        life = Life(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), Obedient(), tmp_path)
        first = await life.begin()
        held = await leased(first, ask("job"))
        life.ledger.close()
        (tmp_path / "state.sqlite").write_bytes(b"not a database at all" * 99)
        second = await life.begin()
        assert second.leases.closed_until > second.clock() + 50
        with pytest.raises(ApiError) as lost:
            await second.leases.ask(Renew("c", held.id, held.token))
        assert lost.value.status == 404
        for drive in (first, second):
            await drive.close()
        life.ledger.close()

    play(story())


def test_a_grant_ends_with_the_life_of_the_model_it_was_for(route: Make, table: Make, play: Play) -> None:
    async def story() -> None:
        engine = Obedient()
        drive = Drive(table(route("a", 1)), {"a": engine})
        await drive.open()
        await drive.acquire("r1", ("a",), 1e9)
        assert drive.current("r1")
        drive.say(Died("a", "killed"))
        assert not drive.current("r1")
        await engine.gone.wait()
        drive.say(Finish("r1", ok=False))
        assert not drive.current("r1")
        assert not drive._lives
        await drive.close()

    play(story())


def test_a_driver_that_breaks_at_the_look_around_keeps_nobody_from_serving(
    route: Make, table: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        good, broken = Obedient(), Obedient()

        async def refuse() -> Status:
            raise RuntimeError("a bug")

        monkeypatch.setattr(broken, "status", refuse)
        monkeypatch.setattr(recovery, "AGAIN_S", 0.0)
        drive = Drive(table(route("a", 1), route("b", 2)), {"a": good, "b": broken})
        await drive.open()
        assert await drive.acquire("r1", ("a",), 1e9) == "a"
        await drive.close()

    play(story())


def test_what_an_effect_says_comes_after_the_effects_beside_it(route: Make, table: Make, play: Play) -> None:
    """A lease that cannot be written says so in the middle of a step; the step's other effects are not lost."""

    async def story() -> None:
        drive = Drive(table(route("a", 1)), {"a": Obedient()})
        order: list[str] = []
        real = drive._step

        def step(event: Event) -> None:
            order.append(f"begin {type(event).__name__}")
            real(event)
            if isinstance(event, Tick):
                drive.say(Measured({}))
            order.append(f"end {type(event).__name__}")

        drive._step = step  # type: ignore[method-assign]
        await drive.open()
        order.clear()
        drive.say(Tick())
        assert order == ["begin Tick", "end Tick", "begin Measured", "end Measured"]
        await drive.close()

    play(story())


@pytest.mark.parametrize("later_s", [1.0, -86_400.0], ids=["file lost", "clock set back"])
def test_tokens_grow_also_where_no_lease_is_left_to_tell_them(
    route: Make, table: Make, play: Play, tmp_path: Path, later_s: float
) -> None:
    async def token(ledger: Ledger) -> int:
        drive = Drive(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), {}, ledger=ledger, kept=ledger.open())
        await drive.open()
        held = await leased(drive, ask("job"))
        await drive.leases.ask(Release("c", held.id, held.token))
        while drive.state.leases:  # noqa: ASYNC110 - the inside of the scheduler has no event
            await asyncio.sleep(0)
        await drive.close()
        ledger.close()
        return held.token

    async def story() -> None:
        first = await token(Ledger(tmp_path, wall=lambda: 1_800_000_000.0))
        folder = tmp_path / "another" if later_s > 0 else tmp_path
        assert await token(Ledger(folder, wall=lambda: 1_800_000_000.0 + later_s)) > first

    play(story())


def test_a_handover_that_cannot_be_written_down_ends_the_lease_and_revives_no_token(
    route: Make, table: Make, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file still has the token of the owner before: with the new one told, a kill would make the old one good again."""

    async def story() -> None:
        life = Life(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), Obedient(), tmp_path)
        first = await life.begin()
        held = await leased(first, ask("job"))

        def refuse(_lease: Lease, _boot: str) -> None:
            raise LedgerError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(life.ledger, "keep_lease", refuse)
            renewed = await first.leases.ask(Renew("r", held.id, held.token))
            assert renewed.state == "active"  # nothing of it changed that a restart would miss
            going = replace(held, state="reclaiming", tokens={0: held.token + 1})
            first.leases.perform(LeaseAnswered("nobody", going))
            assert first.state.leases[held.id].state == "active"  # who goes anyway need not be undone
            with pytest.raises(ApiError) as refused:
                await first.leases.ask(Handover("h", held.id, held.token, owner="next"))
        assert (refused.value.status, refused.value.code) == (503, "state_unwritable")
        while first.state.leases:  # noqa: ASYNC110 - the inside of the scheduler has no event
            await asyncio.sleep(0)
        second = await life.begin()
        with pytest.raises(ApiError) as stale:
            await second.leases.ask(Renew("c", held.id, held.token))
        assert stale.value.status in (404, 410)
        for drive in (first, second):
            await drive.close()
        life.ledger.close()

    play(story())


class Drowsy(Obedient):
    """Comes up and goes when the test lets it; `began` has what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.looks: asyncio.Queue[None] = asyncio.Queue()
        self.awake = asyncio.Event()

    async def start(self) -> None:
        self.alive = True
        self.began.put_nowait("start")

    async def ready(self) -> bool:
        await self.looks.get()
        return True

    async def wake(self) -> None:
        self.began.put_nowait("wake")
        await self.awake.wait()
        self.slept = 0


def test_the_late_answer_of_a_start_is_not_taken_for_that_of_the_next(route: Make, table: Make, play: Play) -> None:
    async def story() -> None:
        engine = Drowsy()
        drive = Drive(table(route("a", 1)), {"a": engine})
        await drive.open()
        asking = asyncio.create_task(drive.acquire("r1", ("a",), 1e9))
        assert await engine.began.get() == "start"
        drive.say(Died("a", "killed"))  # the start before waits for its look still
        await engine.gone.wait()
        with pytest.raises(ApiError):
            await asking
        drive.say(Unload("a"))
        slot = drive.state.slots["a"]
        slot.retry_at, slot.failures = 0.0, 0
        again = asyncio.create_task(drive.acquire("r2", ("a",), 1e9))
        assert await engine.began.get() == "start"
        engine.looks.put_nowait(None)  # who asked first is told: the start that is superseded
        for _ in range(10):
            await asyncio.sleep(0)
        assert drive.state.slots["a"].residency == "starting"
        engine.looks.put_nowait(None)
        assert await again == "a"
        await drive.close()

    play(story())


def test_a_death_that_was_asked_about_in_an_earlier_life_says_nothing_of_this_one(
    route: Make, table: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        engine = Obedient()
        drive = Drive(table(route("a", 1)), {"a": engine})
        await drive.open()
        await drive.acquire("r1", ("a",), 1e9)
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow() -> Status:
            asked.set()
            await answer.wait()
            return Status(alive=False, note="gone")

        with monkeypatch.context() as patch:
            patch.setattr(engine, "status", slow)
            looking = asyncio.create_task(drive.report_dead("a"))
            await asked.wait()
        drive.say(Died("a", "killed"))
        drive.say(Finish("r1", ok=False))
        assert await drive.acquire("r2", ("a",), 1e9) == "a"
        answer.set()
        assert await looking
        assert drive.current("r2")
        await drive.close()

    play(story())


def test_a_wake_is_written_down_before_it_begins_and_the_next_life_finishes_it(
    route: Make, table: Make, play: Play, tmp_path: Path
) -> None:
    """Who is killed in the middle of it must not take the model for asleep: its memory grows."""

    async def story() -> None:
        engine = Drowsy()
        engine.alive, engine.slept = True, 1
        sleeper = route("a", 1, gpu_mib={"0": 8000}, sleep="level1", asleep_mib={"0": 500})
        life = Life(table(sleeper, **CARD), engine, tmp_path)
        first = await life.begin()
        asking = asyncio.create_task(first.acquire("r1", ("a",), 1e9))
        assert await engine.began.get() == "wake"
        token = first.state.slots["a"].tokens[0]
        with closing(sqlite3.connect(tmp_path / "state.sqlite")) as db:
            assert db.execute("select state from wanted where model = 'a'").fetchone() == ("waking",)
            assert db.execute("select max(token) from tokens").fetchone() == (token,)
        asking.cancel()
        await first.close()
        second = await life.begin()
        assert await engine.began.get() == "wake"
        assert (second.state.slots["a"].residency, second.state.gpus[0].claimed_mib) == ("starting", 8000)
        engine.awake.set()
        assert await second.acquire("r2", ("a",), 1e9) == "a"
        await second.close()
        life.ledger.close()

    play(story())


def test_a_wake_that_cannot_be_written_down_is_not_begun_but_the_model_serves(
    route: Make, table: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        engine = Obedient()
        engine.alive, engine.slept = True, 1
        sleeper = route("a", 1, gpu_mib={"0": 8000}, sleep="level1", asleep_mib={"0": 500})
        drive = Drive(table(sleeper, **CARD), {"a": engine})
        await drive.open()

        def refuse(*_what: object) -> None:
            raise LedgerError("no space left")

        monkeypatch.setattr(drive.ledger, "want", refuse)
        assert await drive.acquire("r1", ("a",), 1e9) == "a"
        assert engine.gone.is_set()  # stopped and started
        assert engine.slept == 1
        await drive.close()

    play(story())


class Glimpse(Gpus):
    """Two cards, the second does not answer. Says when it was looked at."""

    def __init__(self, order: list[Event | str]) -> None:
        super().__init__({0: "GPU-a", 1: "GPU-b"})
        self._order = order

    async def look(self) -> Seen:
        await asyncio.sleep(0)
        self._order.append("looked")
        self.note = None
        return Seen({0: Reading(24576, 8000), 1: None}, uuids={0: "GPU-a"})


def test_the_gpus_are_read_before_anything_is_adopted(route: Make, table: Make, play: Play) -> None:
    async def story() -> None:
        order: list[Event | str] = []
        cards = (Gpu(0, 20000, 24576), Gpu(1, 20000, 24576))
        plan = table(route("a", 1, gpu_mib={"0": 8000}), gpus=cards)
        drive = Drive(plan, {"a": Obedient()}, gpus=Glimpse(order))
        real = drive._step

        def step(event: Event) -> None:
            order.append(event)
            real(event)

        drive._step = step  # type: ignore[method-assign]
        await drive.open()
        looked, plans, measured, adopted = order[:4]
        assert looked == "looked"
        assert isinstance(plans, Reload)
        assert plans.machine.measured
        assert measured == Measured({0: Reading(24576, 8000, 0), 1: None})
        assert isinstance(adopted, Adopt)
        await drive.close()

    play(story())


class Held(Gpus):
    """A card whose looks show what `engine` uses when they begin, and take until `go_on`."""

    def __init__(self, engine: Obedient) -> None:
        super().__init__({0: "GPU-a"})
        self._engine = engine
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def look(self) -> Seen:
        used_mib = 8000 if self._engine.alive else 0
        self.begun.set()
        await self.go_on.wait()
        self.note = None
        return Seen({0: Reading(24576, used_mib)}, uuids={0: "GPU-a"})


def test_a_look_that_began_before_a_model_was_up_tells_nothing_of_it(route: Make, table: Make, play: Play) -> None:
    """It would be taken for what is in use beside the model, and the model would be waited for in vain when it goes."""

    async def story() -> None:
        engine, told = Obedient(), asyncio.Queue[Measured]()
        gpus = Held(engine)
        drive = Drive(table(route("a", 1, gpu_mib={"0": 8000}), gpus=(Gpu(0, 20000, 24576),)), {"a": engine}, gpus=gpus)
        await drive.open()
        real = drive._step

        def step(event: Event) -> None:
            if isinstance(event, Measured):
                told.put_nowait(event)
            real(event)

        drive._step = step  # type: ignore[method-assign]
        gpus.begun.clear()
        gpus.go_on.clear()
        await gpus.begun.wait()
        assert await drive.acquire("r1", ("a",), 1e9) == "a"
        gpus.go_on.set()
        seen = (await told.get()).readings[0]
        assert seen is not None
        assert seen.used_mib == 8000
        await drive.close()

    play(story())


def test_where_nothing_was_read_memory_is_accounted(route: Make, table: Make, play: Play) -> None:
    async def story() -> None:
        drive = Drive(table(route("a", 1, gpu_mib={"0": 8000}), **CARD), {"a": Obedient()})
        await drive.open()
        assert not drive.state.machine.measured
        assert await drive.acquire("r1", ("a",), 1e9) == "a"
        await drive.close()

    play(story())


def test_a_card_that_only_a_later_plan_uses_is_accounted_and_serves(route: Make, table: Make, play: Play) -> None:
    async def story() -> None:
        order: list[Event | str] = []
        cards = (Gpu(0, 20000, 24576), Gpu(1, 20000, 24576))
        drive = Drive(table(route("a", 1), gpus=cards), {"a": Obedient()}, gpus=Glimpse(order))
        await drive.open()
        later = table(route("a", 1), route("b", 2, gpu_mib={"2": 8000}), gpus=(*cards, Gpu(2, 20000, 24576)))
        drive.swap(later, {"a": Obedient(), "b": Obedient()}, frozenset())
        assert not drive.state.gpus[2].measured
        assert await drive.acquire("r1", ("b",), 1e9) == "b"
        await drive.close()

    play(story())


def test_a_look_at_the_processes_that_fails_is_not_the_last(
    route: Make, table: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        drive = Drive(table(route("a", 1), **CARD), {"a": Obedient()})
        await drive.open()
        looked, again = 0, asyncio.Event()
        loop = asyncio.get_running_loop()

        def everything() -> dict[int, processes.Process]:
            nonlocal looked
            looked += 1
            if looked == 1:
                raise OSError(24, "Too many open files")
            if looked == 2:
                raise RuntimeError("can't start new thread")
            loop.call_soon_threadsafe(again.set)
            return {}

        monkeypatch.setattr("imageworks.runtime.drive.REMEMBER_S", 0.01)
        monkeypatch.setattr(processes, "everything", everything)
        monkeypatch.setattr(drive._holders, "holds", lambda: True)
        await asyncio.wait_for(again.wait(), 30)
        await drive.close()

    play(story())
