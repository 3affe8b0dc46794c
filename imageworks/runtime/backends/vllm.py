"""vLLM's sleep mode as a verified transition.

Owns the calls and their order (vLLM's `serve/sleep/api_router.py` reads the level from the query string only, and
answers before or after it is done, depending on the version) and what proves them: /is_sleeping, bytes on the GPU, and
one golden token, the same after waking as before sleeping. Whoever calls has drained it: vLLM aborts what is in flight.
Any doubt is a SleepError; the model is stopped and started then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import msgspec

from imageworks.contract import Route
from imageworks.runtime.backends import memory
from imageworks.runtime.backends.protocol import Readings, SleepError
from imageworks.runtime.backends.server import UNREACHED
from imageworks.runtime.events import Reading

CALL_S = 120.0
"""Longest wait for one call: a reload of weights from a slow disk is one call."""
ASLEEP_S, BYTES_S, PAUSE_S = 60.0, 30.0, 0.05
GOLDEN_PROMPT = "The capital of France is"
WAKE: Mapping[int, tuple[tuple[str, Any], ...]] = {
    1: (("/wake_up", None),),
    # the order of vLLM's documentation (features/sleep_mode): the KV cache last, so that the peak stays low
    2: (
        ("/wake_up?tags=weights", None),
        ("/collective_rpc", {"method": "reload_weights"}),
        ("/wake_up?tags=kv_cache", None),
        ("/reset_prefix_cache", None),
    ),
}
"""Calls that wake each level. Level 2 without the reload answers with nonsense (vllm#29341)."""


class _Sleeping(msgspec.Struct):
    is_sleeping: bool


class SleepMode:
    """Puts one vLLM server to sleep and wakes it. `readings` None: bytes are accounted, not measured."""

    def __init__(self, http: aiohttp.ClientSession, route: Route, readings: Readings | None) -> None:
        self._http, self._route, self._readings = http, route, readings
        self._golden: bytes | None = None
        self._level = 2 if route.sleep == "level2" else 1

    def forget(self) -> None:
        """A new life begins: what the last one answered says nothing about it."""
        self._golden = None

    async def asleep(self) -> bool:
        """Does it say that it sleeps? False for a server that does not answer."""
        try:
            return await self._is_sleeping()
        except SleepError:
            return False

    async def sleep(self, level: int, pids: Iterable[int]) -> None:
        """Fall asleep and prove it; `pids` are its processes. Raises SleepError."""
        self._level = level
        self._golden = await self._answer()
        before = await self._before()
        await self._call("POST", f"/sleep?level={level}")
        await self._until_sleeping(wanted=True)
        if before is not None:
            problem = await memory.not_back(self._readings, before, pids, self._expected(), BYTES_S)
            if problem is not None:
                raise SleepError(f"vLLM says that it sleeps, but {problem}")

    async def wake(self) -> None:
        """Wake and compare the golden token. Raises SleepError."""
        if self._golden is None:
            raise SleepError("it fell asleep before this proxy started: there is no answer to compare with")
        for path, body in WAKE[self._level]:
            await self._call("POST", path, body)
        await self._until_sleeping(wanted=False)
        said = await self._answer()
        if said != self._golden:
            raise SleepError(f"it woke with another answer than before: {said!r} instead of {self._golden!r}")

    def _expected(self) -> dict[int, memory.Expected]:
        return {
            int(slot): memory.Expected(mib, self._route.asleep_mib.get(slot, 0))
            for slot, mib in self._route.gpu_mib.items()
        }

    async def _before(self) -> dict[int, Reading] | None:
        try:
            return await memory.look(self._readings, self._expected())
        except memory.DarkError as error:
            raise SleepError(f"nothing could prove that the memory comes back: {error}") from None

    async def _until_sleeping(self, *, wanted: bool) -> None:
        until = time.monotonic() + ASLEEP_S
        while await self._is_sleeping() is not wanted:
            if time.monotonic() >= until:
                raise SleepError(f"vLLM {'is still awake' if wanted else 'still sleeps'} after {ASLEEP_S:g} s")
            await asyncio.sleep(PAUSE_S)

    async def _is_sleeping(self) -> bool:
        text = await self._call("GET", "/is_sleeping")
        try:
            return msgspec.json.decode(text, type=_Sleeping).is_sleeping
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise SleepError("/is_sleeping is not vLLM's") from None

    async def _answer(self) -> bytes:
        """The golden token: one token that any sane state of the weights gives the same, greedily."""
        body = {
            "model": self._route.served_name,
            "prompt": GOLDEN_PROMPT,
            "max_tokens": 1,
            "temperature": 0,
            "seed": 0,
        }
        text = await self._call("POST", "/v1/completions", body)
        try:
            return str(msgspec.json.decode(text)["choices"][0]["text"]).encode()
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, IndexError, TypeError):
            raise SleepError("it does not answer a completion as it should") from None

    async def _call(self, method: str, path: str, body: object = None) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        try:
            url = self._route.url + path
            async with self._http.request(method, url, json=body, timeout=timeout, allow_redirects=False) as answer:
                text = await answer.read()
        except UNREACHED as error:
            raise SleepError(f"vLLM gave no answer to {path} ({str(error) or type(error).__name__})") from None
        if answer.status == 404:  # noqa: PLR2004 - the router is attached only in development mode
            raise SleepError(
                f"this vLLM has no {path.partition('?')[0]}: it runs without VLLM_SERVER_DEV_MODE=1 or an older compile"
            )
        if not answer.ok:
            raise SleepError(f"vLLM refused {path}: {answer.status} {text[:200].decode(errors='replace')}")
        return text
