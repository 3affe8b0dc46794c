"""`imageworks show`: which models may be loaded together, and which pairs memory keeps apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Verb

STACK = """version: 1
profiles:
  card: {match: {gpus: 1, vram: ">=11GiB"}, headroom: 1GiB, max_concurrent_models: 3, strategy: concurrent_limited}
models:
  kept: {backend: vllm, source: {path: o/k}, keep: pinned, vram: {total: 2GiB, because: seen}}
  left: {backend: vllm, source: {path: o/l}, vram: {total: 5GiB, because: seen}}
  right: {backend: vllm, source: {path: o/r}, vram: {total: 4GiB, because: seen}}
  small: {backend: vllm, source: {path: o/s}, vram: {total: 3GiB, because: seen}}
"""


@pytest.fixture
def card(folder: Path) -> Path:
    folder.joinpath("stack.yaml").write_text(STACK, "utf-8")
    return folder


def test_the_sets_and_the_pairs_are_shown_with_their_sums(card: Path, verb: Verb) -> None:
    assert card.exists()
    code, out, _ = verb("show", "--profile", "card")
    assert code == 0
    assert out.splitlines()[out.splitlines().index("  loaded together, at most") :] == [
        "  loaded together, at most",
        "    kept (kept) + left + small: 10240 of 10240 MiB on GPU 0",
        "    kept (kept) + right + small: 9216 of 10240 MiB on GPU 0",
        "  never together, for want of memory",
        "    kept 2.00 + left 5.00 + right 4.00 = 11.00 GiB > 10.00 of GPU 0",
    ]


def test_the_plan_file_holds_the_same(card: Path, verb: Verb) -> None:
    assert verb("compile")[0] == 0
    told = json.loads(card.joinpath("generated/card/plan.json").read_text("utf-8"))["residents"]
    assert [item["models"] for item in told["sets"]] == [["kept", "left", "small"], ["kept", "right", "small"]]
    assert [item["models"] for item in told["refused"]] == [["kept", "left", "right"]]
    assert told["bound"] == ""
