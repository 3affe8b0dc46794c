"""One entry of the reference system's registry -> one model.

Owns the translation of each field, and what is told about it. Ports, utilization and served names are derived and
dropped; probes, performance, hashes and licences describe a machine or a day and are dropped without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from imageworks.importers import abilities, vllm_flags
from imageworks.importers.arguments import arguments
from imageworks.importers.draft import ModelDraft
from imageworks.importers.folders import below, is_absolute, tidy
from imageworks.importers.registry_layers import Entry
from imageworks.importers.report import Report
from imageworks.importers.vllm_flags import VllmFlags
from imageworks.importers.yaml_text import Value
from imageworks.model.stack import Quantization, Sampling

FLORENCE = [
    "imageworks-florence", "--model", "${source}", "--host", "${host}", "--port", "${port}",
]  # fmt: skip
NO_KEY = {
    ("generation_defaults", "stop_sequences"): "stop sequences",
    ("generation_defaults", "min_tokens"): "a least number of tokens",
    ("metadata", "default_system_prompt"): "a system prompt of its own",
    ("metadata", "vision_target_long_edge"): "an image size of its own (roles have one: images.max_edge)",
    ("metadata", "vision"): "an image policy of its own (roles have one: images)",
}
"""Fields that say something this language has no key for (yet)."""
KNOWN = frozenset(
    {
        "name", "display_name", "backend", "backend_config", "capabilities", "generation_defaults", "artifacts",
        "chat_template", "version_lock", "performance", "probes", "profiles_placeholder", "metadata", "served_model_id",
        "model_aliases", "roles", "license", "source", "deprecated", "family", "source_provider", "quantization",
        "backend_alternatives", "role_priority", "download_format", "download_location", "download_path",
        "download_size_bytes", "download_files", "download_directory_checksum", "downloaded_at", "last_accessed",
        "vram_estimate_mb", "id",
    }
)  # fmt: skip
QUANTIZATIONS = {str(word) for word in get_args(Quantization)} | {"f16", "f32"}
MIB = 1 << 20
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LOOPBACK = re.compile(r"https?://(?:127\.[0-9.]+|localhost|\[::1\]|0\.0\.0\.0)(?::[0-9]+)?(?:/|$)")


def remote(entry: Entry) -> str | None:
    """The address of a server on another machine that the entry names, or None."""
    url = entry.text("backend_config", "base_url")
    return url if url is not None and not _LOOPBACK.match(url) else None


def ollama_tag(entry: Entry) -> str | None:
    """The tag of an Ollama entry, `:latest` written out; None for other backends and without one."""
    if entry.text("backend") != "ollama":
        return None
    path = (entry.text("backend_config", "model_path") or entry.text("download_path") or "").removeprefix("ollama:")
    tag = (path.strip("/") or entry.text("served_model_id") or "").strip()
    return f"{tag}:latest" if tag and ":" not in tag.rpartition("/")[2] else tag or None


def place(entry: Entry) -> tuple[str, str | None] | None:
    """The path of the model's files and the repository they come from; None where no path says it."""
    path = entry.text("backend_config", "model_path") or entry.text("download_path")
    if path is None or entry.text("backend") == "ollama" or path.startswith("ollama:"):
        return None
    return _file(entry, path), entry.text("source", "huggingface_id")


def _file(entry: Entry, path: str) -> str:
    """The GGUF file in a folder, where the entry lists exactly one; else the path itself."""
    if entry.text("backend") != "gguf" or path.lower().endswith(".gguf"):
        return path
    listed = [name for name in entry.texts("download_files") if name.lower().endswith(".gguf")]
    weights = [name for name in listed if "mmproj" not in name.lower()]
    return f"{path.rstrip('/')}/{weights[0]}" if len(weights) == 1 else path


def model(model_id: str, entry: Entry, root: str | None, report: Report) -> ModelDraft | None:
    """The model of `entry`; None, with the reason told, when nothing says where its weights are."""
    flags = vllm_flags.read(arguments(entry.texts("backend_config", "extra_args")))
    draft = ModelDraft(model_id, {}, entry.span, "" if model_id == entry.name else f"was {entry.name}")
    source = _source(entry, root, report)
    if source is None:
        return None
    draft.fields |= source
    draft.fields |= _quantization(entry, report)
    draft.fields |= _abilities(entry, report)
    draft.fields |= _sizes(entry, flags, report)
    draft.fields |= _sampling(entry, report)
    if draft.fields["backend"] == "vllm":
        typed = dict(flags.typed)
        if "embedding" in _listed(draft.fields.get("capabilities")):
            typed.setdefault("runner", "pooling")
        draft.fields |= {"vllm": typed} if typed else {}
    _tell_flags(entry, flags, report)
    _tell_rest(entry, flags, report)
    return draft


