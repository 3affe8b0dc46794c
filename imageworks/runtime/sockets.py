"""Who listens on a TCP port of this machine.

Owns reading /proc/net/tcp and /proc/net/tcp6 (proc(5)) and finding the processes behind a socket. A process of another
user shows its number to nobody: then the answer is that somebody unknown listens. Starts and changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LISTEN = "0A"
_ADDRESS, _STATE, _INODE = 1, 3, 9
"""Columns of /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; `pids` holds it, as far as we may see."""

    port: int
    inode: int
    pids: tuple[int, ...] = ()


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc/net/tcp writes it: 32-bit words in the byte order of the machine.

    >>> str(address("0100007F"))
    '127.0.0.1'
    >>> str(address("00000000000000000000000001000000"))
    '::1'
    """
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(socket.ntohl(word).to_bytes(4, "big") for word in words)
    return ipaddress.ip_address(packed)


def reaches(bound: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> bool:
    """Does a socket that is bound to `bound` get what is sent to `host`?

    >>> reaches(ipaddress.ip_address("0.0.0.0"), "127.0.0.1"), reaches(ipaddress.ip_address("::1"), "127.0.0.1")
    (True, False)
    """
    wanted = ipaddress.ip_address(host)
    mapped = getattr(bound, "ipv4_mapped", None)
    if bound.is_unspecified:
        return bound.version in (wanted.version, 6)  # :: takes both, unless told not to
    return wanted in (bound, mapped)


def inodes(port: int, host: str = "127.0.0.1") -> frozenset[int]:
    """Sockets that listen on `port` so that `host` reaches them."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "self/net" / table).read_text("ascii").splitlines()[1:]:
                columns = line.split()
                where, _, number = columns[_ADDRESS].partition(":")
                if columns[_STATE] == _LISTEN and int(number, 16) == port and reaches(address(where), host):
                    found.add(int(columns[_INODE]))
    return frozenset(found)


def holds(pid: int, sockets: Iterable[int]) -> bool | None:
    """Does the process hold one of these sockets? None where we may not look."""
    names = {f"socket:[{inode}]" for inode in sockets}
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()) in names:
                    return True
    except PermissionError:
        return None
    except OSError:
        return False
    return False


def listeners(port: int, host: str = "127.0.0.1") -> tuple[Listener, ...]:
    """Who listens there. One pass over the processes of the machine: not for a hot path."""
    found = inodes(port, host)
    if not found:
        return ()
    pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    return tuple(Listener(port, inode, tuple(pid for pid in pids if holds(pid, (inode,)))) for inode in sorted(found))


def owned(port: int, pids: Iterable[int], host: str = "127.0.0.1") -> bool | None:
    """Is the listener on `port` one of the processes `pids`? None where that cannot be seen; False also for no listener."""
    found = inodes(port, host)
    if not found:
        return False
    answers = {holds(pid, found) for pid in pids}
    return True if True in answers else None if None in answers or not answers else False


def name(pid: int) -> str:
    """`pid 12 (nc)`, for a message."""
    with suppress(OSError):
        return f"pid {pid} ({(PROC / str(pid) / 'comm').read_text(errors='replace').strip()})"
    return f"pid {pid}"


def who(port: int, host: str = "127.0.0.1") -> str:
    """Who listens on `port`, for a message; empty when nobody does."""
    found = listeners(port, host)
    pids = dict.fromkeys(pid for each in found for pid in each.pids)
    return ", ".join(name(pid) for pid in pids) if pids else "a process of another user" if found else ""
