"""A planted bug for each invariant: proof that its checker bites.

Owns mutants of the scheduler (made outside of it, by changing what it is told and what it says), of the manager and of the
store. Each must be caught by the invariant whose number it has, when only that one is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from imageworks.runtime import events as ev
from imageworks.runtime.leases import LeaseAsk
from imageworks.runtime.residency import Machine
from imageworks.runtime.snapshot import Gpus
from imageworks.simulation.campaign import Parts, play
from imageworks.simulation.core import Real
from imageworks.simulation.scenario import draw
from imageworks.simulation.shell import Shell
from imageworks.simulation.store import Saved, Store

Effects = tuple[ev.Effect, ...]


class Mutant(Real):
    """The scheduler with its ears and mouth changed. A hook returns None to drop what it gets."""

    def __init__(self) -> None:
        self.asks: dict[str, LeaseAsk] = {}

    def machine(self, machine: Machine) -> Machine:
        """What it is told of the machine."""
        return machine

    def hear(self, state: Any, event: Any) -> ev.Event | None:  # noqa: ARG002 - a hook
        """What it is told of an event."""
        return event  # type: ignore[no-any-return]

    def say(self, state: Any, effect: Any) -> Effects:  # noqa: ARG002 - a hook
        """What is made of an effect."""
        return (effect,)

    def initial(self, machine: Machine) -> Any:  # type: ignore[override]  # a mutant is an object, the real one a module
        """The state before anything is known."""
        return Real.initial(self.machine(machine))

    def step(self, state: Any, event: Any, now: float) -> tuple[Any, Effects]:  # type: ignore[override]
        """Apply one event, as it is heard."""
        if isinstance(event, ev.Acquire):
            self.asks[event.ask.request] = event.ask
        if isinstance(event, ev.Reload):
            event = ev.Reload(self.machine(event.machine))
        heard = self.hear(state, event)
        state, effects = Real.step(state, heard if heard is not None else ev.Tick(), now)
        return state, tuple(said for effect in effects for said in self.say(state, effect))

    def as_asked(self, effect: Any) -> Effects:
        """A granted lease, with the ask that the client sent."""
        if isinstance(effect, ev.LeaseGranted):
            request = effect.lease.ask.request.partition("#")[0]
            return (replace(effect, lease=replace(effect.lease, ask=self.asks.get(request, effect.lease.ask))),)
        return (effect,)


class DoubleBudget(Mutant):
    """Believes that each GPU has twice its budget."""

    def machine(self, machine: Machine) -> Machine:
        """Twice the budget."""
        return replace(machine, gpu_budget_mib={slot: 2 * mib for slot, mib in machine.gpu_budget_mib.items()})


class SharedExclusive(Mutant):
    """Takes exclusive leases for shared ones."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Never exclusive."""
        del state
        return replace(event, ask=replace(event.ask, exclusive=False)) if isinstance(event, ev.Acquire) else event

    def say(self, state: Any, effect: Any) -> Effects:
        """As if it were."""
        del state
        return self.as_asked(effect)


class ForgottenTokens(Mutant):
    """Begins its tokens anew in every life."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """No tokens, no leases that would tell them."""
        del state
        return replace(event, tokens={}, leases=()) if isinstance(event, ev.Adopt) else event


class TwoForOneRequest(Mutant):
    """Takes each call for a request of its own."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Another request id for each call."""
        del state
        if isinstance(event, ev.Acquire):
            return replace(event, ask=replace(event.ask, request=f"{event.ask.request}#{event.call}"))
        return event  # type: ignore[no-any-return]

    def say(self, state: Any, effect: Any) -> Effects:
        """As if it were the same."""
        del state
        return self.as_asked(effect)


class AnyToken(Mutant):
    """Takes any token for the right one."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """The right token."""
        if isinstance(event, (ev.Renew, ev.Release)) and event.lease in state.leases:
            return replace(event, token=state.leases[event.lease].token)
        return event  # type: ignore[no-any-return]


class EndsTwice(Mutant):
    """Says the end of each lease twice."""

    def say(self, state: Any, effect: Any) -> Effects:
        """Twice."""
        del state
        return (effect, effect) if isinstance(effect, ev.LeaseEnded) else (effect,)


class AnyReadingProves(Mutant):
    """Takes any reading for a proof that bytes are back."""

    def machine(self, machine: Machine) -> Machine:
        """Everything is noise."""
        return replace(machine, tolerance_mib=10**6)


class ForgetsMotion(Mutant):
    """Forgets that something is being loaded or unloaded on a GPU."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Nothing moves."""
        for gpu in state.gpus.values():
            gpu.moving.clear()
        return event  # type: ignore[no-any-return]


