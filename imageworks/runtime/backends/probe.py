"""Is the model there, and is it the right one: readiness by identity.

Owns `serves` (one look at an OpenAI-compatible server) and `bring_up` (start, then wait until it answers). A
server is ready when /health is not failing and /v1/models names the served model: llama.cpp lists its models
while it still loads, and another program may have taken the port.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import aiohttp
import msgspec

from imageworks.contract import Route
from imageworks.runtime.backends.logs import root_cause
from imageworks.runtime.backends.protocol import Driver, DriverError, StartError

LOOK_S = 5.0
"""Longest wait for one look."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5


class _Entry(msgspec.Struct):
    id: str = ""


class _Models(msgspec.Struct):
    data: list[_Entry] = []


async def serves(session: aiohttp.ClientSession, route: Route) -> bool:
    """Does the route's address answer as its model now?"""
    timeout = aiohttp.ClientTimeout(total=LOOK_S)
    try:
        async with session.get(f"{route.url}/health", timeout=timeout, allow_redirects=False) as health:
            if health.status >= 500:  # noqa: PLR2004 - any server error; 404 is a server without this page
                return False
        async with session.get(f"{route.url}/v1/models", timeout=timeout, allow_redirects=False) as answer:
            names = msgspec.json.decode(await answer.read(), type=_Models).data
            return any(entry.id == route.served_name for entry in names)
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False


async def observe(driver: Driver) -> Literal["starting", "ready"] | None:
    """What a model was doing before we came; None when it is not there. Raises DriverError."""
    if not (await driver.status()).alive:
        return None
    return "ready" if await driver.ready() else "starting"


async def bring_up(driver: Driver, timeout_s: float) -> None:
    """Start and return once ready. Raises StartError with the root cause when it dies or takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            await driver.start()
            await _until_ready(driver)
    except TimeoutError:
        cause = root_cause(driver.log())
        said = f"; the last it said: {cause}" if cause else ""
        raise StartError(f"not ready after {timeout_s:g} s{said}") from None
    except DriverError as error:
        raise StartError(root_cause(driver.log()) or str(error)) from None


async def _until_ready(driver: Driver) -> None:
    pause_s = FIRST_PAUSE_S
    # alive first: what answers on the port of a process that ended is somebody else
    while (status := await driver.status()).alive:
        if await driver.ready():
            return
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 1.3)
    raise StartError(root_cause(driver.log()) or f"it ended without a word ({status.note})")
