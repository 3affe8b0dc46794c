"""YAML text -> parser events; the only importer of a YAML library.

Owns which parser reads: libyaml, twenty times as fast, for texts that it certainly reads like ruamel.yaml's own
parser in Python; that one for all others, so that findings and places never depend on which of them was used.
Judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined] # bound there from libyaml
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
)

__all__ = [
    "AliasEvent",
    "CollectionEndEvent",
    "CollectionStartEvent",
    "DocumentStartEvent",
    "MappingStartEvent",
    "MarkedYAMLError",
    "ScalarEvent",
    "Unsure",
    "YAMLError",
    "exact",
    "quick",
]

_ODD = re.compile("[\t\r\x85\u2028\u2029\ufeff]")
"""Line ends and blanks on which the two parsers part ways."""
_PLAIN_BLOCK = re.compile(r"[|>][-+]?\n *[^ \n]")
"""A block text whose head is bare and whose first line is not blank: both take its indentation alike."""
_JOINED = re.compile(r":[^ \n]")
"""A value that follows its key without a blank: only YAML 1.2 reads it so."""


class Unsure(Exception):  # noqa: N818 - no error: the other parser has to read
    """The quick parser met what the exact one may see otherwise."""


def exact(text: str) -> Iterator[Any]:
    """Events of ruamel.yaml's own parser. Raises YAMLError, and what it lets escape on hostile texts."""
    yield from YAML(typ="safe", pure=True).parse(text)


def quick(text: str) -> Iterator[Any]:
    """The same events from libyaml. Raises Unsure, at the latest in place of the first event that may differ."""
    if _ODD.search(text) or not text.endswith("\n"):
        raise Unsure
    try:
        parser = CParser(text)
        while parser.check_event():
            event = parser.get_event()
            if _may_differ(text, event):
                raise Unsure
            yield event
    except (YAMLError, ValueError) as error:
        raise Unsure from error


def _may_differ(text: str, event: Any) -> bool:
    """Whether the exact parser may refuse `event` or place it elsewhere; what is a finding anyway always may."""
    if isinstance(event, ScalarEvent):
        if event.anchor is not None or event.tag is not None or not (event.value or event.style):
            return True
        if event.style in {"|", ">"}:
            return not _PLAIN_BLOCK.match(text, event.start_mark.index)
    elif isinstance(event, CollectionStartEvent):
        return event.anchor is not None or event.tag is not None
    elif isinstance(event, AliasEvent) or (isinstance(event, DocumentStartEvent) and event.explicit):
        return True
    return bool(_JOINED.match(text, event.end_mark.index))
