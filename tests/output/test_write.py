"""What the writer does to a folder, and what it refuses."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imageworks import contract
from imageworks.output import swap
from imageworks.output.write import Report, check_generation, write_generation
from imageworks.targets.artifact import Artifact

INPUTS = {"stack.yaml": "11" * 32}
Generation = Callable[[str], dict[str, tuple[Artifact, ...]]]
Contents = Callable[[Path], dict[str, tuple[bytes, int]]]
ONE_FILES = [
    "../supervisord.conf",
    "big/exec/x.json",
    "big/manifest.json",
    "big/routes.json",
    "big/vllm/one.sh",
    "small/exec/x.json",
    "small/manifest.json",
    "small/routes.json",
]


def codes(report: Report) -> list[str]:
    return [one.code for one in report.diagnostics]


def test_a_first_compile_writes_everything(out: Path, generation: Generation) -> None:
    report = write_generation(out, generation("one"), INPUTS)
    assert report == Report(written=tuple(ONE_FILES))
    assert (out / "big/vllm/one.sh").stat().st_mode & 0o100
    assert not (out / "big/routes.json").stat().st_mode & 0o100
    assert (out.parent / "supervisord.conf").read_text() == "; the same for all\n"
    assert not check_generation(out, generation("one"), INPUTS)


def test_a_second_compile_touches_nothing(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    before = {path: path.stat().st_ino for path in out.parent.rglob("*")}
    report = write_generation(out, generation("one"), INPUTS)
    assert report == Report(unchanged=tuple(ONE_FILES))
    assert {path: path.stat().st_ino for path in out.parent.rglob("*")} == before


def test_only_the_profile_that_changed_is_replaced(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    small = (out / "small").stat().st_ino
    mixed = generation("two") | {"small": generation("one")["small"]}
    report = write_generation(out, mixed, INPUTS)
    assert {path.split("/")[0] for path in report.written} == {"big"}
    assert report.removed == ("big/vllm/one.sh",)
    assert (out / "small").stat().st_ino == small
    assert not (out / "big/vllm/one.sh").exists()


def test_the_manifest_proves_inputs_and_outputs(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    manifest = json.loads((out / "small/manifest.json").read_text())
    assert manifest["schema"] == contract.MANIFEST_SCHEMA
    assert manifest["inputs"] == INPUTS
    assert manifest["plan"] == "one"
    assert sorted(manifest["outputs"]) == ["../../supervisord.conf", "exec/x.json", "routes.json"]


@pytest.mark.parametrize("path", ["small/exec/x.json", "small/routes.json"])
def test_a_hand_edited_file_is_refused_and_nothing_is_written(
    path: str, out: Path, generation: Generation, contents: Contents
) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / path).write_text("mine\n")
    before = contents(out.parent)
    report = write_generation(out, generation("two"), INPUTS)
    assert codes(report) == ["IW601"]
    assert report.diagnostics[0].notes == (path,)
    assert contents(out.parent) == before


def test_overwrite_replaces_hand_edits(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small/routes.json").write_text("mine\n")
    report = write_generation(out, generation("one"), INPUTS, overwrite=True)
    assert report.written == ("small/routes.json",)
    assert not check_generation(out, generation("one"), INPUTS)


def test_an_edited_file_that_is_no_longer_made_is_refused_too(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/vllm/one.sh").write_text("mine\n")
    assert codes(write_generation(out, generation("two"), INPUTS)) == ["IW601"]
    assert "big/vllm/one.sh" in write_generation(out, generation("two"), INPUTS, overwrite=True).removed
    assert not (out / "big/vllm/one.sh").exists()


def test_an_edit_to_what_would_be_written_anyway_is_fine(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small/routes.json").write_text(generation("two")["small"][2].text)
    assert not write_generation(out, generation("two"), INPUTS).diagnostics


def test_a_deleted_file_comes_back(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small/exec/x.json").unlink()
    assert write_generation(out, generation("one"), INPUTS).written == ("small/exec/x.json",)


def test_a_lost_executable_bit_comes_back(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/vllm/one.sh").chmod(0o644)
    differences = check_generation(out, generation("one"), INPUTS)
    assert "permissions differ" in differences.text()
    assert write_generation(out, generation("one"), INPUTS).written == ("big/vllm/one.sh",)
    assert (out / "big/vllm/one.sh").stat().st_mode & 0o100


def test_what_is_not_ours_stays_through_a_rewrite(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/notes/deep").mkdir(parents=True)
    (out / "big/notes/deep/mine.txt").write_text("mine")
    (out / "big/link").symlink_to("notes")
    (out / "README").write_text("mine")
    report = write_generation(out, generation("two"), INPUTS)
    assert report.kept == ("big/link", "big/notes/deep/mine.txt")
    assert (out / "big/notes/deep/mine.txt").read_text() == "mine"
    assert (out / "big/link").is_symlink()
    assert (out / "README").exists()
    assert (out / "big/vllm/two.sh").exists()


@pytest.mark.parametrize(
    "blocker", ["small/exec/x.json", "small/exec", "small/routes.json/inner", "small", "../supervisord.conf"]
)
def test_a_foreign_file_in_the_way_is_refused(
    blocker: str, out: Path, generation: Generation, contents: Contents
) -> None:
    place = out / blocker
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    before = contents(out.parent)
    report = write_generation(out, generation("one"), INPUTS)
    assert codes(report) == ["IW602"]
    assert contents(out.parent) == before
    assert not write_generation(out, generation("one"), INPUTS, overwrite=True).diagnostics
    assert not check_generation(out, generation("one"), INPUTS)


def test_a_profile_that_is_a_link_is_never_written_through(out: Path, tmp_path: Path, generation: Generation) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir(parents=True)
    (out / "small").symlink_to(elsewhere)
    assert codes(write_generation(out, generation("one"), INPUTS)) == ["IW602"]
    assert not write_generation(out, generation("one"), INPUTS, overwrite=True).diagnostics
    assert list(elsewhere.iterdir()) == []
    assert not (out / "small").is_symlink()


def test_a_subset_leaves_the_other_profiles_alone(out: Path, generation: Generation, contents: Contents) -> None:
    write_generation(out, generation("one"), INPUTS)
    before = contents(out / "small")
    report = write_generation(out, {"big": generation("two")["big"]}, INPUTS, known=["big", "small"])
    assert not any(path.startswith("small") for path in (*report.written, *report.removed))
    assert contents(out / "small") == before


def test_a_profile_the_stack_no_longer_has_is_removed(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    only = {"big": generation("one")["big"]}
    assert check_generation(out, only, INPUTS, known=only).stale == (
        "small/exec/x.json",
        "small/manifest.json",
        "small/routes.json",
    )
    report = write_generation(out, only, INPUTS, known=only)
    assert report.removed == ("small/exec/x.json", "small/manifest.json", "small/routes.json")
    assert not (out / "small").exists()


def test_removing_a_profile_spares_what_is_not_ours_and_refuses_edits(
    out: Path, generation: Generation, contents: Contents
) -> None:
    write_generation(out, generation("one"), INPUTS)
    only = {"big": generation("one")["big"]}
    (out / "small/mine.txt").write_text("mine")
    (out / "small/routes.json").write_text("edited")
    assert codes(write_generation(out, only, INPUTS, known=only)) == ["IW601"]
    assert write_generation(out, only, INPUTS, known=only, overwrite=True).kept == ("small/mine.txt",)
    assert contents(out / "small").keys() == {"mine.txt"}


def test_a_folder_we_did_not_write_is_no_profile_of_ours(out: Path, generation: Generation) -> None:
    (out / "docs").mkdir(parents=True)
    (out / "docs/manifest.json").write_text('{"some": "thing"}')
    write_generation(out, generation("one"), INPUTS, known=["big", "small"])
    assert (out / "docs/manifest.json").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "<<<<<<< ours", '{"schema": 1, "outputs": 3}'])
def test_a_damaged_manifest_makes_nothing_ours(damage: str, out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small/manifest.json").write_text(damage)
    assert codes(write_generation(out, generation("two"), INPUTS)) == ["IW602"]
    assert write_generation(out, generation("one"), INPUTS).written == ("small/manifest.json",)


def test_a_generation_of_a_newer_version_is_left_alone(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    manifest = json.loads((out / "small/manifest.json").read_text())
    (out / "small/manifest.json").write_text(json.dumps(manifest | {"schema": contract.MANIFEST_SCHEMA + 1}))
    report = write_generation(out, generation("two"), INPUTS, overwrite=True)
    assert codes(report) == ["IW606"]
    assert (out / "big/vllm/one.sh").exists()


def test_check_shows_what_differs_and_writes_nothing(out: Path, generation: Generation, contents: Contents) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small/exec/x.json").unlink()
    before = contents(out.parent)
    differences = check_generation(out, generation("two"), INPUTS)
    assert differences.missing == ("big/vllm/two.sh", "small/exec/x.json")
    assert differences.stale == ("big/vllm/one.sh",)
    text = differences.text()
    assert '-{"plan_hash": "one"}\n+{"plan_hash": "two"}' in text
    assert "missing: small/exec/x.json" in text
    assert contents(out.parent) == before
    assert not check_generation(out.parent / "none", {}, INPUTS)


def test_a_folder_without_permission_is_a_finding(forbidden_folder: Path, generation: Generation) -> None:
    report = write_generation(forbidden_folder / "generated", generation("one"), INPUTS)
    assert codes(report) == ["IW603"]
    assert "permission denied" in report.diagnostics[0].message
    assert list(forbidden_folder.iterdir()) == []


def nth_call_fails(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, code: int) -> None:
    """Let the `nth` call of a function of `swap` fail as the system would."""
    real: Callable[..., object] = getattr(swap, name)
    calls = 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(code, os.strerror(code), str(arguments[0]))
        return real(*arguments)

    monkeypatch.setattr(swap, name, failing)


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_full_disk_changes_nothing(
    nth: int, out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation, contents: Contents
) -> None:
    write_generation(out, generation("one"), INPUTS)
    before = contents(out.parent)
    with monkeypatch.context() as patch:
        nth_call_fails(patch, "write_file", nth, errno.ENOSPC)
        report = write_generation(out, generation("two"), INPUTS)
    assert codes(report) == ["IW603"]
    assert "no space left" in report.diagnostics[0].message
    assert contents(out.parent) == before
    assert not list(out.parent.rglob(".imageworks-*"))
    assert not write_generation(out, generation("two"), INPUTS).diagnostics


def test_a_full_disk_on_the_first_compile_leaves_no_profile(
    out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    nth_call_fails(monkeypatch, "write_file", 3, errno.EDQUOT)
    assert codes(write_generation(out, generation("one"), INPUTS)) == ["IW603"]
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_without_an_exchange_two_renames_do(
    code: int, out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/mine.txt").write_text("mine")
    nth_call_fails(monkeypatch, "exchange", 1, code)
    assert not write_generation(out, generation("two"), INPUTS).diagnostics
    assert not check_generation(out, generation("two"), INPUTS)
    assert (out / "big/mine.txt").exists()


def test_files_that_are_not_ours_are_copied_where_links_are_impossible(
    out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/mine.txt").write_text("mine")

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    assert not write_generation(out, generation("two"), INPUTS).diagnostics
    assert (out / "big/mine.txt").read_text() == "mine"


def test_compiles_at_once_take_turns(out: Path, generation: Generation) -> None:
    words = ["one", "two"] * 10
    with ThreadPoolExecutor(max_workers=8) as pool:
        reports = list(pool.map(lambda word: write_generation(out, generation(word), INPUTS), words))
    assert [report.diagnostics for report in reports] == [()] * len(words)
    left = {word for word in ("one", "two") if not check_generation(out, generation(word), INPUTS)}
    assert len(left) == 1


@pytest.mark.parametrize(("code", "findings"), [(errno.ENOLCK, []), (errno.EBADF, []), (errno.EIO, ["IW603"])])
def test_a_file_system_without_locks_is_no_obstacle(
    code: int, findings: list[str], out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert codes(write_generation(out, generation("one"), INPUTS)) == findings


def test_an_exchange_that_fails_otherwise_changes_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation, contents: Contents
) -> None:
    write_generation(out, generation("one"), INPUTS)
    before = contents(out)
    nth_call_fails(monkeypatch, "exchange", 1, errno.EIO)
    report = write_generation(out, generation("two"), INPUTS)
    assert codes(report) == ["IW603"]
    assert report.diagnostics[0].fixes
    assert contents(out) == before


def test_a_c_library_without_the_call_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        swap.exchange(tmp_path, tmp_path / "missing")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="not implemented"):
        swap.exchange(tmp_path, tmp_path)


def test_a_folder_taken_away_between_two_renames_comes_back(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "small").rename(out / ".imageworks-old-small")
    (out / ".imageworks-new-small").mkdir()
    assert write_generation(out, generation("one"), INPUTS) == Report(unchanged=tuple(ONE_FILES))
    assert not (out / ".imageworks-new-small").exists()


def test_an_unwanted_file_that_is_gone_already_is_no_difference(out: Path, generation: Generation) -> None:
    write_generation(out, generation("one"), INPUTS)
    (out / "big/vllm/one.sh").unlink()
    assert check_generation(out, generation("two"), INPUTS).stale == ()
    assert "big/vllm/one.sh" not in write_generation(out, generation("two"), INPUTS).removed
