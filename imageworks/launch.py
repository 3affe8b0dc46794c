"""What supervisord and systemd really start: `python -m imageworks.launch [--print] SPEC.json`.

Owns the way from an exec spec to `execve`: path tokens, a closed environment, the GPU binding, the check that the
weights are there. It is the seam between committed, machine-independent files and this machine. Standard library
only and few imports, for every process waits for it. It never guesses: what it cannot do it says in one line
on stderr, with exit code 78 (configuration) or 127 (program not found).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from imageworks import contract, locations

EXIT_USAGE = 64
EXIT_CONFIG = 78
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
_USAGE = "usage: python -m imageworks.launch [--print] SPEC.json"
READABLE_ENVIRONMENT = {"SPT_NOENV": "1"}
"""setproctitle, which vLLM's workers use, writes a new title over what /proc/PID/environ shows, unless it is told not to;
by that we know again whose a process is that lost its parents."""
_PR_SET_PDEATHSIG = 1
_SIGTERM = 15


class LaunchError(Exception):
    """The program cannot be started; `lines` go to stderr, `code` is the exit status."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.code = code
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Command:
    """A resolved exec spec: what execve gets. `inherited` names the variables of `env` that came from the parent.

    `file` and `spec` are what it was resolved from.
    """

    file: Path
    spec: contract.ExecSpec
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    inherited: AbstractSet[str]
    missing: tuple[contract.Need, ...]


