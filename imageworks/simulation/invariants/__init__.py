"""I1-I30: importing this package puts every checker on the list."""

from imageworks.simulation.invariants import crash, leases, log, memory, queue
from imageworks.simulation.invariants.registry import END, EVERY, INVARIANTS, START, Invariant, by_moment

__all__ = ["END", "EVERY", "INVARIANTS", "START", "Invariant", "by_moment", "crash", "leases", "log", "memory", "queue"]
