"""Invariants about who waits and who goes first: I10, I11, I13, I16, I17, I18, I19, I20.

Owns the checkers that follow each request and call from its arrival to its one answer.
"""

from __future__ import annotations

from typing import Any

from imageworks.runtime import events as ev
from imageworks.simulation.book import Book, Open
from imageworks.simulation.invariants.registry import END, EVERY, invariant

FRUITLESS = 4
"""So often in a row a model may go unused: who it was loaded for can hang up."""


@invariant(10, "a grant is for a model that is ready, in the life it has now", "core", ev.Grant)
def granted_to_the_living(book: Book, effect: ev.Grant) -> str | None:
    state = book.models.get(effect.model)
    if state != "ready" and book.scenario.machine.specs[effect.model].managed:
        return f"{effect.request} was granted {effect.model}, which is {state}"
    life = book.state.slots[effect.model].life
    return (
        f"{effect.request} was granted life {effect.life} of {effect.model}, it is in {life}"
        if life != effect.life
        else None
    )


@invariant(10, "the first byte goes to the process that was granted", "shell", "forward")
def forwarded_to_the_granted(_book: Book, forwarded: tuple[str, str, int, Any]) -> str | None:
    request, model, generation, program = forwarded
    if program.phase != "down" and program.generation != generation:
        return f"{request} was granted process {generation} of {model} and sent to process {program.generation}"
    return None


@invariant(11, "a model with a request in flight is never put away", "core", ev.Stop, ev.Sleep)
def never_under_a_request(book: Book, effect: ev.Stop | ev.Sleep) -> str | None:
    busy = book.inflight[effect.model]
    if busy and effect.model not in book.failed_lives and not book.on_lost(effect.model):
        return f"{effect.model} is put away with {busy} requests in flight"
    return None


@invariant(13, "what is kept loaded gives way to nobody but an exclusive lease or a person", "core", ev.Stop, ev.Sleep)
def kept_stays(book: Book, effect: ev.Stop | ev.Sleep) -> str | None:
    model = effect.model
    spec = book.machine.specs.get(model)
    if spec is None or not spec.kept or model in book.failed_lives or model in book.dismissed or book.on_lost(model):
        return None
    if book.before.get(model) not in ("ready", "asleep") or book.lease_wanted_on(spec.gpu_mib):
        return None
    return f"{model} is kept loaded, but was put away for {book.event}"


@invariant(13, "the same schedule gives the same decisions", "core", "again")
def deterministic(book: Book, other: Book) -> str | None:
    return None if book.log == other.log else "a second run of this schedule took another way"


@invariant(16, "nobody waits beyond their deadline", "core and shell", EVERY)
def answered_in_time(book: Book, _event: ev.Event) -> str | None:
    late = book.overdue()
    return f"{late} has no answer after its deadline" if late is not None else None


@invariant(
    16,
    "everybody gets one final answer",
    "core",
    ev.Grant,
    ev.Refuse,
    ev.LeaseGranted,
    ev.LeaseAnswered,
    ev.LeaseDenied,
)
def answered_once(book: Book, effect: Any) -> str | None:
    subject = effect.request if isinstance(effect, (ev.Grant, ev.Refuse)) else effect.call
    return None if subject not in book.unasked else f"{subject} was answered although it does not wait: {effect}"


@invariant(16, "nobody is left without an answer", "core and shell", END)
def all_answered(book: Book, _event: Any) -> str | None:
    left = [*book.open_requests, *book.open_calls]
    return f"{left[0]} never got an answer" if left else None


@invariant(17, "a waiter is served a bounded number of places after its turn", "core", ev.Grant)
def bounded_overtakes(book: Book, _effect: ev.Grant) -> str | None:
    """Its turn is after those who were ahead of it; a model that comes up fills its places once, whoever waits."""
    waiter = book.most_passed
    if waiter is not None and waiter.passed > waiter.ahead + book.machine.max_overtakes + book.places:
        most = book.machine.max_overtakes
        return f"{waiter.subject} had {waiter.ahead} ahead and was passed {waiter.passed} times, {most} are allowed"
    return None


@invariant(18, "when everything works again, everybody is served: nothing waits for ever", "core", ev.Refuse)
def never_stuck(book: Book, effect: ev.Refuse) -> str | None:
    asked = book.answering.get(effect.request)
    if effect.code not in ("queue_timeout", "lease_blocks") or not isinstance(asked, Open):
        return None
    if book.last_asked is None or asked.since < book.last_asked or any(map(book.excused, book.machine.gpu_budget_mib)):
        return None
    waited_s = book.agenda.now - asked.since
    return f"{effect.request} for {asked.models} waited {waited_s:.0f} s in a world without faults: {effect.reason}"


@invariant(
    18, "what comes up for somebody serves somebody: no model is swapped in and out for nothing", "core", ev.Moved
)
def no_swap_storm(book: Book, effect: ev.Moved) -> str | None:
    fruitless = book.fruitless[effect.subject]
    if effect.before != "ready" or fruitless <= FRUITLESS:
        return None
    return f"{effect.subject} came up and went {fruitless} times without serving anybody"


@invariant(19, "every state with a bound ends within it", "core and shell", EVERY)
def bounded_states(book: Book, _event: ev.Event) -> str | None:
    return book.overstayed()


@invariant(20, "who hung up gets nothing", "core", ev.Grant, ev.LeaseGranted)
def nothing_after_cancel(book: Book, effect: ev.Grant | ev.LeaseGranted) -> str | None:
    subject = effect.request if isinstance(effect, ev.Grant) else effect.call
    return f"{subject} hung up, and was granted {effect}" if subject in book.cancelled else None


@invariant(20, "nothing is loaded that nobody waits for", "core", ev.Start)
def no_orphan_start(book: Book, effect: ev.Start) -> str | None:
    model = effect.model
    spec = book.machine.specs.get(model)
    if spec is None:
        return f"{model} was started, but the plan does not know it"
    if spec.resident or model in book.promised or any(model in each.models for each in book.open_requests.values()):
        return None
    return f"{model} was started, and nobody waits for it"
