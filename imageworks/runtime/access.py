"""Who may ask: the loopback checks of Host and Origin, and the request's id.

A page that a browser shows must not reach the models through a rebound name or a cross-site form. Pure; both speeds of
the proxy ask here.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from functools import lru_cache
from urllib.parse import urlsplit
from uuid import uuid4

from imageworks.runtime.errors import ApiError

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LIFE = uuid4().hex[:20]
_NUMBERS = itertools.count(1)


def request_id(given: str) -> str:
    """The client's own id where it is a plain word, else a new one: this process's random prefix and a number."""
    return given if given and _ID.fullmatch(given) else f"{_LIFE}{next(_NUMBERS):012x}"


def check_local(host: str, origin: str | None, *, keyed: bool = False) -> None:
    """Raise ApiError 403 unless both name this machine.

    `keyed`: everybody shows a key, which no page of somebody else has; then a name of this machine in the network is
    as good, and a page may only ask the host that it came from.
    """
    if keyed:
        if origin is not None and not is_local(urlsplit(origin).netloc) and urlsplit(origin).netloc != host:
            raise ApiError(403, "origin_refused", f"requests from pages of `{origin}` are refused")
        return
    if not is_local(host):
        raise ApiError(
            403, "host_refused", f"the Host header names `{host}`", hint="use http://127.0.0.1 or http://localhost"
        )
    if origin is not None and not is_local(urlsplit(origin).netloc):
        raise ApiError(403, "origin_refused", f"requests from pages of `{origin}` are refused")


@lru_cache(256)
def is_local(authority: str) -> bool:
    """Is `host[:port]` a loopback address or localhost?"""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
