from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from imageworks.model import scalars
from imageworks.model.scalars import ID, ID_LENGTH, Range, flag_value, slug
from imageworks.model.written import Written


def value(kind: Any, text: str, *, plain: bool = True) -> Any:
    return TypeAdapter(kind).validate_python(Written(text, plain=plain))


def code(kind: Any, text: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(Written(text, plain=True) if isinstance(text, str) else text)
    return str(caught.value.errors()[0]["type"])


@pytest.mark.parametrize("text", ["no", "1.10", "012", "true", "null", "~", "1e3"])
def test_text_stays_what_was_written(text: str) -> None:
    found = value(scalars.Text, text)
    assert found == text
    assert type(found) is str


@pytest.mark.parametrize("text", ["qwen2.5-vl-7b-q4", "a", "7", "compact_8gb", "a" * ID_LENGTH])
def test_ids_are_taken(text: str) -> None:
    assert value(scalars.Id, text) == text


@pytest.mark.parametrize("text", ["Qwen", "a b", "a--b", "-a", "a.", "", "é", "a" * (ID_LENGTH + 1), "a\n"])
def test_other_names_go_into_aliases(text: str) -> None:
    assert code(scalars.Id, text) == "IW211"


@given(st.text(max_size=90))
def test_a_slug_is_an_id_or_nothing(text: str) -> None:
    made = slug(text)
    assert made == "" or (ID.fullmatch(made) and len(made) <= ID_LENGTH)
    assert slug(made) == made


@pytest.mark.parametrize(
    ("text", "path"), [("Qwen/Qwen3-VL-8B", "Qwen/Qwen3-VL-8B"), ("./a//b/", "a/b"), (".imageworks", ".imageworks")]
)
def test_paths_are_relative(text: str, path: str) -> None:
    assert value(scalars.RelativePath, text) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/x", "IW304"),
        ("~/x", "IW304"),
        ("C:\\x", "IW304"),
        ("a/../b", "IW304"),
        ("..", "IW304"),
        ("", "IW213"),
        (".", "IW213"),
        ("a\nb", "IW213"),
    ],
)
def test_paths_stay_under_their_root(text: str, expected: str) -> None:
    assert code(scalars.RelativePath, text) == expected


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8100", ("127.0.0.1", 8100)), ("[::1]:8100", ("::1", 8100)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert value(scalars.Address, text) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:81000", "IW206"),
        (":8100", "IW213"),
        ("8100", "IW213"),
        ("a b:1", "IW213"),
        ("x:0", "IW206"),
        ("x:", "IW213"),
    ],
)
def test_what_is_no_address_is_refused(text: str, expected: str) -> None:
    assert code(scalars.Address, text) == expected


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("https://a.b/v1/", "https://a.b"),
        ("http://[::1]:9/x/v1", "http://[::1]:9/x"),
    ],
)
def test_the_address_of_a_server_is_kept_without_its_version(text: str, url: str) -> None:
    assert value(scalars.Url, text) == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "IW213"),
        ("ftp://x", "IW213"),
        ("http://", "IW213"),
        ("http://x?key=1", "IW213"),
        ("http://me:word@x", "IW306"),
    ],
)
def test_what_is_no_address_of_a_server_is_refused(text: str, expected: str) -> None:
    assert code(scalars.Url, text) == expected


def test_truth_has_two_words() -> None:
    assert [value(scalars.Truth, text) for text in ("true", "false")] == [True, False]
    assert [code(scalars.Truth, text) for text in ("yes", "True", "1", "maybe")] == ["IW213"] * 4


def test_a_hash_has_64_small_hexadecimal_digits() -> None:
    assert value(scalars.Sha256, "0f" * 32) == "0f" * 32
    assert [code(scalars.Sha256, text) for text in ("0F" * 32, "0f", "xy" * 32)] == ["IW213"] * 3


def test_one_value_or_a_range() -> None:
    assert value(scalars.TokensOrRange, "8_192") == 8192
    adapter: TypeAdapter[Any] = TypeAdapter(scalars.TokensOrRange)
    texts = {key: Written(text, plain=True) for key, text in {"at_least": "6144", "up_to": "32768"}.items()}
    assert adapter.validate_python(texts) == Range(at_least=6144, up_to=32768)
    assert code(scalars.TokensOrRange, {"at_least": "9", "up_to": "8"}) == "IW206"
    assert code(scalars.TokensOrRange, "0") == "IW206"


def test_passed_on_flags_keep_their_kind() -> None:
    texts = {
        "a": ("true", True),
        "b": ("true", False),
        "c": ("4", True),
        "d": ("0.5", True),
        "e": ("012", True),
        "f": ("-1", True),
    }
    written: dict[str, Any] = {key: Written(text, plain=plain) for key, (text, plain) in texts.items()}
    written["g"] = {"image": Written("2", plain=True), "list": [Written("x", plain=True)]}
    found = TypeAdapter(scalars.FreeMap).validate_python(written)
    assert found == {"a": True, "b": "true", "c": 4, "d": 0.5, "e": "012", "f": -1, "g": {"image": 2, "list": ("x",)}}


@pytest.mark.parametrize("kind", ["Text", "Size", "Duration", "Count", "Id", "Truth", "Address", "SizeRange"])
def test_a_map_or_list_is_no_single_value(kind: str) -> None:
    assert code(getattr(scalars, kind), {"a": "b"}) == "IW200"
    assert code(getattr(scalars, kind), ["a"]) == "IW200"


def test_ready_values_pass_unchanged() -> None:
    assert TypeAdapter(scalars.Size).validate_python(1 << 30) == 1 << 30
    assert TypeAdapter(scalars.Duration).validate_python(90.0) == 90.0


def test_a_list_for_an_engine_keeps_the_kinds_of_its_items() -> None:
    assert flag_value([Written("1", plain=True), Written("1", plain=False)]) == (1, "1")
