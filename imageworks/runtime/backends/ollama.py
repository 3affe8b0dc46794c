"""Models of an Ollama daemon that we do not own.

Owns the driver over Ollama's API: a model is made with its context, then loaded with `keep_alive: -1` by a request of our own,
which no client can cancel (Ollama drops a load whose client leaves); unloaded with `keep_alive: 0`. That answer comes
before the memory is back, so /api/ps is asked until the model is gone, and the GPU until its bytes are. The daemon
itself is never started or stopped: other people's models may live in it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from imageworks.contract import Route
from imageworks.runtime import processes, sockets
from imageworks.runtime.backends import memory
from imageworks.runtime.backends.protocol import DriverError, Look, Readings, SleepError, Status, UnansweredError
from imageworks.runtime.backends.server import UNREACHED, Server
from imageworks.runtime.events import Reading

CALL_S = 10.0
LOOK_S = 5.0
PAUSE_S = 0.25
MIB = 1 << 20


class _Loaded(msgspec.Struct):
    name: str = ""
    model: str = ""
    size_vram: int = 0


class _Ps(msgspec.Struct):
    models: list[_Loaded] = []


def same_tag(one: str, other: str) -> bool:
    """Ollama writes `name:latest` where a person wrote `name`."""
    return one.removesuffix(":latest") == other.removesuffix(":latest")


class OllamaModel:
    """One tag of the daemon at the route's url."""

    def __init__(self, http: aiohttp.ClientSession, route: Route, readings: Readings | None = None) -> None:
        self._http, self._route, self._readings = http, route, readings
        self._server = Server(http, route)
        self._obstacle = ""

    async def start(self) -> None:
        """Load it, and keep it until we unload it; returns when it is loaded.

        A model with a context of its own is made first: requests name no context (Ollama's OpenAI endpoints cannot), and one
        that differs from what is loaded makes Ollama load again (needsReload in its scheduler).
        """
        if self._route.made_from is not None:
            await self._make(self._route.made_from)
        load = {"keep_alive": -1, "options": {"num_ctx": self._route.context}}
        await self._generate(load, self._route.start_timeout_s)

    async def stop(self) -> None:
        """Unload it, wait until the daemon lists it no more and the GPU shows its bytes."""
        before = await self._before()
        loaded = _find(await self._models(), self._route.served_name)
        until = time.monotonic() + self._route.stop_timeout_s
        if loaded is not None:
            await self._unload(until)
        if loaded is not None and before is not None:
            await self._bytes_back(before, loaded)

    async def status(self) -> Status:
        """Loaded or not."""
        loaded = _find(await self._models(), self._route.served_name) is not None
        return Status(loaded, "loaded" if loaded else "not loaded")

    async def ready(self) -> bool:
        """A loaded model answers."""
        self._obstacle = ""
        try:
            return (await self.status()).alive
        except DriverError as error:
            self._obstacle = str(error)
            return False

    def obstacle(self) -> str:
        """Why the daemon gave no answer."""
        return self._obstacle

    def log(self) -> str:
        """Empty: the daemon's log is not ours."""
        return ""

    async def pids(self) -> tuple[int, ...]:
        """The daemon and its runners, where they are of our user; they hold other people's models too."""
        where = urlsplit(self._route.url)
        found = await asyncio.to_thread(sockets.listeners, where.port or 80, _literal(where.hostname))
        trees = [processes.tree(pid) for each in found for pid in each.pids]
        return tuple(dict.fromkeys(holder.pid for tree in trees for holder in tree))

    async def sleep(self, level: int) -> None:
        """Not what Ollama can."""
        del level
        raise SleepError("Ollama has no sleep mode")

    async def wake(self) -> None:
        """Not what Ollama can."""
        raise SleepError("Ollama has no sleep mode")

    async def asleep(self) -> bool:
        """Never."""
        return False

    async def look(self) -> Look:
        """HEAD / is what Ollama's own command line asks to see whether the daemon lives."""
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        try:
            async with self._http.head(f"{self._route.url}/", timeout=timeout, allow_redirects=False) as answer:
                return Look("ok" if answer.ok else "failing", "" if answer.ok else f"HEAD / says {answer.status}")
        except TimeoutError:
            return Look("silent", f"HEAD / gave no answer within {LOOK_S:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Look("absent", f"ollama does not answer at {self._route.url} ({str(error) or type(error).__name__})")

    async def canary(self, timeout_s: float) -> bool | None:
        """One token."""
        return await self._server.canary(timeout_s)

    async def _unload(self, until: float) -> None:
        timeout_s = self._route.stop_timeout_s
        await self._generate({"keep_alive": 0}, timeout_s)
        while (models := await self._models()) and _find(models, self._route.served_name):
            if time.monotonic() >= until:
                raise DriverError(self._stuck(models))
            await asyncio.sleep(PAUSE_S)

    def _stuck(self, models: list[_Loaded]) -> str:
        """What a person can do about a model that stays in `Stopping…`; whether that hurts somebody else."""
        name = self._route.served_name
        others = sorted({each.name for each in models if not same_tag(each.name, name)})
        also = (
            f"restarting it would end {', '.join(others)} too" if others else "nothing else is loaded in it: restart it"
        )
        return f"ollama still holds {name} after {self._route.stop_timeout_s:g} s; {also}"

    async def _before(self) -> dict[int, Reading] | None:
        """None where nothing is measured; the scheduler waits for a GPU that does not answer, not we."""
        try:
            return await memory.look(self._readings, self._slots()) if self._slots() else None
        except memory.DarkError:
            return None

    def _slots(self) -> dict[int, int]:
        return {int(slot): mib for slot, mib in self._route.gpu_mib.items()}

    async def _bytes_back(self, before: dict[int, Reading], loaded: _Loaded) -> None:
        """The list may be empty while the memory is held (ollama#4443): the GPU decides. The daemon's own figure counts."""
        planned = self._slots()
        share = loaded.size_vram // MIB // len(planned)
        expected = {slot: memory.Expected(min(mib, share), 0) for slot, mib in planned.items()}
        # no pids: its runner held other models as well, and ends or goes on for reasons of its own
        problem = await memory.not_back(self._readings, before, (), expected, self._route.stop_timeout_s)
        if problem is not None:
            raise DriverError(f"ollama lists {self._route.served_name} no more, but {problem}")

    async def _models(self) -> list[_Loaded]:
        body = await self._call("GET", "/api/ps", None, CALL_S)
        try:
            return msgspec.json.decode(body, type=_Ps).models
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DriverError(f"{self._route.url}/api/ps is not Ollama's: {error}") from None

    async def _generate(self, extra: dict[str, Any], timeout_s: float) -> None:
        await self._call(
            "POST", "/api/generate", {"model": self._route.served_name, "stream": False, **extra}, timeout_s
        )

    async def _make(self, tag: str) -> None:
        """A manifest of a few hundred bytes over the same weights; made anew at each start, as the tag may have moved."""
        body = {
            "model": self._route.served_name,
            "from": tag,
            "parameters": {"num_ctx": self._route.context},
            "stream": False,
        }
        if not await self._has(tag):
            raise DriverError(f"ollama has no {tag}; run: ollama pull {tag}")
        await self._call("POST", "/api/create", body, self._route.start_timeout_s)

    async def _has(self, tag: str) -> bool:
        """Is it here? A model made from one that is not would be fetched without anybody asking."""
        try:
            await self._call("POST", "/api/show", {"model": tag}, CALL_S)
        except UnansweredError:
            raise
        except DriverError:
            return False
        return True

    async def _call(self, method: str, path: str, body: object, timeout_s: float) -> bytes:
        url, timeout = self._route.url + path, aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.request(method, url, json=body, timeout=timeout, allow_redirects=False) as answer:
                text = await answer.read()
        except UNREACHED as error:
            raise UnansweredError(
                f"ollama does not answer at {self._route.url} ({str(error) or type(error).__name__})"
            ) from None
        if not answer.ok:
            raise DriverError(f"ollama refused {path}: {_message(text)}")
        return text


def _find(models: list[_Loaded], served_name: str) -> _Loaded | None:
    return next(
        (each for each in models if same_tag(each.name, served_name) or same_tag(each.model, served_name)), None
    )


def _literal(host: str | None) -> str:
    """The address that /proc shows for a host name of this machine."""
    return "127.0.0.1" if host in (None, "localhost") else str(host)


def _message(text: bytes) -> str:
    try:
        return str(msgspec.json.decode(text, type=dict[str, Any]).get("error", text))
    except msgspec.MsgspecError:
        return text[:200].decode(errors="replace")
