"""The copy of the generated files that were last seen to serve: kept by `up` and `apply`, put back by `apply`.

Owns `.imageworks/previous/<profile>`: making it, reading it, and exchanging it with the profile's folder in one
step. Judges nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imageworks import locations
from imageworks.output import swap
from imageworks.output.survey import PRIVATE
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Generation:
    """The generated files of one profile, in some folder: the parsed tables and the text of supervisord.conf."""

    folder: Path
    routes: Mapping[str, Any]
    plan: Mapping[str, Any]
    conf: str

    @property
    def plan_hash(self) -> str:
        """Hash of the plan it was made from."""
        return str(self.routes["plan_hash"])

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the proxy."""
        return str(self.routes["proxy"]["host"]), int(self.routes["proxy"]["port"])


def read(folder: Path) -> Generation | None:
    """The generation in `folder`; None when there is none, or none that can be read."""
    try:
        routes, plan = (json.loads((folder / name).read_text("utf-8")) for name in ("routes.json", "plan.json"))
        found = Generation(folder, routes, plan, (folder / "supervisord.conf").read_text("utf-8"))
        whole = bool(found.plan_hash and found.address)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if whole else None


def keep(stack: Path, folder: Path) -> bool:
    """Keep a copy of the profile in `folder` (of the stack in folder `stack`); False when the system refuses."""
    place = locations.previous_dir(stack, folder.name)
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        _exchange(folder, place)
    except OSError:
        return False
    return True


def put_back(stack: Path, folder: Path) -> None:
    """Let the kept copy take the place of the profile in `folder`. Raises OSError; then nothing has changed."""
    with swap.locked(folder.parent):
        swap.recover(folder.parent)
        _exchange(locations.previous_dir(stack, folder.name), folder)


def _exchange(source: Path, place: Path) -> None:
    new = place.with_name(f"{PRIVATE}new-{place.name}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        shutil.copytree(source, new, symlinks=True)
        swap.put(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
