"""The loop between the scheduler and the world, with an engine that obeys at once and a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks.contract import Gpu
from imageworks.runtime import processes, recovery
from imageworks.runtime.backends.protocol import Look, Status
from imageworks.runtime.drive import Drive
from imageworks.runtime.errors import ApiError
from imageworks.runtime.events import Acquire, Died, Event, Finish, Measured, Release, Renew, Tick
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


def test_a_model_that_was_being_stopped_when_the_proxy_died_is_stopped_by_the_next(
    route: Make, table: Make, play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        engine = Obedient()
        life = Life(table(route("a", 1)), engine, tmp_path)
        first = await life.begin()
        await first.acquire("r1", ("a",), 1e9)
        life.ledger.want("a", "stopping")  # the last thing that was written
        engine.gone.clear()
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
