"""The machine's own layer, with the real supervisord: what runs is not what is committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import StackFolder

pytestmark = pytest.mark.e2e


def test_up_serves_the_local_plan_from_the_state_folder(stack: StackFolder) -> None:
    stack.write()
    (stack.folder / "stack.local.yaml").write_text(
        "models-: [small-long]\nmodels: {small: {aliases+: [mine]}}\n", encoding="utf-8"
    )
    done = stack.run("up", "-d")
    try:
        assert done.returncode == 0, done.stderr
        assert "with 2 local changes: models-, models.small.aliases+" in done.stderr
        assert not (stack.folder / "generated").exists()
        assert (stack.folder / ".imageworks/generated/development/routes.json").is_file()
        assert stack.get("/readyz")[0] == 200
        assert [model["id"] for model in stack.get("/v1/models")[1]["data"]][:1] == ["small"]
        assert "small-long" not in json.dumps(stack.get("/v1/models"))
        again = stack.run("plan")
        assert (again.returncode, "up to date" in again.stdout) == (0, True), again.stdout + again.stderr
    finally:
        assert stack.run("down").returncode == 0


def test_apply_does_not_mix_two_folders_of_generated_files(stack: StackFolder, tmp_path: Path) -> None:
    del tmp_path
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    try:
        (stack.folder / "stack.local.yaml").write_text("models: {small: {aliases+: [mine]}}\n", encoding="utf-8")
        done = stack.run("apply")
        assert done.returncode == 1
        assert "imageworks down && imageworks up -d" in done.stderr
        assert stack.get("/readyz")[0] == 200
    finally:
        assert stack.run("down").returncode == 0
