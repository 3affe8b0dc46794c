"""Clients that hold leases: they acquire, renew, work, release, stall, die, lie, and show stale tokens.

Owns each lease holder's true process and what it uses on the cards. A well-behaved one stops using the memory as soon
as it learns that its lease is over; a zombie goes on until it is ended.
"""

from __future__ import annotations

from collections.abc import Callable

from imageworks.runtime import events as ev
from imageworks.runtime.leases import Holder, Lease, LeaseAsk
from imageworks.simulation.programs import Tell
from imageworks.simulation.scenario import Act
from imageworks.simulation.stage import Manager, Stage

TTL_S = (4.0, 8.0, 20.0)
ASK_AGAIN_S = 1.0
SOON_S = 0.2


class Tenant:
    """One client. `over`: it neither uses nor wants anything any more. `renewing`: it still tells that it lives.

    `left`: it uses nothing any more, also where its work was over before it began to.
    """

    __slots__ = ("act", "alive", "ask", "call", "lease", "left", "lends", "number", "over", "renewing", "token")

    def __init__(self, number: int, act: Act, ask: LeaseAsk) -> None:
        self.number, self.act, self.ask = number, act, ask
        self.alive = self.renewing = True
        self.over = self.lends = self.left = False
        self.lease: Lease | None = None
        self.token = 0
        self.call = ""


