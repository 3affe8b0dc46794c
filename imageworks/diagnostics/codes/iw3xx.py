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
            "Generated files are compared on every machine, so they may not hold a path of one machine. Paths are relative to their root, without `..` and `~`. Where a root is on this machine is said in stack.local.yaml, which is not committed, or by its environment variable, IMAGEWORKS_MODELS for models.",
        ),
        "source: {path: /srv/models/Qwen3}",
        "source: {path: Qwen3}   # and in stack.local.yaml  roots: {models: {default: /srv/models}}",
    ),
    "IW305": Code(
        "a secret where its value would be written, or that is not declared",
        (
            "A secret is declared by name under `secrets:`, with the variable, file or systemd credential that holds it, and given as `{secret: NAME}`. Its value is read when a program starts: into the environment of a program that we start (`env`), or as the bearer token of a remote server (`key`). Everything else in this file ends in generated files, command lines or answers, so a secret is refused there.",
            "A secret has exactly one source: `env`, `file` or `credential`.",
        ),
        "vllm: {api-key: {secret: API_KEY}}",
        "secrets: {API_KEY: {env: IMAGEWORKS_API_KEY}}\nmodels:\n  far: {backend: openai, url: 'https://llm.example.org', key: {secret: API_KEY}}",
    ),
    "IW306": Code(
        "a secret stands in the file",
        (
            "The text looks like a key of a service. This file is committed and its values are copied into generated files. The text is masked in what is printed here. Declare a secret, which is read at start and never written, and name it where the text stands. If the file was ever pushed, the key is known and must be replaced.",
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
    "IW308": Code(
        "a chat template that cannot be read",
        (
            "`template: {path}` replaces the chat template inside the weights. It is read and hashed at compile, so that a changed template restarts the model; the path counts from the folder of stack.yaml.",
        ),
        "template: {path: tempaltes/qwen.jinja}",
        "template: {path: templates/qwen.jinja}",
    ),
    "IW309": Code(
        "fallback roles lead nowhere or in a circle",
        (
            "A fallback role is asked when no own model can serve. It must be declared, and the way through fallbacks must end.",
        ),
        "roles:\n  caption: {requires: [vision], fallback: [caption]}",
        "roles:\n  caption: {requires: [vision], fallback: [vision_general]}",
    ),
    "IW310": Code(
        "an included file cannot be read, or includes lead in a circle",
        (
            "`include:` names files that lie below the one that names them: what the naming file says wins. A path counts from the folder of the naming file and may not leave it. A file that is included twice is read once.",
        ),
        "include: [modles/judges.yaml]",
        "include: [models/judges.yaml]",
    ),
    "IW311": Code(
        "two included files disagree",
        (
            "Of two files of which neither includes the other none wins, so they must not set the same value differently; otherwise the order of a list would decide in silence. Keep one value, or let one file include the other: the including one wins.",
        ),
    ),
    "IW312": Code(
        "something is removed that is not there",
        (
            "`key-: [name]` removes items of a list, or keys of a map, that a lower layer has. A name that is not there is a misspelling, or was renamed below; then the layer no longer does what it was written for.",
        ),
        "models-: [pixtral-12b]",
        "models-: [pixtral-12b-q4]",
    ),
    "IW313": Code(
        "a suffix with nothing below",
        (
            "`key+` appends to a list of a lower layer, `key-` removes from a list or map, `key=` replaces a whole map. All three need something below them: the built-in layer, an included file, an earlier `-f`. Maps merge key by key without a suffix, and lists replace.",
        ),
        "models:\n  qwen: {alaises+: [gpt-4o]}",
        "models:\n  qwen: {aliases+: [gpt-4o]}",
    ),
    "IW314": Code(
        "one port is pinned for two models",
        (
            "A port can be listened on by one program. Remove one of the pins: ports are derived, and unit and route use the same.",
        ),
    ),
    "IW315": Code(
        "a variable that is not declared, or not possible here",
        (
            "`${NAME}` takes the text of NAME from the block `variables:` of the stack; the environment is never read, so that generated files are the same everywhere. It may stand in texts, paths and addresses, not in keys, numbers, names of models and roles, or words of this language. A literal dollar before `{` is written `$$`.",
        ),
        "url: http://${HOTS}:8000",
        "variables: {HOST: gpu-box}\nmodels:\n  big: {backend: openai, url: 'http://${HOST}:8000'}",
    ),
    "IW330": Code(
        "open to the network without keys",
        (
            "An address other than 127.0.0.1 lets every machine of the network use your GPU and read your prompts. Declare keys for clients under `proxy.auth.keys`: then every request has to show one. Or stay on this machine's own address, and use ssh -L to reach it from elsewhere.",
        ),
        "proxy: {bind: 0.0.0.0:8100}",
        "secrets: {MY_KEY: {env: IMAGEWORKS_MY_KEY}}\nproxy: {bind: 0.0.0.0:8100, auth: {keys: {me: {key: {secret: MY_KEY}}}}}",
    ),
}
