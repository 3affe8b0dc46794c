"""The scheduler under a virtual clock: seeded worlds, faults, invariants, traces. No asyncio, no wall clock, no I/O."""
