"""Reading single fields of a request. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from imageworks.runtime.errors import ApiError

T = TypeVar("T")


def read(name: str, value: object, kind: type[T]) -> T | None:
    """A field of a request, the client's bytes or a value of the stack's; None for null. Raises ApiError 400."""
    try:
        if isinstance(value, msgspec.Raw):
            return msgspec.json.decode(value, type=kind | None)
        return None if value is None else msgspec.convert(value, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(name, f"`{name}` cannot be read: {error}") from None


def invalid(name: str, message: str) -> ApiError:
    """The 400 for a field."""
    return ApiError(400, "invalid_field", message, param=name)
