"""Doctor: versions with known defects.

Owns the floors, each with its reason and the place where it can be read. Only what can be read is judged: installed
packages, and servers of the plan that answer now.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from imageworks.commands.examine.finding import Finding, Level

ASK_S = 1.0


@dataclass(frozen=True, slots=True)
class Floor:
    """Below `version` there is a known defect."""

    name: str
    version: str
    level: Level
    why: str
    source: str


FLOORS: tuple[Floor, ...] = (
    Floor(
        "aiohttp", "3.14.3", "error", "request smuggling and memory exhaustion in the parser",
        "https://github.com/aio-libs/aiohttp/security/advisories",
    ),
    Floor(
        "supervisor", "4.0", "error", "commands could be run through its control interface, and state polls hung",
        "https://nvd.nist.gov/vuln/detail/CVE-2017-11610",
    ),
    Floor(
        "vllm", "0.14.1", "error", "a crafted video runs code on the server",
        "https://nvd.nist.gov/vuln/detail/CVE-2026-22778",
    ),
    Floor(
        "vllm", "0.19.0", "warning", "one request with a huge `n` ends it",
        "https://nvd.nist.gov/vuln/detail/CVE-2026-34756",
    ),
    Floor(
        "ollama", "0.17.1", "error", "a crafted model file leaks its memory, keys and prompts included",
        "https://nvd.nist.gov/vuln/detail/CVE-2026-7482",
    ),
    Floor(
        "llama.cpp", "8146", "error", "a crafted model file overflows its memory",
        "https://nvd.nist.gov/vuln/detail/CVE-2026-27940",
    ),
)  # fmt: skip
PACKAGES = ("aiohttp", "supervisor", "vllm")
_WHERE: Mapping[str, tuple[str, str, str]] = {
    # backend: product, path, key
    "vllm": ("vllm", "/version", "version"),
    "ollama": ("ollama", "/api/version", "version"),
    "llamacpp": ("llama.cpp", "/props", "build_info"),
}


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version that can be compared; a pre-release counts as its release.

    >>> numbers("0.14.0rc1"), numbers("b8146-1a2b3c"), numbers("3.14.3")
    ((0, 14, 0), (8146,), (3, 14, 3))
    """
    match = re.match(r"[bv]?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def judge(name: str, version: str, where: str) -> Iterator[Finding]:
    """The first floor that the version is below, else that it is in order; nothing for a version that says no number."""
    found = numbers(version)
    if not found or not any(found):
        return
    for floor in FLOORS:
        if floor.name == name and found < numbers(floor.version):
            todo = f"update {name} to {floor.version} or newer; {floor.source}"
            yield Finding("versions", floor.level, f"{name} {version} ({where}): {floor.why}", todo)
            return
    yield Finding("versions", "ok", f"{name} {version} ({where})")


def check(table: Mapping[str, Any] | None, ask: Callable[[str, str], Any] | None = None) -> Iterator[Finding]:
    """Packages of this environment, and servers of the plan that answer."""
    for name in PACKAGES:
        try:
            yield from judge(name, metadata.version(name), "installed")
        except metadata.PackageNotFoundError:
            continue
    seen: set[tuple[str, str, str]] = set()
    for route in (table or {"routes": {}})["routes"].values():
        if route["backend"] not in _WHERE:
            continue
        product, path, key = _WHERE[route["backend"]]
        version = _word((ask or fetch)(route["url"], path), key)
        if version and (product, version, route["url"]) not in seen:
            seen.add((product, version, route["url"]))
            yield from judge(product, version, f"at {route['url']}")


def fetch(url: str, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    """JSON of a server; None when it does not answer so."""
    where = urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(where.hostname or "", where.port, timeout=ASK_S)
        try:
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            return json.loads(answer.read(1 << 20)) if answer.status == http.HTTPStatus.OK else None
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _word(answer: Any, key: str) -> str | None:
    found = answer.get(key) if isinstance(answer, dict) else None
    return found if isinstance(found, str) else None
