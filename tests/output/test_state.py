"""The state folder and the launcher."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imageworks import locations
from imageworks.output import state

Contents = Callable[[Path], dict[str, tuple[bytes, int]]]


@pytest.fixture
def stack() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iw-") as folder:
        yield Path(folder)


def test_everything_is_private_and_ignored_by_git(stack: Path, contents: Contents) -> None:
    assert state.prepare_state(stack, sys.executable) == ()
    for folder in (".imageworks", ".imageworks/run", ".imageworks/log", ".imageworks/bin"):
        assert stat.S_IMODE((stack / folder).stat().st_mode) == 0o700
    assert contents(stack)[".imageworks/.gitignore"] == (b"*\n", 0o600)
    assert stat.S_IMODE(locations.launch_wrapper(stack).stat().st_mode) == 0o700
    assert state.STATE == locations.STATE_FOLDER


def test_a_second_call_changes_nothing(stack: Path) -> None:
    state.prepare_state(stack, sys.executable)
    before = [path.stat().st_ino for path in sorted(stack.rglob("*"))]
    assert state.prepare_state(stack, sys.executable) == ()
    assert [path.stat().st_ino for path in sorted(stack.rglob("*"))] == before


def test_open_permissions_are_closed_again(stack: Path) -> None:
    state.prepare_state(stack, sys.executable)
    (stack / ".imageworks/log").chmod(0o755)
    locations.launch_wrapper(stack).chmod(0o644)
    state.prepare_state(stack, sys.executable)
    assert stat.S_IMODE((stack / ".imageworks/log").stat().st_mode) == 0o700
    assert os.access(locations.launch_wrapper(stack), os.X_OK)


def test_the_launcher_follows_the_python_that_compiled(stack: Path) -> None:
    state.prepare_state(stack, "/old/python")
    state.prepare_state(stack, sys.executable)
    (stack / "json.py").write_text("raise SystemExit('a file of the stack was imported')")
    done = subprocess.run([locations.launch_wrapper(stack)], cwd=stack, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "usage: python -m imageworks.launch" in done.stderr


@pytest.mark.parametrize("name", ["a b", "it's", "$(id)", "`id`", '"'])
def test_the_launcher_starts_a_python_of_any_name(name: str, stack: Path) -> None:
    home = stack / name
    home.mkdir()
    python = home / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$PATH" "$@"\n')
    python.chmod(0o755)
    (stack / "launch").write_text(state.wrapper(str(python)))
    done = subprocess.run(
        ["/bin/sh", stack / "launch", "a b"], env={"PATH": "/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{home}:/bin|-P|-m|imageworks.launch|a b|"


@pytest.mark.parametrize("name", ["50%", 'a"b', "a\\b", "a\nb", "a\x85b"])
def test_a_folder_supervisord_cannot_carry_is_a_finding(name: str, stack: Path) -> None:
    folder = stack / name
    folder.mkdir()
    (found,) = state.prepare_state(folder, sys.executable)
    assert found.code == "IW605"
    assert list(folder.iterdir()) == []


def test_the_socket_fits_exactly_up_to_the_limit(stack: Path) -> None:
    room = state.SOCKET_LIMIT - len(str(stack / "/.imageworks/run/supervisor.sock".lstrip("/"))) - 1
    longest = stack / ("x" * room)
    assert state.problem(longest) is None
    path = str(locations.control_socket(longest))
    assert len(path) == state.SOCKET_LIMIT
    longest.joinpath(".imageworks/run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound:  # as supervisord does for a moment, with the longest pid
        bound.bind(f"{path}.4194304")
    with socket.socket(socket.AF_UNIX) as refused, pytest.raises(OSError, match="too long"):
        refused.bind(f"{path}x.4194304")
    found = state.problem(stack / ("x" * (room + 1)))
    assert found
    assert found.code == "IW604"
    assert "1 byte too long" in found.message


def test_bytes_count_not_characters(stack: Path) -> None:
    found = state.problem(stack / ("é" * 40))
    assert found
    assert found.code == "IW604"


def test_a_folder_without_permission_is_a_finding(forbidden_folder: Path) -> None:
    (found,) = state.prepare_state(forbidden_folder, sys.executable)
    assert found.code == "IW603"


def test_a_file_in_place_of_the_state_folder_is_a_finding(stack: Path) -> None:
    (stack / ".imageworks").write_text("mine")
    (found,) = state.prepare_state(stack, sys.executable)
    assert found.code == "IW603"


def test_many_at_once_leave_one_whole_launcher(stack: Path) -> None:
    """Processes, not threads: the lock is the file system's."""
    code = "import sys; from pathlib import Path; from imageworks.output.state import prepare_state as p; print(*p(Path(sys.argv[1]), sys.argv[2]))"
    for round_ in range(3):
        (stack / ".imageworks" / "bin" / "launch").unlink(missing_ok=True)
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(stack), "/usr/bin/python3"], stdout=subprocess.PIPE, text=True
            )
            for _ in range(6)
        ]
        assert [run.communicate()[0].strip() for run in runs] == [""] * 6, round_
    assert (stack / ".imageworks" / "bin" / "launch").read_text() == state.wrapper("/usr/bin/python3")