def _listed(value: Value | None) -> list[Value]:
    return list(value) if isinstance(value, list) else []


def _source(entry: Entry, root: str | None, report: Report) -> dict[str, Value] | None:
    url, backend = remote(entry), entry.text("backend")
    if url is not None:
        return {"backend": "openai", "url": url}
    if backend == "ollama":
        tag = ollama_tag(entry)
        if tag is None:
            report.tell("IW802", f"{entry.name} is left out: it names no Ollama tag", entry.span)
            return None
        return {"backend": "ollama", "source": {"ollama": tag}}
    found = _files(entry, root, report)
    if found is None:
        report.tell("IW802", f"{entry.name} is left out: nothing says where its weights are", entry.span)
        return None
    if backend == "gguf":
        return _gguf(entry, found, report)
    if "florence" in f"{entry.name} {entry.text('family')}".lower():
        told = "encoder-decoder models went with vLLM's V0 engine (vllm#24907), so the entry could not start"
        fix = "put the command of an OpenAI-compatible server for it; ImageWorks brings none"
        report.tell("IW806", f"{entry.name} becomes backend openai", entry.span, told, fix=fix)
        return {"backend": "openai", "source": found, "command": list(FLORENCE)}
    return {"backend": "vllm", "source": found}


def _files(entry: Entry, root: str | None, report: Report) -> dict[str, Value] | None:
    where, repository = place(entry), entry.text("source", "huggingface_id")
    if where is None:
        return {"hf": repository} if repository is not None and _REPOSITORY.fullmatch(repository) else None
    if not is_absolute(where[0]):
        return {"path": tidy(where[0])}
    path, under = below(where[0], root)
    if not under:
        told = "it lies outside the folder of the others"
        report.tell("IW806", f"{entry.name}: files are wanted at `{path}` below the models root", entry.span, told)
    return {"path": path} if path else None


def _gguf(entry: Entry, source: Mapping[str, Value], report: Report) -> dict[str, Value] | None:
    path = str(source.get("path", ""))
    if not path.lower().endswith(".gguf"):
        told = "llama.cpp reads one .gguf file, and the entry names a folder"
        report.tell("IW802", f"{entry.name} is left out: which file is it?", entry.span, told)
        return None
    projectors = [name for name in entry.texts("download_files") if re.search(r"mmproj.*\.gguf$", name.lower())]
    folder = path.rpartition("/")[0]
    beside = {"mmproj": f"{folder}/{projectors[0]}".lstrip("/")} if len(projectors) == 1 else {}
    return {"backend": "llamacpp", "source": {**source, **beside}}


def _quantization(entry: Entry, report: Report) -> dict[str, Value]:
    written = entry.text("quantization")
    if written is None:
        return {}
    word = written.lower().replace("-", "_")
    word = {"f16": "fp16", "f32": "fp32"}.get(word, word)
    if word in QUANTIZATIONS:
        return {"quantization": word}
    told = "the weights' own header will tell"
    report.tell("IW805", f"{entry.name}: quantization `{written}` is not known here", entry.span, told)
    return {}


def _abilities(entry: Entry, report: Report) -> dict[str, Value]:
    switched = entry.get("capabilities")
    names = [name for name, on in switched.items() if on is True] if isinstance(switched, dict) else []
    words, foreign = abilities.words(names or entry.texts("capabilities"))
    roles, decided = abilities.priorities(entry.get("roles"), entry.get("role_priority"))
    for told in decided:
        report.tell("IW803", f"{entry.name}: {told}", entry.span)
    if foreign:
        report.tell("IW805", f"{entry.name}: no capability here: {', '.join(foreign)}", entry.span)
    _repair(entry, words, roles, report)
    kept = {role: number for role, number in roles.items() if _serves(entry, role, words, report)}
    found: dict[str, Value] = {"capabilities": list(words)} if words else {}
    return found | ({"roles": dict(kept)} if kept else {})


def _repair(entry: Entry, words: list[str], roles: Mapping[str, int], report: Report) -> None:
    """`vision` (and `detection`) that roles need and the name or a probe vouches for are put back."""
    needed = {word for role in roles for word in abilities.required(role) or ()}
    known = abilities.sees(entry.name, entry.text("family") or "", entry.text("source", "huggingface_id") or "")
    sees = known or entry.get("probes", "vision", "vision_ok") is True
    embeds = "embedding" in words
    for word in ("vision", "detection"):
        if word not in words and sees and (word in needed or (word == "vision" and (known or embeds))):
            words.append(word)
            report.tell("IW803", f"{entry.name}: capability `{word}` was missing", entry.span, "its name says so")
    if not words:
        words.append("chat")


