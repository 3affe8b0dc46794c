"""5xx: values that a target or an engine cannot take."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW501": Code(
        "a vLLM flag that does not work",
        (
            "models.M.vllm holds flags of `vllm serve` without the dashes. Each is compared with the argument parser of the pinned version: its name, whether it takes a value and which, whether it can be negated, and which flags need or exclude each other. vLLM would stop at start, often after a minute of imports; or take the last of two spellings in silence.",
            "The names of older versions are known too: a flag that was removed is told with the version that dropped it and what stands in for it, one that a later version brought with that version.",
            "A switch is written true or false, a flag with parts is a map, and a flag of several words is a list.",
        ),
        "vllm: {tool_call_parser: hermez}",
        "vllm: {tool-call-parser: hermes}",
    ),
    "IW502": Code(
        "an engine flag that is derived",
        (
            "Context, concurrency, memory, parallelism, images per request, address and name of a model are derived, because proofs and routes rest on them. A typed copy would win over the derived value. Change the field that it follows from.",
        ),
        "vllm: {max-model-len: 16384}",
        "context: 16384",
    ),
    "IW503": Code(
        "a network that vLLM cannot serve",
        (
            "vLLM looks up the network of a model by the class names in its config.json. The table of the pinned version holds what vLLM serves with code of its own and what it names as no longer served; networks with an encoder and a decoder went with its V0 engine. Without this check the failure comes at start, after the weights were fetched.",
            "As a note: the network is in neither list. vLLM then tries the code of Transformers, which may work, and is slower.",
        ),
        "backend: vllm  # of a Florence-2 model",
        "backend: openai, with the command of a server that has it",
    ),
    "IW504": Code(
        "a vLLM version without a flag table",
        (
            "backends.vllm.version names the vLLM that is installed; flags and networks are checked against the table of that version. A table is read out of vLLM's own parser by scripts/vllm-flags in ImageWorks' source.",
        ),
        'backends: {vllm: {version: "0.30.0"}}',
        'backends: {vllm: {version: "0.32.0"}}',
    ),
    "IW505": Code(
        "calls of tools that vLLM is not told to read",
        (
            "A model with the capability tools gets requests with tools. vLLM answers each with 400, unless it was started with enable-auto-tool-choice and the tool-call-parser of this family of models: the text of a call differs from family to family, and the model's own page names its parser.",
        ),
        "capabilities: [chat, tools]",
        "capabilities: [chat, tools]\nvllm: {enable-auto-tool-choice: true, tool-call-parser: hermes}",
    ),
    "IW510": Code(
        "an environment variable that is derived",
        (
            "models.M.env is the environment of a program that we start. Which GPUs it sees, and how the launcher knows it again, follow from the plan; a typed value would be overwritten.",
        ),
        'env: {CUDA_VISIBLE_DEVICES: "1"}',
        "placement: gpu",
    ),
    "IW520": Code(
        "a systemd prefix that cannot stand in a unit file",
        (
            "targets.systemd.prefix is the stack's folder on the machine that runs the units, with systemd's own specifiers such as %h. It is absolute after expansion and has no quote, backslash or dollar sign. In units of the system %h is the home of root, so it is for scope user only.",
        ),
        'targets: {systemd: {prefix: "my stacks/imageworks"}}',
        "targets: {systemd: {prefix: /opt/imageworks}}",
    ),
    "IW521": Code(
        "a model that llama-swap.yaml cannot carry",
        (
            "llama-swap cuts a command at line ends before it splits it into words, and takes `${NAME}` anywhere in its file for a macro. An argument with a line end or an alias that looks like a macro would be changed in silence, so nothing was written.",
        ),
        'aliases: ["${PORT}"]',
        'aliases: ["port"]',
    ),
    "IW522": Code(
        "an unknown target",
        (
            "A name under `targets:` is that of a target of ours or of an installed package (an entry point of the group `imageworks.targets`). A name that nobody provides would write nothing, in silence.",
        ),
        "targets: {systmd: {scope: system}}",
        "targets: {systemd: {scope: system}}",
    ),
    "IW523": Code(
        "a target of another package cannot be used",
        (
            "The package's target could not be loaded, is no target, failed, or gave files that cannot be written: not below the folder of its name, not UTF-8, or different ones for the same plan. The note names the package, its version and the place where it failed. Nothing was written.",
        ),
    ),
    "IW524": Code(
        "two targets of one name",
        (
            "Two installed packages provide a target of this name, or the name is that of one of our own. Which of them would write could depend on the order of installation, so neither does.",
        ),
    ),
}