class Tenants:
    """All clients that want or hold leases."""

    __slots__ = ("_by_call", "_by_lease", "_calls", "_world", "everyone")

    def __init__(self, world: Stage) -> None:
        self._world = world
        self.everyone: list[Tenant] = []
        self._by_call: dict[str, tuple[Tenant, str]] = {}
        self._by_lease: dict[str, Tenant] = {}
        self._calls = 0

    # asking

    def acquire(self, act: Act) -> None:
        """A new client asks for a lease."""
        machine = self._world.machine
        slots = tuple(machine.gpu_budget_mib)
        number = len(self.everyone)
        exclusive = act.how == "exclusive" or act.pick % 5 == 0
        count = min(2, len(slots)) if act.how == "pair" else 1
        named = (slots[act.pick % len(slots)],) if count == 1 and act.pick % 3 else ()
        budget = machine.gpu_budget_mib[named[0] if named else slots[0]]
        ask = LeaseAsk(
            request=f"q{number}",
            owner=f"owner{act.pick % 4}",
            mib=max(1, int(budget * (0.05 + act.size * 1.0))),
            count=count,
            gpus=named,
            exclusive=exclusive,
            priority=act.pick % 4 // 3,
            ttl_s=TTL_S[act.pick % 3],
            reason="simulated",
            holder=Holder(1_000 + number, number) if act.pick % 4 else None,
        )
        tenant = Tenant(number, act, ask)
        self.everyone.append(tenant)
        self._ask(tenant, 3)
        if act.how == "withdraw":
            self._world.agenda.after(act.size * 3, self._withdraw, tenant)

    def _ask(self, tenant: Tenant, tries: int) -> None:
        """Ask, also again after the manager went away: the same request gets the same lease."""
        shell = self._world.manager()
        if tenant.over or tenant.lease is not None:
            return
        if shell is None:
            if tries:
                self._world.agenda.after(ASK_AGAIN_S, self._ask, tenant, tries - 1)
            else:
                tenant.over = True
            return
        wait_s = 1.5 if tenant.act.how == "impatient" else 25.0
        call = tenant.call = self._call(tenant, "acquire")
        shell.say(ev.Acquire(call, tenant.ask, shell.clock() + wait_s))
        if tenant.act.pick % 9 == 0 and shell.alive:  # an impatient client library asks twice
            again = self._call(tenant, "acquire")
            shell.say(ev.Acquire(again, tenant.ask, shell.clock() + wait_s))

    def _call(self, tenant: Tenant, what: str) -> str:
        self._calls += 1
        call = f"c{self._calls}"
        self._by_call[call] = (tenant, what)
        return call

    def _withdraw(self, tenant: Tenant) -> None:
        shell = self._world.manager()
        if tenant.lease is None and not tenant.over and shell is not None and tenant.call in self._by_call:
            tenant.over = True
            del self._by_call[tenant.call]
            shell.say(ev.Withdraw(tenant.call))

    # answers

    def granted(self, call: str, lease: Lease) -> None:
        """The lease is held: the client begins to use and to renew it."""
        tenant, _ = self._by_call.pop(call, (None, ""))
        if tenant is None or tenant.lease is not None:
            return
        if tenant.over:  # it went away while the answer was under way
            tenant.renewing = False
            return
        tenant.lease, tenant.token = lease, lease.token
        self._by_lease[lease.id] = tenant
        after = self._world.agenda.after
        after(SOON_S, self._use, tenant)
        after(lease.ask.ttl_s / 3, self._renew, tenant)
        after(1.0 if self._world.programs.calm else tenant.act.span, self._end, tenant)

    def answered(self, call: str, lease: Lease) -> None:
        """A renewal, release or handover was done."""
        tenant, what = self._by_call.pop(call, (None, ""))
        if tenant is None:
            return
        if what == "handover_owner":
            old, tenant.token, tenant.lease = tenant.token, lease.token, lease
            self._say(tenant, "stale", ev.Renew, old)
            self._world.agenda.after(SOON_S, self._release, tenant)
        elif what in ("release", "handover_model"):
            tenant.over = True

    def denied(self, call: str, code: str) -> None:
        """The client got an error: it stops using what it has, if it is well-behaved."""
        tenant, what = self._by_call.pop(call, (None, ""))
        if tenant is None:
            return
        if what == "acquire":
            if tenant.lease is None:
                tenant.over = True
        elif what == "renew" and code in ("stale_token", "unknown_lease", "gpu_lost"):
            tenant.renewing = False
            if tenant.act.how != "zombie":
                self._world.agenda.after(SOON_S, self._leave, tenant)

    # holding

    def _use(self, tenant: Tenant) -> None:
        if tenant.alive and not (tenant.over or tenant.left or tenant.lends) and tenant.lease is not None:
            share = 0.95
            if "overuse" in self._world.scenario.faults and tenant.act.pick % 11 == 0:
                share = 1.3
                self._world.cards.touched.update(tenant.lease.tokens)
            self._world.cards.hold(tenant.ask.request, dict.fromkeys(tenant.lease.tokens, int(tenant.ask.mib * share)))

    def _renew(self, tenant: Tenant) -> None:
        if not tenant.alive or tenant.over or not tenant.renewing or tenant.lease is None:
            return
        self._say(tenant, "renew", ev.Renew, tenant.token)
        self._world.agenda.after(tenant.ask.ttl_s / 3, self._renew, tenant)

    def _end(self, tenant: Tenant) -> None:
        """The work is done, and the client ends in its own way."""
        if tenant.over or tenant.lease is None:
            return
        how, after, ttl_s = tenant.act.how, self._world.agenda.after, tenant.ask.ttl_s
        if how == "die":
            self._die(tenant)
        elif how in ("silent", "zombie"):
            tenant.renewing = False
            after(ttl_s * 1.6, self._say, tenant, "renew", ev.Renew, tenant.token)
        elif how == "late":
            tenant.renewing = False
            after(ttl_s * 0.6, self._say, tenant, "renew", ev.Renew, tenant.token)
            after(ttl_s * 0.7, self._release, tenant)
        elif how == "forged":
            self._say(tenant, "stale", ev.Renew, tenant.token + 1_000)
            self._say(tenant, "stale", ev.Release, tenant.token - 1)
            after(SOON_S, self._release, tenant)
        elif how == "owner":
            self._hand_over(tenant, "handover_owner", "somebody", None)
        elif how == "model":
            names = self._world.names
            self._leave(tenant, over=False)
            self._hand_over(tenant, "handover_model", None, names[tenant.act.pick % len(names)])
            after(1.0, self._release, tenant)
        else:
            self._release(tenant)

    def _hand_over(self, tenant: Tenant, what: str, owner: str | None, model: str | None) -> None:
        shell = self._world.manager()
        if shell is not None and tenant.lease is not None:
            shell.say(ev.Handover(self._call(tenant, what), tenant.lease.id, tenant.token, owner, model))
        else:
            self._world.agenda.after(SOON_S, self._release, tenant)

    def _release(self, tenant: Tenant) -> None:
        if tenant.over or tenant.lease is None:
            return
        self._leave(tenant, over=False)
        self._say(tenant, "release", ev.Release, tenant.token)
        if tenant.act.how == "twice":
            self._world.agenda.after(SOON_S, self._say, tenant, "release", ev.Release, tenant.token)

    def _say(self, tenant: Tenant, what: str, kind: Callable[[str, str, int], ev.Event], token: int) -> None:
        shell = self._world.manager()
        if tenant.lease is None or not tenant.alive:
            return
        if shell is not None:
            call = self._call(tenant, what)
            shell.say(kind(call, tenant.lease.id, token))
            if what == "release":
                self._world.agenda.after(ASK_AGAIN_S, self._release_again, tenant, call, token, shell)
        elif what == "release":
            self._world.agenda.after(ASK_AGAIN_S, self._say, tenant, what, kind, token)

    def _release_again(self, tenant: Tenant, call: str, token: int, asked: Manager) -> None:
        """The manager died before it answered: a client that is done says so again, instead of renewing for ever."""
        if call not in self._by_call:
            return
        if self._world.manager() is asked:  # it may stand still: the answer is under way
            self._world.agenda.after(ASK_AGAIN_S, self._release_again, tenant, call, token, asked)
        else:
            del self._by_call[call]
            self._say(tenant, "release", ev.Release, token)

    def _leave(self, tenant: Tenant, *, over: bool = True) -> None:
        """Nothing is used any more."""
        tenant.renewing = tenant.renewing and not over
        tenant.over = tenant.over or over
        tenant.left = True
        self._world.cards.let_go(tenant.ask.request)

    def _die(self, tenant: Tenant) -> None:
        """Its process ends without a word; the manager notices if it knows the process."""
        tenant.alive, tenant.renewing = False, False
        self._leave(tenant)
        if tenant.ask.holder is not None and tenant.lease is not None:
            self._world.agenda.after(0.5, self._noticed, tenant.lease.id)

    def _noticed(self, lease: str) -> None:
        shell = self._world.manager()
        if shell is not None:
            shell.say(ev.HolderGone(lease))

    # what others do

    def breathes(self, lease: str) -> bool:
        """Does the process that holds the lease live?"""
        tenant = self._by_lease.get(lease)
        return tenant is not None and tenant.alive

    def reclaim(self, lease: str, tell: Tell) -> None:
        """End what is left of the holder's tree; what no pid is known of is left alone."""
        tenant = self._by_lease.get(lease)
        habit = self._world.programs.habit("lease", "reclaim")
        if tenant is None or tenant.ask.holder is None:
            if tenant is not None and tenant.lease is not None:  # nobody can end it: only readings protect others
                self._world.cards.touched.update(tenant.lease.tokens)
            self._world.agenda.after(SOON_S, tell, ev.Reclaimed(lease))
        elif habit.outcome == "stuck":
            self._world.agenda.after(
                habit.took_s, tell, ev.ReclaimFailed(lease, "does not end", (tenant.ask.holder.pid,))
            )
        elif habit.outcome != "hang":
            self._world.agenda.after(habit.took_s, self._reclaimed, tenant, lease, tell, habit.outcome, habit.then_s)

    def _reclaimed(self, tenant: Tenant, lease: str, tell: Tell, outcome: str, then_s: float) -> None:
        tenant.alive, tenant.over, tenant.renewing = False, True, False
        kept = {"orphan": 0.4, "slow_bytes": 1.0}.get(outcome, 0.0)
        self._world.cards.let_go(tenant.ask.request, kept)
        if kept:
            self._world.agenda.after(then_s, self._world.cards.give_back, tenant.ask.request)
        tell(ev.Reclaimed(lease))
        if outcome == "twice":
            self._world.agenda.after(then_s, tell, ev.Reclaimed(lease))

    def shown(self, pick: int) -> tuple[str | None, int | None]:
        """The lease and token that a request shows: those of some client that holds one."""
        holding = [tenant for tenant in self.everyone[-6:] if tenant.lease is not None and tenant.alive]
        if not holding:
            return None, None
        tenant = holding[pick % len(holding)]
        tenant.lends = True  # its memory is for the models that it asks now
        self._world.cards.let_go(tenant.ask.request)
        return (tenant.lease.id if tenant.lease else None), tenant.token

    def lose(self, slot: int) -> None:
        """The card is gone: so is every process on it."""
        for tenant in self.everyone:
            if tenant.lease is not None and slot in tenant.lease.tokens and tenant.alive and not tenant.over:
                self._die(tenant)

    def send_home(self) -> None:
        """Everybody releases what they have."""
        for tenant in self.everyone:
            if not tenant.over and tenant.alive:
                self._world.agenda.after(SOON_S, self._release, tenant)
