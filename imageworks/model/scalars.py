"""The scalar types of stack.yaml: what a text must look like for a field to accept it.

Owns names, addresses, paths and the annotated types that `stack` is declared with (language.md section 5); the
arithmetic of units is in `units`. Text is resolved by the field's type, never by YAML; ready Python values
(defaults, tests) pass unchanged. A refusal carries the code and texts of its diagnostic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from imageworks.model.closest import closest
from imageworks.model.part import Part
from imageworks.model.units import (
    parse_count,
    parse_duration,
    parse_number,
    parse_pixels,
    parse_priority,
    parse_range,
    parse_size,
    parse_version_number,
)
from imageworks.model.written import Suggestion, Written, instead, reads, refuse

ID = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
ID_LENGTH = 63
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
LAST_PORT = 65_535
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ABSOLUTE = re.compile(r"/|\\|~|[A-Za-z]:[/\\]")


@dataclass(frozen=True, slots=True)
class SizeBounds:
    """Bytes from `low` to below `high` (None: no upper end)."""

    low: int
    high: int | None = None


@dataclass(frozen=True, slots=True)
class VersionBounds:
    """Versions (major, minor) from `low` to below `high` (None: no upper end)."""

    low: tuple[int, int]
    high: tuple[int, int] | None = None


def _size_range(text: str) -> SizeBounds:
    return SizeBounds(*parse_range(text, parse_size, lambda size: size + 1, 0))


def _version_range(text: str) -> VersionBounds:
    return VersionBounds(*parse_range(text, parse_version_number, lambda version: (version[0], version[1] + 1), (0, 0)))


def slug(text: str) -> str:
    """The id nearest to `text`; empty when nothing of it can stand in one.

    >>> slug("Qwen3-VL (FP8)")
    'qwen3-vl-fp8'
    """
    joined = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    return re.sub(r"[._-]*([._-])[._-]*", r"\1", joined).strip("._-")[:ID_LENGTH].strip("._-")


def _id(text: str) -> str:
    if ID.fullmatch(text) and len(text) <= ID_LENGTH:
        return text
    close = slug(text)
    note = f"an id has small letters, digits and single . _ - between them, at most {ID_LENGTH} characters"
    raise refuse(
        "IW211",
        f"`{text}` cannot be an id",
        "any characters may stand in aliases",
        note,
        fixes=instead(close) if close else (),
    )


def _variable(text: str) -> str:
    if VARIABLE.fullmatch(text):
        return text
    near = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_0123456789")
    note = "capital letters, digits and _, a letter first"
    raise refuse("IW211", f"`{text}` cannot name a variable", note, fixes=instead(near) if near else ())


def _path(text: str) -> str:
    if _ABSOLUTE.match(text):
        raise _absolute(text)
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise refuse("IW304", "a path may not leave its root", "`..` leads out of it")
    if not parts or any(ord(char) < ord(" ") or char == "\\" for char in text):
        raise refuse("IW213", f"`{text}` is not a path", "names with / between them")
    return "/".join(parts)


def _root_path(value: Any) -> Any:
    """A relative path, or an absolute one in the machine's own layer."""
    if isinstance(value, Written) and value.own and value.startswith("/"):
        return f"/{_path(value.strip('/'))}"
    return _relative(value)


def _absolute(text: str) -> Exception:
    folder, _, name = text.rstrip("/").rpartition("/")
    told = f"{name}, and in stack.local.yaml  roots: {{models: {{default: {folder or '/'}}}}}"
    fixes = (Suggestion(told, name),) if _PLAIN_NAME.fullmatch(name) else ()
    note = "generated/ is compared on every machine"
    return refuse("IW304", "absolute path", "holds on one machine only", note, fixes=fixes)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,9}", port):
        raise refuse("IW213", f"`{text}` is not an address", "host:port, such as 127.0.0.1:8100")
    if not host:
        fix = f"127.0.0.1{text}"
        raise refuse("IW213", "on which address?", f"{fix} is this machine only", fixes=instead(fix))
    if not 1 <= int(port) <= LAST_PORT:
        raise refuse("IW206", f"port {port} is outside 1..{LAST_PORT}", f"a port is 1..{LAST_PORT}")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9a-fA-F:]+", host):
        raise refuse("IW213", f"`{text}` is not an address", "host:port, such as 127.0.0.1:8100")
    return host, int(port)


def _url(text: str) -> str:
    """The address of a server without a path of version 1, which the proxy adds."""
    match = re.fullmatch(
        r"(https?)://(?:([^/@\s]*)@)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[^\s?#]*)?", text
    )
    if match is None:
        raise refuse("IW213", f"`{text}` is not the address of a server", "such as http://192.168.1.20:8000")
    if match[2] is not None:
        raise refuse("IW306", "a password stands in the address", "it would be committed")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _mig_profile(text: str) -> str:
    if re.fullmatch(r"[1-7]g\.[0-9]{1,3}gb", text) is None:
        raise refuse("IW213", f"`{text}` is not a MIG profile", "as nvidia-smi -L names it, such as 3g.40gb")
    return text


