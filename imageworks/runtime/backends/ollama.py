"""Models of an Ollama daemon that we do not own.

Owns the driver over Ollama's API: a model is loaded with `keep_alive: -1` and its context, unloaded with
`keep_alive: 0`, and only /api/ps says whether it is gone, because the answer to the unload comes before the
memory is back. The daemon itself is never started or stopped.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import DriverError, Status

CALL_S = 10.0
PAUSE_S = 0.25


class _Loaded(msgspec.Struct):
    name: str = ""
    model: str = ""


class _Ps(msgspec.Struct):
    models: list[_Loaded] = []


def same_tag(one: str, other: str) -> bool:
    """Ollama writes `name:latest` where a person wrote `name`."""
    return one.removesuffix(":latest") == other.removesuffix(":latest")


class OllamaModel:
    """One tag of the daemon at the route's url."""

    def __init__(self, http: aiohttp.ClientSession, route: Route) -> None:
        self._http, self._route = http, route

    async def start(self) -> None:
        """Load it, and keep it until we unload it; returns when it is loaded."""
        load = {"keep_alive": -1, "options": {"num_ctx": self._route.context}}
        await self._generate(load, self._route.start_timeout_s)

    async def stop(self) -> None:
        """Unload it and wait until the daemon lists it no more."""
        try:
            async with asyncio.timeout(self._route.stop_timeout_s):
                if await self._loaded():
                    await self._generate({"keep_alive": 0}, self._route.stop_timeout_s)
                while await self._loaded():  # noqa: ASYNC110 - the daemon offers nothing to wait on
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise DriverError(
                f"ollama still holds {self._route.served_name} after {self._route.stop_timeout_s:g} s"
            ) from None

    async def status(self) -> Status:
        """Loaded or not."""
        loaded = await self._loaded()
        return Status(loaded, "loaded" if loaded else "not loaded")

    async def ready(self) -> bool:
        """A loaded model answers."""
        try:
            return await self._loaded()
        except DriverError:
            return False

    def log(self) -> str:
        """Empty: the daemon's log is not ours."""
        return ""

    async def _loaded(self) -> bool:
        body = await self._call("GET", "/api/ps", None, CALL_S)
        try:
            models = msgspec.json.decode(body, type=_Ps).models
        except msgspec.MsgspecError as error:
            raise DriverError(f"{self._route.url}/api/ps is not Ollama's: {error}") from None
        return any(same_tag(name, self._route.served_name) for model in models for name in (model.name, model.model))

    async def _generate(self, extra: dict[str, Any], timeout_s: float) -> None:
        await self._call(
            "POST", "/api/generate", {"model": self._route.served_name, "stream": False, **extra}, timeout_s
        )

    async def _call(self, method: str, path: str, body: object, timeout_s: float) -> bytes:
        url, timeout = self._route.url + path, aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.request(method, url, json=body, timeout=timeout, allow_redirects=False) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DriverError(
                f"ollama does not answer at {self._route.url} ({str(error) or type(error).__name__})"
            ) from None
        if not answer.ok:
            raise DriverError(f"ollama refused {path}: {_message(text)}")
        return text


def _message(text: bytes) -> str:
    try:
        return str(msgspec.json.decode(text, type=dict[str, Any]).get("error", text))
    except msgspec.MsgspecError:
        return text[:200].decode(errors="replace")
