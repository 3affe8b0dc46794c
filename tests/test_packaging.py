"""What is shipped: locks, the wheel, the scripts, and how fast the command line may be because of what it loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\$", re.MULTILINE)
SCRIPTS = sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)
HEAVY = {
    "pydantic",
    "ruamel",
    "jinja2",
    "aiohttp",
    "uvloop",
    "msgspec",
    "supervisor",
    "pynvml",
    "asyncio",
    "importlib.metadata",
}


def pins(lock: str) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for match in PIN.finditer((ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")):
        found.setdefault(match["name"], set()).add(match["version"])
    return found


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def wanted(*extras: str) -> list[Requirement]:
    metadata = project()
    lists = [
        metadata["project"]["dependencies"],
        *(metadata["project"]["optional-dependencies"][name] for name in extras),
    ]
    return [Requirement(line) for lines in lists for line in lines]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_host_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host|\bfile:", text)
    blocks = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert all(PIN.match(f"{block.partition(chr(10))[0]}\n") and "--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("demo", ("demo",)), ("test", ("demo", "test", "dev")), ("docs", ("docs",))],
)
def test_a_lock_holds_what_pyproject_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    locked = pins(lock)
    for requirement in wanted(*extras):
        versions = locked.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not in {lock}.txt; run: ./scripts/lock"
        assert all(requirement.specifier.contains(Version(version)) for version in versions), (
            f"{requirement}: {versions}"
        )


def test_the_build_backend_is_locked() -> None:
    """The project is installed without build isolation, so that nothing unlocked is fetched."""
    metadata = project()
    needed = {Requirement(line).name for line in metadata["build-system"]["requires"]} | {"editables"}
    assert needed <= set(pins("demo"))
    assert {Requirement(line).name for line in metadata["dependency-groups"]["build"]} == needed


def test_the_test_environment_holds_all_of_the_demo() -> None:
    """Both scripts share .venv: installing for the tests must not change what the demo runs on."""
    demo, test = pins("demo"), pins("test")
    assert {name: test.get(name) for name in demo} == dict(demo)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shell = script.read_text("utf-8").partition("\n")[0].removeprefix("#!").split()
    assert subprocess.run([*shell, "-n", str(script)], check=False).returncode == 0


def test_ci_runs_both_readme_commands() -> None:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "./scripts/demo --once" in text
    assert text.rstrip().endswith("./scripts/test")


def sourced(command: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` with scripts/environment.sh loaded and only `path` to find programs in."""
    text = f". {ROOT}/scripts/environment.sh; {command}"
    return subprocess.run(["/bin/sh", "-c", text], env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def fake_python(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    file.chmod(0o755)


def test_without_a_python_the_scripts_say_what_they_need(tmp_path: Path) -> None:
    done = sourced("find_python", tmp_path)
    assert done.returncode == 1
    assert "no Python >= 3.11 found" in done.stderr


def test_an_old_python3_is_passed_over_for_a_newer_one(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "exit 1")
    fake_python(tmp_path, "python3.12", "exit 0")
    assert sourced("find_python", tmp_path).stdout == "python3.12\n"


def test_a_python_without_venv_is_named_with_the_way_out(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = sourced("find_python", tmp_path)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the locked backend without a network, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_carries_everything_that_is_no_python(wheel: Path) -> None:
    in_tree = {
        file.relative_to(ROOT)
        for file in (ROOT / "imageworks").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    templates = {Path("imageworks") / file.relative_to(ROOT) for file in (ROOT / "templates").glob("*.j2")}
    assert templates
    missing = {str(file) for file in in_tree | templates if not (wheel / file).is_file()}
    assert not missing
    assert (wheel / "imageworks" / "py.typed").is_file()


def from_wheel(wheel: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "imageworks", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_compiles_a_fresh_stack(wheel: Path, tmp_path: Path) -> None:
    """Away from the checkout: templates and built-in layers come out of the wheel."""
    assert from_wheel(wheel, "init", cwd=tmp_path).returncode == 0
    done = from_wheel(wheel, "compile", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "generated" / "development" / "supervisord.conf").is_file()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_large_library(option: str) -> None:
    """Counting modules is exact where clocks are not; benchmarks/cli_start.py has the times."""
    program = (
        "import sys\nfrom imageworks.cli import run\ncode = run(sys.argv[1:])\n"
        "print('loaded', *sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, check=True)
    assert done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_the_version_is_the_packages_own() -> None:
    from imageworks import __version__  # noqa: PLC0415 - only here

    done = subprocess.run([sys.executable, "-m", "imageworks", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"imageworks {__version__}\n"
