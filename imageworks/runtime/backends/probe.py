"""Is the model there, and is it the right one: readiness by identity.

Owns `bring_up` (start, then wait until the driver says that it is ready, and the error when it is not) and `observe`
(what runs already). A model is ready when /health is not failing and /v1/models names it: llama.cpp lists its models
while it still loads, and another program may have taken the port.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Literal

import aiohttp

from imageworks.contract import Route
from imageworks.runtime.backends import causes
from imageworks.runtime.backends.logs import root_cause
from imageworks.runtime.backends.protocol import Driver, DriverError, StartError, UnansweredError
from imageworks.runtime.backends.server import Server

LOG = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5


async def serves(session: aiohttp.ClientSession, route: Route) -> bool:
    """Does the route's address answer as its model now?"""
    return route.served_name in (await Server(session, route).names() or ())


async def observe(driver: Driver) -> Literal["starting", "ready", "asleep"] | None:
    """What a model was doing before we came; None when it is not there. Raises DriverError."""
    status = await driver.status()
    if status.ending:  # a stop that outlived who asked for it: its end would look like a death, and be healed
        with suppress(DriverError):  # one that does not end is what it seems
            await driver.stop()
        status = await driver.status()
    if not status.alive:
        return None
    if await driver.asleep():
        return "asleep"
    return "ready" if await driver.ready() else "starting"


async def bring_up(driver: Driver, timeout_s: float) -> None:
    """Start and return once ready. Raises StartError with the root cause when it dies or takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            await driver.start()
            await _until_ready(driver)
    except TimeoutError:
        raise _failed(driver, f"not ready after {timeout_s:g} s", last_words=True) from None
    except DriverError as error:
        raise _failed(driver, str(error)) from None


def _failed(driver: Driver, otherwise: str, *, last_words: bool = False) -> StartError:
    """The error for the user: a known cause first, then what the log says, then `otherwise`."""
    log = driver.log()
    if cause := causes.known(log):
        return StartError(cause.message, again=cause.again)
    said, obstacle = root_cause(log), driver.obstacle()
    if last_words:
        return StartError(
            f"{otherwise}: {obstacle}" if obstacle else f"{otherwise}; the last it said: {said}" if said else otherwise
        )
    return StartError((said or otherwise) + (f" ({obstacle})" if obstacle else ""))


async def _until_ready(driver: Driver) -> None:
    pause_s = FIRST_PAUSE_S
    while True:
        # alive first: what answers on the port of a process that ended is somebody else
        try:
            status = await driver.status()
        except UnansweredError as error:  # nothing is known of it: no reason to end it (F67: supervisord loses a call)
            LOG.warning("looking again: %s", error)
        else:
            if not status.alive:
                raise _failed(driver, status.why(None))
            if await driver.ready():
                return
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 1.3)
