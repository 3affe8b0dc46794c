"""The commands under generated/ are those that vLLM's own parser took in the last recorded run.

The run itself needs vLLM (scripts/vllm-check); these tests need none, and say what to run when a command has changed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types
from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

import pytest

from imageworks.model.stack import VllmBackend
from imageworks.model.vllm_table import PINNED, table

ROOT = Path(__file__).parents[2]


def script(name: str) -> types.ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


vllm_check = script("vllm_check")
vllm_flags = script("vllm_flags")
RECORD: dict[str, Any] = json.loads((ROOT / "docs/vllm-check.json").read_text("utf-8"))
COMMANDS = vllm_check.commands(ROOT / "generated")


def test_the_recorded_run_saw_every_command_as_it_is_now() -> None:
    stale = vllm_check.changed(RECORD, COMMANDS)
    assert not stale, f"vLLM's parser has not seen these as they are now, run scripts/vllm-check: {', '.join(stale)}"


def test_the_record_is_of_the_default_version_and_adds_up() -> None:
    assert RECORD["vllm"] == VllmBackend().version
    assert RECORD["accepted"] == len(RECORD["commands"]) > 0
    assert RECORD["values"] > 1000
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", RECORD["date"])
    assert re.fullmatch(r"[0-9a-f]{40}", RECORD["commit"])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_emitted_flag_stands_in_the_pinned_table(name: str) -> None:
    known = table(VllmBackend().version)
    assert known is not None
    program, serve, model, *words = COMMANDS[name]
    assert (program, serve, model.startswith("{models}/")) == ("vllm", "serve", True)
    names = [word.partition("=")[0][2:] for word in words if word.startswith("--")]
    assert [name for name in names if name.removeprefix("no-") not in known.flags and name not in known.flags] == []
    assert len(names) == len(set(names))


def test_a_changed_and_a_new_command_are_named_and_a_lost_one_is_not() -> None:
    seen = {"commands": {"p/a": vllm_check.digest(["x"]), "p/gone": vllm_check.digest(["x"])}}
    assert vllm_check.changed(seen, {"p/a": ["x"]}) == []
    assert vllm_check.changed(seen, {"p/a": ["y"], "p/new": ["x"]}) == ["p/a", "p/new"]


def test_each_refused_command_is_a_line() -> None:
    def parse(words: list[str]) -> None:
        if "--bad" in words:
            raise ValueError("unrecognized arguments: --bad")

    current = {"p/a": ["vllm", "serve", "m"], "p/b": ["vllm", "serve", "m", "--bad"], "p/c": ["vllm", "run"]}
    assert vllm_check.refusals(current, parse) == [
        "p/b: unrecognized arguments: --bad",
        "p/c: `serve` was expected, not `run`",
    ]


def test_flags_are_read_out_of_a_real_argument_parser() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--switch", action=BooleanOptionalAction)
    parser.add_argument("--once", "-o", action="store_true")
    parser.add_argument("--words", nargs="+", type=int)
    parser.add_argument("--one-of", choices=["a", "b"], type=str, help="--one-of is deprecated and goes away.")
    parser.add_argument("--again", action="append", type=float)
    assert dict(vllm_flags.flag(action) for action in parser._actions) == {
        "switch": {"type": "switch", "negatable": True},
        "once": {"type": "switch", "aliases": ["o"]},
        "words": {"type": "int", "many": True},
        "one-of": {"type": "text", "choices": ["a", "b"], "deprecated": "--one-of is deprecated and goes away."},
        "again": {"type": "float", "repeats": True},
    }


def test_a_type_that_is_not_known_stops_the_extraction() -> None:
    parser = ArgumentParser(add_help=False)
    action = parser.add_argument("--new", type=complex)
    with pytest.raises(LookupError, match="unknown type complex"):
        vllm_flags.flag(action)


@pytest.mark.parametrize("version", sorted(PINNED))
def test_the_file_of_a_table_is_what_the_extraction_writes(version: str) -> None:
    text = (ROOT / f"imageworks/model/vllm/{version}.json").read_text("utf-8")
    content = json.loads(text)
    networks = {name: content[name] for name in ("gone", "served")}
    assert vllm_flags.render(version, content["flags"], content["removed"], networks) == text


NAMES: dict[str, list[str]] = vllm_flags.decode_names((ROOT / "scripts/vllm_flag_names.json").read_text("utf-8"))


@pytest.mark.parametrize("version", sorted(PINNED))
def test_since_and_removed_follow_from_the_names_of_all_versions(version: str) -> None:
    known = table(version)
    assert known is not None
    assert set(NAMES[version]) >= set(known.flags)
    since = vllm_flags.since(NAMES, version)
    assert {flag.name: flag.since for flag in known.flags.values() if flag.since} == {
        name: minor for name, minor in since.items() if name in known.flags
    }
    assert {
        name: {"version": one.version} | ({"use": one.use} if one.use else {}) for name, one in known.removed.items()
    } == (vllm_flags.removed(NAMES, version))


def test_no_minor_version_is_left_out_of_the_names() -> None:
    minors = [int(vllm_flags.minor(version).partition(".")[2]) for version in NAMES]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert [vllm_flags.minor(version) for version in PINNED] == [
        vllm_flags.minor(one) for one in list(NAMES)[-len(PINNED) :]
    ]


def test_names_are_read_back_as_they_were_written() -> None:
    assert vllm_flags.encode_names(NAMES) == (ROOT / "scripts/vllm_flag_names.json").read_text("utf-8")
    assert vllm_flags.decode_names(vllm_flags.encode_names({"0.9.0": ["b"], "0.10.0": ["a", "b"]})) == {
        "0.9.0": ["b"],
        "0.10.0": ["a", "b"],
    }


def test_a_flag_that_came_went_and_came_again_is_there_since_the_last_time() -> None:
    known = {"0.8.1": ["a"], "0.9.0": ["b"], "0.10.0": ["a", "c"], "0.11.0": ["a"]}
    assert vllm_flags.since(known, "0.11.0") == {"a": "0.10"}
    assert vllm_flags.removed(known, "0.11.0") == {"b": {"version": "0.10"}, "c": {"version": "0.11"}}
    assert vllm_flags.removed(known, "0.10.0") == {"b": {"version": "0.10"}}  # what came later is not known there


def test_names_are_the_long_ones_without_negatives() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--switch", action=BooleanOptionalAction)
    parser.add_argument("--no-cache", "-n", action="store_true")
    assert vllm_flags.option_names(parser._actions) == ["no-cache", "switch"]
