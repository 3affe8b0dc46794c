"""The flags of `vllm serve`, and the networks it serves, for each vLLM version that we know.

Owns the shape of the tables in imageworks/model/vllm/ and their pins; scripts/vllm-flags makes them from vLLM's own
parser and registry. Holds no judgement: `plan.vllm_rules` compares a stack with a table. A new version is a new file
and a line in `PINNED`; no other code names a version, except the default in `stack`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SCHEMA = 1
PINNED: Mapping[str, str] = {
    "0.32.0": "41eb66e31911f562baf8f14280ff165735e625362f51df79a434f193448c6d1a",
}
"""Version -> sha256 of its file, so that a table is never edited by hand."""


@dataclass(frozen=True, slots=True)
class VllmFlag:
    """One flag. `type`: switch | text | int | float | amount | amount_or_auto | json | json_or_text | map | lora.

    `amount` is a whole number, or one such as `4k` or `2M`; a `map` has some of `keys`; `lora` is `name=path` or a
    map with both. `choices` is all that the parser takes, `known` what
    vLLM brings where a plugin may add more. `many`: several words; `repeats`: once for each word; `bare`: also
    without a value; `none`: also the words `None` and ""; `folds`: case and `-` or `_` do not matter.
    """

    name: str
    type: str
    negatable: bool = False
    many: bool = False
    repeats: bool = False
    bare: bool = False
    none: bool = False
    folds: bool = False
    choices: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    deprecated: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """A network that vLLM names as no longer served. `family` is the `model_type` of its config, "" if not known."""

    why: str
    family: str = ""


@dataclass(frozen=True, slots=True)
class VllmTable:
    """One version. `served` and `gone` are class names of networks; one in neither may run through Transformers."""

    version: str
    flags: Mapping[str, VllmFlag]
    aliases: Mapping[str, str]
    served: frozenset[str]
    gone: Mapping[str, Gone]

    def find(self, name: str) -> VllmFlag | None:
        """The flag that vLLM reads `name` as: dashes in front do not matter, nor does `_` for `-`, nor an alias."""
        plain = name.lstrip("-").replace("_", "-")
        return self.flags.get(self.aliases.get(plain, plain))


@cache
def table(version: str) -> VllmTable | None:
    """The table of `version`; None when there is none. Raises RuntimeError when its file is not the pinned one."""
    if version not in PINNED:
        return None
    data = Path(__file__).with_name("vllm").joinpath(f"{version}.json").read_bytes()
    if hashlib.sha256(data).hexdigest() != PINNED[version]:
        raise RuntimeError(f"the flag table of vLLM {version} in this installation is damaged")
    return decode(data)


def decode(data: bytes) -> VllmTable:
    """The table in the bytes of its file. Raises ValueError for another schema."""
    content = json.loads(data)
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']}, known: {SCHEMA}")
    flags = {name: _flag(name, entry) for name, entry in content["flags"].items()}
    return VllmTable(
        version=content["vllm"],
        flags=flags,
        aliases={alias: flag.name for flag in flags.values() for alias in flag.aliases},
        served=frozenset(content["served"]),
        gone={name: Gone(**entry) for name, entry in content["gone"].items()},
    )


def _flag(name: str, entry: Mapping[str, object]) -> VllmFlag:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return VllmFlag(name, **values)  # type: ignore[arg-type]  # the file's keys are the fields; a stray one is a TypeError
