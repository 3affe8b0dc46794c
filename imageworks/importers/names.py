"""Names of other systems -> ids of ours, each used once.

Owns the set of request names that are taken: ids first, then aliases, so that no import can make one name mean two
models. The old name of a model goes on working as its alias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from imageworks.model.safety import looks_secret
from imageworks.model.scalars import ID_LENGTH, slug


@dataclass(slots=True)
class Names:
    """Ids, program names and aliases given so far."""

    taken: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)

    def id(self, name: str, tail: str) -> str | None:
        """A free id close to `name`; `tail` (a backend) and then numbers tell namesakes apart. None without a letter."""
        base = slug(name)
        if not base:
            return None
        choices = [base, *(_joined(base, end) for end in (tail, *(f"{tail}-{number}" for number in range(2, 10_000))))]
        found = next(item for item in choices if _program(item) not in self.programs and item not in self.taken)
        self.taken.add(found)
        self.programs.add(_program(found))
        return found

    def aliases(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """(free ones, taken ones) of `names`, each once; the free ones are taken from now on."""
        wanted = [name for name in dict.fromkeys(names) if name and not looks_secret(name)]
        free = [name for name in wanted if name not in self.taken]
        self.taken.update(free)
        return free, [name for name in wanted if name not in free]


def _joined(base: str, end: str) -> str:
    return f"{base[: ID_LENGTH - len(end) - 1].rstrip('._-')}-{end}"


def _program(model_id: str) -> str:
    return model_id.replace(".", "-").replace("_", "-")
