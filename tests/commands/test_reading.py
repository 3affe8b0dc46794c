"""The verbs that only look: show, roles, status, logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imageworks.commands import running, status

from .conftest import Verb

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's own stack as seen from its folder, without weights on this disk."""
    monkeypatch.setenv("IMAGEWORKS_STORE", str(folder / "store"))
    monkeypatch.setenv("IMAGEWORKS_MODELS", str(folder / "models"))
    monkeypatch.chdir(ROOT)
    return ROOT


def test_show_explains_every_flag_of_a_launch_command(shipped: Path, verb: Verb) -> None:
    code, out, _ = verb("show", "qwen3-vl-8b-fp8", "--profile", "constrained_16gb")
    assert code == 0
    spec = json.loads((shipped / "generated/constrained_16gb/exec/model-qwen3-vl-8b-fp8.json").read_text())
    lines = out.splitlines()
    for word in spec["argv"]:
        (line,) = [
            line for line in lines if line.split("  ")[0:3][-1].strip() == word or line.startswith(f"    {word}  ")
        ]
        assert len(line.split(word, 1)[1].strip()) > 3, f"no reason beside {word}"


def test_show_says_why_a_model_is_left_out_with_its_sum(shipped: Path, verb: Verb) -> None:
    assert shipped.exists()
    code, out, _ = verb("show", "gpt-oss-20b", "--profile", "constrained_16gb")
    assert code == 0
    assert "IW410" in out
    assert "12.85" in out


def test_show_knows_aliases_and_proposes_close_names(shipped: Path, verb: Verb) -> None:
    assert shipped.exists()
    assert verb("show", "qwen3-vl-8b-instruct_(FP8)", "--profile", "constrained_16gb")[0] == 0
    code, _, err = verb("show", "smollm2-135")
    assert code == 1
    assert "did you mean `smollm2-135m`" in err
    assert verb("show", "nonsense", "--format", "json")[0] == 1


def test_show_of_a_profile_and_its_json_agree(shipped: Path, verb: Verb) -> None:
    assert shipped.exists()
    code, out, _ = verb("show", "--profile", "balanced_24gb")
    assert code == 0
    data = json.loads(verb("show", "--profile", "balanced_24gb", "--format", "json")[1])
    assert {model["id"] for model in data["models"]} == {
        line.split()[0] for line in out.splitlines() if "context" in line
    }


def test_roles_say_what_is_missing_and_how_to_get_it(shipped: Path, verb: Verb) -> None:
    assert shipped.exists()
    code, out, _ = verb("roles", "caption", "--profile", "development")
    assert code == 0
    assert "1. smolvlm-500m" in out
    assert "get it: hf download ggml-org/SmolVLM-500M-Instruct-GGUF" in out
    data = json.loads(verb("roles", "keywords", "--profile", "constrained_16gb", "--format", "json")[1])
    assert data["roles"][0]["candidates"][0]["model"] == "florence-2-large"
    assert verb("roles", "nobody")[0] == 1


def test_an_unknown_profile_is_told_with_the_known_ones(
    shipped: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped.exists()
    monkeypatch.setenv("IMAGEWORKS_DEPLOYMENT_PROFILE", "gigantic")
    for words in (("roles",), ("show",), ("up",)):
        code, _, err = verb(*words)
        assert code == 1
        assert "gigantic" in err
        assert "balanced_24gb" in err


def test_status_shows_models_that_no_program_of_ours_runs(
    small: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ollama's, and another server's."""
    assert small.exists()
    program = running.ProgramInfo("model-small", "RUNNING", 7, 1, "pid 7, uptime 0:00:01")
    monkeypatch.setattr(running.Running, "programs", lambda _self: (program,))
    monkeypatch.setattr(running.Running, "pid", lambda _self: 6)
    loaded = {"model-small": {"model": "small", "state": "ready"}, "far": {"model": "far", "state": "loading"}}
    monkeypatch.setattr(status, "residency", lambda _folder: loaded)
    code, out, _ = verb("status")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[2:]]
    assert [(row[0], row[-2:]) for row in rows] == [("model-small", ["small", "ready"]), ("-", ["far", "loading"])]


def test_status_and_logs_before_the_first_start(small: Path, verb: Verb) -> None:
    assert small.exists()
    code, out, _ = verb("status")
    assert (code, out) == (1, f"not running in {small}; start it: imageworks up\n")
    assert json.loads(verb("status", "--format", "json")[1]) == {"running": False}
    code, _, err = verb("logs")
    assert code == 1
    assert "imageworks up" in err


def test_logs_shows_the_last_lines_by_model_or_program(small: Path, verb: Verb) -> None:
    log = small / ".imageworks" / "log" / "model-gemma-4b.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    for name in ("gemma-4b", "model-gemma-4b"):
        assert verb("logs", name, "-n", "2") == (0, "two\nthree\n", "")
    for name in ("gemma", "../log/model-gemma-4b", "x" * 300):
        code, _, err = verb("logs", name)
        assert code == 1
        assert "there are: model-gemma-4b" in err


def test_down_without_anything_running_says_so(small: Path, verb: Verb) -> None:
    assert verb("down") == (0, f"nothing was running in {small}\n", "")
