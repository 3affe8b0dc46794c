"""What is to be written when all that has arrived was looked at.

Owns `Outbox`: the writes of one turn of the event loop, made one after the other at its end. Each write to another process
may wake it, which costs the writer more than the write; one that is awake already takes the following writes for free.
Where few are served there is nothing to gather, and writing at once saves a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized

FEW = 4


class Outbox:
    """Writes of one event loop; `served` is who is served now. What closes a connection, or writes to it directly, calls `flush` first."""

    __slots__ = ("_served", "_waiting")

    def __init__(self, served: Sized) -> None:
        self._served = served
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def post(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` soon, in the order of the calls; dropped when the connection is closing by then."""
        if not self._waiting:
            if len(self._served) < FEW:
                if not transport.is_closing():
                    transport.write(data)
                return
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Write what waits now."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
