"""The flag tables in the package are those that were read out of vLLM, and are found by what people type."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from imageworks.model import vllm_table
from imageworks.model.stack import VllmBackend
from imageworks.model.vllm_table import PINNED, Removed, VllmFlag, VllmTable, decode, newer_with, table

FOLDER = Path(vllm_table.__file__).parent / "vllm"
TYPES = {"switch", "text", "int", "float", "amount", "amount_or_auto", "json", "json_or_text", "map", "lora"}


def known(version: str) -> VllmTable:
    found = table(version)
    assert found is not None
    return found


def test_every_table_is_pinned_and_as_it_was_made() -> None:
    hashes = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in FOLDER.glob("*.json")}
    assert hashes == PINNED


def test_the_default_version_has_a_table() -> None:
    assert table(VllmBackend().version) is not None


@pytest.mark.parametrize("version", sorted(PINNED))
def test_every_flag_of_a_table_can_be_judged(version: str) -> None:
    found = known(version)
    assert found.version == version
    assert {flag.type for flag in found.flags.values()} <= TYPES
    assert all(bool(flag.keys) == (flag.type == "map") for flag in found.flags.values())
    assert not set(found.aliases) & set(found.flags)
    assert not found.served & set(found.gone)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("tool-call-parser", "tool-call-parser"),
        ("tool_call_parser", "tool-call-parser"),
        ("--tool-call-parser", "tool-call-parser"),
        ("tp", "tensor-parallel-size"),
        ("-tp", "tensor-parallel-size"),
        ("device_memory_utilization", "gpu-memory-utilization"),
    ],
)
def test_a_flag_is_found_by_every_name_vllm_reads_as_it(name: str, flag: str) -> None:
    found = known("0.32.0").find(name)
    assert found is not None
    assert found.name == flag


@pytest.mark.parametrize("name", ["tool", "no-enforce-eager", "compilation-config.mode", "", "tool call parser"])
def test_other_words_are_no_flag(name: str) -> None:
    assert known("0.32.0").find(name) is None


def test_what_the_real_parser_said_stands_in_the_table() -> None:
    """Read by hand in the source of vLLM 0.32.0: vllm/engine/arg_utils.py and vllm/entrypoints/launchers/cli_args.py."""
    flags = known("0.32.0").flags
    assert flags["disable-log-stats"] == VllmFlag("disable-log-stats", "switch")
    assert flags["enforce-eager"] == VllmFlag("enforce-eager", "switch", negatable=True)
    assert flags["hf-token"] == VllmFlag("hf-token", "text", bare=True)
    assert flags["middleware"] == VllmFlag("middleware", "text", repeats=True)
    assert flags["max-model-len"].type == "amount_or_auto"
    assert (flags["cudagraph-capture-sizes"].type, flags["cudagraph-capture-sizes"].many) == ("int", True)
    assert flags["runner"].choices == ("auto", "draft", "generate", "pooling")
    assert "hermes" in flags["tool-call-parser"].known
    assert flags["disable-cascade-attn"].deprecated.endswith("It will be removed in v0.33.0.")


@pytest.mark.parametrize("version", sorted(PINNED))
def test_what_stands_in_for_a_removed_flag_exists(version: str) -> None:
    found = known(version)
    assert not found.removed.keys() & found.flags.keys()
    for gone in (one for one in found.removed.values() if one.use):
        name, keys = re.match(r"([a-z-]+)(?:: \{(\w+))?", gone.use).groups()  # type: ignore[union-attr]
        assert name in found.flags
        assert keys is None or keys in found.flags[name].keys


def test_since_and_removed_are_what_the_parsers_of_each_version_said() -> None:
    """Read by hand in the sources: swap-space is in 0.17.1 and not in 0.18.1, log-level in 0.31.0 and not in 0.30.0."""
    found = known("0.32.0")
    assert found.removed["swap-space"] == Removed("0.18")
    assert found.removed["override-pooler-config"] == Removed("0.12", "pooler-config")
    assert (found.flags["log-level"].since, found.flags["grpc-port"].since) == ("0.31", "0.32")
    assert found.flags["max-model-len"].since == ""


def test_a_newer_table_is_asked_for_what_this_one_lacks() -> None:
    newer = newer_with("grpc-port", "0.31.0")
    assert newer is not None
    assert newer.since == "0.32"
    assert newer_with("grpc-port", "0.32.0") is None
    assert newer_with("elephant", "0.31.0") is None


def test_a_table_that_was_edited_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_table, "PINNED", {"0.32.0": "0" * 64})
    with pytest.raises(RuntimeError, match=r"vLLM 0\.32\.0 in this installation is damaged"):
        table.__wrapped__("0.32.0")


def test_a_table_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema 2, known: 1"):
        decode(b'{"schema": 2}')


def test_an_unknown_version_has_no_table() -> None:
    assert table("0.1.0") is None
