"""The systemd driver against a recording stand-in for systemctl: no test starts a real init system."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks.runtime.backends.protocol import DriverError, UnansweredError
from imageworks.runtime.backends.systemd import Unit

STAND_IN = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$2" in
  is-active) cat "{folder}/state"; test "$(cat "{folder}/state")" = active ;;
  start) test ! -e "{folder}/refuse" || {{ echo "Unit $4 not found."; exit 5; }} ;;
  stop) test ! -e "{folder}/hang" || exec sleep 600 ;;
  reset-failed) exit 1 ;;
esac
"""
Make = Callable[..., Any]


@pytest.fixture
def unit(tmp_path: Path, route: Make) -> Callable[[Callable[[Unit], Coroutine[Any, Any, None]]], list[str]]:
    program = tmp_path / "systemctl"
    program.write_text(STAND_IN.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "state").write_text("inactive\n")

    def play(story: Callable[[Unit], Coroutine[Any, Any, None]]) -> list[str]:
        asyncio.run(story(Unit((str(program), "--user"), route("a", stop_timeout_s=0.5))))
        return (tmp_path / "calls").read_text().splitlines()

    return play


def test_a_unit_is_started_without_waiting_after_its_failures_are_forgotten(unit: Make) -> None:
    async def story(driver: Unit) -> None:
        await driver.start()

    assert unit(story) == ["--user reset-failed model-a.service", "--user start --no-block model-a.service"]


def test_a_refused_start_gives_systemds_words(unit: Make, tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()

    async def story(driver: Unit) -> None:
        with pytest.raises(DriverError, match=r"refused to start model-a.service: Unit model-a.service not found\."):
            await driver.start()

    unit(story)


@pytest.mark.parametrize(
    ("word", "alive"),
    [("active", True), ("activating", True), ("deactivating", True), ("failed", False), ("inactive", False)],
)
def test_systemds_words_are_understood(unit: Make, tmp_path: Path, word: str, *, alive: bool) -> None:
    (tmp_path / "state").write_text(word + "\n")

    async def story(driver: Unit) -> None:
        status = await driver.status()
        assert (status.alive, status.note, status.ending) == (alive, word, word == "deactivating")

    unit(story)


def test_a_unit_is_stopped_by_systemd(unit: Make) -> None:
    async def story(driver: Unit) -> None:
        await driver.stop()

    assert unit(story) == ["--user stop model-a.service"]


@pytest.mark.parametrize("word", ["Failed to connect to bus: No such file or directory", "unknown", ""])
def test_a_word_that_is_no_state_says_nothing_about_the_unit(unit: Make, tmp_path: Path, word: str) -> None:
    (tmp_path / "state").write_text(word + "\n")

    async def story(driver: Unit) -> None:
        with pytest.raises(UnansweredError, match=f"does not say what model-a.service is: {word or 'no word'}"):
            await driver.status()

    unit(story)


def test_a_stop_that_takes_too_long_is_unanswered(unit: Make, tmp_path: Path) -> None:
    (tmp_path / "hang").touch()

    async def story(driver: Unit) -> None:
        with pytest.raises(UnansweredError, match=r"stop model-a\.service` took longer than 0\.5 s"):
            await driver.stop()

    unit(story)


def test_a_missing_systemctl_is_an_error_of_one_line(route: Make) -> None:
    async def story() -> None:
        with pytest.raises(DriverError, match="/nowhere/systemctl: No such file"):
            await Unit(("/nowhere/systemctl",), route("a")).status()

    asyncio.run(story())
