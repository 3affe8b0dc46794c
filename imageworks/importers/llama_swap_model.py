"""One model of a llama-swap configuration -> one model of ours.

Owns the three kinds of command (llama-server, vLLM, anything else) and the fields beside it. Paths stay as written;
`llama_swap` puts them under one root once all models are known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imageworks.importers import abilities, llama_server, vllm_flags
from imageworks.importers.arguments import arguments
from imageworks.importers.draft import ModelDraft
from imageworks.importers.folders import is_absolute
from imageworks.importers.llama_swap_text import NotUnderstoodError, Part, words
from imageworks.importers.report import Report
from imageworks.importers.yaml_text import Value
from imageworks.source.tree import MapNode, SeqNode, at

FOR_EVER = "366d"
"""The longest grace there is: unloaded only to make room."""
BUNDLED, BUNDLED_MODULE = "bundled", "imageworks.services.llama_server"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LOOPBACK = re.compile(r"https?://(?:127\.[0-9.]+|localhost|\[::1\]|0\.0\.0\.0)(?::([0-9]+|\$\{PORT\}))?(?:/|$)")
_ENGINE_ENV = re.compile(r"CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES")
NO_KEY = ("name", "description", "unlisted", "metadata", "useModelName", "sendLoadingState", "timeouts", "filters")
DERIVED = ("cmdStop", "checkEndpoint", "compat", "unloadTimeout", "healthCheckTimeout")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the whole file must know of a model: its own llama-server, its threads."""

    draft: ModelDraft
    program: str | None = None
    threads: int | None = None


def read(model_id: str, name: str, part: Part, report: Report, *, pinned: bool) -> Seen | None:
    """The model; None, with the reason told, when its command is not understood. `pinned`: no other unloads it."""
    try:
        seen = _launched(model_id, name, part, report)
    except NotUnderstoodError as error:
        report.tell("IW807", f"{name} is left out: {error}", part.place("cmd", error.at), label="not understood")
        return None
    if seen is None:
        return None
    fields = seen.draft.fields
    if "url" not in fields:
        fields |= {"keep": "pinned"} if pinned else _grace(name, part, report)
    _capabilities(part, fields)
    limit = part.number("concurrencyLimit")
    if limit and "concurrency" not in fields and "url" not in fields:
        fields["concurrency"] = limit
    _tell(name, part, report)
    _environment(name, part, report, fields)
    return seen


def _launched(model_id: str, name: str, part: Part, report: Report) -> Seen | None:
    draft = ModelDraft(model_id, {})
    proxy, command = part.text("proxy"), part.text("cmd")
    if proxy is not None and not _LOOPBACK.match(proxy):
        draft.fields = {"backend": "openai", "url": proxy}
        if command:
            report.tell("IW806", f"{name}: its server runs elsewhere, so `cmd` is dropped", part.key("cmd"))
        return Seen(draft)
    if not command:
        raise NotUnderstoodError("it has no `cmd`")
    found = words(command)
    program = found[0].rpartition("/")[2].removesuffix(".exe")
    if found[1:3] == ["-m", BUNDLED_MODULE]:  # from a llama-swap.yaml of ours
        found = [BUNDLED, *found[3:]]
    if program.startswith("llama-server") or found[0] == BUNDLED:
        return _llama(draft, name, [_plain(word, name) for word in found], part, report)
    engine = _vllm_words(found)
    if engine is not None:
        return _vllm(draft, name, [_plain(word, name) for word in engine], part, report)
    draft.fields = {"backend": "openai", "command": _words(found, proxy)}
    _tell_command(name, found, part, report)
    return Seen(draft)


def _plain(word: str, name: str) -> str:
    return word.replace("${MODEL_ID}", name)


def _llama(draft: ModelDraft, name: str, found: list[str], part: Part, report: Report) -> Seen | None:
    server = llama_server.read(found[1:])
    place = part.key("cmd")
    if "path" not in server.source and ("hf" not in server.source or "file" not in server.source):
        told = "llama.cpp would choose a file of the repository and download it; here the stack names it"
        fix = "add --hf-file NAME.gguf to the command and import again" if "hf" in server.source else "add --model FILE"
        report.tell("IW802", f"{name} is left out: which file is it?", place, told, fix=fix)
        return None
    if "path" in server.source:
        server.source = {key: value for key, value in server.source.items() if key in {"path", "mmproj"}}
    draft.fields = {"backend": "llamacpp", "source": server.source, **server.fields}
    if server.dropped:
        report.tell("IW801", f"{name}: derived, so dropped: {', '.join(server.dropped)}", place)
    if server.other:
        told = "llama.cpp's own defaults count"
        report.tell("IW805", f"{name}: no key for {', '.join(server.other)}", place, told)
    if server.secrets:
        report.tell("IW808", f"{name}: {', '.join(server.secrets)} is not copied", place)
    if server.split is not None:
        told = "a model is on the GPU as a whole or on the CPU, never split in silence"
        report.tell("IW805", f"{name}: {server.split} layers on the GPU cannot be said here", place, told)
    return Seen(draft, found[0], server.threads)


def _vllm_words(found: Sequence[str]) -> list[str] | None:
    """What follows the program of a vLLM command; None for another program."""
    program = found[0].rpartition("/")[2]
    if program == "vllm" and found[1:2] == ["serve"]:
        return list(found[2:])
    if program.startswith("python") and "vllm.entrypoints.openai.api_server" in found[1:3]:
        return list(found[3:])
    return None


