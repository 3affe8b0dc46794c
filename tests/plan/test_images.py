"""Tokens of an image, against published figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.plan.images import ALIASES, RULES, image_tokens


@pytest.mark.parametrize(
    ("family", "edge", "tokens"),
    [
        ("qwen3_vl", 1024, 1024),
        ("qwen3_vl", 1025, 33 * 33),
        ("qwen2_5_vl", 1024, 37 * 37),
        ("pixtral", 1024, 4160),
        ("pixtral", 4000, 4160),
        ("pixtral", None, 4160),
        ("gemma3", 896, 256),
        ("llava", None, 576),
        ("florence2", 1024, 577),
        ("smolvlm", 512, 17 * 84),
        ("Qwen2.5-VL", 280, 100),
        ("qwen25vl", 280, 100),
    ],
)
def test_tokens_of_known_families(family: str, edge: int | None, tokens: int) -> None:
    assert image_tokens(family, edge) == tokens


@pytest.mark.parametrize(("family", "edge"), [(None, 1024), ("llama", 1024), ("qwen3_vl", None)])
def test_nothing_is_claimed_about_what_is_not_known(family: str | None, edge: int | None) -> None:
    assert image_tokens(family, edge) is None


@given(st.sampled_from(sorted(RULES)), st.integers(1, 8192), st.integers(0, 8192))
def test_a_larger_image_never_takes_fewer_tokens(family: str, edge: int, more: int) -> None:
    small, large = image_tokens(family, edge), image_tokens(family, edge + more)
    assert small is not None
    assert large is not None
    assert 0 < small <= large


def test_aliases_name_rules() -> None:
    assert set(ALIASES.values()) <= set(RULES)
    assert not set(ALIASES) & set(RULES)
