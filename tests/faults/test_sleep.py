"""vLLM's sleep mode against a stand-in after vLLM's own routers: every doubt is an error, never a sleeping model.

The real thing needs CUDA (`--enable-sleep-mode` is refused on a CPU).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from imageworks.runtime.backends import memory, vllm
from imageworks.runtime.backends.probe import bring_up, observe
from imageworks.runtime.backends.program import Program
from imageworks.runtime.backends.protocol import Readings, SleepError

from .conftest import VLLM, Bench, readings_of

DEV = 'VLLM_SERVER_DEV_MODE="1"'
Story = Callable[[Program], Coroutine[Any, Any, None]]


class Engine:
    """The stand-in under supervisord, its knobs and what it was called with."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.folder = bench, bench.folder("a")

    def set(self, **knobs: Any) -> None:
        new = self.folder / "knobs.new"
        new.write_text(json.dumps(knobs))
        new.replace(self.folder / "knobs.json")

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if "completions" not in line] if path.exists() else []

    def play(self, story: Story, *, level: str = "level1", dev: str = DEV, readings: Readings | None = None) -> None:
        self.bench.program(
            "a", sys.executable, str(VLLM), "PORT", "served-a", str(self.folder), environment=dev, backend="vllm",
            sleep=level, gpu_mib={"0": 20_000}, asleep_mib={"0": 1_200},
        )  # fmt: skip
        self.bench.supervise()

        async def within() -> None:
            async with self.bench.drivers(readings or readings_of(self.folder / "ledger.json")) as drivers:
                await bring_up(drivers["a"], 20)
                await story(drivers["a"])

        self.bench.play(within())


@pytest.fixture
def engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(vllm, "BYTES_S", 0.6)
    monkeypatch.setattr(vllm, "ASLEEP_S", 2.0)
    monkeypatch.setattr(memory, "PAUSE_S", 0.02)
    return Engine(bench)


@pytest.mark.parametrize("level", [1, 2])
def test_a_model_sleeps_and_wakes_with_the_same_answer(engine: Engine, level: int) -> None:
    async def story(driver: Program) -> None:
        assert not await driver.asleep()
        await driver.sleep(level)
        assert await driver.asleep()
        assert await observe(driver) == "asleep"
        await driver.wake()
        assert await observe(driver) == "ready"

    engine.play(story, level=f"level{level}")
    woken = ["/wake_up"]
    reloaded = [
        "/wake_up?tags=weights", '/collective_rpc {"method": "reload_weights"}', "/wake_up?tags=kv_cache",
        "/reset_prefix_cache",
    ]  # fmt: skip
    assert engine.calls() == [f"/sleep?level={level}", *(woken if level == 1 else reloaded)]


@pytest.mark.parametrize("named", [True, False])
def test_a_model_that_says_it_sleeps_and_keeps_its_memory_does_not_sleep(engine: Engine, named: bool) -> None:  # noqa: FBT001 - a case
    engine.set(stays_mib=16_000)  # vllm#32714: 16 of 22 GB stayed

    async def story(driver: Program) -> None:
        with pytest.raises(
            SleepError, match=r"says that it sleeps, but memory is not back after 0\.6 s: 14800 MiB too much"
        ):
            await driver.sleep(1)

    engine.play(story, readings=readings_of(engine.folder / "ledger.json", named=named))


def test_a_sleep_that_is_answered_before_it_is_done_is_waited_for(engine: Engine) -> None:
    engine.set(answers_early_s=0.3)

    async def story(driver: Program) -> None:
        await driver.sleep(1)
        assert await driver.asleep()

    engine.play(story)


def test_a_model_that_never_falls_asleep_is_an_error(engine: Engine) -> None:
    engine.set(answers_early_s=600)

    async def story(driver: Program) -> None:
        with pytest.raises(SleepError, match="still awake after 2 s"):
            await driver.sleep(1)

    engine.play(story)


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        ({"wrong": True}, "another answer than before: b' ###' instead of b' Paris'"),
        ({"wake_fails": True}, "refused /wake_up: 500"),
    ],
)
def test_a_wake_that_goes_wrong_is_an_error(engine: Engine, knobs: dict[str, Any], why: str) -> None:
    async def story(driver: Program) -> None:
        await driver.sleep(1)
        engine.set(**knobs)
        with pytest.raises(SleepError, match=why):
            await driver.wake()

    engine.play(story)


def test_weights_that_were_not_read_again_are_noticed(engine: Engine) -> None:
    engine.set(forgets=True)  # vllm#29341: nonsense after level 2

    async def story(driver: Program) -> None:
        await driver.sleep(2)
        with pytest.raises(SleepError, match="another answer than before"):
            await driver.wake()

    engine.play(story, level="level2")


def test_a_server_without_development_mode_says_what_is_missing(engine: Engine) -> None:
    async def story(driver: Program) -> None:
        assert not await driver.asleep()
        with pytest.raises(SleepError, match=r"has no /sleep: it runs without VLLM_SERVER_DEV_MODE=1"):
            await driver.sleep(1)
        assert await driver.ready()

    engine.play(story, dev='X="1"')


def test_a_gpu_that_does_not_answer_lets_nothing_sleep(engine: Engine) -> None:
    async def dark() -> dict[int, None]:
        return {0: None}

    async def story(driver: Program) -> None:
        with pytest.raises(SleepError, match="nothing could prove that the memory comes back: GPU 0 does not answer"):
            await driver.sleep(1)
        assert engine.calls() == []

    engine.play(story, readings=dark)


def test_without_a_gpu_to_measure_sleeping_is_the_servers_word(engine: Engine) -> None:
    engine.set(stays_mib=16_000)

    async def nothing() -> None:
        return None

    async def story(driver: Program) -> None:
        await driver.sleep(1)

    engine.play(story, readings=nothing)


def test_a_model_that_fell_asleep_in_an_earlier_life_of_the_proxy_is_not_woken(engine: Engine) -> None:
    async def story(driver: Program) -> None:
        await driver.sleep(1)
        async with engine.bench.drivers() as others:
            assert await observe(others["a"]) == "asleep"
            with pytest.raises(SleepError, match="before this proxy started"):
                await others["a"].wake()

    engine.play(story)


def test_a_model_without_sleep_mode_refuses(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            assert not await drivers["a"].asleep()
            for call in (drivers["a"].sleep(1), drivers["a"].wake()):
                with pytest.raises(SleepError, match="a has no sleep mode"):
                    await call

    bench.play(story())
