"""Wakes supervisord when this process dies, so that it is started again at once.

Owns a forked child that sleeps until the proxy is gone. supervisord notices a death at once but acts on it only when its
loop turns again, up to a second later; any question on its socket turns it. Changes nothing: it asks for the state.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

POKES, PAUSE_S = 8, 0.025
"""The first comes before supervisord has reaped the process, one of the next after it."""
_BODY = b"<?xml version='1.0'?><methodCall><methodName>supervisor.getState</methodName><params/></methodCall>"
_ASK = b"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


def stand_by(supervisor: Path) -> int | None:
    """Fork the child; returns its pid, None where there is no supervisor to wake.

    To be called before there are threads or files that a child must not have.
    """
    if not supervisor.exists():
        return None
    gone, alive = os.pipe()
    child = os.fork()
    if child:
        os.close(gone)
        return child  # `alive` stays open as long as this process lives, whatever ends it
    try:
        _sleep_until_closed(gone, alive)
        wake(supervisor)
    finally:
        os._exit(0)


def wake(supervisor: Path) -> None:
    """Ask a few times, without waiting for an answer longer than that takes."""
    for _ in range(POKES):
        time.sleep(PAUSE_S)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1.0)
            asking.connect(str(supervisor))
            asking.sendall(_ASK)
            asking.recv(1)


def _sleep_until_closed(gone: int, alive: int) -> None:
    os.close(alive)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # supervisord waits for the end of the proxy's output
        os.dup2(quiet, number)
    os.read(gone, 1)
