"""The flags of `vllm serve`, and the networks it serves, for each vLLM version that we know.

Owns the shape of the tables in imageworks/model/vllm/ and their pins; scripts/vllm-flags makes them from vLLM's own
parser and registry. Holds no judgement: `plan.vllm_rules` compares a stack with a table. A new version is a new file
and a line in `PINNED`; no other code names a version, except the default in `stack`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from imageworks.values import dataclass

SCHEMA = 1
PINNED: Mapping[str, str] = {
    "0.31.0": "ca912998c659db49e69910a56382786a556b17c5b87f226c682827a3fa1e4ff2",
    "0.32.0": "6470977dcdb7c657df688750d19082bbabea9bc12805758e785af20be06d4b6b",
}
"""Version -> sha256 of its file, so that a table is never edited by hand; the newest comes last."""


@dataclass(frozen=True, slots=True)
class VllmFlag:
    """One flag. `type`: switch | text | int | float | amount | amount_or_auto | json | json_or_text | map | lora.

    `amount` is a whole number, or one such as `4k` or `2M`; a `map` has some of `keys`; `lora` is `name=path` or a
    map with both. `choices` is all that the parser takes, `known` what
    vLLM brings where a plugin may add more. `many`: several words; `repeats`: once for each word; `bare`: also
    without a value; `none`: also the words `None` and ""; `folds`: case and `-` or `_` do not matter. `since`: the
    minor version that brought it, "" for those that vLLM 0.8 had already.
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
    since: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """A flag of an older vLLM: the minor version that dropped it, and what stands in for it, "" if not known."""

    version: str
    use: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """A network that vLLM names as no longer served. `family` is the `model_type` of its config, "" if not known."""

    why: str
    family: str = ""


@dataclass(frozen=True, slots=True)
class VllmTable:
    """One version. `served` and `gone` are class names of networks; one in neither may run through Transformers.

    `removed` are the flags that versions from 0.8 on had and this one has not.
    """

    version: str
    flags: Mapping[str, VllmFlag]
    removed: Mapping[str, Removed]
    aliases: Mapping[str, str]
    served: frozenset[str]
    gone: Mapping[str, Gone]

    def find(self, name: str) -> VllmFlag | None:
        """The flag that vLLM reads `name` as: dashes in front do not matter, nor does `_` for `-`, nor an alias."""
        plain = name.lstrip("-").replace("_", "-")
        return self.flags.get(self.aliases.get(plain, plain))


def newer_with(name: str, version: str) -> VllmFlag | None:
    """The flag `name` in the oldest table after that of `version` that has it; None when none has."""
    known = list(PINNED)
    found = (table(one) for one in known[known.index(version) + 1 :])
    return next((flag for one in found if one is not None and (flag := one.find(name)) is not None), None)


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
        removed={name: Removed(**entry) for name, entry in content["removed"].items()},
        aliases={alias: flag.name for flag in flags.values() for alias in flag.aliases},
        served=frozenset(content["served"]),
        gone={name: Gone(**entry) for name, entry in content["gone"].items()},
    )


def _flag(name: str, entry: Mapping[str, object]) -> VllmFlag:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return VllmFlag(name, **values)  # type: ignore[arg-type]  # the file's keys are the fields; a stray one is a TypeError
