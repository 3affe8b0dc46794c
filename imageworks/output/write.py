"""The only writer of generated files, and the comparison behind `compile --check`.

Owns what happens to a generation as a whole: all profiles are written beside first, then each takes its place in
one step; a profile that is as it should be is not touched; what we wrote and no longer make is removed; what a
person changed is refused; what is not ours stays. After a finding nothing has changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from imageworks import contract
from imageworks.diagnostics.model import Diagnostic
from imageworks.output import findings, swap
from imageworks.output.manifest import FILE, Manifest
from imageworks.output.survey import PRIVATE, Found, Wanted, recorded, survey, survey_beside, wanted
from imageworks.targets.artifact import Artifact
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. Paths relative to the output folder, sorted; `kept` are files that are not ours."""

    written: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Differences:
    """How disk and plan differ. Paths relative to the output folder; `changed` maps one to its unified diff."""

    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    changed: Mapping[str, str] | None = None

    def __bool__(self) -> bool:
        return bool(self.missing or self.stale or self.changed)

    def text(self) -> str:
        """All differences for a person: a line for each missing or stale file, then the diffs."""
        lines = [*(f"missing: {path}" for path in self.missing), *(f"stale: {path}" for path in self.stale)]
        return "\n".join([*lines, *(self.changed or {}).values()])


@dataclass(frozen=True, slots=True)
class _Generation:
    """The profiles, beside the files that are shared by them, as wanted and as found."""

    out_dir: Path
    profiles: tuple[tuple[Wanted, Found], ...]
    beside: Mapping[str, Artifact]
    beside_found: Found
    gone: tuple[tuple[str, Found], ...]
    """Profiles with a manifest of ours that the stack no longer has."""

    def paths(self, pile: str) -> tuple[str, ...]:
        """All paths of a pile, relative to the output folder, sorted."""
        inside = [(one.profile, found) for one, found in self.profiles]
        within = [f"{name}/{path}" for name, found in (*inside, *self.gone) for path in getattr(found, pile)]
        return tuple(sorted([*within, *getattr(self.beside_found, pile)]))


def _look(
    out_dir: Path, profiles: Mapping[str, Sequence[Artifact]], inputs: Mapping[str, str], known: Collection[str] | None
) -> _Generation:
    """Read everything once. Raises OSError, and ContractError for a manifest that is too new."""
    whole = [wanted(name, {file.path: file for file in files}, inputs) for name, files in sorted(profiles.items())]
    names = sorted(path.name for path in out_dir.iterdir() if _ours(path)) if out_dir.is_dir() else []
    manifests = {name: found for name in names if (found := recorded(out_dir / name))}
    gone = [name for name in manifests if known is not None and name not in known]
    beside = {_from_out(one.profile, path): file for one in whole for path, file in one.beside.items()}
    return _Generation(
        out_dir=out_dir,
        profiles=tuple((one, _found(out_dir, one, manifests.get(one.profile))) for one in whole),
        beside=beside,
        beside_found=survey_beside(out_dir, beside, {name: _outward(each) for name, each in manifests.items()}),
        gone=tuple((name, survey(out_dir / name, {}, manifests[name])) for name in gone),
    )


