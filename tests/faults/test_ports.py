"""Fault F35: a port that somebody else has. Identity decides, not an open port."""

from __future__ import annotations

import sys

import pytest

from imageworks.runtime import sockets
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import StartError

from .conftest import BAD_ENGINE, Bench, eventually


def thief(bench: Bench, name: str, served: str) -> int:
    """A process of nobody that listens on the model's port."""
    port = bench.port_of(name)
    folder = bench.folder("thief")
    process = bench.spawn(sys.executable, str(BAD_ENGINE), str(port), served, "serve", str(folder))
    eventually(lambda: sockets.who(port), "the thief listens")
    return process.pid


def test_f35_a_port_that_is_taken_before_the_start_is_told_with_the_process_that_has_it(bench: Bench) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    pid = thief(bench, "a", "served-a")

    async def story() -> None:
        async with bench.drivers() as drivers:
            with pytest.raises(
                StartError, match=rf"^port \d+ is taken by pid {pid} \(.+\); end it, or give a another port$"
            ):
                await bring_up(drivers["a"], 10)
        assert bench.starts("a") == 0

    bench.play(story())


def test_f35_a_stranger_who_serves_the_models_name_on_its_port_is_not_the_model(bench: Bench) -> None:
    bench.engine("a", "portless")
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            await drivers["a"].start()
            pid = thief(bench, "a", "served-a")
            assert (await drivers["a"].status()).alive
            assert not await drivers["a"].ready()
            assert drivers["a"].obstacle().startswith(f"port {bench.port_of('a')} is held by pid {pid} (")
            with pytest.raises(StartError, match=rf"^not ready after 5 s: port \d+ is held by pid {pid} "):
                await bring_up(drivers["a"], 5)

    bench.play(story())


def test_f35_a_server_with_another_name_is_told(bench: Bench) -> None:
    bench.program("a", sys.executable, str(BAD_ENGINE), "PORT", "somebody-else", "serve", str(bench.folder("a")))
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            await drivers["a"].start()
            while not drivers["a"].obstacle():  # it is still on its way
                assert not await drivers["a"].ready()
            assert drivers["a"].obstacle().endswith(" serves somebody-else, not served-a")

    bench.play(story())


def test_a_server_that_lists_its_model_but_computes_nothing_is_not_ready(bench: Bench) -> None:
    folder = bench.engine("a", "zombie")
    (folder / "stuck").touch()
    bench.supervise()

    async def story() -> None:
        async with bench.drivers() as drivers:
            with pytest.raises(StartError, match=r"^not ready after 1 s"):
                await bring_up(drivers["a"], 1)
            (folder / "stuck").unlink()
            await bring_up(drivers["a"], 10)
            asked = (folder / "hits").read_text().splitlines()
            assert await drivers["a"].ready()
            assert (folder / "hits").read_text().splitlines() == asked, "one token in a life, not one a look"

    bench.play(story())
