"""Faults of Ollama (F29-F32), against a stand-in that checks how it is called; the real daemon is not to be had here."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks import contract
from imageworks.runtime import sockets
from imageworks.runtime.backends.ollama import OllamaModel
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, Readings, UnansweredError
from imageworks.runtime.drive import Drive

from .conftest import OLLAMA, Bench, eventually, readings_of


class Daemon:
    """The stand-in as a process, its knobs and what it noted."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.folder = bench, bench.folder("ollama")
        (self.port,) = bench.ports(1)
        self.process = bench.spawn(sys.executable, str(OLLAMA), str(self.port), str(self.folder))
        eventually(lambda: sockets.inodes(self.port), "the daemon listens")

    def set(self, **knobs: Any) -> None:
        new = self.folder / "knobs.new"
        new.write_text(json.dumps(knobs))
        new.replace(self.folder / "knobs.json")

    def noted(self, file: str = "journal") -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.json"

    def held(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.ledger.read_text()) if self.ledger.exists() else {}
        return found

    def play(
        self,
        story: Callable[[OllamaModel], Coroutine[Any, Any, None]],
        readings: Readings | None = None,
        **changes: Any,
    ) -> None:
        facts = {"backend": "ollama", "program": None, "served_name": "qwen", "gpu_mib": {"0": 5000}}
        self.bench.routes["a"] = self.bench.route("a", self.port, **(facts | changes))

        async def within() -> None:
            async with self.bench.drivers(readings) as drivers:
                await story(drivers["a"])

        self.bench.play(within())


@pytest.fixture
def daemon(bench: Bench) -> Daemon:
    return Daemon(bench)


def test_it_is_called_as_its_documentation_says(daemon: Daemon) -> None:
    async def story(driver: OllamaModel) -> None:
        await bring_up(driver, 10)
        assert (await driver.look()).answering == "ok"
        assert await driver.canary(5)
        assert daemon.process.pid in await driver.pids()
        await driver.stop()
        await driver.stop()

    daemon.play(story)
    assert daemon.noted("violations") == []
    assert "HEAD /" in daemon.noted()
    assert [line for line in daemon.noted() if "load qwen" in line and "begins" in line] == [
        'load qwen:latest begins {"keep_alive": -1, "model": "qwen", "options": {"num_ctx": 2048}, "stream": false}'
    ]
    assert daemon.noted().count("unload qwen:latest") == 1


def test_f29_a_model_that_stays_in_stopping_is_an_error_that_says_whether_a_restart_hurts_others(
    daemon: Daemon,
) -> None:
    daemon.set(lag_looks=-1)

    async def alone(driver: OllamaModel) -> None:
        await driver.start()
        with pytest.raises(
            DriverError, match=r"still holds qwen after 0\.6 s; nothing else is loaded in it: restart it"
        ):
            await driver.stop()

    daemon.play(alone, stop_timeout_s=0.6)
    daemon.ledger.write_text(json.dumps({"qwen:latest": 4000, "llama3:8b": 6000}))

    async def beside(driver: OllamaModel) -> None:
        with pytest.raises(DriverError, match=r"restarting it would end llama3:8b too"):
            await driver.stop()

    daemon.play(beside, stop_timeout_s=0.6)


def test_f29_an_unload_that_takes_a_while_is_waited_for(daemon: Daemon) -> None:
    daemon.set(lag_looks=3)

    async def story(driver: OllamaModel) -> None:
        await driver.start()
        await driver.stop()
        assert daemon.held() == {}

    daemon.play(story)


def test_f30_memory_that_is_held_after_the_list_is_empty_is_not_free(daemon: Daemon) -> None:
    daemon.set(keeps_mib=4000, lag_looks=0)

    async def story(driver: OllamaModel) -> None:
        await driver.start()
        with pytest.raises(
            DriverError, match=r"lists qwen no more, but memory is not back after 0\.6 s: 4000 MiB too much on GPU 0"
        ):
            await driver.stop()

    daemon.play(story, readings_of(daemon.ledger), stop_timeout_s=0.6)


def test_f30_memory_that_comes_back_late_is_waited_for(daemon: Daemon) -> None:
    daemon.set(keeps_mib=4000, lag_looks=0)

    async def story(driver: OllamaModel) -> None:
        await driver.start()
        stopping = asyncio.create_task(driver.stop())
        while "(held)" not in daemon.held():  # noqa: ASYNC110 - what a process does is seen in its files
            await asyncio.sleep(0)
        assert not stopping.done()
        daemon.ledger.write_text("{}")
        await stopping

    daemon.play(story, readings_of(daemon.ledger))


def test_f30_a_model_that_was_deleted_while_it_was_loaded_is_gone_without_an_error(daemon: Daemon) -> None:
    async def story(driver: OllamaModel) -> None:
        await driver.start()
        daemon.ledger.write_text("{}")
        assert not (await driver.status()).alive
        await driver.stop()

    daemon.play(story, readings_of(daemon.ledger))


def test_f31_a_model_that_comes_back_by_itself_after_our_unload_is_seen_as_loaded(daemon: Daemon) -> None:
    async def story(driver: OllamaModel) -> None:
        await driver.start()
        await driver.stop()
        daemon.ledger.write_text(json.dumps({"qwen:latest": 4000}))  # a client of its own asked it
        assert (await driver.status()).alive

    daemon.play(story)


def test_f32_a_client_that_leaves_does_not_cancel_the_load(daemon: Daemon) -> None:
    daemon.set(load_s=0.5)
    facts = {"backend": "ollama", "program": None, "served_name": "qwen"}
    route = daemon.bench.routes["a"] = daemon.bench.route("a", daemon.port, **facts)
    table = contract.RouteTable(
        stack="faults", profile="development", plan_hash="p", bundle_hash="b", gpus=(), routes={"a": route},
        unplaced={}, roles={}, policy=daemon.bench.policy(),
        proxy=contract.ProxySettings("127.0.0.1", 1, 1, 8, 20.0, 1.0),
    )  # fmt: skip

    async def story() -> None:
        async with daemon.bench.drivers() as drivers:
            drive = Drive(table, drivers)
            await drive.open()
            client = asyncio.create_task(drive.acquire("r", ("a",), drive.clock() + 20))
            while not any("begins" in line for line in daemon.noted()):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            assert await drive.acquire("s", ("a",), drive.clock() + 20) == "a"
            await drive.close()

    daemon.bench.play(story())
    assert not any("cancelled" in line for line in daemon.noted())
    assert sum("begins" in line for line in daemon.noted()) == 1


def test_the_stand_in_refuses_what_ollama_does_not_have(daemon: Daemon) -> None:
    async def story(driver: OllamaModel) -> None:
        with pytest.raises(DriverError, match="404 page not found"):
            await driver._call("GET", "/api/status", None, 5)
        with pytest.raises(DriverError, match="unknown fields"):
            await driver._call("POST", "/api/generate", {"model": "qwen", "ctx": 1}, 5)

    daemon.play(story)
    assert daemon.noted("violations") == ["GET /api/status", "POST /api/generate ['ctx']"]


def test_a_daemon_that_answers_nothing_makes_nothing_dead(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageworks.runtime.backends.ollama.CALL_S", 0.3)
    monkeypatch.setattr("imageworks.runtime.backends.ollama.LOOK_S", 0.3)
    daemon.set(deaf=True)

    async def story(driver: OllamaModel) -> None:
        with pytest.raises(UnansweredError):
            await driver.status()
        assert not await driver.ready()
        assert "does not answer" in driver.obstacle()
        assert (await driver.look()).answering == "silent"

    daemon.play(story)
