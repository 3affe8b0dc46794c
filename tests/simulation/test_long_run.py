"""The long run goes on only where the same sources were played, and notices when they change."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def long_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with results of its own."""
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("scripts.simulate_long")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.jsonl")
    return module


def test_a_run_goes_on_with_the_next_seed_that_was_not_played_with_the_same_sources(long_run: ModuleType) -> None:
    assert long_run.begun("now") == 0
    played = (("before", 0, 99_999), ("now", 80_000, 89_999), ("now", 0, 49_999))
    lines = [{"sources": sources, "first_seed": first, "last_seed": last} for sources, first, last in played]
    long_run.RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert long_run.begun("now") == 50_000
    assert long_run.begun("now", 60_000) == 60_000
    assert long_run.begun("now", 80_000) == 90_000
    assert long_run.begun("later") == 0


def test_a_chunk_ends_where_seeds_were_played_before(long_run: ModuleType) -> None:
    lines = [{"sources": "now", "first_seed": 80_000, "last_seed": 89_999}]
    long_run.RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert long_run.unplayed("now", 0, 100_000) == 80_000
    assert long_run.unplayed("now", 90_000, 100_000) == 100_000


def test_the_hash_covers_the_scheduler_and_the_checkers(long_run: ModuleType) -> None:
    files = long_run.compiled_simulator.sources()
    names = {str(file.relative_to(ROOT)) for file in files}
    assert {"imageworks/runtime/scheduler.py", "imageworks/simulation/invariants/queue.py"} <= names
    assert "imageworks/runtime/proxy.py" not in names
    assert long_run.compiled_simulator.digest(files) != long_run.compiled_simulator.digest(files[1:])


def ranges(chunks: list[tuple[int, int]]) -> str:
    """Chunks of seeds, those that adjoin made one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(chunks):
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return ", ".join(f"{first}-{last}" for first, last in joined)


def test_the_page_shows_what_was_played() -> None:
    """One row of docs/reliability.md for each state of the sources that a run was played with."""
    results, page = ROOT / "docs" / "simulation-results.jsonl", (ROOT / "docs" / "reliability.md").read_text("utf-8")
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    for sources in {line["sources"] for line in lines}:
        chunks = [line for line in lines if line["sources"] == sources]
        played = sum(chunk["last_seed"] + 1 - chunk["first_seed"] for chunk in chunks)
        events, found = (sum(chunk[name] for chunk in chunks) for name in ("events", "violations"))
        seeds = ranges([(chunk["first_seed"], chunk["last_seed"]) for chunk in chunks])
        row = f"| `{chunks[-1]['commit']}` | {seeds} | {played:,} | {events:,} | {found} |"
        assert row in page, row
