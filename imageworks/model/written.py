"""What stands in the file, before any field has given it a meaning.

Owns `Written`, the text of a scalar with the memory of whether it was quoted, and the refusal of a value.
Nothing here knows which field it is for: a refusal carries a diagnostic's code and texts, `findings` adds the place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from pydantic_core import PydanticCustomError

from imageworks.values import dataclass


class Written(str):
    """The text of a scalar as written.

    `plain` is false when it was quoted or a block text; `own` is true in the machine's own layer, which is never
    committed and may name places of this machine.
    """

    __slots__ = ("own", "plain")
    plain: bool
    own: bool

    def __new__(cls, text: str, *, plain: bool, own: bool = False) -> Self:
        """`text` as it stood in the file."""
        written = super().__new__(cls, text)
        written.plain = plain
        written.own = own
        return written


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A way out: what to tell, and the text to write instead where that is all there is to it."""

    text: str
    replacement: str | None = None
    safe: bool = False


def refuse(
    code: str, message: str, label: str = "", *notes: str, fixes: tuple[Suggestion, ...] = ()
) -> PydanticCustomError:
    """An error to raise inside a validator; `findings` reads code, label, notes and fixes from its context."""
    context = {"message": message, "label": label, "notes": notes, "fixes": fixes}
    return PydanticCustomError(code, "{message}", context)


def instead(*texts: str) -> tuple[Suggestion, ...]:
    """Suggestions that each replace the whole value and need a person to choose."""
    return tuple(Suggestion(text, text) for text in texts)


def kind(value: object) -> str:
    """What a person would call this value."""
    if isinstance(value, dict):
        return "a map"
    return "a list" if isinstance(value, list | tuple) else "a single value"


def reads(wanted: str, parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A validator that gives text to `parse`, refuses maps and lists, and lets ready values pass."""

    def validate(value: Any) -> Any:
        if isinstance(value, dict | list):
            raise refuse("IW200", f"this wants {wanted}, not {kind(value)}", f"{kind(value)} stands here")
        return parse(str(value)) if isinstance(value, str) else value

    return validate
