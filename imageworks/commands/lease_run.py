"""`imageworks lease run`: a command with a GPU lease around it.

Owns the life of the wrapped command: it starts when the lease is held, its end releases the lease, and it ends when
the lease is lost. What it leaves behind ends with it: this process adopts its orphans, and the kernel kills it when
this process is killed. The proxy may restart meanwhile; then it is asked again until it answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imageworks.commands.console import fail, say
from imageworks.commands.lease_client import CALL_S, Answer, Proxy, UnreachableError
from imageworks.launch import READABLE_ENVIRONMENT
from imageworks.runtime import processes
from imageworks.runtime.leases import Holder
from imageworks.runtime.processes import LEASE_MARK

EXIT_WAITED = 75
"""EX_TEMPFAIL of sysexits.h: the wait ran out, a later try may do better."""
EXIT_NOT_FOUND, EXIT_CANNOT_RUN = 127, 126
RETRY_S = 0.5
RELEASE_WAIT_S = 20.0
"""How long a release waits for a proxy that restarts; after that the lease ends because its holder is gone."""
END_GRACE_S = 10.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Held:
    """The lease as this process shows it."""

    id: str
    token: int
    ttl_s: float
    environ: Mapping[str, str]


def run(proxy: Proxy, ask: Mapping[str, object], wait_s: float, command: Sequence[str]) -> int:
    """Get the lease, run the command, give the lease back; the command's exit code, 75 when the wait ran out."""
    answer = acquire(proxy, ask, wait_s)
    if answer is None:
        return 1
    if not answer.good:
        fail(answer.text)
        return EXIT_WAITED if answer.status in {409, 429, 503} else 1
    held = held_by(proxy, answer.data)
    try:
        return _around(proxy, held, command)
    finally:
        release(proxy, held)


def acquire(proxy: Proxy, ask: Mapping[str, object], wait_s: float) -> Answer | None:
    """The final answer of the proxy, after `wait_s` at most; None (and said) when there is none.

    A proxy that goes away while we wait is asked again: the same request id is the same request.
    """
    until = time.monotonic() + wait_s
    asked = False
    while True:
        left_s = max(0.0, until - time.monotonic())
        # the first call does not wait: what is in the way can be told before the waiting begins
        body = {**ask, "wait_s": left_s if asked else 0}
        try:
            answer = proxy.call("POST", "/v1/gpu/lease", body, left_s + 2 * CALL_S)
        except UnreachableError as error:
            if not asked or not left_s:
                fail(str(error), "start it: imageworks up")
                return None
            time.sleep(RETRY_S)
            continue
        if answer.status not in {409, 503} or not left_s:
            return answer
        if not asked:
            say(f"waiting up to {wait_s:g} s: {answer.text}")
        elif answer.wait_s:
            time.sleep(min(answer.wait_s, left_s))
        asked = True


def held_by(proxy: Proxy, lease: Mapping[str, Any]) -> Held:
    """The lease of an answer, and what the command is told of it."""
    uuids = [str(uuid) for uuid in lease["gpus"]]
    by_uuid = all(uuid.startswith(("GPU-", "MIG-")) for uuid in uuids)
    environ = {
        LEASE_MARK: str(lease["lease_id"]),
        "IMAGEWORKS_LEASE_TOKEN": f"{lease['lease_id']}:{lease['token']}",
        "IMAGEWORKS_URL": proxy.url,
        **READABLE_ENVIRONMENT,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(uuids if by_uuid else map(str, lease["slots"])),
    }
    return Held(str(lease["lease_id"]), int(lease["token"]), float(lease["ttl_s"]), environ)


def release(proxy: Proxy, held: Held) -> None:
    """Give it back; a proxy that restarts is waited for, one that stays away notices by itself."""
    until = time.monotonic() + RELEASE_WAIT_S
    while True:
        with contextlib.suppress(UnreachableError):
            answer = proxy.call("POST", "/v1/gpu/release", {"lease_id": held.id, "token": held.token})
            if answer.status != 503:  # noqa: PLR2004 - it looks around after a restart
                return
        if time.monotonic() >= until:
            say(f"lease {held.id} could not be released; it ends with this process")
            return
        time.sleep(RETRY_S)


def _around(proxy: Proxy, held: Held, command: Sequence[str]) -> int:
    # orphans of the command become ours instead of nobody's
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        child = _start(held, command)
    except FileNotFoundError:
        fail(f"program `{command[0]}` not found")
        return EXIT_NOT_FOUND
    except OSError as error:
        fail(f"cannot run `{command[0]}`: {error.strerror}")
        return EXIT_CANNOT_RUN
    with _signals_to(child):
        lost = _hold(proxy, held, child)
        processes.end(lambda: _left(held), END_GRACE_S if lost else 1.0)
        code = child.wait()
    if code < 0:
        return 128 - code
    return code or int(lost)


def _start(held: Held, command: Sequence[str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def die_with_us() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(EXIT_CANNOT_RUN)

    return subprocess.Popen(
        command,
        env={**os.environ, **held.environ},
        preexec_fn=die_with_us,  # noqa: PLW1509 - this process has one thread
    )


def _hold(proxy: Proxy, held: Held, child: subprocess.Popen[bytes]) -> bool:
    """Renew until the command ends (False) or the lease is lost (True)."""
    renew = f"/v1/gpu/lease/{held.id}/renew"
    pause_s, quiet = held.ttl_s / 3, False
    with _ended(child.pid) as ended:
        while not ended(pause_s):
            try:
                answer = proxy.call("POST", renew, {"token": held.token}, min(CALL_S, held.ttl_s / 3))
            except UnreachableError as error:
                if not quiet:
                    say(f"{error}; asking again")
                pause_s, quiet = min(RETRY_S, held.ttl_s / 3), True
                continue
            if answer.status in {403, 404, 410} or (answer.good and answer.data.get("state") != "active"):
                say(
                    f"the lease is lost: {answer.text if not answer.good else answer.data.get('state')}; ending the command"
                )
                return True
            pause_s, quiet = held.ttl_s / 3, False
    return False


@contextlib.contextmanager
def _ended(pid: int) -> Iterator[Any]:
    """`ended(seconds)`: did the process end within that time?"""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    try:
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def _left(held: Held) -> list[Holder]:
    """What runs below us, and what left our tree but carries the lease's mark."""
    ours = processes.tree(os.getpid())[1:]
    return [*ours, *(each for each in processes.marked({LEASE_MARK: held.id}) if each not in ours)]


@contextlib.contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Who stops us means the command; a terminal sends its Ctrl-C to the command itself."""

    def forward(number: int, _frame: object) -> None:
        if not (number == signal.SIGINT and sys.stdin.isatty()):
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
