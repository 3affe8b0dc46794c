"""How many events a second the scheduler takes, and whether that stays flat with many models and many waiters.

Two stories for each size. `busy`: requests for models that are up come and go. `swapping`: every request is for another
model than the last, one model fits at a time, and as many requests as there are models wait; loads and unloads are
answered at once. Prints events per second of CPU time, of one core.
Run: python benchmarks/scheduler_speed.py [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from imageworks.runtime import events as ev
from imageworks.runtime.residency import Machine, Spec
from imageworks.runtime.scheduler import State, initial, step

SIZES = (10, 100, 1_000, 10_000)
CHUNK = 500


def machine(models: int, *, fitting: int) -> Machine:
    """One GPU with room for `fitting` of the models."""
    specs = {f"m{i}": Spec(f"m{i}", {0: 100}, 0, 600.0, 8) for i in range(models)}
    return Machine(specs, {0: 100 * fitting}, 0, models, queue=1_000_000, min_residency_s=0.0)


def busy(models: int) -> Iterator[int]:
    """Yields numbers of events done."""
    state = initial(machine(models, fitting=models))
    step(state, ev.Adopt({f"m{i}": "ready" for i in range(models)}), 0.0)
    number, now = 0, 0.0
    while True:
        for _ in range(CHUNK):
            now += 0.001
            request = str(number)
            step(state, ev.Arrive(request, (f"m{number % models}",), now + 100.0), now)
            step(state, ev.Finish(request), now)
            number += 1
        yield 2 * CHUNK


def swapping(models: int) -> Iterator[int]:
    """As `busy`."""
    state: State = initial(machine(models, fitting=3))
    step(state, ev.Adopt({}), 0.0)
    number, now, done = 0, 0.0, 0
    todo: deque[ev.Event] = deque()
    waiting = 0
    while True:
        for _ in range(CHUNK):
            now += 0.001
            if todo:
                event = todo.popleft()
            else:
                event = ev.Arrive(str(number), (f"m{number * 7 % models}",), now + 1e6)
                number += 1
                waiting += 1
            if waiting < models and not isinstance(event, ev.Arrive):
                todo.appendleft(event)
                event = ev.Arrive(str(number), (f"m{number * 7 % models}",), now + 1e6)
                number += 1
                waiting += 1
            for effect in step(state, event, now)[1]:
                if isinstance(effect, ev.Start):
                    todo.append(ev.Ready(effect.model))
                elif isinstance(effect, ev.Stop):
                    todo.append(ev.Stopped(effect.model))
                elif isinstance(effect, ev.Grant):
                    waiting -= 1
                    todo.append(ev.Finish(effect.request))
            done += 1
        yield CHUNK


def rate(story: Iterator[int], seconds: float, warm: int) -> float:
    """Events per second, after `warm` events that are not counted."""
    while warm > 0:
        warm -= next(story)
    begin, done = time.process_time(), 0
    while time.process_time() - begin < seconds:
        done += next(story)
    return done / (time.process_time() - begin)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    results = []
    for models in SIZES:
        row = {
            "models": models,
            "busy_per_s": round(rate(busy(models), given.seconds, 1_000)),
            "swapping_per_s": round(rate(swapping(models), given.seconds, 2 * models + 1_000)),
        }
        results.append(row)
        print("{models:>6} models and waiters: busy {busy_per_s:>8,}/s, swapping {swapping_per_s:>8,}/s".format(**row))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
