"""Targets of installed packages, through real distributions on the path: found, used, checked, and told when they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.model.plugin_targets import OURS
from imageworks.targets import plugins

Verb = Callable[..., tuple[int, str, str]]
Install = Callable[..., Path]
STACK = """version: 1
models:
  far: {backend: openai, url: "https://llm.example.org", roles: {chat: 50}}
targets:
  nomad: {options: {region: eu, count: 2}}
"""
GOOD = """
from imageworks.targets.artifact import Artifact
NAME = "nomad"
def emit(plan, plans):
    told = plan.options.of(NAME)
    yield Artifact("nomad/jobs/all.hcl", f"# {plan.profile} of {len(plans)} in {told['region']} x {told['count'] + 1}\\n")
    yield Artifact("nomad/run.sh", "#!/bin/sh\\n", mode=0o755)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(code)`: a distribution with one module and one entry point, in a folder of its own on the path."""

    def make(code: str, *, name: str = "nomad", package: str = "iw-nomad", value: str = "{module}") -> Path:
        module = package.replace("-", "_")
        site = tmp_path / "site" / package
        info = site / f"{module}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code, "utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", "utf-8")
        (info / "entry_points.txt").write_text(
            f"[imageworks.targets]\n{name} = {value.format(module=module)}\n", "utf-8"
        )
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site

    return make


@pytest.fixture
def stack(folder: Path) -> Path:
    (folder / "stack.yaml").write_text(STACK, "utf-8")
    return folder


def test_a_plug_in_writes_below_its_name_in_every_profile(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD)
    assert verb("compile")[0] == 0
    made = stack / "generated" / "development" / "nomad"
    assert (made / "jobs" / "all.hcl").read_text() == "# development of 9 in eu x 3\n"
    assert os.access(made / "run.sh", os.X_OK)
    assert len(list(stack.glob("generated/*/nomad/jobs/all.hcl"))) == 9


def test_its_files_are_compared_protected_and_removed_like_ours(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD)
    verb("compile")
    manifest = json.loads((stack / "generated" / "development" / "manifest.json").read_text("utf-8"))
    assert {"nomad/jobs/all.hcl", "nomad/run.sh"} <= manifest["outputs"].keys()
    assert verb("compile", "--check")[0] == 0
    (stack / "stack.yaml").write_text(STACK.replace("eu", "us"), "utf-8")
    code, out, _ = verb("compile", "--check")
    assert (code, "+# development of 9 in us x 3" in out) == (2, True)
    job = stack / "generated" / "development" / "nomad" / "jobs" / "all.hcl"
    job.write_text("edited by hand\n", "utf-8")
    code, _, err = verb("compile")
    assert (code, "IW601" in err, job.read_text()) == (1, True, "edited by hand\n")
    assert verb("compile", "--overwrite")[0] == 0
    (stack / "stack.yaml").write_text(STACK.replace("nomad: {", "nomad: {enabled: false, "), "utf-8")
    assert verb("compile")[0] == 0
    assert not list(stack.glob("generated/*/nomad"))


def test_another_process_finds_it_the_same_way(stack: Path, install: Install) -> None:
    site = install(GOOD)
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "imageworks", "compile"], cwd=stack, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (stack / "generated" / "development" / "nomad" / "run.sh").exists()


def test_a_stack_without_plug_ins_looks_for_none(stack: Path) -> None:
    (stack / "stack.yaml").write_text(STACK.partition("targets:")[0], "utf-8")
    code = "import sys; from imageworks.cli import run; run(['compile']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=stack, capture_output=True, text=True, check=True)
    assert "imageworks.targets.registry" in done.stdout.split()
    assert not {"imageworks.targets.plugins", "importlib.metadata"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import no_such_module", "iw_nomad cannot be loaded: ModuleNotFoundError: No module named 'no_such_module' ("),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("def emit(", "cannot be loaded: SyntaxError"),
        ('NAME = "other"\ndef emit(plan, plans): ...', "iw_nomad is no target: it needs NAME = 'nomad'"),
        ('NAME = "nomad"', "is no target"),
        ('NAME = "nomad"\ndef emit(plan, plans):\n    return 1 / 0', "emit failed on balanced_24gb: ZeroDivisionError"),
        ('NAME = "nomad"\ndef emit(plan): ...', "emit failed on balanced_24gb: TypeError"),
        ('NAME = "nomad"\ndef emit(plan, plans):\n    return None', "emit failed on balanced_24gb: TypeError"),
        ('NAME = "nomad"\ndef emit(plan, plans):\n    return ["nomad/x"]', "emit gave str, not Artifact"),
        (GOOD.replace("nomad/run.sh", "nomad/jobs/all.hcl"), "`nomad/jobs/all.hcl` is written twice"),
        (GOOD.replace("nomad/run.sh", "nomad/jobs"), "`nomad/jobs` is a file and a folder"),
        (GOOD.replace("#!/bin/sh\\n", "\\ud800"), "`nomad/run.sh` is not text that UTF-8 can carry"),
        (GOOD.replace("0o755", "0o4755"), "`nomad/run.sh` has rights 2541"),
        (GOOD.replace("0o755", "0o055"), "`nomad/run.sh` has rights 45"),
        (GOOD.replace('"#!/bin/sh\\n"', "__import__('secrets').token_hex()"), "different files for one plan"),
        *((GOOD.replace("nomad/run.sh", path), "is not a file below `nomad/`")
          for path in ("run.sh", "/etc/passwd", "nomad/../x", "../nomad/x", "systemd/x.service", "nomad", "nomad/", "nomad//x", "nomad/a\\\\b", "nomad/a\\nb")),
    ],
)  # fmt: skip
def test_a_plug_in_that_cannot_be_used_is_told_and_nothing_is_written(
    stack: Path, install: Install, verb: Verb, code: str, told: str
) -> None:
    install(code)
    exit_code, _, err = verb("compile")
    assert exit_code == 1
    assert err.count("IW523 target `nomad` cannot be used   stack.yaml:5:3") == 1
    assert "iw-nomad 1.2: " in err
    assert told in err
    assert not (stack / "generated").exists()


@pytest.mark.usefixtures("stack")
def test_two_packages_with_one_target_are_told_and_neither_writes(install: Install, verb: Verb) -> None:
    install(GOOD)
    install(GOOD, package="iw-other")
    code, _, err = verb("check")
    assert code == 1
    assert "IW524 target `nomad` is taken   stack.yaml:5:3" in err
    assert "iw-nomad 1.2 and iw-other 1.2 both provide it" in err


def test_the_folder_of_our_own_target_is_nobody_elses(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD.replace("nomad", "exec"), name="exec")
    (stack / "stack.yaml").write_text(STACK.replace("nomad:", "exec:"), "utf-8")
    code, _, err = verb("check")
    assert (code, "IW524 target `exec` is taken" in err) == (1, True)


@pytest.mark.usefixtures("stack")
def test_a_target_hidden_by_ours_is_told(install: Install, verb: Verb) -> None:
    install(GOOD)
    install("raise AssertionError('never loaded')", name="systemd", package="iw-hidden")
    code, _, err = verb("check")
    assert code == 0
    assert "IW524 warning: target `systemd` of iw-hidden 1.2 is never used" in err


def test_an_unknown_target_is_told_beside_other_mistakes(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD)
    (stack / "stack.yaml").write_text(STACK.replace("nomad", "nomda").replace("backend", "bakend"), "utf-8")
    code, _, err = verb("check", "--format", "concise")
    assert code == 1
    assert err.splitlines() == [
        "stack.yaml:3:9: IW201 unknown key `bakend`",
        "stack.yaml:5:3: IW522 unknown target `nomda`",
    ]
    assert verb("check", "--fix")[0] == 0
    assert "  nomad: {options" in (stack / "stack.yaml").read_text("utf-8")


@pytest.mark.parametrize("line", ["nomad: {enable: false}", "nomad: 5", "nomad: {options: [a]}"])
def test_what_stands_below_a_plug_in_is_checked(stack: Path, install: Install, verb: Verb, line: str) -> None:
    install(GOOD)
    (stack / "stack.yaml").write_text(STACK.replace("nomad: {options: {region: eu, count: 2}}", line), "utf-8")
    code, _, err = verb("check", "--format", "concise")
    assert code == 1
    assert [text.split()[1] for text in err.splitlines()] == ["IW201" if "enable" in line else "IW200"]


def test_variables_reach_its_options_and_secrets_do_not(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD)
    text = STACK.replace("region: eu", 'region: "${HERE}"') + "variables: {HERE: space}\n"
    (stack / "stack.yaml").write_text(text, "utf-8")
    assert verb("compile")[0] == 0
    assert "in space x" in (stack / "generated" / "development" / "nomad" / "jobs" / "all.hcl").read_text("utf-8")
    (stack / "stack.yaml").write_text(
        STACK.replace("region: eu", "region: {secret: KEY}") + "secrets: {KEY: {env: K}}\n", "utf-8"
    )
    code, _, err = verb("check")
    assert (code, "IW305" in err) == (1, True)


def test_a_changed_option_is_a_difference_with_its_line(stack: Path, install: Install, verb: Verb) -> None:
    install(GOOD)
    (stack / "new.yaml").write_text(STACK.replace("eu", "us"), "utf-8")
    _, out, _ = verb("diff", "stack.yaml", "new.yaml")
    assert "region  eu -> us  (new.yaml:5)" in out


def test_both_halves_mean_the_same_targets() -> None:
    assert plugins.OURS == OURS
