"""The one loop between the scheduler and the world.

Owns the current state: tells the scheduler what happened, has its effects performed, and wakes when time alone changes
something. A lease is written down before it is told. Decides nothing. Lives in one event loop and is called from it only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path

from imageworks.contract import Route, RouteTable
from imageworks.runtime import events as ev
from imageworks.runtime import processes, recovery
from imageworks.runtime.backends.logs import error_line
from imageworks.runtime.backends.protocol import Driver, DriverError
from imageworks.runtime.errors import refusal
from imageworks.runtime.gpus import Gpus, bound_cards
from imageworks.runtime.holders import Holders
from imageworks.runtime.lease_desk import LeaseDesk
from imageworks.runtime.ledger import Kept, Ledger
from imageworks.runtime.lineup import Lineup
from imageworks.runtime.measuring import Measuring
from imageworks.runtime.performing import Performing
from imageworks.runtime.progress import Progress
from imageworks.runtime.residency import DOWN, Machine, machine
from imageworks.runtime.scheduler import State, initial, next_deadline, step
from imageworks.runtime.serving import try_finish, try_grant
from imageworks.runtime.steady import BEAT_S, SteadyClock
from imageworks.runtime.transitions import Transitions

LOG = logging.getLogger(__name__)
LOOK_AGAIN_S, LOOKS = 0.05, 20
"""Process control needs a moment to notice that a killed process is gone."""
FIRST_LOOK_S = 3.0
REMEMBER_S = 1.0
"""How often the trees of lease holders are taken down."""
TURNS = frozenset({ev.Ready, ev.Stopped, ev.Slept, ev.Reclaimed, ev.Release, ev.Handover, ev.Died})
"""With these begins or ends what memory is used for: only a look that begins later can show it."""


class Drive:
    """Scheduler, drivers, GPUs, ledger and clock together. `state` is the scheduler's, to be read.

    `stack` is the stack's folder, None where no program of ours runs. `kept` is what the open `ledger` held; without one
    nothing outlives this process.
    """

    def __init__(
        self,
        table: RouteTable,
        drivers: Mapping[str, Driver],
        clock: Callable[[], float] | None = None,
        *,
        ledger: Ledger | None = None,
        kept: Kept | None = None,
        gpus: Gpus | None = None,
        stack: Path | None = None,
    ) -> None:
        self.table, self._stack = table, stack
        self.lineup = Lineup(drivers, table.routes)
        self.clock = SteadyClock() if clock is None else clock
        self._steady = self.clock if isinstance(self.clock, SteadyClock) else None
        self.ledger, self._kept, self._own_ledger = ledger or Ledger(), kept or Kept(), ledger is None
        self.progress, self.transitions = Progress(), Transitions()
        self._holders = Holders(lambda lease: self.say(ev.HolderGone(lease)), stack)
        self.leases = LeaseDesk(self.ledger, self._holders, self.say)
        self.measuring = Measuring(table, gpus or Gpus({}), self._holders)
        self._perform_with = Performing(self.lineup, self.ledger, self._holders, say=self.say, clock=self.clock)
        self._looked_at = frozenset(gpu.slot for gpu in table.gpus)
        self.uuids = recovery.cards(table, self._kept, {}, {})
        self.state: State = initial(machine(table, uuids=self.uuids))
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._lives: dict[str, tuple[str, int, Route | None]] = {}
        self._events: deque[ev.Event] = deque()
        self._stepping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._opened = asyncio.Event()

    # the life of the loop

    async def open(self) -> None:
        """Look at what runs already and what was held; nothing is granted before."""
        if self._steady is not None:
            self._steady.stalled = self._stalled
            self.spawn(self._beat())
        looked, (uuids, measured) = await asyncio.gather(
            recovery.look_around(self.lineup), self.measuring.first(FIRST_LOOK_S)
        )
        absent = {name: seen for name, seen in looked.items() if seen is None}
        if self._stack is not None and absent:
            await recovery.end_orphans(self.table, absent, self._stack)
        self.uuids = recovery.cards(self.table, self._kept, self._bound(), uuids)
        self.say(ev.Reload(self._machine()))  # the same plan; now it is known which card is which
        if measured is not None:
            self.say(measured)
        self._adopt({name: seen for name, seen in looked.items() if seen is not None})
        self.spawn(self._measure())
        self.spawn(self._remember())

    def _bound(self) -> Mapping[int, str]:
        return bound_cards(self._stack, self.table) if self._stack is not None else {}

    def _machine(self) -> Machine:
        """The plan in force on these cards; a card that only a later plan uses is not read, so it is accounted."""
        read = self.measuring.seen and all(gpu.slot in self._looked_at for gpu in self.table.gpus)
        return machine(self.table, uuids=self.uuids, measured=read)

    def _adopt(self, observed: Mapping[str, recovery.Observed]) -> None:
        waking = recovery.waking(observed, self._kept)
        observed = {**observed, **dict.fromkeys(waking, "starting")}
        leases = self.leases.take_over(self._kept)
        LOG.info("running already: %s; leases: %s", dict(observed) or "nothing", [each.id for each in leases] or "none")
        if self.ledger.forgot:
            self.leases.closed_until = self.clock() + self.table.leases.ttl_s
        tokens = recovery.tokens_here(self._kept, self.uuids, self.ledger.floor())
        self.say(ev.Adopt(observed, leases, tokens, self._kept.load_s))
        self._opened.set()
        for name, seen in observed.items():
            if name in waking:
                self.spawn(self._perform_with.finish_wake(name))
            elif seen == "starting":
                self.spawn(self._perform_with.await_start(name))
            if self._kept.wanted.get(name) == "stopping" and name not in self.table.policy.resident:
                self.say(
                    ev.Unload(name)
                )  # what was on its way out when the last life ended; one that starts, once it can

    async def close(self) -> None:
        """Stop watching and waiting; models and leases stay as they are."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._holders.close()
        await self.measuring.close()
        if self._own_ledger:
            self.ledger.close()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run something beside, until it ends or the drive is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def beat(self) -> None:
        """This process runs."""
        if self._steady is not None:
            self._steady.beat()

    async def _beat(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT_S)

    def _stalled(self, seconds: float) -> None:
        """This process stood still: what it believed to run may be gone, so it is looked at before anything is sent."""
        LOG.warning("this process stood still for %.1f s; looking again at what runs", seconds)
        self._settled.clear()
        self.measuring.moved()
        self.spawn(self._look_again())

    async def _look_again(self) -> None:
        try:
            ready = [
                name for name, slot in self.state.slots.items() if slot.residency == "ready" and name in self.lineup
            ]
            await asyncio.gather(*(self.report_dead(name, looks=1) for name in ready))
        finally:
            self._settled.set()

    async def _measure(self) -> None:
        await self.measuring.run(self.say, lambda: bool(self.state.moving or self.state.proofs))

    async def _remember(self) -> None:
        while True:
            await asyncio.sleep(REMEMBER_S)
            if self._holders.holds():
                try:
                    running = await asyncio.to_thread(processes.everything)
                except (OSError, RuntimeError) as error:  # no file or no thread is left: the next look may have one
                    LOG.warning("the processes of leases cannot be looked at: %s", error)
                else:
                    self._holders.remember(running)

    # another plan

    def swap(self, table: RouteTable, drivers: Mapping[str, Driver], outdated: frozenset[str]) -> None:
        """Another plan is in force from now, in one step: what is granted later is granted by it.

        Models of `outdated` were started otherwise than `table` says; they and those that are gone are stopped when idle.
        """
        living = {name for name, slot in self.state.slots.items() if slot.residency not in DOWN}
        self.table = table
        self.lineup.use(drivers, table.routes, living)
        self.measuring.use(table)
        self.uuids = recovery.cards(table, self._kept, self._bound(), self.uuids)
        self.say(ev.Reload(self._machine(), outdated))

    # requests

    async def acquire(
        self,
        request: str,
        models: tuple[str, ...],
        deadline: float,
        *,
        priority: int = 0,
        lease: tuple[str, int] | None = None,
    ) -> str:
        """Wait for one of `models`, until the monotonic time `deadline`; returns which.

        `lease` is the id and token that the request shows. Raises ApiError; cancelling leaves the queue or gives back.
        """
        if lease is not None and not self.state.adopted:
            await self._opened.wait()  # whether it is known says nothing before
        if not self._settled.is_set():
            await self._settled.wait()
        answer = self._ask(request, models, deadline, priority, lease)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody will ask for it any more
            self.say(ev.Cancel(request))
            raise
        finally:
            del self._answers[request]

    def try_acquire(self, request: str, models: tuple[str, ...]) -> str | None:
        """The same for who will not wait: the first of `models` where it is ready, free and nobody waits; else None, and nothing happened."""
        state, model = self.state, models[0]
        if state.waiting or self._stepping or not self._settled.is_set():
            return None
        life = try_grant(state, request, model, self.clock())
        if life is None:
            return None
        self._lives[request] = (model, life, None)
        self.progress.asked(model)
        return model

    def finish(self, request: str, *, ok: bool) -> None:
        """What `try_acquire` granted is over; `ok` when the engine served it."""
        if not self._stepping and not self._events and try_finish(self.state, request, ok=ok, now=self.clock()):
            del self._lives[request]
        else:
            self.say(ev.Finish(request, ok))

    def current(self, request: str) -> bool:
        """Is what the request was granted still that life of the model? To be asked before the first byte goes out."""
        model, life, _ = self._lives.get(request, ("", -1, None))
        slot = self.state.slots.get(model)
        return slot is not None and slot.life == life and slot.residency == "ready"

    def route(self, request: str) -> Route | None:
        """The route of the model that was granted, as the plan in force at that moment had it; None: it is not there."""
        return self._lives[request][2]

    def _ask(
        self, request: str, models: tuple[str, ...], deadline: float, priority: int, lease: tuple[str, int] | None
    ) -> asyncio.Future[str]:
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        shown, token = lease or (None, None)
        self.say(ev.Arrive(request, models, self._until(deadline), priority, shown, token))
        return answer

    def _until(self, deadline: float) -> float:
        """A monotonic time on the scheduler's clock."""
        return deadline - (self._steady.skipped_s if self._steady else 0.0)

    # what happened

    async def report_dead(self, model: str, looks: int = LOOKS) -> bool:
        """Is the model's process really gone? Then the scheduler is told, and True returned."""
        for look in range(looks if model in self.lineup else 0):
            if look:
                await asyncio.sleep(LOOK_AGAIN_S)
            with suppress(DriverError):
                driver, before = self.lineup[model], self.state.slots.get(model)
                life = before and before.life
                status = await driver.status()
                slot = self.state.slots.get(model)
                if slot is None or slot.life != life or slot.residency not in ("ready", "asleep"):
                    return True  # what was asked about is over
                if not status.alive:
                    reason = status.why(error_line(driver.log()))
                    LOG.warning("%s: died: %s", model, reason)
                    self.say(ev.Died(model, reason))
                    return True
        return False

    def say(self, event: ev.Event) -> None:
        """Tell the scheduler, and perform what it asks for; what an effect says in turn comes after it."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._stepping = False

    def _step(self, event: ev.Event) -> None:
        kind = event.__class__
        if kind is ev.Finish or kind is ev.Cancel:
            self._lives.pop(event.request, None)  # type: ignore[union-attr]
        elif kind in TURNS:
            self.measuring.moved()
        now = self.clock()
        self.state, effects = step(self.state, event, now)
        for effect in effects:
            self._perform(effect)
        self._set_timer(now)

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Grant(request, model, life):
                self._lives[request] = (model, life, self.table.routes.get(model))
                self.progress.asked(model)
                if (answer := self._answers.get(request)) is not None and not answer.done():
                    answer.set_result(model)
            case ev.Refuse(request):
                if (answer := self._answers.get(request)) is not None and not answer.done():
                    answer.set_exception(refusal(effect))
            case ev.Start() | ev.Stop() | ev.Sleep() | ev.Wake() | ev.Reclaim():
                self.spawn(self._perform_with.perform(effect, self.uuids))
            case ev.Moved():
                self.transitions.note(effect)
            case ev.WouldBlock(subject, reason):
                LOG.warning("%s would have been blocked: %s", subject, reason)
            case _:
                self.leases.perform(effect)

    def _set_timer(self, stepped: float) -> None:
        """Wake for what falls due after `stepped`, the time the last step saw: what a later clock would skip is not lost."""
        due = next_deadline(self.state, stepped)
        if due is not None and due == self._due and self._timer is not None and due > self.clock():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = due, None
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self.clock()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.say(ev.Tick())
