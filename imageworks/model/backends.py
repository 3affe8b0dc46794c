"""What a model of each backend may and must say.

Owns the table of keys and sources that belong to some backends only, and the findings about them. A model whose
backend is unknown gets none: that is one error, not thirty.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Span
from imageworks.model.names import entries
from imageworks.model.sources import SOURCE_KINDS
from imageworks.source.tree import MapNode, Node, ScalarNode, at

BACKENDS = ("vllm", "llamacpp", "ollama", "openai")
BACKEND_KEYS = {
    "vllm": ("vllm",),
    "sleep": ("vllm",),
    "template": ("vllm", "llamacpp"),
    "command": ("openai",),
    "env": ("openai",),
    "url": ("openai",),
    "key": ("openai",),
}
SOURCE_KEYS = {"mmproj": ("llamacpp",), "file": ("llamacpp",)}
SOURCES = {
    "vllm": ("path", "hf", "same_as"),
    "llamacpp": ("path", "hf", "package", "same_as"),
    "ollama": ("ollama", "same_as"),
    "openai": ("path", "hf", "package", "same_as"),
}
DERIVED_ENV = {
    "CUDA_VISIBLE_DEVICES": "the plan says on which GPUs a model runs: `placement`",
    "CUDA_DEVICE_ORDER": "the plan counts GPUs in the order of their bus",
    "IMAGEWORKS_STACK": "the launcher sets it, to know its programs again",
    "IMAGEWORKS_PROGRAM": "the launcher sets it, to know its programs again",
    "SPT_NOENV": "the launcher sets it, to know its programs again by their environment",
}
WHY = {
    ("vllm", "mmproj"): "vLLM reads the vision tower from the model folder",
    ("vllm", "file"): "vLLM reads a whole folder",
    ("ollama", "mmproj"): "Ollama keeps it in the tag",
}


def misplaced(root: MapNode) -> Iterator[Diagnostic]:
    """Findings about keys and sources that do not go with a model's backend."""
    for name, entry in entries(root, "models"):
        backend = at(entry.value, "backend")
        if isinstance(entry.value, MapNode) and isinstance(backend, ScalarNode) and backend.text in BACKENDS:
            yield from _keys(entry.value, backend)
            yield from _origin(root, name, entry.key, backend)


def _keys(model: MapNode, backend: ScalarNode) -> Iterator[Diagnostic]:
    for key, entry in model.entries.items():
        if backend.text not in BACKEND_KEYS.get(key, BACKENDS):
            left = entry.key.file != backend.span.file and bool(model.entries["backend"].shadowed)
            yield _left_over(key, entry.key, backend) if left else _foreign(key, entry.key, backend, BACKEND_KEYS[key])
    source = model.get("source")
    if not isinstance(source, MapNode):
        return
    kinds = [kind for kind in source.entries if kind in SOURCE_KINDS]
    known = SOURCE_KINDS[kinds[0]].model_fields if len(kinds) == 1 else {}
    for key, entry in source.entries.items():
        if key in SOURCE_KEYS and key in known and kinds != ["package"] and backend.text not in SOURCE_KEYS[key]:
            yield _foreign(key, Span(*_joined(entry.key, entry.value)), backend, SOURCE_KEYS[key])


def _joined(key: Span, value: Node) -> tuple[str, int, int, int, int, int, int]:
    end = value.span
    return key.file, key.start, end.end, key.line, key.column, end.end_line, end.end_column


def _left_over(key: str, span: Span, backend: ScalarNode) -> Diagnostic:
    """A layer changed the backend and left a key of the old one standing below."""
    return Diagnostic(
        "IW205",
        f"a layer changes the backend to {backend.text}, and `{key}` of the old one remains",
        Label(span, f"belongs to backend {' and '.join(BACKEND_KEYS[key])}"),
        secondary=(Label(backend.span, "changed here"),),
        fixes=(Fix(f"{key}-: […]  or a model of its own in the layer"),),
    )


def _foreign(key: str, span: Span, backend: ScalarNode, owners: tuple[str, ...]) -> Diagnostic:
    owner = " and ".join(owners)
    why = WHY.get((backend.text, key))
    return Diagnostic(
        "IW201",
        f"`{key}` does not belong to backend {backend.text}",
        Label(span, f"known for backend {owner}"),
        notes=(why,) if why else (),
        fixes=(Fix(f"remove it, or `backend: {owners[0]}` (line {backend.span.line})"),),
    )


