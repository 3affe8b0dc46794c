"""A compile that is killed: at every single system call, the folder is one generation or the other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from imageworks.output import swap
from imageworks.output.write import check_generation, write_generation
from imageworks.targets.artifact import Artifact

INPUTS = {"stack.yaml": "11" * 32}
Generation = Callable[[str], dict[str, tuple[Artifact, ...]]]
Profiles = Mapping[str, tuple[Artifact, ...]]
Contents = Callable[[Path], dict[str, tuple[bytes, int]]]
EFFECTS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.link",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "ctypes.call_function",
)


def killed_at(event: int, out: Path, profiles: Profiles, *, exchange: bool) -> bool:
    """Compile the second generation in a child that dies at its `event`-th effect; False when it lived."""
    child = os.fork()
    if child == 0:
        _compile_until(event, out, profiles, exchange=exchange)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _compile_until(event: int, out: Path, profiles: Profiles, *, exchange: bool) -> NoReturn:
    seen = 0

    def count(name: str, _: object) -> None:
        nonlocal seen
        if name in EFFECTS:
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        if not exchange:
            swap.exchange = no_exchange
        sys.addaudithook(count)
        report = write_generation(out, profiles, INPUTS)
        os._exit(1 if report.diagnostics else 0)
    finally:
        os._exit(2)


def no_exchange(one: Path, other: Path) -> None:
    del other
    raise OSError(22, "no exchange here", str(one))


@pytest.mark.parametrize("exchange", [True, False])
def test_no_kill_leaves_half_a_generation(
    tmp_path: Path, generation: Generation, contents: Contents, *, exchange: bool
) -> None:
    one, two = generation("one"), generation("two")
    event, states = 0, set()
    while True:
        event += 1
        out = tmp_path / str(event) / "generated"
        write_generation(out, one, INPUTS)
        (out / "big/mine.txt").write_text("mine")
        died = killed_at(event, out, two, exchange=exchange)
        states.add(tuple(state(out, profile, one, two, contents) for profile in ("big", "small")))
        report = write_generation(out, two, INPUTS)
        assert report.diagnostics == ()
        assert not check_generation(out, two, INPUTS)
        assert (out / "big/mine.txt").read_text() == "mine"
        assert not list(out.rglob(".imageworks-*"))
        if not died:
            break
    assert event > 40
    assert {("one", "one"), ("two", "one"), ("two", "two")} <= states
    away = {("away", "one"), ("two", "away")} if not exchange else set()
    assert states - {("one", "one"), ("two", "one"), ("two", "two")} <= away


def state(out: Path, profile: str, one: Profiles, two: Profiles, contents: Contents) -> str:
    """Which generation a profile's folder holds, whole; `away` between two renames; else what is wrong with it."""
    found = contents(out / profile)
    found.pop("mine.txt", None)
    if not found and not (out / profile).exists():
        return "away"
    for word, profiles in (("one", one), ("two", two)):
        if not check_generation(out, {profile: profiles[profile]}, INPUTS):
            return word
    return f"torn: {sorted(found)}"
