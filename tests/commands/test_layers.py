"""Several files, and the machine's own layer, as the verbs see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import SMALL, Verb

LOCAL = "profiles: {constrained_16gb: {headroom: 0.5GiB}}   # my card drives no desktop\ndefaults: {context: 4096}\n"


@pytest.fixture
def layered(small: Path) -> Path:
    """The smallest stack with a layer of this machine's own."""
    (small / "stack.local.yaml").write_text(LOCAL, encoding="utf-8")
    return small


def headroom(folder: Path, out: str) -> float:
    plan = json.loads((folder / out / "constrained_16gb" / "plan.json").read_text())
    return float(plan["devices"][0]["headroom"]) / 2**30


def test_what_is_committed_never_depends_on_the_machine(small: Path, verb: Verb) -> None:
    verb("compile")
    before = {path: path.read_bytes() for path in (small / "generated").rglob("*") if path.is_file()}
    (small / "stack.local.yaml").write_text(LOCAL + "nonsense: 1\n", encoding="utf-8")
    assert verb("check")[0] == 0
    assert verb("compile", "--check")[0] == 0
    assert {path: path.read_bytes() for path in (small / "generated").rglob("*") if path.is_file()} == before


def test_compile_shows_the_local_plan_in_a_folder_of_its_own(layered: Path, verb: Verb) -> None:
    verb("compile")
    code, _, err = verb("compile", "--local", "--out", "mine")
    assert code == 0
    assert "with 2 local changes: profiles.constrained_16gb.headroom, defaults.context" in err
    assert (headroom(layered, "mine"), round(headroom(layered, "generated"), 1)) == (0.5, 1.2)
    manifest = json.loads((layered / "mine/development/manifest.json").read_text())
    assert "stack.local.yaml" in json.dumps(manifest)
    code, _, err = verb("compile", "--local")
    assert code == 1
    assert "--out DIR" in err


def test_reading_verbs_show_what_this_machine_runs(layered: Path, verb: Verb) -> None:
    assert layered.exists()
    code, out, err = verb("show", "--profile", "constrained_16gb")
    assert code == 0
    assert "0.50 headroom" in out
    assert "with 2 local changes" in err
    assert "context 4096" in out


def test_plan_speaks_of_the_files_that_up_would_write(layered: Path, verb: Verb) -> None:
    assert layered.exists()
    code, out, err = verb("plan", "--profile", "development")
    assert code == 2
    assert ".imageworks/generated" in out
    assert "with 2 local changes" in err


def test_a_mistake_in_the_local_layer_stops_only_what_reads_it(small: Path, verb: Verb) -> None:
    (small / "stack.local.yaml").write_text("models-: [gemma-5b]\n", encoding="utf-8")
    assert verb("check")[0] == 0
    for words in (("show",), ("up",), ("plan",), ("compile", "--local", "--out", "mine")):
        code, _, err = verb(*words)
        assert code == 1
        assert "did you mean `gemma-4b`?" in err


def test_later_files_win(small: Path, verb: Verb) -> None:
    (small / "more").mkdir()
    (small / "more" / "b.yaml").write_text("models: {gemma-4b: {aliases: [b]}}\nname: second\n", encoding="utf-8")
    code, out, err = verb("show", "--format", "json", "-f", "stack.yaml", "-f", "more/b.yaml")
    assert code == 0, err
    assert json.loads(out)["models"][0]["aliases"] == ["b"]
    code, _, err = verb("compile", "-f", "stack.yaml", "-f", "more/b.yaml")
    assert code == 0, err
    manifest = json.loads((small / "generated/development/manifest.json").read_text())
    assert "more/b.yaml" in json.dumps(manifest)


def test_every_file_is_named_when_one_is_missing(small: Path, verb: Verb) -> None:
    assert small.exists()
    code, _, err = verb("check", "-f", "stack.yaml", "-f", "gone.yaml")
    assert code == 1
    assert "gone.yaml is missing" in err


def test_check_mends_an_included_file(small: Path, verb: Verb) -> None:
    (small / "stack.yaml").write_text(SMALL + "include: [low.yaml]\n", encoding="utf-8")
    (small / "low.yaml").write_text("defaults:\n  grcae: 3m   # kept\n", encoding="utf-8")
    assert verb("check")[0] == 1
    assert verb("check", "--fix")[0] == 0
    assert (small / "low.yaml").read_text() == "defaults:\n  grace: 3m   # kept\n"
