"""exec/<program>.json: what supervisord and systemd really execute, through imageworks.launch.

Owns the list of environment variables that a program may take over. JSON is the only escaping here: free text
(paths, JSON flags, prompts) lives in these files and never reaches an INI or unit file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imageworks import contract
from imageworks.plan.ir import Flag, Plan, Secret
from imageworks.targets.artifact import Artifact
from imageworks.targets.places import Program, exec_path, exec_to_stack, programs

NAME = "exec"

# Names, never `*` over a space that holds keys: VLLM_API_KEY, HF_TOKEN and IMAGEWORKS_<KEY> must not reach an engine.
PASS_ALWAYS = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "XDG_*", "LD_LIBRARY_PATH", "OMP_NUM_THREADS",
)  # fmt: skip
PASS_PROXY = ("IMAGEWORKS_*", "CHAT_PROXY_*", "DBUS_SESSION_BUS_ADDRESS")
PASS_GPU = (
    "CUDA_*", "NVIDIA_*", "NCCL_*", "HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR", "VLLM_ATTENTION_BACKEND", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_ENGINE_READY_TIMEOUT_S",
    "VLLM_LOGGING_LEVEL", "VLLM_WORKER_MULTIPROC_METHOD",
)  # fmt: skip


def words(flag: Flag) -> tuple[str, ...]:
    """The words of one flag as they stand in an exec spec: path tokens kept where meant, everything else literal."""
    if flag.value is None:
        return (flag.name,)
    value = flag.value if flag.path else contract.escape(flag.value)
    if not flag.name:
        return (value,)
    return (flag.name, value) if flag.form == "pair" else (f"{flag.name}={value}",)


def pass_env(plan: Plan, program: Program) -> tuple[str, ...]:
    """Variables that the program takes over; the proxy also those of roots and keys, which it resolves itself."""
    if program.model is None:
        roots = (root.env for root in plan.roots if root.env)
        return (*PASS_ALWAYS, *PASS_PROXY, *roots, *_of_keys(plan))
    return (*PASS_ALWAYS, *PASS_GPU) if program.launch.slots else PASS_ALWAYS


def _of_keys(plan: Plan) -> Iterable[str]:
    """Variables that the keys of remote models and of clients are read from."""
    for key in plan.proxy_secrets:
        if key.file is None:
            yield key.env or "CREDENTIALS_DIRECTORY"


def secret(given: Secret) -> contract.Secret:
    """The reference to a secret as it stands in generated files."""
    return contract.Secret(given.name, given.env, given.file, given.credential)


def spec(plan: Plan, program: Program) -> contract.ExecSpec:
    """The exec spec of one program."""
    launch = program.launch
    return contract.ExecSpec(
        program=program.name,
        argv=tuple(word for flag in launch.flags for word in words(flag)),
        env={name: contract.escape(value) for name, value in launch.env.items()},
        pass_env=tuple(dict.fromkeys(pass_env(plan, program))),
        cwd="{stack}",
        stack=exec_to_stack(plan),
        roots={root.name: contract.Root(env=root.env, default=root.default) for root in plan.roots},
        devices=launch.slots,
        needs=tuple(contract.Need(need.path, need.hint) for need in launch.needs),
        secrets={name: secret(given) for name, given in launch.secrets.items()},
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One file for each program."""
    del plans  # what is executed depends on this profile alone
    for program in programs(plan):
        yield Artifact(exec_path(program.name), contract.to_json(spec(plan, program)))
