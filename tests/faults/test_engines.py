"""Faults that a plan or a sampler avoids by construction (F28, F33), with the real engine and the real NVML library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imageworks.services import llama_server

from .conftest import Bench, eventually

SPY = """
import json
import pynvml
from imageworks.runtime import sampler

called = []

class Spy:
    def __getattr__(self, name):
        if name.startswith("nvml") and callable(getattr(pynvml, name)):
            called.append(name)
        return getattr(pynvml, name)

pynvml.nvmlInit()
print(json.dumps([sampler._cards(Spy(), ["#0"]), sorted(set(called))]))
"""
ABOUT_MEMORY = {
    "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
}  # fmt: skip


def test_f28_ecc_errors_row_remaps_and_throttling_change_no_lease_because_only_memory_is_read(
    nvml_library: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_text(f"gpu 4000 -1 8 9 GPU-a One\nproc 0 {os.getpid()} 700\n")
    environ = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library), "FAKE_NVML": str(state)}
    done = subprocess.run([sys.executable, "-c", SPY], env=environ, check=True, capture_output=True, text=True)
    answer, called = json.loads(done.stdout)
    assert answer["cards"]["#0"]["used"] == 700
    assert set(called) <= ABOUT_MEMORY, "what is not about memory could only shrink a grant for no reason"


def test_f33_our_llama_server_never_gives_its_memory_back_by_itself(smollm2: Path) -> None:
    engine = pytest.importorskip("xllamacpp")
    flags = llama_server.parser().parse_args(["-m", str(smollm2)])
    values = llama_server.parameters(flags, engine)
    # asleep it would answer /health without holding its memory, and wake into memory that somebody else was given
    assert values.sleep_idle_seconds == -1


def test_f33_a_server_that_cannot_compute_after_it_woke_is_restarted(bench: Bench) -> None:
    # llama.cpp#24372: memory ran out while it woke, /health goes on saying that all is well
    folder = bench.engine("a", "zombie")
    bench.supervise()
    bench.serve(bench.policy("a", interval_s=0.5))
    eventually(lambda: bench.state("a") == "ready", "it is loaded at start")
    (folder / "stuck").touch()
    with bench.sent("a"):
        eventually(lambda: bench.health("a")["inflight"] == 1, "the first request after the wake is with the engine")
    eventually(lambda: bench.starts("a") == 2, "it is restarted", 60)
    (folder / "stuck").unlink()
    eventually(lambda: bench.state("a") == "ready", "the new life computes")
    assert bench.chat("a")[0] == 200
