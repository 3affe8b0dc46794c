"""Whether vLLM's parser would take a value for a flag.

Owns the comparison of one value with one entry of the flag table, by the rules of argparse and of vLLM's own
conversions (`vllm.utils.argparse_utils`, `vllm.engine.arg_utils`). Knows no stack and no place: it says what is wrong
and what was probably meant.
"""

from __future__ import annotations

import json
import re
from typing import Any

from imageworks.model.closest import closest
from imageworks.model.vllm_table import VllmFlag
from imageworks.values import dataclass

_INT = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_AMOUNT = re.compile(r"[0-9]+(?:\.[0-9]+)?[kmgt]|[0-9]+[KMGT]")
_TRUE = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
WANTED = {
    "switch": "true or false, it takes no value",
    "text": "one word or text",
    "int": "a whole number",
    "float": "a number",
    "amount": "a whole number, or such as 4k or 2M",
    "amount_or_auto": "a whole number, or such as 4k, or auto",
    "json": "a map or a list",
    "json_or_text": "a map, or one word",
    "map": "a map",
    "lora": "name=path, or a map with name and path",
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a value: said beside it, and the text that was probably meant ("" when nobody can tell)."""

    label: str
    meant: str = ""


def complaint(flag: VllmFlag, value: Any) -> Complaint | None:
    """Why vLLM would refuse `value`; None when it takes it."""
    if flag.type == "switch":
        return _switch(flag, value)
    if value is True and flag.bare:
        return None
    if isinstance(value, bool):
        return Complaint(f"it wants {_wanted(flag)}, no switch")
    if isinstance(value, tuple) and (flag.many or flag.repeats):
        return _items(flag, value)
    return _single(flag, value)


def _wanted(flag: VllmFlag) -> str:
    return "one of: " + " ".join(flag.choices) if 0 < len(flag.choices) <= 12 else WANTED[flag.type]  # noqa: PLR2004 - a line's worth


def _switch(flag: VllmFlag, value: Any) -> Complaint | None:
    if isinstance(value, bool):
        if value or flag.negatable:
            return None
        return Complaint("it has no opposite: leave the line out")
    meant = _TRUE.get(str(value).lower(), "")
    return Complaint(WANTED["switch"], meant if meant != "false" or flag.negatable else "")


def _items(flag: VllmFlag, values: tuple[Any, ...]) -> Complaint | None:
    if not values:
        return Complaint("an empty list gives it no value: leave the line out")
    for item in values:
        if isinstance(item, str) and item.startswith("-"):
            return Complaint(f"`{item}` would be read as a flag")
        found = Complaint(WANTED[flag.type]) if isinstance(item, bool | tuple) else _single(flag, item)
        if found is not None:
            return Complaint(f"`{_shown(item)}`: {found.label}")
    return None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _single(flag: VllmFlag, value: Any) -> Complaint | None:
    if flag.none and value in {"", "None"} if isinstance(value, str) else False:
        return None
    if not _fits(flag.type, value):
        return Complaint(f"it wants {_wanted(flag)}")
    if flag.type == "map":
        return _stray_key(flag, value)
    if flag.choices and _folded(flag, _shown(value)) not in flag.choices:
        near = closest(str(value), flag.choices) or ""
        return Complaint(f"did you mean `{near}`?" if near else f"it wants {_wanted(flag)}", near)
    return None


def _stray_key(flag: VllmFlag, value: Any) -> Complaint | None:
    read = json.loads(value) if isinstance(value, str) else value
    stray = next((key for key in read if key not in flag.keys), None)
    if stray is None:
        return None
    near = closest(stray, flag.keys)
    return Complaint(f"it has no key `{stray}`" + (f"; did you mean `{near}`?" if near else ""))


def _folded(flag: VllmFlag, text: str) -> str:
    return text.lower().replace("-", "_") if flag.folds else text


def _fits(kind: str, value: Any) -> bool:
    read = _read(value) if isinstance(value, str) else value
    match kind:
        case "map":
            return isinstance(read, dict)
        case "lora":
            return {"name", "path"} <= read.keys() if isinstance(read, dict) else "=" in str(value)
        case "json":
            return isinstance(read, dict | tuple | list)
        case "json_or_text":
            return isinstance(value, dict | str)
    if isinstance(value, dict | tuple):
        return False
    text = str(value)
    match kind:
        case "text":
            return True
        case "float":
            return _FLOAT.fullmatch(text) is not None
        case "int":
            return _INT.fullmatch(text) is not None
    whole = _INT.fullmatch(text) or _AMOUNT.fullmatch(text)
    return whole is not None or (kind == "amount_or_auto" and text.lower() == "auto")


def _read(text: str) -> Any:
    """What `text` is as JSON; None when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def unknown_word(flag: VllmFlag, value: Any) -> Complaint | None:
    """A word that vLLM itself does not bring, where only a plugin could add it; None for others."""
    if not flag.known or not isinstance(value, str) or value in flag.known or (flag.none and value in {"", "None"}):
        return None
    near = closest(value, flag.known) or ""
    return Complaint(f"did you mean `{near}`?" if near else "vLLM brings none of this name", near)
