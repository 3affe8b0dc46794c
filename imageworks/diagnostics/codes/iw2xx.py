"""2xx: a key or value that the language does not know."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW200": Code(
        "a value of the wrong kind",
        ("The field wants a map, a list or a single value, and another of these stands there.",),
        "aliases: gpt-4o-mini",
        "aliases: [gpt-4o-mini]",
    ),
    "IW201": Code(
        "unknown key",
        (
            "Keys are never ignored: a misspelt key that does nothing is worse than an error. The nearest known key is proposed where there is one.",
            "Some keys belong to one backend only. The finding names it, and the line where the model's backend stands.",
        ),
        "models:\n  gemma: {bakend: llamacpp}",
        "models:\n  gemma: {backend: llamacpp}",
    ),
    "IW202": Code(
        "a key is missing",
        ("This key has no default, because no value would be right for most stacks.",),
        "models:\n  gemma: {backend: llamacpp}",
        "models:\n  gemma: {backend: llamacpp, source: {path: gemma.gguf}}",
    ),
    "IW203": Code(
        "a size needs a binary unit",
        (
            "Sizes are written with KiB, MiB, GiB or TiB. GB is refused: files are sold in 10^9 bytes and graphics memory in 2^30, and the 7 % between them is where a model stops fitting.",
            "Both readings are computed for you. A figure from a download page counts 10^9, one from nvidia-smi counts 2^30.",
        ),
        "vram: {weights: 10.6GB}",
        "vram: {weights: 9.87GiB}",
    ),
    "IW204": Code(
        "a duration needs a unit",
        (
            "Durations are numbers with ms, s, m, h or d, longest first: 90s, 5m, 1h30m. A bare number could be seconds or minutes.",
        ),
        "defaults: {grace: 300}",
        "defaults: {grace: 5m}",
    ),
    "IW205": Code(
        "unknown backend",
        (
            "`backend:` decides which keys a model may have. While it is unknown, the keys common to all backends are checked and the special ones wait: one mistake gives one error.",
            "A layer that changes `backend:` of a model below must also take away the keys that belong to the old backend.",
        ),
        "models:\n  gemma: {backend: lamacpp}",
        "models:\n  gemma: {backend: llamacpp}",
    ),
    "IW206": Code(
        "a number outside its bounds, or an empty range",
        ("Priorities are 0..100 and higher wins, ports are 1..65535, and a range must hold at least one value.",),
        "roles: {caption: 850}",
        "roles: {caption: 85}",
    ),
    "IW207": Code(
        "a derived value is typed",
        (
            "Ports are given by the compiler, one to each model, and written into the program and the route together. A copy typed by hand is how two models came to share one port, and one of them was never reachable. Pin a port only with a reason.",
        ),
        "port: 24001",
        'pin: {port: {value: 24001, because: "Grafana panel of the club"}}',
    ),
    "IW208": Code(
        "an unknown word",
        ("This field takes one of a few words. The nearest is proposed, or all are listed.",),
        "strategy: load_unlod",
        "strategy: load_unload",
    ),
    "IW209": Code(
        "an empty value",
        ("A key with nothing after it says neither a value nor nothing. Remove the line to get the default.",),
        "context:",
        "context: 8192",
    ),
    "IW210": Code(
        "the language's version",
        (
            "The first line of a stack says which version of this language it is written in. This ImageWorks knows version 1.",
        ),
        "models: {}",
        "version: 1\nmodels: {}",
    ),
    "IW211": Code(
        "not an id",
        (
            "Ids name programs, files and units, so they have small letters and digits with single `.`, `_` or `-` between them, at most 63 characters. Names with other characters go into `aliases`, where clients can use them.",
        ),
        "models:\n  Qwen3 (FP8): {backend: vllm, source: {path: Qwen3}}",
        'models:\n  qwen3-fp8: {aliases: ["Qwen3 (FP8)"], backend: vllm, source: {path: Qwen3}}',
    ),
    "IW212": Code(
        "adjusts a profile that the stack leaves out",
        (
            "A profile without `match` adjusts the built-in one of its name. As soon as a stack declares a profile of its own, with `match`, it has exactly the declared ones and `development`, so there is nothing left to adjust.",
        ),
        'profiles:\n  mine: {match: {gpus: 1, vram: ">=20GiB"}}\n  balanced_24gb: {headroom: 2GiB}',
        'profiles:\n  mine: {match: {gpus: 1, vram: ">=20GiB"}, headroom: 2GiB}',
    ),
    "IW213": Code(
        "a value that is not of the field's form",
        (
            "The finding says what the form is. Counts are digits, pixels end in px, addresses are host:port, ranges use >= and <, truth is true or false.",
        ),
        'match: {gpus: 1, vram: "15-22GiB"}',
        'match: {gpus: 1, vram: ">=15GiB <22GiB"}',
    ),
    "IW220": Code(
        "how a server is reached",
        (
            "A model of backend openai is either a server that runs elsewhere (`url`), which is never started or stopped, or one that is started here (`command`). It is exactly one of them.",
        ),
        "models:\n  far: {backend: openai}",
        'models:\n  far: {backend: openai, url: "http://192.168.1.20:8000"}',
    ),
}
