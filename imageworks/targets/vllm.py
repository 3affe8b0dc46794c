"""vllm/<model>.sh: the launch command of a vLLM model for a person to read, run or paste.

Owns the script's form: POSIX sh, one flag a line, a reason for each flag in the header. What supervisord and
systemd run is the exec spec of the same plan; both come from the same flags, so they cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from imageworks import contract
from imageworks.plan.ir import Flag, Launch, Plan, PlannedModel
from imageworks.targets.artifact import Artifact
from imageworks.targets.execspec import words
from imageworks.targets.places import HEADER, STATE, exec_to_stack, place
from imageworks.targets.quoting import (
    Comment,
    QuotingError,
    SafeName,
    ShellWord,
    comment,
    safe_name,
    safe_way,
    shell_word,
)
from imageworks.targets.templating import render
from imageworks.values import dataclass

NAME = "vllm"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKENS = ("stack", "state", "store", "models")
_REASON_COLUMN = 36
_ROOTS = {"state": ("IMAGEWORKS_STATE", STATE), "models": (None, "models")}
_STORE = ShellWord('${IMAGEWORKS_STORE:-"${XDG_CACHE_HOME:-$HOME/.cache}"/imageworks/store}')


@dataclass(frozen=True, slots=True)
class ScriptView:
    """The whole script. `folders` are shell assignments of the path tokens that the command uses, in order."""

    header: tuple[Comment, ...]
    reasons: tuple[Comment, ...]
    way: SafeName
    folders: tuple[tuple[SafeName, ShellWord], ...]
    env: tuple[tuple[SafeName, ShellWord], ...]
    devices: ShellWord
    command: tuple[ShellWord, ...]


def shell_text(word: str) -> ShellWord:
    r"""A word of an exec spec as a word of the script: literal parts quoted, path tokens as `"$models"`.

    Raises QuotingError for NUL, which no argument can hold.

    >>> shell_text("--x={models}/a b")
    '--x="$models"\'/a b\''
    """
    if "\0" in word:
        raise QuotingError("an argument cannot hold NUL", word)
    parts = contract.expand(word, {token: f"\0{token}\0" for token in _TOKENS}).split("\0")
    shown = (shell_word(part) if index % 2 == 0 else f'"${part}"' for index, part in enumerate(parts))
    return ShellWord("".join(one for one in shown if one != "''") or "''")


def _line(flag: Flag) -> ShellWord:
    return ShellWord(" ".join(shell_text(word) for word in words(flag)))


def _shown(flag: Flag) -> str:
    return contract.expand(" ".join(words(flag)), {token: f"{{{token}}}" for token in _TOKENS})


def _folders(plan: Plan, used: str) -> Iterable[tuple[SafeName, ShellWord]]:
    """Assignments of the path tokens in `used`, each as the launcher resolves it: variable, else default."""
    roots: Mapping[str, tuple[str | None, str]] = _ROOTS | {root.name: (root.env, root.default) for root in plan.roots}
    for name, (env, default) in sorted(roots.items()):
        if f"{{{name}}}" in used:
            own = f"${{{env}:-{shell_word(default)}}}" if env and _VARIABLE.fullmatch(env) else shell_word(default)
            yield safe_name(name), ShellWord(own)
    if "{store}" in used:
        yield safe_name("store"), _STORE


def view(plan: Plan, model: PlannedModel, launch: Launch) -> ScriptView:
    """What the template needs. Raises QuotingError for a word that no argument can hold."""
    first = next((index for index, flag in enumerate(launch.flags) if flag.name), len(launch.flags))
    head, options = launch.flags[:first], launch.flags[first:]
    used = " ".join(flag.value or "" for flag in launch.flags if flag.path)
    return ScriptView(
        header=(
            comment(f"{model.id} on {plan.profile}: {model.placement.why}"),
            comment(HEADER),
            comment(f"plan sha256:{plan.hash}" + (f", {place(model.span)}" if model.span else "")),
        ),
        reasons=tuple(comment(f"{_shown(flag).ljust(_REASON_COLUMN)} {flag.why}") for flag in options),
        way=safe_way(exec_to_stack(plan)),
        folders=tuple(_folders(plan, used)),
        env=tuple((safe_name(name), shell_word(value)) for name, value in sorted(launch.env.items())),
        devices=shell_word(",".join(str(slot) for slot in launch.slots)),
        command=(ShellWord(" ".join(map(_line, head))), *map(_line, options)),
    )


def emit(plan: Plan, plans: Sequence[Plan]) -> Iterable[Artifact]:
    """One executable script for each vLLM model that we start."""
    del plans
    for model in plan.models:
        if model.backend == "vllm" and model.launch is not None:
            script = render("vllm.sh.j2", view(plan, model, model.launch))
            yield Artifact(f"vllm/{safe_name(model.slug)}.sh", script, mode=0o755)
