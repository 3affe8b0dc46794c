"""manifest.json of a generated profile: what we wrote from what.

Owns the proof that a file is ours (its sha256 stands here) and unchanged. One manifest lies in each profile's
folder, so that a folder and its manifest change in one step. Paths are relative to that folder and may lead out
of it (`../../supervisord.conf`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from imageworks import contract
from imageworks.targets.artifact import Artifact
from imageworks.values import dataclass

FILE = "manifest.json"
_PLAN = re.compile(r'"plan_hash": "([^"]*)"')
"""In the text of routes.json, whose keys are sorted: before this one stands nothing that a person named."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`inputs` and `outputs` map a file to the sha256 of its bytes; `plan` is the hash of the profile's plan."""

    profile: str
    plan: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    schema: int = contract.MANIFEST_SCHEMA


def digest(data: bytes) -> str:
    """Sha256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def describe(profile: str, files: Sequence[Artifact], inputs: Mapping[str, str]) -> Manifest:
    """The manifest of a profile's files."""
    outputs = {file.path: digest(file.text.encode()) for file in files}
    routes = next((file.text for file in files if file.path == "routes.json"), "")
    plan = _PLAN.search(routes)
    return Manifest(profile, plan[1] if plan else None, dict(inputs), outputs)


def parse(text: str) -> Manifest | None:
    """The manifest in `text`; None when it is damaged. Raises ContractError for one of a newer ImageWorks."""
    try:
        data: Any = json.loads(text)
        schema = data["schema"]
        outputs = {str(path): str(value) for path, value in data["outputs"].items()}
        inputs = {str(path): str(value) for path, value in data["inputs"].items()}
        found = Manifest(str(data["profile"]), data.get("plan"), inputs, outputs)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    contract.check_schema("generated/manifest.json", schema, contract.MANIFEST_SCHEMA)
    return found
