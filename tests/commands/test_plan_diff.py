"""`imageworks diff` of files, folders and git revisions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.commands.revision import RevisionError, find

from .conftest import SMALL, Verb

OTHER = SMALL.replace("chat: 50", "chat: 60").replace("kv: 0.5GiB", "kv: 1GiB")


@pytest.fixture
def repository(small: Path, tool: Callable[[str], str]) -> Path:
    """A repository with SMALL committed and OTHER in the working tree."""
    git = tool("git")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q", "-b", "main"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        subprocess.run([git, *words], cwd=small, check=True)
    (small / "stack.yaml").write_text(OTHER, encoding="utf-8")
    return small


def test_the_keys_their_lines_and_the_effects(small: Path, verb: Verb) -> None:
    (small / "other.yaml").write_text(OTHER, encoding="utf-8")
    code, out, err = verb("diff", "stack.yaml", "other.yaml")
    assert code == 2, err
    assert "models.gemma-4b\n" in out
    assert "roles.chat  50 -> 60  (other.yaml:7)" in out
    assert "vram.kv     0.5GiB -> 1GiB  (other.yaml:6)" in out
    assert "models.gemma-4b.memory" in out.partition("\non ")[2]


def test_the_same_meaning_is_no_difference(small: Path, verb: Verb) -> None:
    (small / "other.yaml").write_text("# moved\n" + SMALL.replace("0.5GiB", "512MiB"), encoding="utf-8")
    code, out, _ = verb("diff", "stack.yaml", "other.yaml")
    assert (code, out) == (0, "both mean the same\n")


def test_the_document(small: Path, verb: Verb) -> None:
    (small / "other.yaml").write_text(OTHER, encoding="utf-8")
    found = json.loads(verb("diff", "stack.yaml", "other.yaml", "--format", "json")[1])
    assert [(row["path"], row["old"], row["new"], row["at_new"]["line"]) for row in found["stack"]] == [
        ("models.gemma-4b.roles.chat", "50", "60", 7),
        ("models.gemma-4b.vram.kv", "0.5GiB", "1GiB", 6),
    ]
    told = {row["what"]: (row["old"], row["new"]) for row in found["effects"]["development"]}
    assert told.keys() == {"models.gemma-4b.memory"}
    assert all(size.endswith("iB") for size in told["models.gemma-4b.memory"])


def test_a_revision_against_the_working_tree(repository: Path, verb: Verb) -> None:
    assert repository.exists()
    for old in ("HEAD:", "main:stack.yaml", "HEAD:./stack.yaml"):
        code, out, err = verb("diff", old)
        assert code == 2, err
        assert "50 -> 60" in out
    assert verb("diff", "HEAD:", "main:")[0] == 0


def test_a_revision_brings_its_own_prompts_and_lock(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> None:
    inner = repository / "studio" / "prompts" / "base"
    inner.mkdir(parents=True)
    (inner / "a.yaml").write_text("x: 1\n")
    (repository / "studio" / "stack.yaml").write_text(SMALL)
    git = tool("git")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    subprocess.run([git, "add", "."], cwd=repository, check=True)
    subprocess.run([git, *who, "commit", "-q", "-m", "second"], cwd=repository, check=True)
    monkeypatch.chdir(repository / "studio")
    place = find("HEAD:")
    assert (place.path.name, place.name) == ("stack.yaml", "studio")
    assert place.files.read("stack.yaml").decode() == SMALL
    assert place.files.names("prompts") == ("prompts/base/a.yaml",)
    with pytest.raises(FileNotFoundError):
        place.files.read("models.lock")


def test_what_is_not_there_is_named(repository: Path, verb: Verb) -> None:
    assert repository.exists()
    for old, words in (("nothing.yaml", "nothing.yaml is missing"), ("HEAD~7:", "HEAD~7"), ("HEAD:x.yaml", "x.yaml")):
        code, _, err = verb("diff", old)
        assert code == 1
        assert words in err
    with pytest.raises(RevisionError):
        find("--output=x:stack.yaml")


def test_a_stack_with_mistakes_is_not_compared(small: Path, verb: Verb) -> None:
    (small / "other.yaml").write_text(SMALL.replace("chat: 50", "chatt: 50"), encoding="utf-8")
    code, _, err = verb("diff", "stack.yaml", "other.yaml")
    assert code == 1
    assert "did you mean `chat`" in err
    assert "other.yaml" in err
