"""The loopback port of each model that has a process of its own.

Owns the numbers: one per model id over the whole stack, the same on every profile, from the declared range in id
order. Pinned ports and the proxy's own are skipped. Two pins of one port are found by the model layer, the rest here
(IW415, IW416), and a range that is too small (IW417).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imageworks.diagnostics.model import Diagnostic, Fix, Label, Severity, Shortfall, Term, Unit
from imageworks.model.loaded import Loaded
from imageworks.model.stack import Model, Stack


def own_process(model: Model) -> bool:
    """True for a model that is started by us and so needs a port."""
    return model.backend != "ollama" and model.url is None


def ports(stack: Stack) -> Mapping[str, int]:
    """Port by model id, for the models with a process of their own; those for which the range has none are absent."""
    pinned = _pins(stack)
    taken = {stack.proxy.bind[1], *pinned.values()}
    free = (number for number in range(stack.ports.first, stack.ports.last + 1) if number not in taken)
    started = sorted(name for name, model in stack.models.items() if own_process(model))
    given = zip((name for name in started if name not in pinned), free, strict=False)
    return {name: pinned[name] for name in started if name in pinned} | dict(given)


def _pins(stack: Stack) -> Mapping[str, int]:
    return {name: pin for name, model in stack.models.items() if (pin := _pin(model)) is not None}


def _pin(model: Model) -> int | None:
    return None if model.pin.port is None else model.pin.port.value


def check(loaded: Loaded) -> Iterator[Diagnostic]:
    """A range that is too small; pins that cannot hold, have no effect, or only repeat the derived value."""
    stack = loaded.stack
    yield from _too_small(loaded)
    for name, model in sorted(stack.models.items()):
        pin = _pin(model)
        if pin is None:
            continue
        if not own_process(model):
            yield _ineffective(loaded, name)
        elif pin == stack.proxy.bind[1]:
            yield _proxys(loaded, name, pin)
        elif pin == ports(_unpinned(stack, name)).get(name):
            yield _repeated(loaded, name, pin)


def _too_small(loaded: Loaded) -> Iterator[Diagnostic]:
    stack, pinned = loaded.stack, _pins(loaded.stack)
    wanted = sum(1 for name, model in stack.models.items() if own_process(model) and name not in pinned)
    lacking = wanted - (len(ports(stack)) - sum(1 for name in pinned if own_process(stack.models[name])))
    if lacking <= 0:
        return
    span, inside = loaded.value("ports", "last"), range(stack.ports.first, stack.ports.last + 1)
    taken = sum(1 for number in {stack.proxy.bind[1], *pinned.values()} if number in inside)
    beside = f", {taken} of them pinned or the proxy's" if taken else ""
    yield Diagnostic(
        "IW417",
        f"the port range is too small: {wanted} models need one each",
        Label(span, f"{stack.ports.first} to {stack.ports.last} has {len(inside)}{beside}") if span else None,
        notes=("every model with a process of its own has one port, the same on every profile",),
        fixes=(Fix(f"last: {stack.ports.last + lacking} or more"),),
        sums=(_sum(loaded, wanted, len(inside), taken),),
    )


def _sum(loaded: Loaded, wanted: int, inside: int, taken: int) -> Shortfall:
    needed = Term("models", wanted, "with a process of their own and no pinned port", loaded.key("models"))
    there = Term("range", inside, "ports.first to ports.last", loaded.value("ports", "last"))
    beside = (Term("taken", -taken, "pinned, or the proxy's own", loaded.value("proxy", "bind")),) if taken else ()
    return Shortfall("the range", Unit.PORTS, (needed,), (there, *beside))


def _unpinned(stack: Stack, name: str) -> Stack:
    bare = stack.models[name].model_copy(update={"pin": stack.models[name].pin.model_copy(update={"port": None})})
    return stack.model_copy(update={"models": {**stack.models, name: bare}})


def _label(loaded: Loaded, name: str, text: str) -> Label | None:
    span = loaded.value("models", name, "pin", "port", "value")
    return Label(span, text) if span else None


def _proxys(loaded: Loaded, name: str, pin: int) -> Diagnostic:
    bind = loaded.value("proxy", "bind")
    return Diagnostic(
        "IW415",
        f"port {pin} of {name} is the proxy's",
        _label(loaded, name, "pinned here"),
        secondary=(Label(bind, "the proxy listens here"),) if bind else (),
        notes=("one of the two could never listen",),
        fixes=(Fix("pin another port, or drop the pin"),),
    )


def _ineffective(loaded: Loaded, name: str) -> Diagnostic:
    return Diagnostic(
        "IW415",
        f"{name} has no port to pin",
        _label(loaded, name, "no process is started for this model"),
        notes=("an Ollama model is served by the daemon at backends.ollama.url, a remote one at its url",),
        fixes=(Fix("drop the pin"),),
    )


def _repeated(loaded: Loaded, name: str, pin: int) -> Diagnostic:
    return Diagnostic(
        "IW416",
        f"the pin of {name} equals the derived port",
        _label(loaded, name, f"{pin} is what it would get anyway"),
        severity=Severity.NOTE,
        fixes=(Fix("drop the pin, unless it must survive new models"),),
    )