def _ours(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(PRIVATE)


def _found(out_dir: Path, one: Wanted, manifest: Manifest | None) -> Found:
    folder = out_dir / one.profile
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return Found(in_the_way=("",), write=tuple(sorted(one.inside)))
    return survey(folder, one.inside, manifest)


def _from_out(profile: str, path: str) -> str:
    """`../../supervisord.conf`, seen from the output folder instead of the profile's."""
    first, *rest = PurePosixPath(path).parts
    assert first == "..", f"{profile}/{path} is inside"  # noqa: S101 - survey splits them so
    return "/".join(rest)


def _outward(manifest: Manifest) -> Manifest:
    """The manifest with only the paths that leave its folder, seen from the output folder."""
    outputs = {_from_out("", path): value for path, value in manifest.outputs.items() if path.startswith("../")}
    return Manifest(manifest.profile, manifest.plan, {}, outputs)


def write_generation(
    out_dir: Path,
    profiles: Mapping[str, Sequence[Artifact]],
    inputs: Mapping[str, str],
    *,
    overwrite: bool = False,
    known: Collection[str] | None = None,
) -> Report:
    """Bring `out_dir` to the artifacts of `profiles`; other profiles stay.

    `inputs` maps each source file to its sha256. `overwrite` replaces what was edited by hand or is in the way.
    `known` are all profiles of the stack: folders that we wrote for others are removed; None removes none.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with swap.locked(out_dir):
            swap.recover(out_dir)
            generation = _look(out_dir, profiles, inputs, known)
            refused = () if overwrite else tuple(_refusals(generation))
            if refused:
                return Report(diagnostics=refused)
            _perform(generation)
            return _report(generation)
    except contract.ContractError as error:
        return Report(diagnostics=(findings.newer(out_dir.name, str(error)),))
    except OSError as error:
        return Report(diagnostics=(findings.failed(out_dir.name, error),))


def _refusals(generation: _Generation) -> Iterator[Diagnostic]:
    if paths := generation.paths("edited"):
        yield findings.edited(paths)
    if paths := generation.paths("in_the_way"):
        yield findings.in_the_way(paths)


def _touched(found: Found) -> bool:
    return bool(found.write or found.stale or found.edited or found.in_the_way)


def _perform(generation: _Generation) -> None:
    """Write beside, then swap. Raises OSError; before the first swap nothing has changed."""
    out_dir = generation.out_dir
    staged: list[tuple[Path, Path]] = []
    try:
        for one, found in generation.profiles:
            if _touched(found):
                place = out_dir / one.profile
                staged.append((swap.stage(place, one.inside.values(), found.foreign), place))
        if staged:
            swap.flush(out_dir)
        for path in (
            *generation.beside_found.write,
            *generation.beside_found.edited,
            *generation.beside_found.in_the_way,
        ):
            file = generation.beside[path]
            swap.replace_file(out_dir / path, file.text.encode(), file.mode)
        while staged:
            new, place = staged[0]
            if place.is_symlink() or place.is_file():
                place.unlink()
            swap.put(new, place)
            staged.pop(0)
    finally:
        for new, _ in staged:
            shutil.rmtree(new, ignore_errors=True)
    for name, found in generation.gone:
        _remove(out_dir / name, found)


def _remove(folder: Path, found: Found) -> None:
    """Take our files out of `folder`, the manifest last, so that a killed removal is taken up again."""
    paths = [path for path in (*found.stale, *found.edited) if path != FILE]
    for path in (*paths, FILE):
        (folder / path).unlink(missing_ok=True)
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(inner.iterdir()):
            inner.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def _report(generation: _Generation) -> Report:
    beside = generation.beside_found
    changed = [
        f"{one.profile}/{path}"
        for one, found in generation.profiles
        for path in {*found.write, *found.edited, *found.in_the_way} & one.inside.keys()
    ]
    removed = [path for path in generation.paths("edited") if path not in changed and path not in generation.beside]
    return Report(
        written=tuple(sorted([*changed, *beside.write, *beside.edited, *beside.in_the_way])),
        unchanged=generation.paths("unchanged"),
        removed=tuple(sorted({*generation.paths("stale"), *removed})),
        kept=generation.paths("foreign"),
    )


def check_generation(
    out_dir: Path,
    profiles: Mapping[str, Sequence[Artifact]],
    inputs: Mapping[str, str],
    *,
    known: Collection[str] | None = None,
) -> Differences:
    """How `out_dir` differs from the artifacts of `profiles`; writes nothing. Arguments as for `write_generation`.

    Raises OSError when a file cannot be read, ContractError when a newer ImageWorks wrote it.
    """
    generation = _look(out_dir, profiles, inputs, known)
    files = {f"{one.profile}/{path}": file for one, _ in generation.profiles for path, file in one.inside.items()}
    files |= generation.beside
    differing = {path for pile in ("write", "edited", "in_the_way") for path in generation.paths(pile)}
    missing = tuple(sorted(path for path in differing & files.keys() if not (out_dir / path).exists()))
    changed = sorted((differing & files.keys()) - set(missing))
    return Differences(
        missing=missing,
        stale=tuple(sorted({*generation.paths("stale"), *(differing - files.keys())})),
        changed={path: _diff(out_dir, path, files[path]) for path in changed},
    )


def _diff(out_dir: Path, path: str, file: Artifact) -> str:
    import difflib  # noqa: PLC0415 - only for a file that differs

    disk = out_dir / path
    old = disk.read_text("utf-8", "replace") if disk.is_file() else ""
    lines = difflib.unified_diff(
        old.splitlines(), file.text.splitlines(), f"{path} (on disk)", f"{path} (from the stack)", lineterm=""
    )
    return "\n".join(lines) or f"{path}: permissions differ, wanted {file.mode:04o}"
