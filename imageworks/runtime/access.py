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


FORMS = frozenset({"text/plain", "multipart/form-data"})
"""What a page may send anywhere without asking first (the Fetch standard's CORS-safelisted request types). The third,
`application/x-www-form-urlencoded`, is what curl and urllib say of any body, so it is refused of pages only."""


def check_json(content_type: str | None, *, page: bool) -> None:
    """Raise ApiError 415 for a body that says it is a form: JSON from a page of somebody else comes so.

    `page`: a browser sent it; then it has to say that it is JSON.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in FORMS or (page and kind != "application/json"):
        hint = "Content-Type: application/json; with curl: --json"
        raise ApiError(415, "content_type_refused", f"the body says it is {kind or 'nothing'}, not JSON", hint=hint)


@lru_cache(256)
def is_local(authority: str) -> bool:
    """Is `host[:port]` a loopback address or localhost?"""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
