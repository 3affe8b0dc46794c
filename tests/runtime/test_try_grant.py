"""What is done without an event is what the event would have done, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageworks.runtime import events as ev
from imageworks.runtime.residency import machine
from imageworks.runtime.scheduler import initial, key, step
from imageworks.runtime.serving import try_finish, try_grant

Make = Callable[..., Any]
STEPS = st.lists(
    st.tuples(st.sampled_from(["arrive", "finish", "let go", "ready", "drain", "try"]), st.integers(0, 2)), max_size=14
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(STEPS)
def test_it_is_what_arrive_does_at_once_or_nothing(route: Make, table: Make, steps: list[tuple[str, int]]) -> None:
    names = ("a", "b", "c")
    limits = {"gpu_mib": {"0": 60}, "concurrency": 2}
    from imageworks.contract import Gpu  # noqa: PLC0415 - one use

    plan = table(*(route(name, **limits) for name in names), gpus=(Gpu(0, 100, 100),), queue=4)
    state, now = initial(machine(plan)), 0.0
    state, _ = step(state, ev.Adopt({}), now)
    for number, (what, which) in enumerate(steps):
        now += 1.0
        model = names[which]
        if what == "arrive":
            state, _ = step(state, ev.Arrive(f"r{number}", (model,), now + 50), now)
        elif what == "finish" and state.granted:
            state, _ = step(state, ev.Finish(min(state.granted)), now)
        elif what == "let go" and state.granted:
            request, other, before = min(state.granted), state.copy(), key(state, now)
            done = try_finish(state, request, ok=bool(which), now=now)
            other, effects = step(other, ev.Finish(request, ok=bool(which)), now)
            if done:
                assert not effects
                assert key(state, now) == key(other, now)
            else:
                assert key(state, now) == before
        elif what == "ready":
            state, _ = step(state, ev.Ready(model), now)
        elif what == "drain":
            state, _ = step(state, ev.Drain(), now)
        elif what == "try":
            other, before = state.copy(), key(state, now)
            life = try_grant(state, f"t{number}", model, now)
            other, effects = step(other, ev.Arrive(f"t{number}", (model,), now + 50), now)
            granted = [effect for effect in effects if isinstance(effect, ev.Grant) and effect.request == f"t{number}"]
            if life is None:
                assert key(state, now) == before
                assert not granted or state.waiting
            else:
                assert [effect.life for effect in granted] == [life]
                assert key(state, now) == key(other, now)


def test_the_last_of_a_model_is_left_to_the_event(route: Make, table: Make) -> None:
    """Only that begins the time after which an idle model is unloaded."""
    state, _ = step(initial(machine(table(route("a")))), ev.Adopt({"a": "ready"}), 0.0)
    assert try_grant(state, "first", "a", 1.0) is not None
    assert try_grant(state, "second", "a", 1.0) is not None
    assert try_finish(state, "first", ok=True, now=2.0)
    assert not try_finish(state, "second", ok=True, now=3.0)
    assert not try_finish(state, "first", ok=True, now=3.0)
    assert state.granted == {"second": "a"}
