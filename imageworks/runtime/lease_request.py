"""What a client may ask of the leases, read strictly: sizes, GPUs, times, and the token header.

Owns the bodies of POST /v1/gpu/lease and its neighbours, and `X-GPU-Lease-Token`. Everything that is no finite number in
its range, no known GPU, or no known field is refused here, in bounded time. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from imageworks.runtime.errors import ApiError
from imageworks.runtime.leases import Holder, LeaseAsk

BODY_LIMIT = 1 << 16
TOKEN_HEADER = "X-GPU-Lease-Token"  # noqa: S105 - a header's name
MOST_MIB = 1 << 30
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([KMGT]i?B)")
_UNITS = {
    "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip

Mib = Annotated[int, msgspec.Meta(ge=1, le=MOST_MIB)]
Count = Annotated[int, msgspec.Meta(ge=1, le=64)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Ttl = Annotated[float, msgspec.Meta(ge=1, le=86_400)]
Priority = Annotated[int, msgspec.Meta(ge=-100, le=100)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Token = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
T = TypeVar("T", bound="_Body")


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    pass


class AcquireBody(_Body, kw_only=True):
    """POST /v1/gpu/lease. `gpus` are slots or UUIDs; `wait_s` 0 answers at once."""

    vram_mib: Mib | None = None
    vram: str | None = None
    gpus: Annotated[list[int | str], msgspec.Meta(max_length=64)] = []
    count: Count | None = None
    exclusive: bool = False
    owner: Name
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    priority: Priority = 0
    ttl_s: Ttl | None = None
    wait_s: Seconds = 0.0
    request_id: Name | None = None
    pid: Annotated[int, msgspec.Meta(ge=1, le=1 << 22)] | None = None


class RenewBody(_Body):
    """POST /v1/gpu/lease/{id}/renew."""

    token: Token


class ReleaseBody(_Body):
    """POST /v1/gpu/release."""

    lease_id: Name
    token: Token


class ForceBody(_Body):
    """POST /v1/gpu/force_release; `actor` goes into the log."""

    lease_id: Name
    actor: Name


class PardonBody(_Body):
    """POST /v1/gpu/pardon: what `holder` (a model or a lease) has in quarantine is free, says `actor`."""

    holder: Name
    actor: Name


class HandoverBody(_Body):
    """POST /v1/gpu/lease/{id}/handover: to another owner, or to a model that is loaded next."""

    token: Token
    owner: Name | None = None
    model: Name | None = None


def read(kind: type[T], body: bytes) -> T:
    """Read a body strictly. Raises ApiError 400 with the place of the mistake."""
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise _invalid("the body is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise _invalid(f"the body cannot be read: {error}") from None


def ask(
    body: AcquireBody, uuids: Mapping[int, str], ttl_s: float, request: str, holder: Holder | None = None
) -> LeaseAsk:
    """The ask of a body; `uuids` are the GPUs there are, `ttl_s` and `request` stand where it names none. Raises ApiError 400."""
    gpus = tuple(dict.fromkeys(_slot(gpu, uuids) for gpu in body.gpus))
    if gpus and body.count is not None and body.count != len(gpus):
        raise _invalid(f"count is {body.count}, but {len(gpus)} GPUs are named", "count")
    return LeaseAsk(
        request=body.request_id or request,
        owner=body.owner,
        mib=_mib(body),
        count=len(gpus) or body.count or 1,
        gpus=gpus,
        exclusive=body.exclusive,
        priority=body.priority,
        ttl_s=body.ttl_s or ttl_s,
        reason=body.reason,
        holder=holder,
    )


def _mib(body: AcquireBody) -> int:
    if (body.vram is None) == (body.vram_mib is None):
        raise _invalid("say how much with exactly one of vram_mib and vram", "vram_mib")
    return body.vram_mib if body.vram_mib is not None else mib_of(body.vram or "")


def mib_of(text: str) -> int:
    """MiB of a size as `6GiB`, rounded up. Raises ApiError 400.

    >>> mib_of("6GiB"), mib_of("1.5 GB")
    (6144, 1431)
    """
    found = _SIZE.fullmatch(text)
    mib = math.ceil(float(found[1]) * _UNITS[found[2]] / 2**20) if found else 0
    if not 1 <= mib <= MOST_MIB:
        raise _invalid(f"`{text[:40]}` is no size of memory; write it like 6GiB", "vram")
    return mib


def _slot(gpu: int | str, uuids: Mapping[int, str]) -> int:
    for slot, uuid in uuids.items():
        if gpu in (slot, uuid):
            return slot
    there = ", ".join(f"{slot} ({uuid})" for slot, uuid in sorted(uuids.items())) or "none"
    raise _invalid(f"no GPU {str(gpu)[:80]} in this plan; there is: {there}", "gpus")


def shown_token(header: str | None) -> tuple[str, int] | None:
    """Lease id and token of the header `X-GPU-Lease-Token: <lease id>:<token>`; None without one. Raises ApiError 400.

    >>> shown_token("a1:7")
    ('a1', 7)
    """
    if header is None:
        return None
    lease, _, token = header.strip().rpartition(":")
    if not lease or len(header) > 300 or not (token.isascii() and token.isdecimal()) or len(token) > 16:  # noqa: PLR2004 - digits of 2**53
        raise _invalid(f"{TOKEN_HEADER} must be `<lease id>:<token>`", TOKEN_HEADER)
    return lease, int(token)


def _invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param=param)
