"""5xx: values that a target or an engine cannot take."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW502": Code(
        "an engine flag that is derived",
        (
            "Context, concurrency, memory, parallelism, images per request, address and name of a model are derived, because proofs and routes rest on them. A typed copy would win over the derived value. Change the field that it follows from.",
        ),
        "vllm: {max-model-len: 16384}",
        "context: 16384",
    ),
    "IW520": Code(
        "a systemd prefix that cannot stand in a unit file",
        (
            "targets.systemd.prefix is the stack's folder on the machine that runs the units, with systemd's own specifiers such as %h. It is absolute after expansion and has no quote, backslash or dollar sign.",
        ),
        'targets: {systemd: {prefix: "my stacks/imageworks"}}',
        'targets: {systemd: {prefix: "%h/imageworks"}}',
    ),
}
