"""Images by address, fetched by the proxy itself where `proxy.images.remote` names their hosts.

Owns what may be asked (https, port 443, a host by its name, nobody's password), where it may lead (every address that the
name stands for is public, and the connection goes to one of exactly those: the name is not asked again), and how much
comes of it (one answer without redirects, bounded in bytes and time). An engine is never given an address (see `media`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Collection

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from imageworks.runtime.errors import ApiError
from imageworks.runtime.pictures import sniff

TIMEOUT_S = 10.0
AT_ONCE = 8
"""Fetches of the whole proxy; others wait."""
HTTPS = 443
OK = 200
SHOWN = 60
INLINE = "send the bytes: data:image/jpeg;base64,…"
NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,62}")
"""A host by its name; what a resolver could read as a number is none."""
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "imageworks"}


class NotPublicError(OSError):
    """A name that leads to no public address, or to others beside it."""


def is_public(address: str) -> bool:
    """May the proxy connect there? An IPv6 address that stands for an IPv4 one may lead anywhere, so it is none."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped or found.sixtofour or found.teredo):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved)  # ::/8 with NAT64 is reserved


def check(address: str, hosts: Collection[str] | None) -> URL:
    """The URL, where it may be asked; `hosts` None: any public one. Raises ApiError 400 that says what would do."""
    try:
        url = URL(address)
        host, port = url.raw_host or "", url.port
    except ValueError:
        raise _refused(address, "it is no URL") from None
    if url.scheme != "https" or port != HTTPS:
        raise _refused(address, "only https on port 443 is fetched")
    if url.raw_user is not None or url.raw_password is not None:
        raise _refused(address, "a user or password in it would be shown to strangers")
    if not NAME.fullmatch(host):
        raise _refused(address, "its host is not given by name")
    if hosts is not None and host not in hosts:
        raise _refused(address, f"{host} is not listed in proxy.images.remote")
    return url


class Public(AbstractResolver):
    """Asks `ask`, and lets an answer pass only if every address in it is public."""

    def __init__(self, ask: AbstractResolver, public: Callable[[str], bool]) -> None:
        self._ask, self._public = ask, public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses that are connected to. Raises NotPublicError."""
        found = await self._ask.resolve(host, port, family)
        if not found or not all(self._public(each["host"]) for each in found):
            raise NotPublicError(f"{host} does not lead to the public network alone")
        return found

    async def close(self) -> None:
        """Nothing is kept."""
        await self._ask.close()


class Fetcher:
    """Fetches images. `ask`, `public` and `trust` stand for the machine's resolver, `is_public` and its certificates."""

    def __init__(
        self,
        ask: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
        public: Callable[[str], bool] = is_public,
        trust: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._ask, self._public, self._trust, self._timeout_s = ask, public, trust, timeout_s
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, address: str, hosts: Collection[str] | None, most: int) -> bytes:
        """The image of at most `most` bytes. Raises ApiError 400 or 413."""
        url = check(address, hosts)
        try:
            async with self._places, asyncio.timeout(self._timeout_s):
                return await self._get(url, most)
        except TimeoutError:
            raise _failed(address, f"it was not there within {self._timeout_s:g} s") from None
        except NotPublicError:
            raise _refused(address, "its host does not lead to the public network alone") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, NotPublicError):  # aiohttp's error for a name that leads nowhere
                raise _refused(address, "its host does not lead to the public network alone") from None
            raise _failed(address, f"it cannot be reached ({type(error).__name__})") from None

    async def _get(self, url: URL, most: int) -> bytes:
        # one connector for each: nothing that was resolved, connected or set as a cookie is there for the next
        connector = aiohttp.TCPConnector(
            resolver=Public(self._ask(), self._public), use_dns_cache=False, force_close=True, ssl=self._trust or True
        )
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as http,
            http.get(url, headers=_HEADERS, allow_redirects=False) as answer,
        ):
            return await _image(str(url), answer, most)


async def _image(address: str, answer: aiohttp.ClientResponse, most: int) -> bytes:
    if answer.status != OK:
        moved = f", to {answer.headers['Location'][:SHOWN]}" if "Location" in answer.headers else ""
        raise _failed(address, f"it is answered with status {answer.status}{moved}, and redirects are not followed")
    if not answer.content_type.startswith("image/"):
        raise _failed(address, f"it is {answer.content_type[:SHOWN]}, no image")
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > most:
            hint = f"send a smaller file: at most {most >> 20} MiB"
            raise ApiError(413, "image_too_large", f"{_shown(address)} is too large", param="messages", hint=hint)
    if sniff(bytes(data)) is None:
        raise _failed(address, "it cannot be read: no JPEG, PNG, WebP, GIF or BMP header")
    return bytes(data)


def _shown(address: str) -> str:
    return address if len(address) <= SHOWN else address[: SHOWN - 1] + "…"


def _refused(address: str, reason: str) -> ApiError:
    message = f"{_shown(address)} is not fetched: {reason}"
    return ApiError(400, "remote_media_refused", message, param="messages", hint=INLINE)


def _failed(address: str, reason: str) -> ApiError:
    message = f"{_shown(address)} could not be fetched: {reason}"
    return ApiError(400, "remote_image_failed", message, param="messages", hint=INLINE)