def _port(text: str) -> int:
    number = parse_count(text)
    if not 1 <= number <= LAST_PORT:
        raise refuse("IW206", f"port {text} is outside 1..{LAST_PORT}", f"a port is 1..{LAST_PORT}")
    return number


def _at_least_one(text: str) -> int:
    number = parse_count(text)
    if number < 1:
        raise refuse("IW206", f"{text} is too few", "1 is the lowest")
    return number


def _whole(text: str) -> int:
    if text.startswith("-"):
        return -parse_count(text[1:])
    return parse_count(text)


def _sha256(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    small = text.lower()
    if re.fullmatch(r"[0-9a-f]{64}", small):
        fix = Suggestion("in small letters", small, safe=True)
        raise refuse("IW213", "a hash is written in small letters", "", fixes=(fix,))
    raise refuse("IW213", "this is not a SHA-256", f"{len(text)} characters; 64 of 0-9 a-f are wanted")


def _truth(text: str) -> bool:
    if text in {"true", "false"}:
        return text == "true"
    words = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
    meant = words.get(text.lower()) or (text.lower() if text.lower() in {"true", "false"} else None)
    fixes = (Suggestion(meant, meant, safe=True),) if meant else ()
    raise refuse("IW213", f"`{text}` is neither true nor false", "true or false", fixes=fixes)


def _schema_version(text: str) -> int:
    if text == "1":
        return 1
    newer = text.isascii() and text.isdigit()
    label = "this ImageWorks knows version 1" if newer else "a whole number; this ImageWorks knows 1"
    raise refuse("IW210", f"version {text} is not known", label, fixes=instead("1"))


# What an editor may accept before we read the text ourselves: never less than we do.
_TEXT = ["string", "number", "boolean"]
_COUNT = (["integer", "string"], "[0-9](?:_?[0-9])*")
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SIZE = f"{_NUMBER}(?:KiB|MiB|GiB|TiB)"
_VERSION = r"[0-9]{1,4}(?:\.[0-9]{1,4})?"
_DURATION = "(?=.)" + "".join(f"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m", "s", "ms"))


def _range_of(end: str) -> str:
    return rf"\s*(?:=\s*{end}|>=\s*{end}(?:\s*<\s*{end})?|<\s*{end})\s*"


def _in_editors(kind: str | list[str] | None = None, pattern: str | None = None, **more: Any) -> WithJsonSchema:
    """The JSON Schema of a scalar as YAML readers see it: `9.88GiB` is a string there, `8192` a number."""
    wanted = {"type": kind, "pattern": pattern and f"^(?:{pattern})$", **more}
    return WithJsonSchema({key: value for key, value in wanted.items() if value is not None})


AtLeastOne = Annotated[
    int, BeforeValidator(reads("a count", _at_least_one)), Field(ge=1), _in_editors(*_COUNT, minimum=1)
]


class Range(Part):
    """`{at_least, up_to}`: the plan chooses the largest value of it that fits a machine."""

    at_least: AtLeastOne
    up_to: AtLeastOne

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.at_least > self.up_to:
            message = f"no value is from {self.at_least} up to {self.up_to}"
            raise refuse("IW206", message, "at_least is above up_to")
        return self


