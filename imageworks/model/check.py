"""Everything that is wrong with a stack beyond the types of its values.

Owns which checks run, in one list. Each takes the tree and yields findings; none depends on another's success.
"""

from __future__ import annotations

from imageworks.diagnostics.model import Diagnostic
from imageworks.model import backends, names, safety
from imageworks.model.bindings import unbound
from imageworks.source.tree import MapNode


def check(root: MapNode, cut: frozenset[str], prompts: frozenset[tuple[str, str]]) -> tuple[Diagnostic, ...]:
    """All findings about `root`; `cut` names incomplete sections, `prompts` the prompt profiles that exist."""
    known = names.declared(root, cut)
    return (
        *names.dangling(root, known),
        *names.cycles(root),
        *names.clashes(root),
        *unbound(root, prompts),
        *backends.misplaced(root),
        *safety.exposed(root),
        *safety.secrets(root),
    )