def _vllm(draft: ModelDraft, name: str, found: list[str], part: Part, report: Report) -> Seen | None:
    place, items = part.key("cmd"), arguments(found)
    flags = vllm_flags.read(items)
    model = next((item.value for item in items if item.flag == "model"), None) or next(iter(flags.words), None)
    if model is None:
        report.tell("IW802", f"{name} is left out: its command names no model", place)
        return None
    hub = _REPOSITORY.fullmatch(model) and not is_absolute(model)
    pooling = "pooling" in (flags.typed.get("runner"), flags.typed.get("task")) or flags.typed.get("task") == "embed"
    draft.fields = {"backend": "vllm", "source": {"hf": model} if hub else {"path": model}, **flags.fields}
    if pooling:
        draft.fields["capabilities"] = ["embedding"]
    elif abilities.sees(model, name):
        draft.fields["capabilities"] = ["chat", "vision"]
    if flags.typed:
        draft.fields["vllm"] = dict(flags.typed)
    if flags.dropped:
        dropped = ", ".join(f"--{flag}" for flag in dict.fromkeys(flags.dropped))
        report.tell("IW801", f"{name}: derived, so dropped: {dropped}", place)
    for flag, why in flags.refused.items():
        report.tell("IW805", f"{name}: --{flag} is not carried over", part.place("cmd", f"--{flag}"), why)
    return Seen(draft)


def _words(found: Sequence[str], proxy: str | None) -> list[Value]:
    """The command with our words in it: the port llama-swap would have given, and the model's name."""
    match = _LOOPBACK.match(proxy) if proxy is not None else None
    fixed = match[1] if match is not None and match[1] and match[1].isdigit() else None
    return [_word(word, fixed) for word in found]


def _word(word: str, fixed: str | None) -> str:
    text = word.replace("$", "$$").replace("$${PORT}", "${port}").replace("$${MODEL_ID}", "${name}")
    return text if fixed is None else re.sub(rf"(?<![0-9]){fixed}(?![0-9])", "${port}", text)


def _tell_command(name: str, found: Sequence[str], part: Part, report: Report) -> None:
    place = part.key("cmd")
    told = "until vram.total says what it takes, the plan leaves it out; its /v1/models must name the model's id"
    report.tell("IW806", f"{name} is started by its own command", place, told, fix="add  vram: {total: …, because: …}")
    paths = [word for word in found if re.search(r"(?:^|[=:])(?:/|~/|[A-Za-z]:[\\/])", word)]
    if paths:
        report.tell("IW806", f"{name}: paths of one machine stand in its command", part.place("cmd", paths[0]))
    if found[0].rpartition("/")[2] in {"docker", "podman"}:
        told = "it is stopped as a process group, so the container must stay in the foreground (no -d)"
        report.tell("IW806", f"{name} runs in a container", place, told)


def _grace(name: str, part: Part, report: Report) -> dict[str, Value]:
    ttl = part.number("ttl")
    if ttl is None or ttl < 0:
        return {}
    if not ttl:
        told = "llama-swap still unloads it for another model, and so do we; `keep: pinned` would mean never"
        report.tell("IW803", f"{name}: ttl 0 becomes grace {FOR_EVER}", part.key("ttl"), told)
    return {"grace": f"{ttl}s" if ttl else FOR_EVER}


def _capabilities(part: Part, fields: dict[str, Value]) -> None:
    inputs = part.texts("capabilities", "in")
    said = [
        word
        for word, on in (
            ("vision", "image" in inputs),
            ("tools", part.raw("capabilities", "tools") == "true"),
            ("audio", "audio" in inputs),
        )
        if on
    ]
    if part.raw("capabilities", "reranker") == "true":
        fields["capabilities"] = ["rerank"]
    elif said:
        fields["capabilities"] = ["chat", *said]


def _tell(name: str, part: Part, report: Report) -> None:
    derived = [key for key in DERIVED if key in part.node.entries]
    if derived:
        told = "a program is stopped with its process group, and is ready when it names its model"
        report.tell("IW801", f"{name}: derived, so dropped: {', '.join(derived)}", part.key(derived[0]), told)
    unsaid = [key for key in NO_KEY if key in part.node.entries]
    if unsaid:
        report.tell("IW805", f"{name}: no key for {', '.join(unsaid)}", part.key(unsaid[0]))


def _environment(name: str, part: Part, report: Report, fields: dict[str, Value]) -> None:
    """Texts go to `env` of a program of the user's own; an engine's environment is ours, and values from outside have no place."""
    env = at(part.node, "env")
    words = [text.partition("=") for text in part.texts("env")] if isinstance(env, SeqNode | MapNode) else []
    foreign = {key: value for key, _, value in words if not _ENGINE_ENV.fullmatch(key)}
    if any(_ENGINE_ENV.fullmatch(key) for key, _, _ in words):
        report.tell("IW801", f"{name}: which GPU it sees follows from the plan", part.key("env"))
    kept = {key: value for key, value in foreign.items() if "command" in fields and "${" not in value}
    if kept:
        fields["env"] = kept
    left = ", ".join(key for key in foreign if key not in kept)
    if left and "command" in fields:
        told = "declare a secret, and name it:  env: {NAME: {secret: SECRET}}"
        report.tell("IW806", f"{name}: from where do these get their values? {left}", part.key("env"), told)
    elif left:
        report.tell("IW805", f"{name}: no key for the environment of this engine: {left}", part.key("env"))
