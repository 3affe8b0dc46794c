"""From what runs to what the stack means: one action for each program, with the reasons.

Owns that judgement, and nothing else: a function of the compiled profile and of what was seen. An exec spec is read
at a program's start, so only a living program can be out of date; the proxy also reads routes.json at its start.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from imageworks import contract
from imageworks.commands.here import PROXY
from imageworks.commands.inforce import Load, Seen
from imageworks.model.loaded import Loaded
from imageworks.plan import diff
from imageworks.plan.ir import Plan, PlannedModel
from imageworks.plan.launch import slug
from imageworks.plan.text import size_word
from imageworks.targets.artifact import Artifact
from imageworks.values import dataclass

_BYTES = frozenset({"bytes", "host_memory", "capacity", "headroom", "body_limit"})
IDLE = Load()
Verb = Literal["keep", "reload", "restart", "start", "stop", "add", "remove"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a program cannot stay as it is. `at` is `stack.yaml:12`; `old` and `new` are None where nothing stands."""

    field: str
    old: object = None
    new: object = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What becomes of one program. `state` is supervisord's word for it, in lower case; `load` what it does now."""

    program: str
    verb: Verb
    state: str
    reasons: tuple[Reason, ...] = ()
    load: Load = IDLE


@dataclass(frozen=True, slots=True)
class Wanted:
    """One profile as the stack means it: its plan, its generated files by path, and the stack behind both."""

    plan: Plan
    files: Mapping[str, Artifact]
    loaded: Loaded

    def spec(self, program: str) -> contract.ExecSpec | None:
        """The exec spec of a program, None when the profile has no such program."""
        file = self.files.get(f"exec/{program}.json")
        return contract.exec_spec(file.text) if file else None

    def models(self) -> Mapping[str, PlannedModel]:
        """The models that we start, by program."""
        return {model.launch.program: model for model in self.plan.models if model.launch}

    def conf(self) -> str:
        """The text of supervisord.conf; empty where that target is off."""
        file = self.files.get("supervisord.conf")
        return file.text if file else ""


def actions(wanted: Wanted, seen: Seen) -> tuple[Action, ...]:
    """One action for each program that runs or should be known, the proxy first."""
    if seen.profile is not None and seen.profile != wanted.plan.profile and seen.up:
        return tuple(_switched(wanted.plan.profile, seen))
    changes = _changes(wanted, seen)
    others = sorted((wanted.models().keys() | seen.programs.keys()) - {PROXY})
    return (_proxy(wanted, seen, changes), *(_model(wanted, seen, program, changes) for program in others))


def _switched(profile: str, seen: Seen) -> Iterator[Action]:
    """Another profile runs: its programs end, all of them, and nothing of it is kept."""
    reason = Reason("profile", seen.profile, profile)
    for program, info in sorted(seen.programs.items(), key=lambda item: (item[0] != PROXY, item[0])):
        if seen.alive(program):
            yield Action(program, "restart" if program == PROXY else "stop", info.state.lower(), (reason,))


def _changes(wanted: Wanted, seen: Seen) -> tuple[diff.Change, ...] | None:
    """Differences of the plans; None where the plan of what runs is not known any more."""
    if seen.served is None:
        return None
    old = diff.normal(seen.served.plan)
    return diff.changes(old, diff.data(wanted.plan), wanted.loaded, wanted.plan.profile)


def _proxy(wanted: Wanted, seen: Seen, changes: tuple[diff.Change, ...] | None) -> Action:
    state = _state(seen, PROXY)
    load = Load(sum(one.in_flight for one in seen.load.values()), sum(one.waiting for one in seen.load.values()))
    if not seen.alive(PROXY):
        return Action(PROXY, "start", state, (Reason("state", state, "running"),))
    reasons = (*_spec_reasons(wanted, seen, PROXY), *_conf_reasons(wanted, seen, PROXY))
    if seen.plan_hash is None:
        reasons = (*reasons, Reason("/readyz", "no answer", "an answer"))
    causes = _told(diff.causes(changes or ()))
    if reasons:
        return Action(PROXY, "restart", state, (*reasons, *causes), load)
    if seen.plan_hash != wanted.plan.hash:
        return Action(PROXY, "reload", state, causes or (_hashes(wanted, seen),), load)
    if seen.served is not None and seen.served.routes != _routes(wanted):
        return Action(PROXY, "reload", state, (Reason("role tables of other profiles"),), load)
    return Action(PROXY, "keep", state, (), load)


def _hashes(wanted: Wanted, seen: Seen) -> Reason:
    """All that can be said when the old plan is gone, or differs in its explanations alone."""
    return Reason("plan", (seen.plan_hash or "")[:12], wanted.plan.hash[:12])


