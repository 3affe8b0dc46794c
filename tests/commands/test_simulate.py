"""`imageworks simulate`: what it says, how it exits, and that a violation can be replayed as printed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imageworks.commands.simulate import command
from imageworks.runtime import scheduler
from imageworks.runtime.events import Effect, Event
from imageworks.simulation.trace import TAGGER, personal_tagger, record


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_random_schedules_end_with_a_summary_in_one_line() -> None:
    done = simulate("--random", "--schedules", "30", "--steps", "100", "--seed", "500", "--jobs", "1")
    assert done.return_value == 0
    assert re.fullmatch(
        r"30 schedules, \d+ steps, \d+ events/s per core, seeds 500-529: no violation", done.output.splitlines()[-1]
    )


def test_the_result_can_be_read_by_a_program() -> None:
    done = simulate("--random", "--schedules", "5", "--jobs", "1", "--format", "json")
    data = json.loads(done.output)
    assert data["schedules"] == 5
    assert data["seeds"] == [0, 4]
    assert data["violations"] == []


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that never says that somebody waited too long."""
    step = scheduler.step

    def silent(state: scheduler.State, event: Event, now: float) -> tuple[scheduler.State, tuple[Effect, ...]]:
        after, effects = step(state, event, now)
        return after, tuple(effect for effect in effects if getattr(effect, "code", "") != "queue_timeout")

    monkeypatch.setattr(scheduler, "step", silent)


@pytest.mark.usefixtures("deaf")
def test_a_violation_is_made_small_and_replays_by_the_printed_command() -> None:
    done = simulate("--random", "--schedules", "6", "--jobs", "1")
    assert done.return_value == 1
    assert "violations" in done.output.splitlines()[-1]
    line = next(line for line in done.output.splitlines() if "--keep" in line)
    again = simulate(*shlex.split(line)[2:])
    assert again.return_value == 1
    assert "I16 at step" in again.output


def test_a_clean_schedule_replays_without_a_violation() -> None:
    done = simulate("--random", "--seed", "3", "--keep", "0,1,2", "--tame", "m0.start")
    assert done.return_value == 0
    assert done.output.splitlines()[-1].endswith("0 violations")


@pytest.mark.parametrize("keep", ["x", "1,", "99999"])
def test_acts_that_are_not_there_are_an_error(keep: str) -> None:
    assert simulate("--random", "--keep", keep).return_value == 1


def test_every_invariant_and_planted_bug_is_listed() -> None:
    text = simulate("--list-invariants").output
    assert all(re.search(rf"^I{number}\b", text, re.MULTILINE) for number in range(1, 31))
    assert text.count("catches:") >= 30
    rows = json.loads(simulate("--list-invariants", "--format", "json").output)
    assert {row["number"] for row in rows} == set(range(1, 31))
    assert all(row["planted bugs"] for row in rows)


def test_a_search_that_does_not_close_is_no_proof() -> None:
    done = simulate("--exhaustive", "--states", "300")
    assert done.return_value == 1
    assert "not closed" in done.output


def test_the_generated_trace_is_compared_with_rivals_and_the_optimum() -> None:
    done = simulate("--generate", "personal-tagger", "--images", "20")
    assert done.return_value == 0
    assert [line.split()[0] for line in done.output.splitlines()] == ["policy", "ours", "lru", "fifo", "optimum"]


def test_a_recorded_trace_replays_on_a_compiled_profile(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    table = json.loads((root / "generated" / "development" / "routes.json").read_text("utf-8"))
    model = min(table["routes"])
    jobs = personal_tagger(3, (model, "elsewhere"), 5.0).jobs
    trace = tmp_path / "requests.jsonl"
    trace.write_text("".join(record(job, number) + "\n" for number, job in enumerate(jobs)), "utf-8")
    stack = ("-f", str(root / "stack.yaml"))
    done = simulate(str(trace), *stack, "--profile", "development", "--policy", "ours", "--format", "json")
    data = json.loads(done.output)
    assert data["reports"][0]["jobs"] == 3
    assert data["reports"][0]["loads"] == 1
    assert data["skipped"] == 3
    assert simulate(str(trace), *stack, "--profile", "nowhere").return_value == 1
    assert simulate(str(trace)).return_value == 1


def test_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("hello\n", "utf-8")
    done = simulate(str(bad), "-f", str(root / "stack.yaml"), "--profile", "development")
    assert done.return_value == 1
    assert "line 1" in done.output + done.stderr


def test_an_empty_trace_is_told_where_recorded_ones_are(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    done = simulate(str(empty), "-f", str(Path(__file__).parents[2] / "stack.yaml"), "--profile", "development")
    assert done.return_value == 1
    assert "requests.jsonl" in done.output + done.stderr


def test_without_a_task_the_options_are_named() -> None:
    assert simulate().return_value == 1


def test_the_trace_asks_the_three_roles_of_the_tagger() -> None:
    assert TAGGER == ("caption", "keywords", "description")
