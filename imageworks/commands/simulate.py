"""`imageworks simulate`: the scheduler under a virtual clock, with random faults, in every order, or on a trace.

Owns the verb's options, the spreading of seeds over processes, and how results are told. All that is simulated lives in
`imageworks.simulation`, which reads no clock and touches nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageworks.commands.console import fail, result, say
from imageworks.commands.pipeline import stack_option

if TYPE_CHECKING:
    from imageworks.runtime.residency import Machine
    from imageworks.simulation.campaign import Outcome, Totals
    from imageworks.simulation.replay import Report
    from imageworks.simulation.scenario import Scenario
    from imageworks.simulation.trace import Trace

CHUNK = 250
"""Seeds that one process plays before it reports."""
POLICIES = ("all", "ours", "lru", "fifo", "optimal")


@click.command("simulate", help="Try the scheduler out: random faults, every order of events, or a recorded trace.")
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@stack_option
@click.option(
    "--random", "random_", is_flag=True, help="Play random schedules with faults; check I1-I30 at every step."
)
@click.option("--schedules", type=click.IntRange(1), default=1_000, show_default=True, help="How many.")
@click.option(
    "--steps", type=click.IntRange(1), default=200, show_default=True, help="Events of each before it comes to rest."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first schedule's seed.")
@click.option("--jobs", type=click.IntRange(1), default=None, help="Processes; all cores if not given.")
@click.option("--keep", default=None, help="Only these acts of the schedule, as printed with a violation.")
@click.option("--tame", default="", help="Operations that always go well, as printed with a violation.")
@click.option("--exhaustive", is_flag=True, help="Every order of events: 2 GPUs, 3 owners of leases.")
@click.option(
    "--models", type=click.IntRange(1, 2), default=1, show_default=True, help="Models in the exhaustive world."
)
@click.option("--failures", is_flag=True, help="Models fail and die in the exhaustive world.")
@click.option("--states", type=click.IntRange(1), default=500_000, show_default=True, help="Give up at so many states.")
@click.option("--list-invariants", is_flag=True, help="What is checked, and the planted bug that each checker catches.")
@click.option("--generate", type=click.Choice(["personal-tagger"]), default=None, help="Replay a made-up trace.")
@click.option("--images", type=click.IntRange(1), default=200, show_default=True, help="Images of the made-up trace.")
@click.option("--every", type=click.FloatRange(0), default=0.05, show_default=True, help="Seconds from image to image.")
@click.option("--profile", default=None, help="The compiled profile to replay on.")
@click.option("--policy", type=click.Choice(POLICIES), default="all", show_default=True)
@click.option(
    "--load-seconds", type=click.FloatRange(0), default=15.0, show_default=True, help="Where no load time is known."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    trace: Path | None, stack: Path, random_: bool, schedules: int, steps: int, seed: int, jobs: int | None,
    keep: str | None, tame: str, exhaustive: bool, models: int, failures: bool, states: int, list_invariants: bool,
    generate: str | None, images: int, every: float, profile: str | None, policy: str, load_seconds: float, form: str,
) -> int:  # fmt: skip
    """Exit 0 when nothing was violated, 1 when something was or the options make no sense."""
    if list_invariants:
        return _list(form)
    if random_ and keep is not None:
        return _replay_schedule(seed, steps, keep, tame)
    if random_:
        return _random(schedules, steps, seed, jobs or os.cpu_count() or 1, form)
    if exhaustive:
        return _exhaustive(states, models, failures, form)
    if trace is None and generate is None:
        return fail("nothing to simulate", "give --random, --exhaustive, a TRACE.jsonl, or --generate personal-tagger")
    return _replay(trace, stack, images, every, profile, policy, load_seconds, form)


# random schedules


def _random(schedules: int, steps: int, seed: int, jobs: int, form: str) -> int:
    begin = time.monotonic()
    played = events = 0
    failures: list[Outcome] = []
    for totals in _chunks(range(seed, seed + schedules), steps, jobs):
        played, events = played + totals.schedules, events + totals.steps
        failures += totals.failures
        if totals.failures and form == "text":
            for outcome in totals.failures:
                _tell_violation(outcome, steps)
    spent_s = time.monotonic() - begin
    per_core = events / max(spent_s, 1e-9) / min(jobs, -(-schedules // CHUNK))  # a process plays whole chunks
    if form == "json":
        data = {
            "schedules": played, "steps": events, "seconds": round(spent_s, 1), "events_per_second_and_core": round(per_core),
            "seeds": [seed, seed + schedules - 1], "violations": [asdict(outcome) for outcome in failures],
        }  # fmt: skip
        result(json.dumps(data, indent=2))
    else:
        verdict = f"{len(failures)} violations" if failures else "no violation"
        seeds = f"seeds {seed}-{seed + schedules - 1}"
        result(f"{played} schedules, {events} steps, {per_core:.0f} events/s per core, {seeds}: {verdict}")
    return 1 if failures else 0


def _chunks(seeds: range, steps: int, jobs: int) -> Iterator[Totals]:
    from imageworks.simulation.campaign import run

    parts = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1 or len(parts) == 1:
        yield from (run(part, steps) for part in parts)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, parts, [steps] * len(parts))


def _tell_violation(outcome: Outcome, steps: int) -> None:
    from imageworks.simulation.scenario import draw
    from imageworks.simulation.shrink import shrink

    violation = outcome.violation
    if violation is None:
        return
    result(f"seed {outcome.seed}: I{violation.number} at step {violation.step}: {violation.text}")
    found = shrink(draw(outcome.seed, steps), steps, violation.number)
    tame = f" --tame {','.join('.'.join(each) for each in found.tamed)}" if found.tamed else ""
    keep = ",".join(map(str, found.acts)) or "none"
    result(f"  {len(found.acts)} acts are enough; replay it:")
    result(f"  imageworks simulate --random --steps {steps} --seed {outcome.seed} --keep {keep}{tame}")


def _replay_schedule(seed: int, steps: int, keep: str, tame: str) -> int:
    """One schedule, in parts, with every step told."""
    from imageworks.simulation.campaign import play
    from imageworks.simulation.scenario import draw
    from imageworks.simulation.shrink import reduced

    try:
        acts = [] if keep == "none" else [int(number) for number in keep.split(",")]
        tamed = [(name, operation) for name, _, operation in (each.partition(".") for each in tame.split(",") if each)]
        scenario: Scenario = reduced(draw(seed, steps), acts, tamed)
    except (ValueError, IndexError):
        return fail("--keep wants the numbers of acts, --tame pairs like m0.start", "copy both from a violation")
    for act in scenario.acts:
        result(f"{act.at:8.2f}  {act.kind} {act.how}".rstrip())
    world = play(scenario, steps)
    for moved in world.book.log[-40:]:
        result(f"          {moved.subject}: {moved.before} -> {moved.after} ({moved.cause})")
    for violation in world.book.violations:
        result(f"I{violation.number} at step {violation.step}, {violation.now:.2f} s: {violation.text}")
    result(f"seed {seed}, {len(scenario.acts)} acts, {world.steps} steps: {len(world.book.violations)} violations")
    return 1 if world.book.violations else 0


def _list(form: str) -> int:
    from imageworks.simulation.bugs import BUGS
    from imageworks.simulation.invariants import INVARIANTS

    rows = [
        {
            "number": each.number,
            "promise": each.title,
            "kept by": each.place,
            "checker": each.check.__name__,
            "planted bugs": [bug.name for bug in BUGS if bug.number == each.number],
        }
        for each in sorted(INVARIANTS, key=lambda each: each.number)
    ]
    if form == "json":
        result(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        result(f"I{row['number']:<3} {row['promise']} [{row['kept by']}; {row['checker']}]")
    result("")
    for bug in BUGS:
        result(f"I{bug.number:<3} catches: {bug.name}")
    return 0


# every order


def _exhaustive(states: int, models: int, failures: bool, form: str) -> int:
    from imageworks.simulation.exhaustive import explore, small_world

    found = explore(states, small_world(models), failures=failures)
    if form == "json":
        result(json.dumps(asdict(found), indent=2))
    else:
        for violation in found.violations:
            result(violation)
        end = "closed" if found.closed else "not closed"
        result(
            f"2 GPUs, 3 owners, {models} model{'s' * (models > 1)}: {found.states} states, {found.steps} steps, "
            f"depth {found.depth}, {end}, {len(found.violations)} violations"
        )
    return 0 if found.closed else 1


# traces


def _replay(
    trace: Path | None,
    stack: Path,
    images: int,
    every: float,
    profile: str | None,
    policy: str,
    load_s: float,
    form: str,
) -> int:
    from imageworks.runtime.residency import machine as machine_of
    from imageworks.runtime.table import load
    from imageworks.simulation.card import one_model_card, tagger_models
    from imageworks.simulation.trace import TAGGER, personal_tagger, read

    models: tuple[str, ...] = TAGGER
    machine = one_model_card()
    if profile is not None:
        try:
            table = load(stack.absolute().parent / "generated" / profile / "routes.json")
            machine = machine_of(table)
            models = tagger_models(table) if trace is None else TAGGER
        except KeyError as error:
            return fail(f"no model answers role {error} on profile {profile}", "the generated trace asks three roles")
        except ValueError as error:
            return fail(str(error))
    elif trace is not None:
        return fail("a recorded trace needs a machine", "name the compiled profile: --profile P")
    try:
        jobs = (
            personal_tagger(images, models, every)
            if trace is None
            else read(trace.read_bytes().splitlines(), machine.specs)
        )
    except ValueError as error:
        return fail(f"{trace}: {error}")
    if not jobs.jobs and not jobs.skipped:
        return fail(f"{trace}: there is no request in it", "recorded ones are in .imageworks/log/requests.jsonl")
    if not jobs.jobs:
        return fail(
            f"{trace}: no request for a model of profile {profile}", f"{jobs.skipped} lines are for other models"
        )
    return _compare(machine, jobs, policy, load_s, form)


def _compare(machine: Machine, trace: Trace, policy: str, load_s: float, form: str) -> int:
    from imageworks.simulation.card import load_times
    from imageworks.simulation.optimum import fewest_loads
    from imageworks.simulation.replay import POLICIES as REPLAYED
    from imageworks.simulation.replay import replay

    chosen = [name for name in REPLAYED if policy in ("all", name)]
    reports = [replay(machine, name, trace.jobs, load_times(machine, load_s)) for name in chosen]
    late = next((report.most_late for report in reports if report.policy == "ours"), None)
    least = fewest_loads(machine, trace.jobs, late) if policy in ("all", "optimal") else None
    if form == "json":
        data = {"reports": [asdict(report) for report in reports], "skipped": trace.skipped}
        result(json.dumps(data | ({"optimum": {"loads": least[0], "what": least[1]}} if least else {}), indent=2))
        return 0
    if trace.skipped:
        say(f"{trace.skipped} requests were for models that this profile does not have")
    _table(reports)
    if least is not None:
        result(f"optimum  {least[0]:>6} loads ({least[1]})")
    return 0


def _table(reports: Sequence[Report]) -> None:
    result("policy     jobs  loads  wait p50    p95    max     most late  idle  makespan")
    for each in reports:
        result(
            f"{each.policy:<8} {each.jobs:>6} {each.loads:>6} {each.wait_p50_s:>8.1f}s {each.wait_p95_s:>6.1f} "
            f"{each.wait_max_s:>6.1f} {each.most_late:>13} {each.gpu_idle:>5.0%} {each.makespan_s:>8.1f}s"
        )
