"""Paths that hold on one machine -> paths under `roots.models`.

Owns the choice of the one folder that all model files lie under. A home folder never reaches stack.yaml: where the
root is on a machine is said by its environment variable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import commonpath, dirname

_ABSOLUTE = re.compile(r"/|~|\$\{|[A-Za-z]:/")
ENV_ROOT = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Place:
    """A path as written, and the repository (`owner/name`) it is known to hold, if any."""

    path: str
    repository: str | None = None


def tidy(path: str) -> str:
    r"""`path` with `/` as separator, without `.` parts and a final `/`.

    >>> tidy("C:\\models\\.\\x.gguf"), tidy("~/m//y/")
    ('C:/models/x.gguf', '~/m/y')
    """
    start = "/" if path.replace("\\", "/").startswith("/") else ""
    return start + "/".join(part for part in path.replace("\\", "/").split("/") if part not in {"", "."})


def is_absolute(path: str) -> bool:
    """True for paths of one machine: from the root, a home folder, a drive, or an environment variable."""
    return bool(_ABSOLUTE.match(path.replace("\\", "/")))


def common_root(places: Sequence[Place]) -> str | None:
    """The folder that the absolute ones of `places` lie under; None without any.

    Known repositories decide (`…/owner/name` -> `…`); else the deepest folder that holds all of them.
    """
    paths = [Place(tidy(place.path), place.repository) for place in places if is_absolute(place.path)]
    known = Counter(
        place.path.removesuffix(f"/{place.repository}")
        for place in paths
        if place.repository and place.path.lower().endswith(f"/{place.repository.lower()}")
    )
    if known:
        return known.most_common(1)[0][0]
    try:
        return commonpath([dirname(place.path) for place in paths]) or None if paths else None
    except ValueError:  # drives and plain paths in one file
        return None


def below(path: str, root: str | None) -> tuple[str, bool]:
    """(`path` relative to `root`, True), or its last two parts and False when it lies elsewhere."""
    clean = tidy(path)
    if not is_absolute(clean):
        return clean, True
    if root is not None and clean.startswith(f"{root.rstrip('/')}/"):
        return clean[len(root.rstrip("/")) + 1 :], True
    parts = [part for part in clean.split("/") if part and not is_absolute(f"{part}/") and part != ".."]
    return "/".join(parts[-2:]), False
