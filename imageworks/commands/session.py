"""One run of a stack: supervisord, the proxy, and the end of both.

Owns starting the real supervisord with a compiled profile, waiting until the proxy serves, and stopping.
In the foreground supervisord is our child and dies with us; with `-d` it lives on in a session of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from imageworks import contract, locations
from imageworks.commands.here import PROXY
from imageworks.commands.running import NotRunningError, Running, wait_gone

START_WAIT_S = 30.0
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


class SessionError(Exception):
    """Something did not start; the text says what and what to do, first line first."""

    def __init__(self, message: str, *then: str) -> None:
        super().__init__(message)
        self.then = then


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends (prctl(2)); runs in the child before exec."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def write_devices(running: Running, profile: str, uuids: tuple[str, ...]) -> None:
    """Record which GPU each slot of the plan is, for the launcher."""
    path = locations.devices_file(running.folder)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(contract.to_json({"schema": contract.DEVICES_SCHEMA, "profile": profile, "uuids": list(uuids)}))
    fresh.replace(path)


def current_profile(running: Running) -> str | None:
    """The profile of the last `up` on this machine, None before the first."""
    try:
        return str(json.loads(locations.devices_file(running.folder).read_text(encoding="utf-8"))["profile"])
    except (OSError, ValueError, KeyError):
        return None


def require_port(host: str, port: int) -> None:
    """Raise SessionError when something else listens on the proxy's address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SessionError(
                f"{host}:{port} cannot be used: {error.strerror}",
                f"who holds it: ss -ltnp 'sport = :{port}'",
                "or choose another address in stack.yaml:  proxy: {bind: 127.0.0.1:8101}",
            ) from None


class Session:
    """supervisord for one compiled profile."""

    def __init__(self, running: Running, conf: Path) -> None:
        self.running = running
        self._conf = conf
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *, detached: bool) -> None:
        """Start supervisord and wait until it answers. Raises SessionError with its own last words."""
        output = self.running.log("supervisord-start")
        with output.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self._conf)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone: we end everything in order
                preexec_fn=None if detached else die_with_parent,  # noqa: PLW1509 - we are single-threaded here
            )
        self._wait(self.running.is_up, START_WAIT_S, output)

    def start_proxy(self, host: str, port: int) -> None:
        """Start the proxy and wait until it can serve. Raises SessionError with the root cause."""
        self.running.start(PROXY)
        log = self.running.log(PROXY)
        self._wait(lambda: ready(host, port) or self._proxy_failed(), START_WAIT_S, log)
        if self._proxy_failed():
            raise SessionError("the proxy does not start", *last_lines(log))

    def _proxy_failed(self) -> bool:
        return self.running.program(PROXY).state in ("BACKOFF", "FATAL", "EXITED")

    def _wait(self, done: object, seconds: float, log: Path) -> None:
        assert callable(done)
        end = time.monotonic() + seconds
        while not done():
            if self.ended():
                raise SessionError("supervisord ended", *last_lines(log))
            if time.monotonic() > end:
                raise SessionError(f"nothing answered within {seconds:g} s", *last_lines(log))
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Return when supervisord has ended by itself."""
        if self._child is not None:
            self._child.wait()

    @property
    def begun(self) -> bool:
        """True once there is a supervisord of ours to stop."""
        return self._child is not None

    def ended(self) -> bool:
        """True when our supervisord is gone."""
        return self._child is not None and self._child.poll() is not None

    def stop(self) -> None:
        """Stop every program and supervisord; returns when it is gone."""
        child = self._child
        if child is None:
            return
        with contextlib.suppress(NotRunningError):
            if self.running.is_up():
                self.running.shutdown()
        if child.poll() is None:
            child.terminate()
            if not wait_gone(child.pid, 45.0):
                child.kill()
        child.wait()


def ready(host: str, port: int) -> bool:
    """True when the proxy says that it can serve."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def last_lines(log: Path, count: int = 4) -> tuple[str, ...]:
    """The last non-empty lines of a log and where it is."""
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return (*lines[-count:], f"the whole log: {log}")
    return (f"its log cannot be read: {log}",)