def _origin(root: MapNode, name: str, key: Span, backend: ScalarNode) -> Iterator[Diagnostic]:
    model = at(root, "models", name)
    source, command, url = (at(model, part) for part in ("source", "command", "url"))
    if backend.text == "openai":
        yield from _server(key, source, command, url, model)
        yield from _without_effect(command, url, model)
        yield from _derived(model)
    elif source is None:
        kinds = ", ".join(SOURCES[backend.text])
        label = Label(key, "where do its weights come from?")
        yield Diagnostic(
            "IW202",
            "`source` is missing",
            label,
            notes=(f"one of: {kinds}",),
            fixes=(Fix("source: {path: FILE} for a file under roots.models"),),
        )
    if isinstance(source, MapNode):
        yield from _kind(root, source, backend)


def _server(
    key: Span, source: Node | None, command: Node | None, url: Node | None, model: Node | None
) -> Iterator[Diagnostic]:
    """An OpenAI-compatible server is either remote (`url`) or started by us (`command`)."""
    if command is None and url is None:
        label = Label(key, "neither `url` nor `command`")
        yield Diagnostic(
            "IW220",
            "how is this server reached?",
            label,
            fixes=(Fix("url: http://host:port  for a running server, or  command: […]  for one that we start"),),
        )
    other = "command" if command is not None else "source" if source is not None else None
    if url is not None and other is not None and isinstance(model, MapNode):
        first = Label(model.entries["url"].key, "reached there")
        label = Label(model.entries[other].key, "a remote server is neither started nor given files by us")
        yield Diagnostic(
            "IW220", f"`url` and `{other}` exclude each other", label, secondary=(first,), fixes=(Fix("keep one"),)
        )


def _without_effect(command: Node | None, url: Node | None, model: Node | None) -> Iterator[Diagnostic]:
    """`env` is for a program that we start, `key` for a server that we do not."""
    pairs = (("env", "command", command, url), ("key", "url", url, command))
    for name, wants, there, instead in pairs:
        entry = model.entries.get(name) if isinstance(model, MapNode) else None
        if entry is not None and there is None and instead is not None:
            label = Label(entry.key, f"has no effect without `{wants}`")
            way = "give it to its server where that runs" if name == "env" else "env: {NAME: {secret: NAME}}"
            yield Diagnostic(
                "IW220", f"`{name}` is for a model with `{wants}`", label, fixes=(Fix(f"remove it, or  {way}"),)
            )


def _derived(model: Node | None) -> Iterator[Diagnostic]:
    for name, entry in entries(model, "env") if isinstance(model, MapNode) else ():
        if name in DERIVED_ENV:
            label = Label(entry.key, DERIVED_ENV[name])
            yield Diagnostic("IW510", f"`{name}` is derived", label, fixes=(Fix("remove it"),))


def _kind(root: MapNode, source: MapNode, backend: ScalarNode) -> Iterator[Diagnostic]:
    own = next((kind for kind in SOURCE_KINDS if kind in source.entries), None)
    kind = _resolved(root, source) if own == "same_as" else own
    if own is None or kind is None:
        return
    entry = source.entries[own]
    if kind not in SOURCES[backend.text]:
        label = Label(entry.key, f"backend {backend.text} reads {', '.join(SOURCES[backend.text])}")
        fixes = (
            Fix(f"backend: {', '.join(name for name in BACKENDS if kind in SOURCES[name])} (line {backend.span.line})"),
        )
        yield Diagnostic("IW307", f"backend {backend.text} cannot read a source of kind {kind}", label, fixes=fixes)
    if kind == own == "hf" and backend.text == "llamacpp" and "file" not in source.entries:
        label = Label(entry.key, "llama.cpp reads one GGUF file")
        yield Diagnostic("IW307", "which file of the repository?", label, fixes=(Fix("file: NAME.gguf  beside hf:"),))


def _resolved(root: MapNode, source: MapNode) -> str | None:
    """The kind of source at the end of a chain of same_as; None for a chain that leads nowhere."""
    seen: set[str] = set()
    node: Node | None = source
    while isinstance(node, MapNode):
        target = node.get("same_as")
        if target is None:
            return next((kind for kind in SOURCE_KINDS if kind in node.entries), None)
        if not isinstance(target, ScalarNode) or target.text in seen:
            return None
        seen.add(target.text)
        node = at(root, "models", target.text, "source")
    return None
