"""Every diagnostic's code with its explanation, offline.

Owns the one table `CODES` and the text of `imageworks explain`. The pages under docs/errors come from here too.
Codes: 1xx syntax, 2xx schema, 3xx references and safety, 4xx resources, 5xx targets, 6xx drift, 7xx prompts, 8xx import.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill, indent
from types import MappingProxyType

from imageworks.diagnostics.codes import iw1xx, iw2xx, iw3xx, iw4xx, iw5xx, iw6xx, iw7xx, iw8xx
from imageworks.diagnostics.codes.code import Code

__all__ = ["CODES", "Code", "explain"]

CODES: Mapping[str, Code] = MappingProxyType(
    {
        code: text
        for part in (iw1xx, iw2xx, iw3xx, iw4xx, iw5xx, iw6xx, iw7xx, iw8xx)
        for code, text in part.CODES.items()
    }
)


def explain(code: str) -> str:
    """The explanation of `code` for a terminal, ending in a newline. Raises KeyError for an unknown code."""
    entry = CODES[code]
    parts = [f"{code}  {entry.title}", *(fill(paragraph, 100) for paragraph in entry.explanation)]
    for word, example in (("Wrong:", entry.bad), ("Right:", entry.good)):
        if example:
            parts.append(f"{word}\n\n{indent(example, '    ')}")
    return "\n\n".join(parts) + "\n"
