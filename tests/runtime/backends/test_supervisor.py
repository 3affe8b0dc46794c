"""The driver over a real supervisord with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from imageworks.runtime.backends.choose import Drivers
from imageworks.runtime.backends.probe import bring_up, observe
from imageworks.runtime.backends.protocol import DriverError, StartError
from imageworks.runtime.backends.supervisor import Supervisor

Make = Callable[..., Any]


def run(stack: Path, routes: dict[str, Any], story: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            drivers = Drivers(routes, stack, "supervisord", http)
            try:
                await story(drivers.by_model)
            finally:
                await drivers.close()

    asyncio.run(within())


def test_a_program_is_started_recognised_and_stopped(
    stack: Path, supervisord: Make, route: Make, free_ports: Make
) -> None:
    (port,) = free_ports(1)
    supervisord({"a": (port, "serve")})

    async def story(drivers: Any) -> None:
        assert await observe(drivers["a"]) is None
        await bring_up(drivers["a"], 20.0)
        await drivers["a"].start()  # a second start is no error
        assert await observe(drivers["a"]) == "ready"
        await drivers["a"].stop()
        assert await observe(drivers["a"]) is None
        await drivers["a"].stop()  # nor is a second stop

    run(stack, {"a": route("a", port)}, story)


def test_a_program_that_ends_gives_the_line_that_says_why_and_not_an_older_one(
    stack: Path, supervisord: Make, route: Make, free_ports: Make
) -> None:
    (port,) = free_ports(1)
    (stack / ".imageworks/log/model-a.log").write_text("0.1 E an older death\n")
    supervisord({"a": (port, "broken")})

    async def story(drivers: Any) -> None:
        with pytest.raises(StartError, match=r"^failed to open GGUF file$"):
            await bring_up(drivers["a"], 20.0)

    run(stack, {"a": route("a", port)}, story)


def test_a_server_of_another_name_is_starting_and_named(
    stack: Path, supervisord: Make, route: Make, free_ports: Make
) -> None:
    (port,) = free_ports(1)
    supervisord({"a": (port, "other")})

    async def story(drivers: Any) -> None:
        await drivers["a"].start()
        while not drivers["a"].obstacle():  # it is still on its way
            assert not await drivers["a"].ready()
        assert drivers["a"].obstacle() == f"http://127.0.0.1:{port} serves somebody-else, not served-a"
        assert await observe(drivers["a"]) == "starting"

    run(stack, {"a": route("a", port)}, story)


def test_a_server_that_takes_connections_and_answers_nothing_is_starting(
    stack: Path, supervisord: Make, route: Make, free_ports: Make
) -> None:
    (port,) = free_ports(1)
    supervisord({"a": (port, "deaf")})

    async def story(drivers: Any) -> None:
        await drivers["a"].start()
        while "listening" not in drivers["a"].log():  # noqa: ASYNC110 - it is still on its way
            await asyncio.sleep(0)
        assert await observe(drivers["a"]) == "starting"

    run(stack, {"a": route("a", port)}, story)


def test_a_killed_process_is_seen_as_gone(stack: Path, supervisord: Make, route: Make, free_ports: Make) -> None:
    (port,) = free_ports(1)
    supervisord({"a": (port, "serve")})

    async def story(drivers: Any) -> None:
        await bring_up(drivers["a"], 20.0)
        rpc = Supervisor(stack / ".imageworks/run/supervisor.sock")
        os.kill((await rpc.call("getProcessInfo", "model-a"))["pid"], signal.SIGKILL)
        await rpc.close()
        while (await drivers["a"].status()).alive:  # noqa: ASYNC110 - supervisord needs a moment to reap it
            await asyncio.sleep(0)

    run(stack, {"a": route("a", port)}, story)


def test_a_program_that_supervisord_does_not_know_says_what_to_do(stack: Path, supervisord: Make, route: Make) -> None:
    supervisord({})

    async def story(drivers: Any) -> None:
        with pytest.raises(StartError, match=r"does not know model-a.*imageworks down, imageworks up"):
            await bring_up(drivers["a"], 20.0)

    run(stack, {"a": route("a")}, story)


def test_without_supervisord_the_error_names_the_command(stack: Path, route: Make) -> None:
    async def story(drivers: Any) -> None:
        with pytest.raises(DriverError, match="start it with: imageworks up"):
            await drivers["a"].status()

    run(stack, {"a": route("a")}, story)
