"""Plain values -> the text of stack.yaml.

Owns the only writer of YAML for stacks that are made rather than written: block maps for sections and names, flow
style below, one line for each key of a model, so that a finding about a line is a finding about a key. Whatever a text
holds, reading the result gives exactly that text again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"(?:--?)?[A-Za-z_][A-Za-z0-9_./+-]*|[1-9][0-9]*(?:s|m|h|d|MiB)")
_OTHER_MEANING = re.compile(r"(?i)(?:true|false|null|yes|no|on|off|y|n)")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
WIDTH = 120

Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"]


def scalar(value: str | float) -> str:
    r"""One scalar; a text is quoted unless no reader of YAML 1.1 or 1.2 could take it for anything else.

    >>> scalar("qwen"), scalar("no"), scalar("a: b"), scalar(0.5), scalar(True)
    ('qwen', '"no"', '"a: b"', '0.5', 'true')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and not _OTHER_MEANING.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def flow(value: Value) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def comment(text: str) -> str:
    """`text` as a comment line; whatever could end the line becomes `?`."""
    return "# " + "".join(char if char.isprintable() else "?" for char in text)
