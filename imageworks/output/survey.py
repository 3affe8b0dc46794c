"""What lies on disk, beside what should.

Owns the judgement about every file of a profile's folder: unchanged, to be written, stale, edited by hand, not
ours. Reads only. `write` and `check` both stand on it, so they cannot disagree.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from imageworks import contract
from imageworks.output.manifest import FILE, Manifest, describe, digest, parse
from imageworks.targets.artifact import Artifact
from imageworks.values import dataclass

PRIVATE = ".imageworks-"
"""Names in the output folder that start so are our unfinished work."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files of one profile as they should be: `inside` its folder (manifest included) and `beside` it."""

    profile: str
    manifest: Manifest
    inside: Mapping[str, Artifact]
    beside: Mapping[str, Artifact]


def wanted(profile: str, files: Mapping[str, Artifact], inputs: Mapping[str, str]) -> Wanted:
    """Add the manifest to the artifacts of a profile and split off those that lie outside its folder."""
    manifest = describe(profile, tuple(files.values()), inputs)
    inside = {path: file for path, file in files.items() if not path.startswith("../")}
    proof = Artifact(FILE, contract.to_json(manifest))
    beside = {path: file for path, file in files.items() if path.startswith("../")}
    return Wanted(profile, manifest, inside | {FILE: proof}, beside)


@dataclass(frozen=True, slots=True)
class Found:
    """Paths of one profile, relative to its folder, sorted.

    `write`: missing or different. `stale`: ours, no longer made. `edited`: ours, but its bytes are not what we
    wrote. `in_the_way`: not ours, where a file of ours belongs. `foreign`: not ours, elsewhere.
    """

    write: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    in_the_way: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(slots=True)
class _Sorting:
    piles: dict[str, list[str]] = field(default_factory=dict)

    def add(self, pile: str, path: str) -> None:
        self.piles.setdefault(pile, []).append(path)

    def found(self) -> Found:
        return Found(**{pile: tuple(sorted(paths)) for pile, paths in self.piles.items()})


def content(path: Path) -> bytes | None:
    """Bytes of a regular file; None when there is no file; empty for what is neither. Raises OSError."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def recorded(folder: Path) -> Manifest | None:
    """The manifest in `folder`, None without a usable one. Raises ContractError for a newer one, OSError."""
    data = content(folder / FILE)
    return parse(data.decode("utf-8", "replace")) if data is not None else None


def tree(folder: Path) -> Iterator[str]:
    """Files, links and other non-folders below `folder`, relative, unsorted. Raises OSError."""
    start = len(str(folder)) + 1
    for base, folders, files in os.walk(folder, onerror=_raise):
        within = f"{base[start:]}/" if base[start:] else ""
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        for name in (*files, *links):
            yield f"{within}{name}"


def _raise(error: OSError) -> None:
    raise error


def _verdict(path: Path, data: bytes | None, file: Artifact | None, known: str | None) -> str | None:
    """The pile of one path: what is on disk (`data`), should be (`file`) and was written by us (`known`)."""
    if data is None:
        return "write" if file else None
    if file is not None and data == file.text.encode() and path.is_file():
        return "unchanged" if _executable(path) == bool(file.mode & 0o100) else "write"
    if known is None:
        return "in_the_way" if file else "foreign"
    if digest(data) != known:
        return "edited"
    return "write" if file else "stale"


def _executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def survey(folder: Path, files: Mapping[str, Artifact], manifest: Manifest | None) -> Found:
    """Judge a profile's folder against `files` (inside only). Raises OSError."""
    known = {
        path: value for path, value in (manifest.outputs if manifest else {}).items() if not path.startswith("../")
    }
    sorting = _Sorting()
    present = set(tree(folder)) if folder.is_dir() else set()
    for path in sorted(present | files.keys() | known.keys()):
        file, place = files.get(path), folder / path
        data = content(place)
        if path == FILE:
            same = file is not None and data == file.text.encode()
            sorting.add("unchanged" if same else "write" if file else "stale", path)
        elif pile := _verdict(place, data, file, known.get(path)):
            blocks = pile == "foreign" and _blocks(path, files)
            sorting.add("in_the_way" if blocks else pile, path)
    return sorting.found()


def _blocks(path: str, files: Mapping[str, Artifact]) -> bool:
    """True when `path` is a file where we need a folder, or lies in a folder where we need a file."""
    return any(file.startswith(f"{path}/") or path.startswith(f"{file}/") for file in files)


def survey_beside(folder: Path, files: Mapping[str, Artifact], manifests: Mapping[str, Manifest]) -> Found:
    """Judge files outside the profiles' folders; one is ours when any profile's manifest says so. Raises OSError."""
    sorting = _Sorting()
    for path, file in files.items():
        place = Path(os.path.normpath(folder / path))  # `folder` itself need not be there yet
        data = content(place)
        hashes = {manifest.outputs[path] for manifest in manifests.values() if path in manifest.outputs}
        known = digest(data) if data is not None and digest(data) in hashes else next(iter(sorted(hashes)), None)
        if pile := _verdict(place, data, file, known):
            sorting.add(pile, path)
    return sorting.found()
