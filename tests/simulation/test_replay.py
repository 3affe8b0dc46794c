"""Traces on the very scheduler and its rivals; few swaps, and the bound on waiting kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageworks.runtime.residency import Machine, Spec
from imageworks.simulation.card import LOAD_S, load_times, one_model_card
from imageworks.simulation.optimum import fewest_loads
from imageworks.simulation.replay import POLICIES, Report, replay
from imageworks.simulation.trace import TAGGER, Job, personal_tagger, read, record


def played(policy: str, jobs: Sequence[Job], machine: Machine | None = None) -> Report:
    machine = machine or one_model_card()
    return replay(machine, policy, jobs, load_times(machine, LOAD_S))


def test_the_personal_tagger_needs_few_swaps_on_a_card_for_one_model() -> None:
    """200 images, three models in turn: near the offline optimum, far from FIFO, and nobody is served too late."""
    jobs = personal_tagger(200, TAGGER, 0.05).jobs
    ours, fifo = played("ours", jobs), played("fifo", jobs)
    least, what = fewest_loads(one_model_card(), jobs, one_model_card().max_overtakes)
    assert "exact" in what
    assert ours.refused == 0
    assert ours.loads <= 1.2 * least
    assert fifo.loads >= 20 * ours.loads
    assert ours.most_late <= one_model_card().max_overtakes


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("every_s", [0.05, 3.0, 20.0])
def test_every_policy_serves_every_job(policy: str, every_s: float) -> None:
    report = played(policy, personal_tagger(20, TAGGER, every_s).jobs)
    assert report.refused == 0
    assert report.jobs == 60
    assert report.loads >= 3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nobody_is_served_more_than_the_allowed_places_after_their_turn(data: st.DataObject) -> None:
    """Whenever they come, on a GPU or on the CPU, however many a model serves at once, and whatever went on before."""
    overtakes, places = data.draw(st.sampled_from([0, 1, 4, 16])), data.draw(st.integers(1, 3))
    gap_s, on_gpu = data.draw(st.sampled_from([0.0, 0.01, 0.5])), data.draw(st.booleans())
    asked = data.draw(st.text("abc", min_size=20, max_size=60))
    gpu_mib, host_mib = ({0: 100}, 0) if on_gpu else ({}, 100)
    specs = {name: Spec(name, gpu_mib, host_mib, 300.0, places) for name in "abc"}
    machine = Machine(specs, {0: 150}, 150, 3, 256, min_residency_s=0.0, max_overtakes=overtakes)
    jobs = [Job(gap_s * index, (name,), (0.05, 1.0)[index % 2]) for index, name in enumerate(asked)]
    report = replay(machine, "ours", jobs, dict.fromkeys("abc", 2.0))
    assert report.most_late <= overtakes + places - 1


def test_fifo_swaps_for_each_request_of_an_interleaved_trace() -> None:
    assert played("fifo", personal_tagger(10, TAGGER, 0.05).jobs).loads == 30


def test_models_that_fit_together_are_loaded_once() -> None:
    machine = Machine({name: Spec(name, {0: 3_000}, 0, 1e6, 1) for name in TAGGER}, {0: 12_000}, 0, 3, 256)
    for policy in POLICIES:
        assert played(policy, personal_tagger(10, TAGGER, 0.05).jobs, machine).loads == 3


def brute(asked: str, overtakes: int) -> int:
    """Fewest stretches over every order of service that keeps each model's own order."""
    best = len(asked)
    for order in set(itertools.permutations(asked)):
        left = {model: [index for index, name in enumerate(asked) if name == model] for model in set(asked)}
        places = [left[model].pop(0) for model in order]
        worst = max(at - place for at, place in enumerate(places))
        if worst <= overtakes:
            best = min(best, sum(1 for _ in itertools.groupby(order)))
    return best


@settings(max_examples=40, deadline=None)
@given(st.text("abc", min_size=1, max_size=6), st.integers(0, 4))
def test_the_offline_optimum_is_what_trying_every_order_finds(asked: str, overtakes: int) -> None:
    machine = Machine({name: Spec(name, {0: 8}, 0, 1.0, 1) for name in "abc"}, {0: 10}, 0, 3, 9)
    jobs = [Job(0.0, (name,), 1.0) for name in asked]
    assert fewest_loads(machine, jobs, overtakes)[0] == brute(asked, overtakes)


def test_request_records_are_read_as_jobs() -> None:
    lines = [record(job, number).encode() for number, job in enumerate(personal_tagger(2, TAGGER, 4.0).jobs)]
    trace = read([*lines, b""], set(TAGGER))
    assert trace.jobs == personal_tagger(2, TAGGER, 4.0).jobs
    assert trace.skipped == 0


def test_requests_for_other_models_are_left_out_and_counted() -> None:
    line = record(Job(0.0, ("other",), 1.0), 0).encode()
    assert read([line], {"m"}).skipped == 1


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", json.dumps({"model": "m", "t": 3}).encode()])
def test_a_line_that_is_no_record_is_named(line: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        read([line], {"m"})
