"""Forms: read as every parser reads them, or refused; changed nowhere but where the proxy says so."""

from __future__ import annotations

import email
import email.policy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.runtime.errors import ApiError
from imageworks.runtime.form import MOST_PARTS, VALUE_BYTES, read

TYPE = "multipart/form-data; boundary=xX"
VALUES = st.binary(max_size=60).filter(lambda value: b"\r\n--xX" not in b"\r\n" + value)


def part(name: str, value: bytes, more: bytes = b"") -> bytes:
    return b'--xX\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), more, value)


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--xX--\r\n"


def refused(data: bytes, kind: str = TYPE) -> str:
    with pytest.raises(ApiError) as caught:
        read(kind, data)
    assert caught.value.status in (400, 415)
    return caught.value.message


@given(st.lists(VALUES, max_size=5), st.text(alphabet="abc.-_:", min_size=1, max_size=20))
def test_a_form_is_what_pythons_own_parser_reads_and_comes_back_unchanged(files: list[bytes], model: str) -> None:
    parts = [part(f"f{place}[]", value) for place, value in enumerate(v for v in files if _utf8(v))]
    data = body(
        *parts,
        part("model", model.encode()),
        part("file", b"\0".join(files)[:40].replace(b"\r\n--xX", b""), b'; filename="x"'),
    )
    form = read(TYPE, data)
    assert b"".join(form.changed(model, ())) == data
    head = b"Content-Type: multipart/form-data; boundary=xX\r\n\r\n"
    told = email.message_from_bytes(head + data, policy=email.policy.HTTP)
    assert [each.get_param("name", header="content-disposition") for each in told.iter_parts()] == [
        each.name for each in form.parts
    ]
    assert msgspec.json.decode(form.fields["model"]) == model


def _utf8(value: bytes) -> bool:
    try:
        return bool(value.decode()) or True
    except UnicodeDecodeError:
        return False


def test_the_model_is_renamed_and_stripped_parts_are_gone() -> None:
    data = body(
        part("model", b"ear"),
        part("prompt", b"x"),
        part("file", b"ear", b'; filename="model"'),
        part("include[]", b"a"),
    )
    form = read(TYPE, data)
    assert b"".join(form.changed("whisper", ("prompt", "include"))) == body(
        part("model", b"whisper"), part("file", b"ear", b'; filename="model"')
    )


def test_values_are_read_as_what_they_mean() -> None:
    form = read(
        TYPE,
        body(part("stream", b"True"), part("include[]", b"a"), part("include[]", b"b"), part("language", b"\xc3\xa9")),
    )
    assert {name: msgspec.json.decode(raw) for name, raw in form.fields.items()} == {
        "stream": True, "include": ["a", "b"], "language": "é",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (body(part("model", b"a"), part("model", b"b")), "`model` is given twice"),
        (body(part("file", b"a", b'; filename="a"'), part("file", b"b", b'; filename="b"')), "`file` is given twice"),
        (body(part("prompt", b"a"), part("prompt", b"b")), "`prompt` is given twice"),
        (b"preamble\r\n" + body(part("model", b"a")), "begin"),
        (body(part("model", b"a")) + b"epilogue", "follows"),
        (part("model", b"a"), "end is missing"),
        (b"", "begin"),
        (b"--xX--\r\n", "begin"),
        (body(part("model", b"a\r\n--xXY")), "within a line"),
        (body(b"--xX\r\nContent-Type: text/plain\r\n\r\na\r\n"), "malformed"),
        (body(b'--xX\r\nContent-Disposition: form-data; name="model\r\n\r\na\r\n'), "malformed"),
        (body(b'--xX\nContent-Disposition: form-data; name="model"\n\na\r\n'), "begin"),
        (body(b"--xX\r\nContent-Disposition: form-data; name=model\r\n\r\na\r\n"), "malformed"),
        (body(b'--xX\r\nContent-Disposition: form-data; name="a"; name="model"\r\n\r\na\r\n'), "malformed"),
        (body(part("prompt", b"x" * (VALUE_BYTES + 1))), "over"),
        (body(part("prompt", b"\xff")), "UTF-8"),
        (body(*(part(f"p{place}", b"") for place in range(MOST_PARTS + 1))), "more than"),
    ],
)
def test_what_two_parsers_may_read_differently_is_refused(data: bytes, why: str) -> None:
    assert why in refused(data)


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", 'multipart/form-data; boundary="', "multipart/mixed; boundary=xX",
     "multipart/form-data; boundary=a; boundary=b", "multipart/form-data; boundary=" + "x" * 71],
)  # fmt: skip
def test_another_type_is_a_415(kind: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(kind, body(part("model", b"a")))
    assert caught.value.status == 415


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    status = 400
    try:  # anything but ApiError is a crash
        read(TYPE, b"--xX\r\n" + data)
    except ApiError as error:
        status = error.status
    assert status == 400
