"""3xx: names that lead nowhere, and what is unsafe to commit or to open."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW301": Code(
        "a model serves an undeclared role",
        (
            "Clients ask for roles. A misspelt role at a model means that nobody ever reaches the model through it. The eleven built-in roles and those under `roles:` are known.",
        ),
        "roles: {captoin: 85}",
        "roles: {caption: 85}",
    ),
    "IW302": Code(
        "an unknown model or profile",
        (
            "The name stands where a declared model or profile is wanted. Unknown names are never skipped: a group that silently lacks a member was not proved to fit.",
        ),
        "groups:\n  day: {models: [qwen, siglpi], profiles: [balanced_24gb]}",
        "groups:\n  day: {models: [qwen, siglip], profiles: [balanced_24gb]}",
    ),
    "IW303": Code(
        "one name for two models",
        (
            "Ids and aliases together are the names that requests use; each leads to one model. Ids that differ only in `.`, `_` and `-` would also share one program name.",
        ),
        "models:\n  a: {aliases: [gpt-4o-mini]}\n  b: {aliases: [gpt-4o-mini]}",
        "models:\n  a: {aliases: [gpt-4o-mini]}\n  b: {aliases: [gpt-4o]}",
    ),
    "IW304": Code(
        "a path that leaves its root",
        (
            "Generated files are compared on every machine, so they may not hold a path of one machine. Paths are relative to their root, without `..` and `~`. Where the root is on this machine is said by its environment variable, IMAGEWORKS_MODELS for models.",
        ),
        "source: {path: /srv/models/Qwen3}",
        "source: {path: Qwen3}   # and  export IMAGEWORKS_MODELS=/srv/models",
    ),
    "IW306": Code(
        "a secret stands in the file",
        (
            "The text looks like a key of a service. This file is committed and its values are copied into generated files. The text is masked in what is printed here. If the file was ever pushed, the key is known and must be replaced.",
        ),
    ),
    "IW307": Code(
        "a source that names no place, or the wrong kind of place",
        (
            "`source` names exactly one place: path, hf, ollama, package or same_as. Each backend reads some kinds only: Ollama knows only its own tags, vLLM reads folders, llama.cpp reads one GGUF file.",
        ),
        "source: {path: Qwen3, hf: Qwen/Qwen3-VL-8B-Instruct}",
        "source: {hf: Qwen/Qwen3-VL-8B-Instruct}",
    ),
    "IW309": Code(
        "fallback roles lead nowhere or in a circle",
        (
            "A fallback role is asked when no own model can serve. It must be declared, and the way through fallbacks must end.",
        ),
        "roles:\n  caption: {requires: [vision], fallback: [caption]}",
        "roles:\n  caption: {requires: [vision], fallback: [vision_general]}",
    ),
    "IW314": Code(
        "one port is pinned for two models",
        (
            "A port can be listened on by one program. Remove one of the pins: ports are derived, and unit and route use the same.",
        ),
    ),
    "IW330": Code(
        "open to the network without keys",
        (
            "An address other than 127.0.0.1 lets every machine of the network use your GPU and read your prompts. This version knows no keys for clients, so only this machine's own address compiles. Use ssh -L or a reverse proxy with authentication to reach it from elsewhere.",
        ),
        "proxy: {bind: 0.0.0.0:8100}",
        "proxy: {bind: 127.0.0.1:8100}",
    ),
}
