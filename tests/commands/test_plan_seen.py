"""What runs is told from words that still count, and the copy to go back to is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks import locations
from imageworks.commands import kept
from imageworks.commands.inforce import observe
from imageworks.commands.running import ProgramInfo, Running

from .conftest import Verb

MODEL = "model-gemma-4b"


class OneProgram(Running):
    """A supervisord that runs one program, as far as looking goes."""

    def programs(self) -> tuple[ProgramInfo, ...]:
        return (ProgramInfo(MODEL, "RUNNING", 4711, 1, ""),)


@pytest.fixture
def compiled(small: Path, verb: Verb) -> Path:
    assert verb("compile")[0] == 0
    return small


@pytest.fixture
def leave(compiled: Path) -> Callable[..., None]:
    """Write the launcher's word, with some of its keys replaced."""

    def write(**changes: object) -> None:
        file = compiled / "generated" / "development" / "exec" / f"{MODEL}.json"
        word = {"schema": 1, "pid": 4711, "file": str(file), "spec": json.loads(file.read_text())}
        locations.started_file(compiled, MODEL).write_text(json.dumps(word | changes))

    return write


def test_the_word_of_the_living_process_counts(compiled: Path, leave: Callable[..., None]) -> None:
    leave()
    seen = observe(OneProgram(compiled), "generated")
    assert seen.started[MODEL].spec.program == MODEL
    assert seen.profile == "development"


@pytest.mark.parametrize("changes", [{"pid": 4712}, {"schema": 2}, {"spec": {}}, {"pid": None}, {"file": 3}])
def test_a_word_of_another_life_or_a_damaged_one_does_not(
    compiled: Path, leave: Callable[..., None], changes: dict[str, object]
) -> None:
    leave(**changes)
    assert observe(OneProgram(compiled), "generated").started == {}


def test_without_supervisord_nothing_runs(compiled: Path) -> None:
    seen = observe(Running(compiled), "generated")
    assert (seen.up, seen.programs, seen.profile) == (False, {}, None)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_put_back_is_what_was_kept_to_the_byte(compiled: Path, verb: Verb) -> None:
    folder = compiled / "generated" / "development"
    before = contents(folder)
    assert kept.keep(compiled, folder)
    stack = compiled / "stack.yaml"
    stack.write_text(stack.read_text().replace("gemma-4b", "gemma-5b"))
    assert verb("compile")[0] == 0
    assert contents(folder) != before
    kept.put_back(compiled, folder)
    assert contents(folder) == before
    assert verb("compile")[0] == 0  # none of it looks edited by hand
    assert {path.name for path in (compiled / "generated").iterdir() if path.name.startswith(".")} == set()


def test_a_copy_is_replaced_as_a_whole(compiled: Path) -> None:
    folder = compiled / "generated" / "development"
    assert kept.keep(compiled, folder)
    (locations.previous_dir(compiled, "development") / "left-over").write_text("x")
    assert kept.keep(compiled, folder)
    assert contents(locations.previous_dir(compiled, "development")) == contents(folder)
    assert [path.name for path in locations.previous_dir(compiled, "development").parent.iterdir()] == ["development"]


def test_what_cannot_be_kept_is_told(compiled: Path) -> None:
    (compiled / ".imageworks" / "previous").write_text("a file where a folder must be")
    assert not kept.keep(compiled, compiled / "generated" / "development")


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"plan_hash": ""}'])
def test_a_damaged_copy_is_none(compiled: Path, damage: str) -> None:
    folder = compiled / "generated" / "development"
    assert kept.read(folder) is not None
    (folder / "routes.json").write_text(damage)
    assert kept.read(folder) is None