def flag_value(value: Any) -> Any:
    """A passed-on value: `true`, `false` and numbers written plain keep their meaning, quoted ones are text."""
    if isinstance(value, dict):
        return {str(key): flag_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(flag_value(item) for item in value)
    if not isinstance(value, Written):
        return value
    text = str(value)
    if not value.plain:
        return text
    if text in {"true", "false"}:
        return text == "true"
    if re.fullmatch(r"-?(?:0|[1-9][0-9]{0,15})", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]{1,9}\.[0-9]{1,9}", text) else text


def _free_map(value: Any) -> Any:
    if isinstance(value, dict):
        return flag_value(value)
    raise refuse("IW200", "this wants a map of flags", "flag: value")


MigProfile = Annotated[
    str, BeforeValidator(reads("a MIG profile", _mig_profile)), _in_editors("string", r"[1-7]g\.[0-9]{1,3}gb")
]
PLACES = ("auto", "gpu", "cpu")
PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
NEVER_PARAMETERS = frozenset({"model", "messages", "prompt", "input", "stream"})
"""What a request is about; whoever changes that answers another question."""


class GpuCount(Part):
    """`{gpus: n}`: split over n GPUs."""

    gpus: AtLeastOne = Field(description="GPUs that the model is split over")


class Slice(Part):
    """`{mig: 3g.40gb}`: on a MIG slice of that profile."""

    mig: MigProfile = Field(description="MIG profile of the slice")


def _place(text: str) -> str:
    if text in PLACES:
        return text
    near = closest(text, PLACES)
    fixes = instead(near) if near else ()
    raise refuse("IW213", f"`{text}` is no place", "auto, gpu, cpu, {gpus: n} or {mig: profile}", fixes=fixes)


def _parameter(text: str) -> str:
    if text in NEVER_PARAMETERS:
        raise refuse("IW213", f"`{text}` cannot be set or taken out", "it is what the request is about")
    if PARAMETER.fullmatch(text):
        return text
    raise refuse("IW213", f"`{text}` cannot name a parameter", "letters, digits and _ . - , a letter first")


def _where(value: Any) -> str:
    if isinstance(value, Slice) or (isinstance(value, dict) and "mig" in value):
        return "<mig>"
    return "<gpus>" if isinstance(value, dict | GpuCount) else "<place>"


_RATE = re.compile(r"([0-9]{1,9})(k|M)?/(s|min|h|day)")
_IN_A_MINUTE = {"s": 60.0, "min": 1.0, "h": 1 / 60, "day": 1 / 1440}
_THOUSANDS = {None: 1, "k": 1_000, "M": 1_000_000}


def _rate(text: str) -> float:
    """Requests a minute."""
    match = _RATE.fullmatch(text)
    if match is None or not int(match[1]):
        raise refuse("IW213", f"`{text}` is no rate", "such as 30/min; s, min, h or day")
    return int(match[1]) * _THOUSANDS[match[2]] * _IN_A_MINUTE[match[3]]


def _tokens_per_day(text: str) -> int:
    match = _RATE.fullmatch(text)
    if match is None or match[3] != "day" or not int(match[1]):
        raise refuse("IW213", f"`{text}` is no number of tokens a day", "such as 200k/day")
    return int(match[1]) * _THOUSANDS[match[2]]


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise refuse("IW213", f"`{text}` is no day", "year-month-day, such as 2027-06-30") from None


def _all(text: str) -> str:
    if text == "all":
        return text
    raise refuse("IW213", f"`{text}` is neither all nor a list", "all, or a list of names", fixes=instead(f"[{text}]"))


HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,62}")


def _host(text: str) -> str:
    if HOST.fullmatch(text) and len(text) <= 253:  # noqa: PLR2004 - RFC 1035 2.3.4
        return text
    raise refuse("IW213", f"`{text}` is no host name", "such as images.example.org: no scheme, port, path or number")


def _names_or_all(value: Any) -> str:
    return "<all>" if isinstance(value, str) else "<names>"


def _none(text: str) -> str:
    if text == "none":
        return text
    raise refuse("IW213", f"`{text}` is no rule", "none, or a map of what is kept", fixes=instead("none"))


def none_or(value: Any) -> str:
    """Tag of a value that is `none` or a map."""
    return "<none>" if isinstance(value, str) else "<rule>"


def _one_or_range(value: Any) -> str:
    return "<range>" if isinstance(value, dict | Range) else "<one>"


