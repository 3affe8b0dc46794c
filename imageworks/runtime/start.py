"""`serve`: from nothing to a listening socket, then the rest.

Owns the process's first steps: the routing table, the socket, the event loop. The port listens before aiohttp is imported
(that takes longer than everything else together), so a client that comes early waits a moment instead of being refused.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from imageworks import locations
from imageworks.contract import ContractError, RouteTable
from imageworks.runtime.access import is_local
from imageworks.runtime.logsink import DroppingHandler
from imageworks.runtime.table import load
from imageworks.runtime.waker import stand_by

BACKLOG = 4096
SUPERVISORD = "supervisord"
GC_THRESHOLDS = (20_000, 20, 50)
"""Requests leave no cycles behind; looking for some every 700 allocations costs a tenth of the time."""


def serve(routes: Path, stack: Path, init: str) -> int:
    """Serve `routes` for the stack in folder `stack` until SIGTERM or SIGINT; 0 after draining, 1 when it cannot start."""
    if init == SUPERVISORD:
        stand_by(locations.control_socket(stack))
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # it asks for a reload: too early, it asks for nothing that is not done
    logging.basicConfig(level=logging.INFO, handlers=[DroppingHandler(sys.stderr.fileno())])
    try:
        table = load(routes)
    except ContractError as error:
        return _say(str(error))
    if not is_local(table.proxy.host) and not table.proxy.keys:
        return _say(
            f"proxy.bind {table.proxy.host} is open to the network, and no key is declared; bind 127.0.0.1, or proxy.auth.keys"
        )
    try:
        sock = listen(table.proxy.host, table.proxy.port)
    except OSError as error:
        return _say(_bind_failure(error, table))
    with sock:
        from imageworks.runtime.app import run  # noqa: PLC0415 - the port listens before the imports

        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(run(table, routes, stack, init, sock))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError."""
    name = host.strip("[]")
    sock = socket.create_server(
        (name, port), family=socket.AF_INET6 if ":" in name else socket.AF_INET, backlog=BACKLOG
    )
    sock.setblocking(False)  # noqa: FBT003 - socket's own signature
    return sock


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module("uvloop").new_event_loop)
    except ImportError:
        return asyncio.new_event_loop


def _say(message: str) -> int:
    sys.stderr.write(f"imageworks: error: {message}\n")
    return 1


def _bind_failure(error: OSError, table: RouteTable) -> str:
    where = f"{table.proxy.host}:{table.proxy.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program; end it, or change proxy.bind in stack.yaml and compile"
    return f"cannot listen on {where}: {error.strerror or error}"
