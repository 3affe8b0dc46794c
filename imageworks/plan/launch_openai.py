"""The command line of any other OpenAI-compatible server, as the user wrote it.

Owns the four words that are filled in: `${host} ${port} ${source} ${name}`; `$$` is a dollar, every other `$`
stands for itself. A word with `${source}` carries a path token, so braces of its literal parts are written `{lb}`.
"""

from __future__ import annotations

import re

from imageworks.plan.facts import Facts
from imageworks.plan.ir import Flag
from imageworks.plan.launch_words import Seat, word

ENV = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
"""Nothing is downloaded behind the user's back, nothing is reported home."""

_SLOT = re.compile(r"\$\$|\$\{(host|port|source|name)\}")


def flags(facts: Facts, seat: Seat) -> tuple[Flag, ...]:
    """The words of `command`, filled in."""
    return tuple(_word(text, facts, seat) for text in facts.model.command or ())


def _word(text: str, facts: Facts, seat: Seat) -> Flag:
    used = {match[1] for match in _SLOT.finditer(text) if match[1]}
    path = "source" in used and facts.files.path is not None
    values = {"host": seat.host, "port": str(seat.port), "name": facts.id, "source": facts.files.path or ""}
    filled = fill(text, values, braces=path)
    why = f"command, with {', '.join(f'${{{name}}}' for name in sorted(used))} filled in" if used else "command"
    return word(filled, why, facts.span, path=path)


def fill(text: str, values: dict[str, str], *, braces: bool) -> str:
    """Replace the slots of `text`; with `braces` each literal `{` becomes `{lb}`, which the launcher turns back.

    >>> fill("--url=http://${host}:$$1 $HOME", {"host": "h"}, braces=False)
    '--url=http://h:$1 $HOME'
    """
    parts: list[str] = []
    end = 0
    for match in _SLOT.finditer(text):
        parts += [_literal(text[end : match.start()], braces=braces), "$" if match[1] is None else values[match[1]]]
        end = match.end()
    return "".join([*parts, _literal(text[end:], braces=braces)])


def _literal(text: str, *, braces: bool) -> str:
    return text.replace("{", "{lb}") if braces else text