def _serves(entry: Entry, role: str, words: list[str], report: Report) -> bool:
    missing = sorted((abilities.required(role) or frozenset()) - set(words))
    if missing:
        told = f"the role requires {', '.join(missing)}, and the entry does not have it"
        report.tell("IW805", f"{entry.name}: role `{role}` is not carried over", entry.span, told)
    return not missing


def _sizes(entry: Entry, flags: VllmFlags, report: Report) -> dict[str, Value]:
    found: dict[str, Value] = {}
    sent = [_count(flags.typed.pop(name, None)) for name in ("num-ctx", "ctx-size", "c")]  # Ollama's, llama.cpp's
    window = _count(entry.get("generation_defaults", "context_window")) or next(filter(None, sent), None)
    launched = flags.fields.get("context")
    if launched is not None and window is not None and launched != window:
        told = f"--max-model-len says {launched}, context_window {window}; what was launched counts"
        report.tell("IW806", f"{entry.name} has two context lengths", entry.span, told)
    context = launched or window
    found |= {"context": context} if context is not None else {}
    if "concurrency" in flags.fields:
        found["concurrency"] = flags.fields["concurrency"]
    return found | _vram(entry, report)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _vram(entry: Entry, report: Report) -> dict[str, Value]:
    estimate, size = entry.get("vram_estimate_mb"), _count(entry.get("download_size_bytes"))
    if remote(entry) is not None:
        return {}
    if isinstance(estimate, bool) or not isinstance(estimate, int | float) or not 0 < estimate < 1e9:  # noqa: PLR2004 - MB; more than any machine has
        ways = "its figure follows from the weights: `imageworks up` reads them where they are"
        if entry.text("backend") == "ollama":
            ways = (
                "Ollama's weights are not ours to read; until a figure stands here the model is left out of the plans"
            )
        report.tell("IW806", f"{entry.name} has no VRAM figure", entry.span, ways)
        return {}
    if size is not None and _same(estimate * 1_000_000, size):
        told = f"{estimate} MB is the size of the files: these are weights, not what a running engine takes"
        report.tell("IW803", f"{entry.name}: vram_estimate_mb becomes vram.weights", entry.span, told)
        return {"vram": {"weights": f"{-(-size // MIB)}MiB"}}
    return {"vram": {"total": f"{math.ceil(estimate)}MiB", "because": "vram_estimate_mb of the imported registry"}}


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0.01)


def _sampling(entry: Entry, report: Report) -> dict[str, Value]:
    given = entry.get("generation_defaults")
    values: dict[str, Value] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        if name not in Sampling.model_fields or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            report.tell("IW805", f"{entry.name}: {name} is not a number", entry.span)
        else:
            values[name] = value
    return {"sampling": values} if values else {}


def _tell_flags(entry: Entry, flags: VllmFlags, report: Report) -> None:
    ours = entry.text("backend") == "vllm"
    for name in flags.twice:
        report.tell("IW803", f"{entry.name}: --{name} stood twice; the last counts", entry.span)
    for name, why in flags.refused.items():
        if name != "chat-template":
            report.tell("IW805", f"{entry.name}: --{name} is not carried over", entry.span, why)
    dropped = [f"--{name}" for name in dict.fromkeys(flags.dropped)]
    dropped += ["port"] if entry.get("backend_config", "port") is not None else []
    if dropped:
        report.tell("IW801", f"{entry.name}: derived, so dropped: {', '.join(dropped)}", entry.span)
    if not ours and flags.typed:
        named = ", ".join(f"--{name}" for name in flags.typed)
        report.tell(
            "IW805", f"{entry.name}: {named} is not carried over", entry.span, "no key for this backend's flags"
        )


def _tell_rest(entry: Entry, flags: VllmFlags, report: Report) -> None:
    if entry.get("served_model_id") == "None":
        told = "an empty value that a serialiser turned into text; the served name is derived"
        report.tell("IW803", f'{entry.name}: served_model_id is the text "None"', entry.span, told)
    template, launched = entry.text("chat_template", "path"), flags.template
    if template is not None and launched is not None and template != launched:
        told = f"the flag names {_base(launched)}, chat_template.path {_base(template)}; the language has no key for templates yet"
        report.tell("IW806", f"{entry.name} has two chat templates", entry.span, told, fix="compare their answers once")
    elif template is not None or launched is not None:
        report.tell(
            "IW805",
            f"{entry.name}: chat template {_base(template or launched or '')} is not carried over",
            entry.span,
            vllm_flags.REFUSED["chat-template"],
        )
    for path, words in NO_KEY.items():
        if entry.get(*path):
            report.tell("IW805", f"{entry.name}: no key for {words}", entry.span)
    unknown = sorted(set(entry.data) - KNOWN)
    if unknown:
        report.tell("IW805", f"{entry.name}: unknown fields are dropped: {', '.join(unknown)}", entry.span)


def _base(path: str) -> str:
    return tidy(path).rpartition("/")[2]