def _routes(wanted: Wanted) -> object:
    import json

    return json.loads(wanted.files["routes.json"].text)


def _model(wanted: Wanted, seen: Seen, program: str, changes: tuple[diff.Change, ...] | None) -> Action:
    model, state = wanted.models().get(program), _state(seen, program)
    if model is None:
        return _leaving(wanted, seen, program)
    if program not in seen.programs:
        starts = model.id in wanted.plan.policy.resident
        if not seen.up:
            return Action(program, "start" if starts else "keep", "stopped")
        return Action(program, "start" if starts else "add", state, (_new(model),))
    load = seen.load.get(model.id, IDLE)
    conf = _conf_reasons(wanted, seen, program)
    if not seen.alive(program):
        return Action(program, "reload" if conf else "keep", state, conf, load)
    spec = _spec_reasons(wanted, seen, program)
    if not spec:
        return Action(program, "restart" if conf else "keep", state, conf, load)
    causes = _told(diff.causes(diff.of_model(changes or (), model.id)))
    return Action(program, "restart", state, (*conf, *(causes or spec)), load)


def _leaving(wanted: Wanted, seen: Seen, program: str) -> Action:
    """A program that the profile no longer has: its model left the stack, or is left out here."""
    left_out = {entry.id: entry.reason for entry in wanted.plan.unplaced}
    names = (*left_out, *seen.load, *(str(row["id"]) for row in (seen.served.plan["models"] if seen.served else ())))
    model = next((name for name in names if f"model-{slug(name)}" == program), "")
    at = wanted.loaded.key("models", model) if model in left_out else None
    field, new = f"models.{model}" if model else program, left_out.get(model, "not in the stack")
    reason = Reason(field, "planned", new, f"{at.file}:{at.line}" if at else None)
    load = seen.load.get(model, IDLE)
    return Action(program, "stop" if seen.alive(program) else "remove", _state(seen, program), (reason,), load)


def _new(model: PlannedModel) -> Reason:
    at = model.span
    return Reason(f"models.{model.id}", None, model.backend, f"{at.file}:{at.line}" if at else None)


def _state(seen: Seen, program: str) -> str:
    if not seen.up:
        return "stopped"
    return seen.programs[program].state.lower() if program in seen.programs else "new"


def _told(changes: Iterable[diff.Change]) -> tuple[Reason, ...]:
    """Changes as reasons; those at one place are told once."""
    told: dict[tuple[str, str | None], Reason] = {}
    for one in changes:
        place = f"{one.at.file}:{one.at.line}" if one.at else None
        told.setdefault(
            (one.field, place), Reason(one.field, _value(one.path, one.old), _value(one.path, one.new), place)
        )
    return tuple(told.values())


def _value(path: diff.Path, value: object) -> object:
    """Sizes and durations with their unit, whole parts of the plan as one word."""
    if isinstance(value, Mapping):
        return "planned"
    if isinstance(value, int) and path[-1] in _BYTES:
        return size_word(value)
    return f"{value:g}s" if isinstance(value, float) and path[-1].endswith("_s") else value


def _spec_reasons(wanted: Wanted, seen: Seen, program: str) -> tuple[Reason, ...]:
    """Fields in which the exec spec in force differs from the one that a start would read now."""
    word, spec = seen.started.get(program), wanted.spec(program)
    if word is None:
        return (Reason("exec spec", "not known: it was started without the launcher's word", "known"),)
    if spec is None or word.spec == spec:
        return ()
    names = ("argv", "env", "pass_env", "cwd", "stack", "roots", "devices", "needs", "secrets")
    pairs = ((name, getattr(word.spec, name), getattr(spec, name)) for name in names)
    return tuple(Reason(f"exec/{program}.json {name}", *_shortest(old, new)) for name, old, new in pairs if old != new)


def _shortest(old: object, new: object) -> tuple[object, object]:
    """Of two lists only the items that differ."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        pairs = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
        return " ".join(str(one) for one, _ in pairs), " ".join(str(other) for _, other in pairs)
    return old, new


def _conf_reasons(wanted: Wanted, seen: Seen, program: str) -> tuple[Reason, ...]:
    """Keys of the program's section that differ from the file supervisord was last seen to serve with."""
    if seen.served is None:
        return ()
    old, new = section(seen.served.conf, program), section(wanted.conf(), program)
    return tuple(
        Reason(f"supervisord.conf {key}", old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def section(conf: str, program: str) -> Mapping[str, str]:
    """Keys of `[program:<program>]` in a supervisord.conf of ours; empty when there is none."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=(";",))
    parser.read_string(conf)
    name = f"program:{program}"
    return dict(parser.items(name)) if parser.has_section(name) else {}
