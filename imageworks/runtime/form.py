"""A form with a file (multipart/form-data): read strictly, passed on unchanged but for what the proxy decides.

Owns `Form`: where each part lies in the client's bytes, its small values, and the pieces that go to the engine, in which
`model` has the engine's own name and stripped parts are left out. Two parsers that read one form differently are an
attack: a form is one that every parser reads alike, or refused. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from imageworks.runtime.elide import Body, Pieces
from imageworks.runtime.errors import ApiError

_TYPE = re.compile(
    r"""multipart/form-data[ \t]*;[ \t]*boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1[ \t]*""", re.IGNORECASE
)
_HEAD = re.compile(
    rb'(?:[!-9;-~]+:[^\r\n\0]*\r\n)*?content-disposition:[ \t]*form-data;[ \t]*name="([^"\\\r\n\0]{1,64})"'
    rb'(;[ \t]*filename="[^"\r\n\0]*"(?:;[^\r\n\0]*)?)?[ \t]*\r\n(?:[!-9;-~]+:[^\r\n\0]*\r\n)*',
    re.IGNORECASE,
)
MOST_PARTS = 64
VALUE_BYTES = 64 << 10
_LINE = b"\r\n"
_YES = frozenset(("true", "1", "yes"))


@dataclass(frozen=True, slots=True)
class Part:
    """Places in the body: the part from its delimiter to the next one, and its value."""

    name: str
    begin: int
    end: int
    value: slice


@dataclass(frozen=True, slots=True)
class Form:
    """A readable form; `fields` are its values but for files, as JSON texts under the names without `[]`."""

    content_type: str
    body: Body
    parts: tuple[Part, ...]
    fields: Mapping[str, msgspec.Raw]

    def changed(self, model: str, without: Collection[str]) -> Pieces:
        """The body with another `model`, without the parts of those names."""
        view = memoryview(self.body)
        pieces: list[bytes | memoryview] = []
        for part in self.parts:
            if part.name == "model":
                pieces += (view[part.begin : part.value.start], model.encode(), view[part.value.stop : part.end])
            elif part.name.removesuffix("[]") not in without:
                pieces.append(view[part.begin : part.end])
        return (*pieces, view[self.parts[-1].end :])


def read(content_type: str, body: Body) -> Form:
    """Read a form. Raises ApiError 415 for another type, 400 for what is ambiguous."""
    found = _TYPE.fullmatch(content_type)
    if found is None:
        raise ApiError(415, "form_expected", "this endpoint takes multipart/form-data with a boundary")
    parts = _parts(body, b"--" + found[2].encode("ascii"))
    return Form(content_type, body, parts, _fields(body, parts))


def _parts(body: Body, delimiter: bytes) -> tuple[Part, ...]:
    if not body.startswith(delimiter + _LINE):
        raise _bad("it does not begin with its boundary")
    parts: list[Part] = []
    at = 0
    while True:
        begin = at + len(delimiter) + len(_LINE)
        head = _HEAD.match(body, begin)
        if head is None or body[head.end() : head.end() + 2] != _LINE:
            raise _bad(f"the head of part {len(parts) + 1} is malformed")
        first = head.end() + len(_LINE)
        last = body.find(_LINE + delimiter, first)
        if last < 0:
            raise _bad("its end is missing")
        at = last + len(_LINE)
        # a delimiter that is only the beginning of a line is one to some parsers and none to others
        follows = bytes(body[at + len(delimiter) : at + len(delimiter) + 2])
        parts.append(
            Part(head[1].decode("utf-8", "replace"), begin - len(delimiter) - len(_LINE), at, slice(first, last))
        )
        if len(parts) > MOST_PARTS:
            raise _bad(f"it has more than {MOST_PARTS} parts")
        if follows == b"--":
            if bytes(body[at + len(delimiter) + 2 :]) not in (b"", _LINE):
                raise _bad("something follows its end")
            return tuple(parts)
        if follows != _LINE:
            raise _bad("its boundary stands within a line")


def _fields(body: Body, parts: tuple[Part, ...]) -> Mapping[str, msgspec.Raw]:
    texts: dict[str, list[str]] = {}
    for part in parts:
        if part.name in ("file", "model") and part.name in texts:
            raise _bad(f"`{part.name}` is given twice")
        values = texts.setdefault(part.name, [])
        if part.name != "file":
            values.append(_text(part, bytes(body[part.value][: VALUE_BYTES + 1])))
    repeated = [name for name, values in texts.items() if len(values) > 1 and not name.endswith("[]")]
    if repeated:
        raise _bad(f"`{repeated[0]}` is given twice")
    return {name.removesuffix("[]"): _raw(name, values) for name, values in texts.items() if name != "file"}


def _text(part: Part, value: bytes) -> str:
    if len(value) > VALUE_BYTES:
        raise _bad(f"`{part.name}` is over {VALUE_BYTES} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _bad(f"`{part.name}` is not UTF-8") from None


def _raw(name: str, values: list[str]) -> msgspec.Raw:
    value: object = values if name.endswith("[]") else values[0]
    if name == "stream":
        value = values[0].strip().lower() in _YES
    return msgspec.Raw(msgspec.json.encode(value))


def _bad(message: str) -> ApiError:
    return ApiError(400, "invalid_form", f"the form cannot be read: {message}")
