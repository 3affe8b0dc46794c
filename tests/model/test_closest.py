from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.model import Applicability
from imageworks.model.closest import closest, meant, renaming
from imageworks.model.stack import Stack
from imageworks.source.text import SourceFile

KEYS = tuple(Stack.model_fields)


@pytest.mark.parametrize(
    ("word", "known", "sure"),
    [
        ("captoin", ["caption", "keywords"], "caption"),
        ("bakend", ["backend"], "backend"),
        ("tager_default", ["tagger_default", "other"], "tagger_default"),
        ("concurent_limited", ["concurrent_limited", "concurrent_full"], "concurrent_limited"),
        ("Max-Tokens", ["max_tokens"], "max_tokens"),
        ("qwen3-vl-8b", ["qwen3-vl-8b-fp8", "siglip"], "qwen3-vl-8b-fp8"),
        ("qwen3-vl-8b", ["qwen3-vl-8b-fp8", "qwen3-vl-8b-awq"], None),
        ("qwen-c", ["qwen-a", "qwen-b"], None),
        ("q4_0", ["q4_1"], None),
        ("fp16", ["fp8", "fp32"], None),
        ("startup", ["start_timeout"], None),
        ("quantization", ["prefer_quantizations"], None),
        ("caption", ["pin", "detection"], None),
        ("pot", ["port", "pin"], "port"),
        ("pat", ["port"], None),
        ("gibberish", ["port"], None),
    ],
)
def test_only_a_slip_with_one_candidate_is_sure(word: str, known: list[str], sure: str | None) -> None:
    assert meant(word, known) == sure


def test_a_sure_name_is_a_safe_fix_and_another_is_for_a_person() -> None:
    span = SourceFile("a.yaml", "captoin: 1\n").span(0, 7)
    safe = renaming(span, "captoin", "caption", ["caption"], sign="+")
    assert (safe.text, safe.applicability, safe.edits[0].replacement) == ("rename", Applicability.SAFE, "caption+")
    other = renaming(span, "startup", "start_timeout", ["start_timeout"])
    assert (other.text, other.applicability) == ("start_timeout, if that is meant", Applicability.CHOOSE)
    assert other.edits[0].replacement == "start_timeout"


@given(st.sampled_from([key for key in KEYS if len(key) > 4]), st.data())
def test_one_slip_in_a_key_is_always_found(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 2))
    slips = (key[:at] + key[at + 1 :], key[:at] + "x" + key[at:], key[:at] + key[at + 1] + key[at] + key[at + 2 :])
    assert meant(data.draw(st.sampled_from(slips)), KEYS) == key


@given(st.text("abc12-_", max_size=8), st.lists(st.text("abc12-_", max_size=8), max_size=6))
def test_what_is_sure_is_known_and_lies_near(word: str, known: list[str]) -> None:
    sure = meant(word, known)
    assert sure is None or sure in known
    assert word not in known or sure is None or sure == word or closest(word, known) == sure