def passed(environ: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """The part of `environ` that `patterns` (names, or prefixes ending in `*`) let through.

    >>> passed({"LC_ALL": "C", "LC": "x", "HOME": "/h", "TOKEN": "t"}, ["HOME", "LC_*"])
    {'LC_ALL': 'C', 'HOME': '/h'}
    """
    names = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return {name: value for name, value in environ.items() if name in names or name.startswith(prefixes)}


def visible_devices(slots: Sequence[int], devices: str | None, profile: str) -> str:
    """Value of CUDA_VISIBLE_DEVICES for plan `slots`; "" hides every GPU.

    `devices` is the text of devices.json, None when there is no such file. Written for another profile it says
    nothing about this one, then the slot numbers themselves are used (cards in PCI order). Raises LaunchError
    (78) when it cannot be read or names too few cards.
    """
    if not slots:
        return ""
    uuids = _bound_cards(devices, profile) if devices is not None else None
    if uuids is None:
        return ",".join(str(slot) for slot in slots)
    if max(slots) >= len(uuids):
        raise LaunchError(
            EXIT_CONFIG,
            f"the plan uses GPU slot {max(slots)}, but only {len(uuids)} GPU(s) are bound to profile {profile}; run: imageworks up",
        )
    return ",".join(uuids[slot] for slot in slots)


def _bound_cards(devices: str | None, profile: str) -> Sequence[str] | None:
    try:
        data = json.loads(devices or "")
        contract.check_schema("devices.json", data["schema"], contract.DEVICES_SCHEMA)
        return [str(uuid) for uuid in data["uuids"]] if data["profile"] == profile else None
    except contract.ContractError as error:
        raise LaunchError(EXIT_CONFIG, str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise LaunchError(EXIT_CONFIG, "devices.json in the state folder is damaged; run: imageworks up") from None


def resolve(spec_file: Path, environ: Mapping[str, str]) -> Command:
    """Read the spec and resolve it against this machine. Raises LaunchError (78) when that cannot be done."""
    spec_file = spec_file.absolute()
    try:
        spec = contract.exec_spec(_read(spec_file))
        stack = locations.absolute(spec_file.parent, spec.stack)
        tokens = locations.tokens(stack, spec.roots, environ)
        env = {name: contract.expand(value, tokens) for name, value in spec.env.items()}
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        env |= {"CUDA_VISIBLE_DEVICES": visible_devices(spec.devices, _devices(stack), spec_file.parent.parent.name)}
        # who this process belongs to: `imageworks down` finds what outlived a killed supervisor by it
        env |= {"IMAGEWORKS_STACK": tokens["stack"], "IMAGEWORKS_PROGRAM": spec.program, **READABLE_ENVIRONMENT}
        inherited = passed(environ, spec.pass_env)
        needs = tuple(contract.Need(contract.expand(need.path, tokens), need.hint) for need in spec.needs)
        return Command(
            file=spec_file,
            spec=spec,
            argv=tuple(contract.expand(word, tokens) for word in spec.argv),
            env=inherited | env,
            cwd=contract.expand(spec.cwd, tokens),
            inherited=inherited.keys() - env.keys(),
            missing=tuple(need for need in needs if not Path(need.path).exists()),
        )
    except contract.ContractError as error:
        raise LaunchError(EXIT_CONFIG, f"{spec_file}: {error}") from None
    except KeyError as error:
        raise LaunchError(EXIT_CONFIG, f"{spec_file}: unknown path token {error}; run: imageworks compile") from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise LaunchError(EXIT_CONFIG, f"cannot read {path}: {reason}; run: imageworks compile") from None


def _devices(stack: Path) -> str | None:
    path = locations.devices_file(stack)
    return _read(path) if path.exists() else None


def shell_text(command: Command) -> str:
    """The command for a person to read or paste; inherited values and secrets stay names, so that none is shown."""
    import shlex  # noqa: PLC0415 - only people ask for this; a start must not pay for it

    hidden = command.spec.secrets
    inherited = [f'{name}="${name}"' for name in sorted(command.inherited - hidden.keys())]
    shown = sorted(command.env.keys() - command.inherited - hidden.keys())
    fixed = [f"{name}={shlex.quote(command.env[name])}" for name in shown]
    secret = [f'{name}="{_source(given, command)}"' for name, given in sorted(hidden.items())]
    words = ["env", "-i", *inherited, *fixed, *secret, shlex.join(command.argv)]
    return f"cd {shlex.quote(command.cwd)} && {' '.join(words)}"


def _source(secret: contract.Secret, command: Command) -> str:
    """Where a secret comes from, as a shell writes it between double quotes."""
    import shlex  # noqa: PLC0415 - as above

    if secret.env is not None:
        return f"${secret.env}"
    if secret.file is not None:
        return f"$(cat {shlex.quote(str(locations.absolute(Path(command.env['IMAGEWORKS_STACK']), secret.file)))})"
    return f'$(cat "$CREDENTIALS_DIRECTORY/{secret.credential}")'


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, so that `kill -9` of it leaves no orphan on our ports.

    The setting survives execve (prctl(2), PR_SET_PDEATHSIG). Where there is no prctl nothing is promised.
    """
    import ctypes  # noqa: PLC0415 - `--print` need not load it

    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGTERM, 0, 0, 0)
    except AttributeError:
        return
    if os.getppid() != parent:  # it died between the two lines: the signal will never come
        os._exit(EXIT_CANNOT_RUN)


def leave_word(command: Command) -> None:
    """Record what this process is started from, so that `imageworks plan` can tell what runs from what should.

    The pid stays through execve. No word is better than no start: a full or read-only disk is passed over.
    """
    stack, program = Path(command.env["IMAGEWORKS_STACK"]), Path(command.env["IMAGEWORKS_PROGRAM"]).name
    path = locations.started_file(stack, program)
    word = {"schema": contract.STARTED_SCHEMA, "file": str(command.file), **_who()}
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(contract.to_json({**word, "spec": dataclasses.asdict(command.spec)}), "utf-8")
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _who() -> dict[str, object]:
    """This process, also for a time when its number may be another's: start in clock ticks since boot (proc(5)), and which boot."""
    who: dict[str, object] = {"pid": os.getpid()}
    with contextlib.suppress(OSError, IndexError, ValueError):
        who["start"] = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
        who["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return who


def secrets(command: Command, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold secrets, read now. Raises LaunchError (78) that says how to set what is missing."""
    if not command.spec.secrets:
        return {}
    from imageworks import credentials  # noqa: PLC0415 - most programs have none, and every start waits for the imports

    stack, problems, found = Path(command.env["IMAGEWORKS_STACK"]), [], {}
    for name, secret in command.spec.secrets.items():
        try:
            found[name] = credentials.read(secret, stack, environ)
        except credentials.SecretError as error:
            problems.append(str(error))
    if problems:
        raise LaunchError(EXIT_CONFIG, *dict.fromkeys(problems))
    return found


def run(command: Command) -> None:
    """Replace this process by the command. Raises LaunchError when weights, a secret or the program are missing; else never returns."""
    if command.missing:
        lines = (f"model weights are missing: {need.path}; get them: {need.hint}" for need in command.missing)
        raise LaunchError(EXIT_CONFIG, *lines)
    program = command.argv[0]
    env = {**command.env, **secrets(command, os.environ)}
    try:
        os.chdir(command.cwd)
        leave_word(command)
        _die_with_parent()
        os.execvpe(program, command.argv, env)  # noqa: S606 - no shell is the point
    except FileNotFoundError as error:
        if error.filename == command.cwd:
            raise LaunchError(EXIT_CONFIG, f"working directory {command.cwd} does not exist") from None
        where = "" if "/" in program else f" on PATH ({command.env.get('PATH', os.defpath)})"
        fix = "install it, or name its full path as the backend's `command` in stack.yaml"
        raise LaunchError(EXIT_NOT_FOUND, f"program `{program}` not found{where}; {fix}") from None
    except OSError as error:
        raise LaunchError(EXIT_CANNOT_RUN, f"cannot run `{program}`: {error.strerror}") from None


def main(arguments: Sequence[str]) -> int:
    """Start the program of the spec file, or print its command. Returns the exit status of a failure, 0 after --print."""
    words = [word for word in arguments if word != "--print"]
    if len(words) != 1 or words[0].startswith("-"):
        sys.stderr.write(_USAGE + "\n")
        return EXIT_USAGE
    try:
        command = resolve(Path(words[0]), os.environ)
        if len(words) == len(arguments):
            run(command)
        sys.stdout.write(shell_text(command) + "\n")
    except LaunchError as error:
        sys.stderr.writelines(f"imageworks: error: {line}\n" for line in error.lines)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
