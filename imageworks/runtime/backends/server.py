"""The HTTP server of one model: is it the right one, is it well, does it compute.

Owns one look at /v1/models (identity), at /health, and the canary: one token of a text that holds a fresh nonce, so
that no cache and no frontend alone can answer. Restarts nothing and remembers nothing.
"""

from __future__ import annotations

import secrets
from typing import Any

import aiohttp
import msgspec

from imageworks.contract import Route
from imageworks.runtime.backends.protocol import Look

LOOK_S = 5.0
"""Longest wait for one look."""
SERVER_ERROR = 500
CANNOT_TELL = frozenset({400, 404, 405, 415, 422, 501})
"""Answers to a canary that say more about the question than about the engine."""
ENGINES = frozenset({"vllm", "llamacpp", "ollama"})
"""Backends whose server errors mean what they say."""
UNREACHED = (aiohttp.ClientError, TimeoutError, OSError)


class _Entry(msgspec.Struct):
    id: str = ""


class _Models(msgspec.Struct):
    data: list[_Entry] = []


class _Answer(msgspec.Struct):
    """What a completion or an embedding has in common."""

    choices: list[Any] = []
    data: list[Any] = []


class Server:
    """What answers at the route's address."""

    def __init__(self, http: aiohttp.ClientSession, route: Route) -> None:
        self._http, self._route = http, route

    async def names(self) -> tuple[str, ...] | None:
        """Models that it serves; None when it does not answer, or is failing, as llama.cpp's while it loads."""
        if (await self.look()).answering != "ok":
            return None
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        try:
            url = f"{self._route.url}/v1/models"
            async with self._http.get(url, timeout=timeout, allow_redirects=False) as answer:
                return tuple(entry.id for entry in msgspec.json.decode(await answer.read(), type=_Models).data)
        except (*UNREACHED, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def look(self) -> Look:
        """Ask /health; a server without that page is well when it answers at all."""
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        try:
            async with self._http.get(f"{self._route.url}/health", timeout=timeout, allow_redirects=False) as health:
                if health.status >= SERVER_ERROR:
                    return Look("failing", f"/health says {health.status}")
                return Look("ok")
        except TimeoutError:
            return Look("silent", f"/health gave no answer within {LOOK_S:g} s")
        except aiohttp.ClientConnectorError as error:
            return Look("absent", f"nothing listens at {self._route.url} ({error.strerror or error})")
        except (aiohttp.ClientError, OSError) as error:
            return Look("failing", f"/health broke off: {str(error) or type(error).__name__}")

    async def canary(self, timeout_s: float) -> bool | None:
        """One token within `timeout_s`; None where the model cannot be asked for one."""
        question = _question(self._route)
        if question is None:
            return None
        path, body = question
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            url = f"{self._route.url}{path}"
            async with self._http.post(url, json=body, timeout=timeout, allow_redirects=False) as answer:
                text = await answer.read()
                # an engine that we do not know may say anything about a question that it does not expect
                if answer.status in CANNOT_TELL or (not answer.ok and self._route.backend not in ENGINES):
                    return None
                return answer.ok and _computed(text)
        except UNREACHED:
            return False


def _question(route: Route) -> tuple[str, dict[str, Any]] | None:
    nonce = f"{secrets.token_hex(4)} is"
    if "chat" in route.capabilities:
        return "/v1/completions", {"model": route.served_name, "prompt": nonce, "max_tokens": 1, "temperature": 0}
    if "embedding" in route.capabilities:
        return "/v1/embeddings", {"model": route.served_name, "input": nonce}
    return None


def _computed(text: bytes) -> bool:
    try:
        answer = msgspec.json.decode(text, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return bool(answer.choices or answer.data)