class IgnoresOthers(Mutant):
    """Does not see what foreign processes hold."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Only what is claimed is in use."""
        if not isinstance(event, ev.Measured):
            return event  # type: ignore[no-any-return]
        readings = {
            slot: None
            if reading is None
            else replace(reading, used_mib=min(reading.used_mib, state.gpus[slot].claimed_mib), foreign_mib=0)
            for slot, reading in event.readings.items()
        }
        return replace(event, readings=readings)


class ForgetsRequests(Mutant):
    """Forgets that requests are in flight."""

    def say(self, state: Any, effect: Any) -> Effects:
        """Nothing is in flight."""
        if isinstance(effect, ev.Grant):
            state.slots[effect.model].inflight = 0
        return (effect,)


class OneOfTwo(Mutant):
    """Gives one GPU where two are asked for."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """One is enough."""
        del state
        return replace(event, ask=replace(event.ask, count=1)) if isinstance(event, ev.Acquire) else event

    def say(self, state: Any, effect: Any) -> Effects:
        """As if it were two."""
        del state
        return self.as_asked(effect)


class NothingIsKept(Mutant):
    """Does not know that some models are kept loaded."""

    def machine(self, machine: Machine) -> Machine:
        """Nothing is kept."""
        return replace(machine, specs={name: replace(spec, kept=False) for name, spec in machine.specs.items()})


class MissingIsFine(Mutant):
    """Does not notice that a GPU does not answer any more."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Only what was read."""
        del state
        if isinstance(event, ev.Measured):
            return ev.Measured({slot: reading for slot, reading in event.readings.items() if reading is not None})
        return event  # type: ignore[no-any-return]


class SilentTimeout(Mutant):
    """Drops waiters without a word."""

    def say(self, state: Any, effect: Any) -> Effects:  # noqa: ARG002 - a hook
        """Not a word."""
        return () if isinstance(effect, ev.Refuse) and effect.code == "queue_timeout" else (effect,)


class Overtaking(Mutant):
    """Lets later arrivals pass for ever."""

    def machine(self, machine: Machine) -> Machine:
        """No bound."""
        return replace(machine, max_overtakes=10**6, min_residency_s=10**6)


class DeafToStopped(Mutant):
    """Never hears that model `m1` is gone."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Everything but that."""
        del state
        deaf = isinstance(event, (ev.Stopped, ev.StopFailed)) and event.model == "m1"
        return None if deaf else event


class DeafToCancel(Mutant):
    """Never hears that somebody hung up."""

    def hear(self, state: Any, event: Any) -> ev.Event | None:
        """Everything but that."""
        return None if isinstance(event, ev.Cancel) and event.request in state.waiting else event


class DeafToRenewal(Mutant):
    """Refuses renewals."""

    def step(self, state: Any, event: Any, now: float) -> tuple[Any, Effects]:  # type: ignore[override]
        """Denied."""
        if isinstance(event, ev.Renew):
            return state, (ev.LeaseDenied(event.call, "unknown_lease", "not today"),)
        return super().step(state, event, now)


class SilentEnd(Mutant):
    """Does not say when a lease is over."""

    def say(self, state: Any, effect: Any) -> Effects:  # noqa: ARG002 - a hook
        """Not a word."""
        return () if isinstance(effect, ev.LeaseEnded) else (effect,)


class GapInTheLog(Mutant):
    """Does not log that a model became ready."""

    def say(self, state: Any, effect: Any) -> Effects:  # noqa: ARG002 - a hook
        """Not a word."""
        return () if isinstance(effect, ev.Moved) and effect.after == "ready" else (effect,)


class TornView(Mutant):
    """Shows the GPUs of one moment with the sum of another."""

    def view(self, state: Any) -> Gpus:  # type: ignore[override]
        """One MiB more than is held."""
        gpus = Real.view(state)
        return replace(gpus, gpus=tuple(replace(gpu, held_mib=gpu.held_mib + 1) for gpu in gpus.gpus))


