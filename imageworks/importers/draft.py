"""A stack in the making: what an import has understood, and the text that says it.

Owns `Draft` and `finish`, which writes the text, has it compiled, and takes out (and reports) every key that the
compiler refuses. So the rules of values and flags stand in the compiler alone, and what an import writes compiles.
The compiler is handed in: nothing is planned here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from imageworks.diagnostics.model import Diagnostic, Span
from imageworks.importers.report import Report
from imageworks.importers.yaml_text import Value, comment, flow, scalar
from imageworks.model.grammar import takes_text

STACK = "stack.yaml"
NESTED = ("vllm", "env")
"""Keys of a model whose own keys get a line each, so that one that is refused costs only itself."""
ESSENTIAL = ("backend", "source", "command", "url")
"""Without these a model is not one: where they are refused, the whole model is left out."""

Compile = Callable[[str], tuple[Diagnostic, ...]]
"""Everything that the compiler finds in the text of a stack, the spans in a file called `STACK`."""


@dataclass(slots=True)
class ModelDraft:
    """One model: its keys in the order in which they are written, and where it comes from."""

    id: str
    fields: dict[str, Value]
    span: Span | None = None
    comment: str = ""


@dataclass(slots=True)
class Draft:
    """The whole stack: top-level values on one line each, then models, then roles of its own."""

    head: str
    top: dict[str, Value] = field(default_factory=dict)
    models: list[ModelDraft] = field(default_factory=list)
    roles: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Imported:
    """`text` is None when there is nothing to write; `texts` are the sources that the findings' spans point into."""

    text: str | None
    diagnostics: tuple[Diagnostic, ...]
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the text and the key it stands for; `key` None for the name of a model or role."""

    text: str
    section: str = ""
    name: str = ""
    key: str | None = None
    part: str | None = None


def finish(draft: Draft, report: Report, texts: Mapping[str, str], compile_text: Compile) -> Imported:
    """The text of `draft` without what the compiler refuses, and all findings.

    An error that no line of the draft can be blamed for stays; the caller sees it when it compiles the text.
    """
    while draft.models:
        lines = tuple(_lines(draft))
        text = "".join(f"{line.text}\n" for line in lines)
        refused = [item for item in compile_text(text) if item.is_error]
        taken = [_take_out(draft, lines, item, report) for item in refused]
        if not any(taken):
            return Imported(text, tuple(report.found), texts)
    why = "every entry was left out; the reasons stand above" if report.found else "there is no entry in it"
    report.tell("IW800", "no model could be imported", None, why)
    return Imported(None, tuple(report.found), texts)


def _lines(draft: Draft) -> Iterator[_Line]:
    yield _Line(comment(draft.head))
    yield _Line("version: 1")
    for key, value in draft.top.items():
        yield _Line(f"{scalar(key)}: {flow(_literal(value, (key,)))}", "top", key)
    yield _Line("models:")
    for model in draft.models:
        yield _Line(f"  {model.id}:{f'   {comment(model.comment)}' if model.comment else ''}", "models", model.id)
        for key, value in model.fields.items():
            literal = _literal(value, ("models", model.id, key))
            if key not in NESTED or not isinstance(literal, Mapping):
                yield _Line(f"    {scalar(key)}: {flow(literal)}", "models", model.id, key)
                continue
            yield _Line(f"    {scalar(key)}:", "models", model.id, key)
            for part, item in literal.items():
                yield _Line(f"      {scalar(part)}: {flow(item)}", "models", model.id, key, part)
    if draft.roles:
        yield _Line("roles:")
        for name, value in draft.roles.items():
            yield _Line(f"  {scalar(name)}: {flow(value)}", "roles", name)


def _literal(value: Value, path: tuple[str | int, ...]) -> Value:
    """`value` with every dollar doubled where `${…}` would be a variable; a command's words are written as they are."""
    if isinstance(value, Mapping):
        return {key: _literal(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(item, (*path, index)) for index, item in enumerate(value)]
    in_command = path[2:3] == ("command",)
    return value.replace("$", "$$") if isinstance(value, str) and not in_command and takes_text(path) else value


def _take_out(draft: Draft, lines: tuple[_Line, ...], refused: Diagnostic, report: Report) -> bool:
    """Remove what `refused` is about; False when nothing of the draft stands at its place."""
    if refused.primary is None or not 1 <= refused.primary.span.line <= len(lines):
        return False
    line = lines[refused.primary.span.line - 1]
    if line.section == "top":
        report.tell("IW805", f"`{line.name}` is not carried over: {refused.message}", None, *refused.notes)
        return draft.top.pop(line.name, None) is not None
    if line.section == "roles":
        report.tell("IW805", f"role `{line.name}` is not carried over: {refused.message}", None, *refused.notes)
        return draft.roles.pop(line.name, None) is not None
    model = next((item for item in draft.models if item.id == line.name), None)
    if line.section != "models" or model is None:
        return False
    if line.key is None or line.key in ESSENTIAL:
        draft.models.remove(model)
        report.tell("IW802", f"{model.id} is left out: {refused.message}", model.span, *refused.notes)
        return True
    name = line.key if line.part is None else f"{line.key}.{line.part}"
    message = f"{model.id}: `{name}` is not carried over: {refused.message}"
    if _remove(model, line.key, line.part):
        report.tell("IW805", message, model.span, *refused.notes)
    return True


def _remove(model: ModelDraft, key: str, part: str | None) -> bool:
    """Take `key`, or one part of it, out of the model; False when another finding did so already."""
    value = model.fields.get(key)
    if part is None or not isinstance(value, dict):
        return model.fields.pop(key, None) is not None
    found = value.pop(part, None) is not None
    if not value:
        del model.fields[key]
    return found
