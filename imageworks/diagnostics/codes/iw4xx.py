"""4xx: what does not fit, cannot run, or is not known well enough to plan."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW401": Code(
        "two profiles match the same machine",
        (
            "A machine gets the one profile that matches it: number of GPUs, memory of each, compute capability. Where two could match, nobody knows which plan will run. Ranges have no overlap when one ends where the next begins: `<` does not include its end.",
        ),
        'profiles:\n  a: {match: {gpus: 1, vram: ">=15GiB <24GiB"}}\n  b: {match: {gpus: 1, vram: ">=22GiB"}}',
        'profiles:\n  a: {match: {gpus: 1, vram: ">=15GiB <22GiB"}}\n  b: {match: {gpus: 1, vram: ">=22GiB"}}',
    ),
    "IW402": Code(
        "a role has no model on a profile",
        (
            "A role that the file names under `roles:` must be served on every profile. The finding lists each candidate and why it fails there. If the role may be missing on that kind of machine, say so: clients then get 404 with the reason.",
        ),
        "reasoning: {requires: [chat, reasoning]}",
        "reasoning: {requires: [chat, reasoning], may_be_missing_on: [development]}",
    ),
    "IW403": Code(
        "strategy and number of models contradict each other",
        (
            "load_unload holds one model at a time, so max_concurrent_models is 1 there. To hold several, use concurrent_limited or concurrent_full.",
        ),
        "strategy: load_unload\nmax_concurrent_models: 3",
        "strategy: concurrent_limited\nmax_concurrent_models: 3",
    ),
    "IW404": Code(
        "a split that can never happen",
        (
            "tensor_parallel_above splits large models over all GPUs. That needs the strategy tensor_parallel_or_distributed and at least two GPUs; elsewhere the line has no effect.",
        ),
    ),
    "IW405": Code(
        "a model cannot run on this hardware",
        (
            "vLLM needs a GPU, and some quantizations need a newer one. The model is left out on profiles without the right hardware; a place that its engine can use on no machine is an error.",
        ),
        "models:\n  a: {backend: vllm, source: {path: A}, placement: cpu}",
        "models:\n  a: {backend: llamacpp, source: {path: A.gguf}, placement: cpu}",
    ),
    "IW406": Code(
        "a model that stays loaded shuts another out",
        (
            "Pinned models, and groups where the strategy is concurrent_full, are never evicted. What remains must hold every other placed model, or a request for it would wait for ever.",
        ),
        "keep: pinned",
        "keep: grace",
    ),
    "IW407": Code(
        "no GPU memory to plan with",
        (
            "The plan may use the lower end of match.vram less the headroom. A profile with GPUs says a lower end above its headroom.",
        ),
        'match: {gpus: 1, vram: "<24GiB"}',
        'match: {gpus: 1, vram: ">=22GiB <24GiB"}',
    ),
    "IW408": Code(
        "a profile that does not say which machine it is for",
        (
            "`match` counts equal GPUs with `gpus` (and their `vram` and `compute`), or lists each GPU or MIG slice under `devices`. One of the two, and not both.",
        ),
        'match: {vram: ">=20GiB"}',
        'match: {gpus: 1, vram: ">=20GiB"}',
    ),
    "IW410": Code(
        "a model does not fit a profile",
        (
            "The sum of weights, KV cache for every token of every request at once, activations and the fixed costs of CUDA is more than the profile may use: the lower end of match.vram less headroom. All terms are listed with their origin, and then what would make it fit: each way alone, cheapest first, tried before it is told.",
            "By itself this is a fact: a stack lists models for several machines, and the model is left out where it does not fit. It is an error where a role, group or pin needs the model there.",
        ),
    ),
    "IW411": Code(
        "a group does not fit a profile",
        (
            "The models of a group are loaded together on the profiles that it names. Their sum must fit each GPU, and their number max_concurrent_models. The smallest set to drop is computed.",
        ),
    ),
    "IW412": Code(
        "a model does not fit the host memory",
        (
            "Models placed on the CPU share host_memory of the profile. The model is left out on a profile whose host_memory is less than it needs.",
            "vLLM models that sleep at level 1 keep their weights there. All of them may sleep at once, so their sum must fit.",
        ),
    ),
    "IW413": Code(
        "one request can exceed the context",
        (
            "A role allows a number of images up to an edge, and an answer up to max_tokens. On this model their tokens, with a reserve for the prompt, are more than its context, so a legal request would fail. Allow less in the role, give the model more context, or remove the role from the model.",
        ),
    ),
    "IW414": Code(
        "a context beyond what the weights were made for",
        ("Beyond the limit in models.lock the engine refuses to start, or the answers fall apart.",),
    ),
    "IW415": Code(
        "a port that cannot be pinned",
        ("The port belongs to the proxy, or the model has no program of its own that could listen on it.",),
    ),
    "IW416": Code(
        "a pin that changes nothing",
        (
            "The pinned port is the one that the model would get anyway. Drop the pin, unless the port must stay when models are added.",
        ),
    ),
    "IW417": Code(
        "the port range is too small",
        (
            "Every model that is started as a program of its own gets one loopback port, the same on every profile. `ports.first` to `ports.last` must hold as many as there are such models, beside pinned ports and the proxy's own.",
        ),
        "ports: {first: 24001, last: 24002}",
        "ports: {first: 24001, last: 24099}",
    ),
    "IW418": Code(
        "models that are kept loaded do not fit together",
        (
            "Pinned models, and groups where the strategy is concurrent_full, are started at once and never evicted. Together they must fit each GPU, the host memory and max_concurrent_models. The smallest set that already does not fit is shown with its sum.",
        ),
    ),
    "IW419": Code(
        "two groups divide the same memory",
        (
            "`allocation: balanced` and `allocation: priority` divide the memory of a profile among the members of one group. Where two such groups name the same profile, it would be given away twice.",
        ),
    ),
    "IW420": Code(
        "the declared quantization is not that of the weights",
        (
            "models.lock was read from the weights. Memory and the order of models in a role follow from the quantization, so both must agree.",
        ),
    ),
    "IW421": Code(
        "facts of the weights are missing",
        (
            "The size or architecture of the weights is neither declared nor in models.lock, so the model cannot be planned. It is left out until it is known, and its roles count as served. `imageworks up` reads the files where they are; a figure of your own goes into `vram:`.",
        ),
    ),
    "IW422": Code(
        "a memory total and its reason belong together",
        ("vram.total replaces the whole sum, so it says where the figure comes from, and no parts stand beside it.",),
        "vram: {total: 3500MiB}",
        'vram: {total: 3500MiB, because: "nvidia-smi after the first image"}',
    ),
}
