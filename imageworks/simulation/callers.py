"""Clients that send requests: they wait, hang up, finish well or badly, show leases, and never come back.

Owns the life of each request outside the scheduler, from its arrival to its Finish or Cancel. What became of it is in
`answers`: none may stay without one while the manager lives.
"""

from __future__ import annotations

from imageworks.runtime import events as ev
from imageworks.simulation.scenario import Act
from imageworks.simulation.stage import Manager, Stage

FIRST_BYTE_S = 0.05
SLOW_UPLOAD_S = 12.0
"""Some clients take their time to send the body."""
WAIT_S = 30.0


class Call:
    """One request under way. `generation` is the process that the grant was for."""

    __slots__ = ("ending", "generation", "life", "model", "service_s", "shell", "upload_s")

    def __init__(self, shell: Manager, act: Act) -> None:
        self.shell, self.service_s, self.ending = shell, act.span / 3, act.how
        self.upload_s = act.size * SLOW_UPLOAD_S if act.pick % 6 == 0 else FIRST_BYTE_S
        self.model = ""
        self.life = self.generation = 0


class Callers:
    """All requests under way."""

    __slots__ = ("_calls", "_number", "_world", "patience")

    def __init__(self, world: Stage) -> None:
        self._world = world
        self._calls: dict[str, Call] = {}
        self._number = 0
        self.patience = WAIT_S

    def arrive(self, act: Act) -> None:
        """A request comes in."""
        names = self._world.names
        models: tuple[str, ...] = (names[act.pick % len(names)],)
        if act.how == "second" and len(names) > 1:
            models = (*models, names[(act.pick // 7 + 1 + act.pick % len(names)) % len(names)])
            models = tuple(dict.fromkeys(models))
        self.ask(models, act)

    def ask(self, models: tuple[str, ...], act: Act) -> None:
        """Send one request; a manager that is down refuses the connection."""
        shell = self._world.manager()
        if shell is None:
            return
        self._number += 1
        request = f"r{self._number}"
        lease, token = None, None
        if act.how in ("leased", "stale"):
            lease, token = self._world.holders().shown(act.pick)
            if token is not None and act.how == "stale":
                token -= 1
        wait_s = 2.0 if act.how == "impatient" else self.patience
        self._calls[request] = Call(shell, act)
        event = ev.Arrive(request, models, shell.clock() + wait_s, int(act.how == "urgent"), lease, token)
        shell.say(event)
        if act.how == "cancel":
            self._world.agenda.after(act.size * 4, self._hang_up, request)

    def granted(self, effect: ev.Grant) -> None:
        """The scheduler said yes: the first byte goes out a moment later."""
        call = self._calls.get(effect.request)
        if call is None:
            return
        call.model, call.life = effect.model, effect.life
        call.generation = self._world.programs.of[effect.model].generation
        self._world.agenda.after(call.upload_s, self._forward, effect.request)

    def refused(self, effect: ev.Refuse) -> None:
        """The scheduler said no."""
        self._calls.pop(effect.request, None)

    def _forward(self, request: str) -> None:
        call = self._calls.get(request)
        if call is None or not call.shell.alive:
            self._calls.pop(request, None)
            return
        if not call.shell.may_forward(request, call.model, call.life):
            self._hang_up(request)
            return
        program = self._world.programs.of[call.model]
        self._world.book.forwarded(request, call.model, call.generation, program)
        if call.ending == "hang_up":
            self._world.agenda.after(call.service_s / 2, self._hang_up, request)
        else:
            self._world.agenda.after(call.service_s, self._end, request)

    def _end(self, request: str) -> None:
        call = self._calls.pop(request, None)
        if call is not None:
            program = self._world.programs.of[call.model]
            well = call.ending != "bad" and program.generation == call.generation and program.phase == "ready"
            call.shell.say(ev.Finish(request, well))

    def _hang_up(self, request: str) -> None:
        call = self._calls.pop(request, None)
        if call is not None:
            call.shell.say(ev.Cancel(request))

    def forget(self) -> None:
        """The manager is gone, and every connection with it."""
        self._calls.clear()
