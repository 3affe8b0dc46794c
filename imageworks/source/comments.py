"""The comment beside a value.

Owns finding it in the text of a source file: from the end of a value to the end of its line, past other values of a
`{…}` on the same line. Reads no YAML: the value's own end comes from the parser.
"""

from __future__ import annotations

import re

_PIECE = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|(?P<comment>(?<=\s)#[^\r\n]*)|.", re.DOTALL)


def beside(text: str, end: int) -> str:
    """The comment on the line where a value ends at offset `end`, without its `#`; empty when there is none.

    >>> beside("a: {b: 1, c: '#2'}  # why", 8)
    'why'
    """
    line = re.compile(r"[^\r\n]*").match(text, end)
    rest = line[0] if line else ""
    found = next(
        (match["comment"] for match in _PIECE.finditer(f"{text[end - 1 : end]}{rest}") if match["comment"]), ""
    )
    return found.lstrip("#").strip()
