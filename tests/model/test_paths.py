from __future__ import annotations

import pytest

from imageworks.model.loaded import Path
from imageworks.model.paths import Unknown, children, dotted, find

PATHS: list[Path] = [
    (),
    ("models",),
    ("models", "qwen2.5-vl"),
    ("models", "qwen2"),
    ("models", "qwen2.5-vl", "aliases"),
    ("models", "qwen2.5-vl", "aliases", 0),
    ("models", "qwen2.5-vl", "context"),
    ("prompts",),
    ("prompts", "bind"),
    ("prompts", "bind", "tagger.caption"),
]


@pytest.mark.parametrize("path", PATHS[1:])
def test_every_path_is_found_as_it_is_written(path: Path) -> None:
    assert find(dotted(path), children(PATHS)) == path


def test_an_index_may_stand_in_brackets() -> None:
    assert find("models.qwen2.5-vl.aliases[0]", children(PATHS)) == ("models", "qwen2.5-vl", "aliases", 0)


@pytest.mark.parametrize("text", ["models.qwen2.5-vl.grace", "proxy.limits.body"])
def test_what_may_stand_in_the_file_is_found_though_it_does_not(text: str) -> None:
    assert isinstance(find(text, children(PATHS)), tuple)


@pytest.mark.parametrize(
    ("text", "reached", "near"),
    [
        ("modles", (), "models"),
        ("models.qwen3.5-lv.context", ("models",), "qwen2.5-vl"),
        ("models.qwen2.5-vl.contxt", ("models", "qwen2.5-vl"), "context"),
        ("models.qwen2.5-vl.port", ("models", "qwen2.5-vl"), None),
        ("models.qwen2.5-vl.context.x", ("models", "qwen2.5-vl", "context"), None),
    ],
)
def test_an_unknown_path_says_how_far_it_leads(text: str, reached: Path, near: str | None) -> None:
    found = find(text, children(PATHS))
    assert isinstance(found, Unknown)
    assert (found.reached, found.near) == (reached, near)


def test_names_that_are_never_written_count_for_models() -> None:
    assert find("models.qwen2.5-vl.budget", children(PATHS), ("budget",)) == ("models", "qwen2.5-vl", "budget")
    assert isinstance(find("prompts.budget", children(PATHS), ("budget",)), Unknown)
