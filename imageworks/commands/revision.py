"""Stacks by name: a file, a folder with a stack.yaml, or a git revision of one (`HEAD~1:`, `main:stack.yaml`).

Owns the way to git (its command line, read only) and the adapter that lets the front end read a revision as if it
were a folder.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path, PurePosixPath

from imageworks.commands.pipeline import STACK_FILE
from imageworks.source.files import LARGEST_BYTES, DiskFiles, Files
from imageworks.values import dataclass


class RevisionError(Exception):
    """No such stack; the text says what was looked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stack is read from. `path` names its file, `name` the folder that gives it a name of its own."""

    path: Path
    files: Files
    name: str


class RevisionFiles:
    """Files of a commit below `folder`, as `git show` gives them. Paths count from the repository's top."""

    def __init__(self, commit: str, folder: str) -> None:
        self._commit, self._folder = commit, folder

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        done = _git("cat-file", "blob", f"{self._commit}:{self._at(name)}")
        if done.returncode:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if len(done.stdout) > LARGEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        return done.stdout

    def names(self, folder: str) -> tuple[str, ...]:
        """See `Files.names`."""
        top = self._at(folder)
        done = _git("ls-tree", "-r", "-z", "--full-tree", "--name-only", self._commit, f"{top}/")
        paths = (os.fsdecode(path) for path in done.stdout.split(b"\0") if path)
        return tuple(sorted(str(PurePosixPath(path).relative_to(self._folder or ".")) for path in paths))

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name


def find(name: str) -> Place:
    """The stack that `name` means. Raises RevisionError."""
    path = Path(name)
    if path.is_dir():
        path /= STACK_FILE
    if path.exists() or ":" not in name:
        path = path.absolute()
        return Place(path, DiskFiles(path.parent), path.parent.name)
    revision, _, inside = name.partition(":")
    return _in_git(revision, inside)


def _in_git(revision: str, inside: str) -> Place:
    """`inside` counts from the repository's top, as for git; left out, or with `./`, from the working directory."""
    commit = _answer("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    here = _answer("rev-parse", "--show-prefix") if not inside or inside.startswith("./") else ""
    if commit is None or here is None:
        raise RevisionError(f"git knows no commit `{revision}` here")
    file = PurePosixPath(here, inside or STACK_FILE)
    folder = "" if str(file.parent) == "." else str(file.parent)
    top = Path(_answer("rev-parse", "--show-toplevel") or ".")
    return Place(top / file, RevisionFiles(commit, folder), (top / file).parent.name)


def _answer(*words: str) -> str | None:
    done = _git(*words)
    return None if done.returncode else os.fsdecode(done.stdout).strip()


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise RevisionError("git is not installed, and revisions are its names") from None
