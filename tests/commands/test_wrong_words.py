"""What a person gets who names the wrong thing, or may not do what was asked: a sentence with a remedy, and exit code 1."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks import locations
from imageworks.commands.refusal import told

Verb = Callable[..., tuple[int, str, str]]
Plain = Callable[..., subprocess.CompletedProcess[str]]
_PR_CAPBSET_DROP = 24
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def _without_power_over_files() -> None:
    """Let rights count for root too, from the next exec on (capabilities(7)); another user has no such power to lose."""
    for power in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, power, 0, 0, 0)


@pytest.fixture
def plain(folder: Path) -> Plain:
    """`plain("up", …)` as a process in `folder` that may only do what the rights of files say."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "imageworks", *words],
            cwd=folder, capture_output=True, text=True, check=False, preexec_fn=_without_power_over_files,
        )  # fmt: skip

    return call


# -f


@pytest.mark.parametrize("words", [("status",), ("down",), ("doctor",), ("logs",)])
def test_a_stack_that_is_named_and_missing_is_told_by_verbs_that_need_only_its_folder(
    small: Path, verb: Verb, words: tuple[str, ...]
) -> None:
    code, out, err = verb(*words, "-f", "stak.yaml")
    assert (code, out) == (1, "")
    assert "stak.yaml is missing" in err
    (small / "sub").mkdir()
    code, out, err = verb(*words, "-f", "sub")
    assert (code, out) == (1, "")
    assert "name the file in it: sub/stack.yaml" in err


def test_what_runs_can_be_looked_at_after_its_stack_is_gone(folder: Path, verb: Verb) -> None:
    assert verb("down") == (0, f"nothing was running in {folder}\n", "")


@pytest.mark.parametrize("word", ["check", "status"])
def test_a_stack_without_the_right_to_read_it_is_a_finding_where_it_is_read(
    small: Path, plain: Plain, word: str
) -> None:
    (small / "stack.yaml").chmod(0)
    done = plain(word)
    assert done.returncode == 1
    assert ("IW111 stack.yaml cannot be read: permission denied" in done.stderr) == (word == "check")
    assert ("not running" in done.stdout) == (word == "status")


# rights


@pytest.mark.parametrize("words", [("status",), ("down",), ("logs",)])
def test_a_state_folder_of_somebody_else_is_told_and_nothing_is_guessed(
    small: Path, plain: Plain, words: tuple[str, ...]
) -> None:
    for place in (locations.run_dir(small), locations.log_dir(small)):
        place.mkdir(parents=True)
        place.chmod(0)
    done = plain(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: permission denied: " in done.stderr
    assert "ls -ld" in done.stderr
    for place in (locations.run_dir(small), locations.log_dir(small)):
        place.chmod(0o700)


def test_doctor_goes_on_where_the_supervisor_cannot_be_asked(small: Path, plain: Plain) -> None:
    locations.run_dir(small).mkdir(parents=True)
    locations.run_dir(small).chmod(0)
    done = plain("doctor", "--format", "json")
    locations.run_dir(small).chmod(0o700)
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"] if each["level"] == "error"}
    assert done.returncode == 1
    assert "must not reach" in found["supervisor"]["found"]
    assert found["supervisor"]["todo"]


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (OSError(errno.EACCES, "Permission denied", "/a/b"), "permission denied: /a/b", "ls -ld /a/b"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device", "df -h ."),
        (OSError(errno.EROFS, "Read-only file system", Path("/a")), "read-only file system: /a", "findmnt -T /a"),
    ],
)
def test_what_the_machine_refuses_is_said_with_a_remedy(error: OSError, what: str, remedy: str) -> None:
    said = told(error)
    assert said is not None
    assert said[0] == what
    assert remedy in said[1]


def test_an_error_that_no_machine_is_to_blame_for_stays_a_bug() -> None:
    assert told(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None
    assert told(OSError("no number")) is None


# streams


def test_a_full_disk_behind_the_output_is_no_bug_of_ours() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "imageworks", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode != 0
    assert "no space left on device" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_is_closed_is_no_error(small: Path, closed: int) -> None:
    script = (
        f"import os; os.close({closed}); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'imageworks', 'show'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=small, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("gemma-4b" in done.stdout) == (closed != 1)


# words of options


@pytest.mark.parametrize("wait", ["nan", "-3", "inf", "soon", "2d"])
def test_apply_waits_only_for_a_duration(small: Path, verb: Verb, wait: str) -> None:
    assert small.exists()
    code, _, err = verb("apply", "--wait", wait)
    assert code == 1
    assert f"{wait} is no duration" in err


def test_a_lease_is_not_asked_for_at_an_address_that_is_none(folder: Path, verb: Verb) -> None:
    assert folder.exists()
    for url in ("http://127.0.0.1:99999", "https://127.0.0.1:8100"):
        code, _, err = verb("lease", "list", "--url", url)
        assert code == 1
        assert "is no http address" in err


# init


def test_init_keeps_a_gitignore_of_any_encoding_byte_by_byte(folder: Path, verb: Verb) -> None:
    before = b"gr\xfc\xdfe\r\nmodels/"
    (folder / ".gitignore").write_bytes(before)
    assert verb("init")[0] == 0
    after = (folder / ".gitignore").read_bytes()
    assert after == before + b"\n.imageworks/\nstack.local.yaml\n"


def test_init_names_a_folder_as_the_shell_wants_it(folder: Path, verb: Verb) -> None:
    assert folder.exists()
    assert "cd 'my stack' && imageworks up" in verb("init", "my stack")[1]


def test_up_stops_nothing_where_nothing_was_started(
    small: Path, verb: Verb, free_ports: Callable[[int], list[int]]
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", free_ports(1)[0]))) as other:
        port = other.getsockname()[1]
        with (small / "stack.yaml").open("a", encoding="utf-8") as stack:
            stack.write(f"proxy: {{bind: '127.0.0.1:{port}'}}\n")
        code, _, err = verb("up", "--once", "--profile", "development")
    assert code == 1
    assert f"127.0.0.1:{port} cannot be used" in err
    assert "stopping" not in err