class TrustingShell(Shell):
    """Forwards to whatever process the model has by now."""

    def may_forward(self, request: str, model: str, life: int) -> bool:
        """Always."""
        del request, model, life
        return True


class ByIndexShell(Shell):
    """Finds cards by their index."""

    def by_slot(self, readings: Mapping[str, ev.Reading | None]) -> dict[int, ev.Reading | None]:
        """The n-th card is slot n."""
        return dict(enumerate(readings.values()))


class PatientShell(Shell):
    """Waits for a driver's answer for ever."""

    patience = 1e6


class BlindShell(Shell):
    """Does not look at what runs when it starts."""

    def _known(self, observed: Mapping[str, str]) -> dict[str, str]:
        del observed
        return {}


class HastyShell(Shell):
    """Answers before it has written."""

    def persist(self, lease: Any) -> bool:
        """Later, perhaps."""
        del lease
        return True


class ShortSightedShell(Shell):
    """Overlooks what is still starting."""

    def _known(self, observed: Mapping[str, str]) -> dict[str, str]:
        return {model: seen for model, seen in super()._known(observed).items() if seen != "starting"}


class WallClockShell(Shell):
    """Gives the scheduler the wall clock."""

    def clock(self) -> float:
        """Seconds since some day, with every jump."""
        return max(self.world.wall() - 1_700_000_000.0, 0.0)


class OpenStore(Store):
    """Lets everybody in."""

    def lock(self, manager: int) -> bool:
        """Welcome."""
        super().lock(manager)
        return True


class AppendingStore(Store):
    """Never forgets a lease that is over."""

    def forget(self, lease: str) -> bool:
        """Done, it says."""
        del lease
        return not self.full


class TornStore(Store):
    """Writes half of what it was given when the manager dies."""

    def read(self) -> Saved | None:
        """Half of it."""
        saved = super().read()
        half = len(saved.leases) // 2 if saved is not None else 0
        return None if saved is None else replace(saved, leases=dict(tuple(saved.leases.items())[:half]))


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug: the invariant that must catch it, its name, and the parts of a world that has it."""

    number: int
    name: str
    parts: Callable[[], Parts]


def _bug(number: int, mutant: type[Any]) -> Bug:
    name = (mutant.__doc__ or "").rstrip(".")
    if issubclass(mutant, Shell):
        return Bug(number, name, lambda: Parts(manager=mutant, only=number))
    if issubclass(mutant, Store):
        return Bug(number, name, lambda: Parts(store=mutant, only=number))
    return Bug(number, name, lambda: Parts(core=mutant(), only=number))


BUGS: tuple[Bug, ...] = (
    _bug(1, DoubleBudget), _bug(2, SharedExclusive), _bug(3, ForgottenTokens), _bug(4, TwoForOneRequest), _bug(5, AnyToken),
    _bug(6, EndsTwice), _bug(7, AnyReadingProves), _bug(8, ForgetsMotion), _bug(9, IgnoresOthers), _bug(10, TrustingShell),
    _bug(11, ForgetsRequests), _bug(12, OneOfTwo), _bug(13, NothingIsKept), _bug(14, MissingIsFine), _bug(15, ByIndexShell),
    _bug(16, SilentTimeout), _bug(17, Overtaking), _bug(18, DeafToStopped), _bug(19, PatientShell), _bug(20, DeafToCancel),
    _bug(21, BlindShell), _bug(22, HastyShell), _bug(22, TornStore), _bug(23, ShortSightedShell), _bug(24, OpenStore),
    _bug(25, AppendingStore), _bug(26, WallClockShell), _bug(27, DeafToRenewal), _bug(28, SilentEnd), _bug(29, GapInTheLog),
    _bug(30, TornView),
)  # fmt: skip


def caught(bug: Bug, seeds: int = 400, steps: int = 200) -> int | None:
    """The first seed whose schedule shows the planted bug; None when no checker notices it. A mutant that falls over proves nothing."""
    for seed in range(seeds):
        try:
            world = play(draw(seed, steps), steps, bug.parts())
        except (KeyError, ValueError):
            continue
        if world.book.violations:
            return seed
    return None
