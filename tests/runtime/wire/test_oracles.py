"""What is taken here is taken by HAProxy or nginx too: nobody behind one of them is fooled by us being laxer than both."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("oracle_cases", Path(__file__).with_name("cases.py"))
assert SPEC is not None
assert SPEC.loader is not None
cases = importlib.util.module_from_spec(SPEC)
sys.modules["oracle_cases"] = cases
SPEC.loader.exec_module(cases)

OURS = {"an empty line before"}
"""RFC 9112 2.2 asks for it; both others only do so in part of the cases."""


@pytest.fixture(scope="module")
def oracles(beds: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ...]]:
    """Ports of HAProxy and nginx, in front of the same engine."""
    folder = tmp_path_factory.mktemp("oracles")
    engine = beds[0].proxy.table.routes["small"].url.rpartition(":")[2]
    ports, started = [], []
    for name, file in (("haproxy", "haproxy.cfg"), ("nginx", "nginx.conf")):
        program = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = (ROOT / "benchmarks" / "proxy" / file).read_text()
        path = folder / file
        path.write_text(text.replace("@PORT@", str(port)).replace("@MOCK@", engine).replace("@FOLDER@", str(folder)))
        arguments = ["-db", "-q", "-f", str(path)] if name == "haproxy" else ["-p", str(folder), "-c", str(path), "-e", str(folder / "log")]  # fmt: skip
        started.append(subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        ports.append(port)
    yield tuple(ports)
    for process in started:
        process.terminate()
        process.wait(10)


def status(port: int, data: bytes) -> int:
    """The first response's status; 0 where the connection ends without one."""
    end = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as line:
                line.sendall(data)
                return int([*line.recv(1 << 16).split(b" "), b"", b"0"][1])
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        except (ConnectionError, TimeoutError):
            return 0


@pytest.mark.parametrize(
    "case",
    [case for case in (*cases.PLAIN, *cases.FIELDS, *cases.LENGTHS, *cases.CHUNKED, *cases.CONNECTIONS) if case.upstream and case.name not in OURS],
    ids=lambda case: str(case.name),
)  # fmt: skip
def test_we_take_nothing_that_both_refuse(oracles: tuple[int, ...], tool: Callable[[str], str], case: Any) -> None:
    if len(oracles) < 2:
        tool("haproxy")
        tool("nginx")
    assert 400 not in [status(port, case.send) for port in oracles] or 200 in [
        status(port, case.send) for port in oracles
    ]
