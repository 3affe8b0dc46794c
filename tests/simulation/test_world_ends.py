"""A schedule comes to its end whatever its programs do."""

from __future__ import annotations

from imageworks.simulation.campaign import run_seed


def test_a_program_that_never_stops_does_not_keep_a_schedule_going() -> None:
    """Its manager sweeps for ever what is not in its plan, and the scheduler hears nothing of it."""
    assert run_seed(351111, 200).violation is None