Text = Annotated[str, BeforeValidator(reads("a text", str)), _in_editors(_TEXT)]
SomeText = Annotated[Text, Field(min_length=1), _in_editors(_TEXT, minLength=1)]
Url = Annotated[
    str,
    BeforeValidator(reads("an address such as http://192.168.1.20:8000", _url)),
    _in_editors("string", r"(?:https?://|\$\{).*"),
]
Id = Annotated[str, BeforeValidator(reads("an id", _id)), _in_editors(_TEXT, ID.pattern, maxLength=ID_LENGTH)]
VariableName = Annotated[str, BeforeValidator(reads("a name", _variable)), _in_editors("string", VARIABLE.pattern)]
_relative = reads("a path", _path)
RelativePath = Annotated[str, BeforeValidator(_relative), _in_editors(_TEXT, r"[^/\\~][^\\]*")]
RootPath = Annotated[str, BeforeValidator(_root_path), _in_editors(_TEXT)]
Sha256 = Annotated[str, BeforeValidator(reads("a SHA-256", _sha256)), _in_editors("string", "[0-9a-f]{64}")]
Truth = Annotated[
    bool, BeforeValidator(reads("true or false", _truth)), _in_editors(enum=[True, False, "true", "false"])
]
Size = Annotated[
    int, BeforeValidator(reads("a size such as 9.88GiB", parse_size)), Field(ge=0), _in_editors("string", _SIZE)
]
SizeRange = Annotated[
    SizeBounds,
    BeforeValidator(reads('a range of sizes such as ">=15GiB"', _size_range)),
    _in_editors("string", _range_of(_SIZE)),
]
VersionRange = Annotated[
    VersionBounds,
    BeforeValidator(reads('a range of versions such as ">=8.0"', _version_range)),
    _in_editors("string", _range_of(_VERSION)),
]
Duration = Annotated[
    float,
    BeforeValidator(reads("a duration such as 5m", parse_duration)),
    Field(ge=0),
    _in_editors("string", _DURATION),
]
Count = Annotated[int, BeforeValidator(reads("a count", parse_count)), Field(ge=0), _in_editors(*_COUNT, minimum=0)]
Tokens = Annotated[
    int, BeforeValidator(reads("a number of tokens", _at_least_one)), Field(ge=1), _in_editors(*_COUNT, minimum=1)
]
Pixels = Annotated[
    int,
    BeforeValidator(reads("a length such as 1024px", parse_pixels)),
    Field(ge=1),
    _in_editors("string", "[1-9][0-9]{0,5}px"),
]
Priority = Annotated[
    int,
    BeforeValidator(reads("a priority 0..100", parse_priority)),
    Field(ge=0, le=100),
    _in_editors(["integer", "string"], "[0-9]{1,3}", minimum=0, maximum=100),
]
Port = Annotated[
    int,
    BeforeValidator(reads("a port", _port)),
    Field(ge=1, le=LAST_PORT),
    _in_editors(*_COUNT, minimum=1, maximum=LAST_PORT),
]
Whole = Annotated[
    int, BeforeValidator(reads("a whole number", _whole)), _in_editors(["integer", "string"], f"-?{_COUNT[1]}")
]
Number = Annotated[
    float,
    BeforeValidator(reads("a number", parse_number)),
    _in_editors(["number", "string"], r"-?[0-9]{1,9}(\.[0-9]{1,9})?"),
]
Address = Annotated[
    tuple[str, int],
    BeforeValidator(reads("an address such as 127.0.0.1:8100", _address)),
    _in_editors("string", ".+:[0-9]{1,5}"),
]
SchemaVersion = Annotated[
    Literal[1], BeforeValidator(reads("the number 1", _schema_version)), _in_editors(enum=[1, "1"])
]
ParameterName = Annotated[str, BeforeValidator(reads("a parameter", _parameter)), _in_editors(_TEXT, PARAMETER.pattern)]
Placement = Annotated[
    Annotated[str, BeforeValidator(reads("a place", _place)), _in_editors(enum=list(PLACES)), Tag("<place>")]
    | Annotated[GpuCount, Tag("<gpus>")]
    | Annotated[Slice, Tag("<mig>")],
    Discriminator(_where),
]
RateOf = Annotated[float, BeforeValidator(reads("a rate such as 30/min", _rate)), _in_editors("string", _RATE.pattern)]
TokensPerDay = Annotated[
    int,
    BeforeValidator(reads("tokens such as 200k/day", _tokens_per_day)),
    _in_editors("string", "[0-9]{1,9}(k|M)?/day"),
]
Day = Annotated[
    str, BeforeValidator(reads("a day such as 2027-06-30", _day)), _in_editors("string", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
]
NamesOrAll = Annotated[
    Annotated[str, BeforeValidator(reads("all", _all)), _in_editors(enum=["all"]), Tag("<all>")]
    | Annotated[tuple[Id, ...], Tag("<names>")],
    Discriminator(_names_or_all),
]
HostsOrAll = Annotated[
    Annotated[str, BeforeValidator(reads("all", _all)), _in_editors(enum=["all"]), Tag("<all>")]
    | Annotated[
        tuple[Annotated[str, BeforeValidator(reads("a host name", _host)), _in_editors(_TEXT, HOST.pattern)], ...],
        Tag("<names>"),
    ],
    Discriminator(_names_or_all),
]
NoRule = Annotated[Literal["none"], BeforeValidator(reads("none", _none)), _in_editors(enum=["none"])]
Quality = Annotated[
    int,
    BeforeValidator(reads("a quality 1..100", _at_least_one)),
    Field(ge=1, le=100),
    _in_editors(*_COUNT, maximum=100),
]
ParameterValue = Annotated[Any, BeforeValidator(flag_value)]
FreeMap = Annotated[dict[str, Any], BeforeValidator(_free_map), _in_editors("object")]
TokensOrRange = Annotated[
    Annotated[Tokens, Tag("<one>")] | Annotated[Range, Tag("<range>")], Discriminator(_one_or_range)
]
CountOrRange = Annotated[
    Annotated[AtLeastOne, Tag("<one>")] | Annotated[Range, Tag("<range>")], Discriminator(_one_or_range)
]
