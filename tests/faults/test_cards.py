"""Faults of GPUs (F20-F27): the real nvidia-ml-py over the stand-in for the driver, real processes that hold the memory.

An engine "holds" 1000 MiB of card 0 while it lives, as its ledger says; what else a card holds is written by the test.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imageworks import contract

from .conftest import BAD_ENGINE, Bench, eventually

ONE = (contract.Gpu(0, 3500, 4000),)
BOTH = (contract.Gpu(0, 3500, 4000), contract.Gpu(1, 3500, 4000))
CARDS = "gpu 4000 -1 8 9 GPU-a One\ngpu 4000 -1 8 9 GPU-b Two\n"
NOBODY = 4_000_000
"""No process has this number."""


class Cards:
    """The machine's cards as NVML shows them; `say` replaces what else there is on them."""

    def __init__(self, bench: Bench, library: Path) -> None:
        self._bench, self._file = bench, bench.stack / "nvml"
        self.environ = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(self._file)}
        self.say()

    def say(self, *lines: str, shown: bool = True) -> None:
        """`shown`: what the engines hold is shown as well."""
        ledgers = [f"more {self._bench.folder(name)}" for name in self._bench.routes] if shown else []
        fresh = self._file.with_suffix(".new")
        fresh.write_text(CARDS + "".join(f"{line}\n" for line in (*ledgers, *lines)))
        fresh.replace(self._file)

    def status(self, slot: int = 0) -> Any:
        _, answer = self._bench.get("/v1/gpu/status")
        return answer["gpus"][slot]


@pytest.fixture
def cards(bench: Bench, nvml_library: Path) -> Callable[..., Cards]:
    """`cards(a="serve", b=…)`: these engines under supervisord, and the proxy over the measured cards."""

    def begin(*, gpus: tuple[contract.Gpu, ...] = ONE, mib: int = 1000, **engines: str) -> Cards:
        for name, mode in engines.items():
            bench.engine(name, mode, gpu_mib={"0": mib})
        made = Cards(bench, nvml_library)
        bench.supervise()
        bench.serve(gpus=gpus, leases=contract.Leases(min_residency_s=0.0), environ=made.environ, queue_wait_s=5.0)
        eventually(lambda: made.status()["used_mib"] is not None, "the first reading")
        return made

    return begin


def lease(mib: int, **changes: Any) -> dict[str, Any]:
    return {"vram_mib": mib, "owner": "trainer", **changes}


def test_f20_memory_that_is_held_after_the_end_is_given_to_nobody(bench: Bench, cards: Callable[..., Cards]) -> None:
    card = cards(a="serve")
    assert bench.chat("a")[0] == 200
    eventually(lambda: card.status()["used_mib"] == 1000, "its bytes are seen")
    (pid,) = bench.ledger("a")
    card.say(f"proc 0 {pid} 1000 stay", shown=False)  # the driver is late with giving it back
    bench.post("/unload?model=a", {})
    eventually(lambda: not bench.left("a"), "its processes are gone")
    code, told = bench.post("/v1/gpu/lease", lease(3000, wait_s=2))
    assert code == 409, told
    assert bench.state("a") == "reclaiming"
    assert card.status()["free_mib"] == 2500
    card.say()
    assert bench.post("/v1/gpu/lease", lease(3000, wait_s=20))[0] == 200
    assert bench.state("a") == "stopped"


def test_f21_a_stranger_in_the_way_keeps_a_model_from_being_started(bench: Bench, cards: Callable[..., Cards]) -> None:
    card = cards(a="serve")
    card.say(f"proc 0 {bench.spawn('sleep', '600').pid} 3200")
    eventually(lambda: card.status()["foreign_mib"] == 3200, "the stranger is seen")
    assert card.status()["free_mib"] == 800
    code, told = bench.chat("a")
    assert code == 503, told
    assert bench.starts("a") == 0
    card.say()
    assert eventually(lambda: bench.chat("a")[0] == 200, "it starts when the stranger is gone")


def test_f22_a_stranger_that_comes_later_shrinks_grants_and_ends_nobody(
    bench: Bench, cards: Callable[..., Cards]
) -> None:
    card = cards(a="serve")
    assert bench.chat("a")[0] == 200
    # a lease that names no process could be whoever holds bytes that nobody claims
    held = bench.post("/v1/gpu/lease", lease(500, pid=bench.spawn("sleep", "600").pid))[1]
    card.say(f"proc 0 {bench.spawn('sleep', '600').pid} 2200")
    eventually(lambda: card.status()["free_mib"] == 300, "grants shrink")
    assert bench.post("/v1/gpu/lease", lease(400))[0] == 409
    assert bench.post("/v1/gpu/lease", lease(300, pid=bench.spawn("sleep", "600").pid))[0] == 200
    assert bench.chat("a")[0] == 200
    assert bench.post(f"/v1/gpu/lease/{held['lease_id']}/renew", {"token": held["token"]})[0] == 200
    assert bench.starts("a") == 1


PROFILING = """
import os, pathlib, runpy, sys
mark = pathlib.Path(sys.argv[5])
if not mark.exists():
    mark.touch()
    print("AssertionError: Error in memory profiling. Initial free memory 20.0 GiB, current free memory 21.0 GiB. This happens when other processes sharing the same container release GPU memory while vLLM is profiling during initialization.", flush=True)
    sys.exit(1)
sys.argv = [sys.argv[1], *sys.argv[2:5], sys.argv[6]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_f23_memory_freed_by_a_stranger_while_profiling_is_one_more_try_not_an_error(
    bench: Bench, nvml_library: Path
) -> None:
    del nvml_library
    folder = bench.folder("a")
    script = folder / "profiling.py"
    script.write_text(PROFILING)
    words = (str(script), str(BAD_ENGINE), "PORT", "served-a", "serve", str(folder / "tried"), str(folder))
    bench.program("a", sys.executable, *words)
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200  # with a rest in between the request would be refused
    assert (folder / "tried").exists()
    assert "profiling" in (bench.home / "log/model-a.log").read_text()


@pytest.mark.parametrize("how", ["no driver", "init fails"])
def test_f24_without_nvml_memory_is_accounted_and_said_to_be(bench: Bench, nvml_library: Path, how: str) -> None:
    bench.engine("a", "serve", gpu_mib={"0": 1000})
    state = bench.stack / "nvml"
    if how == "init fails":
        state.write_text(CARDS + "fail nvmlInit_v2 18\nfail nvmlInitWithFlags 18\n")
    bench.supervise()
    bench.serve(gpus=ONE, environ={"LD_LIBRARY_PATH": str(nvml_library), "FAKE_NVML": str(state)})
    assert bench.chat("a")[0] == 200
    _, told = bench.get("/v1/gpu/status")
    assert told["measured"] is False
    assert told["note"]
    assert told["gpus"][0]["free_mib"] == 2500
    assert bench.post("/v1/gpu/lease", lease(2600))[0] == 409
    assert bench.post("/v1/gpu/lease", lease(2500))[0] == 200


def test_f24_readings_that_stay_out_close_the_gpu_for_growth(bench: Bench, cards: Callable[..., Cards]) -> None:
    card = cards(a="serve")
    assert bench.chat("a")[0] == 200
    card.say("fail nvmlDeviceGetMemoryInfo_v2 999", "fail nvmlDeviceGetMemoryInfo 999")
    eventually(lambda: card.status()["free_mib"] == 0, "nothing more is granted")
    assert bench.post("/v1/gpu/lease", lease(100))[0] == 409
    assert bench.chat("a")[0] == 200
    card.say()
    assert bench.post("/v1/gpu/lease", lease(100, wait_s=20))[0] == 200


def test_f25_a_lost_gpu_ends_what_was_on_it_and_nothing_else(bench: Bench, cards: Callable[..., Cards]) -> None:
    bench.engine("other", "serve", gpu_mib={"1": 1000})
    card = cards(gpus=BOTH, a="serve")
    assert [bench.chat(name)[0] for name in ("a", "other")] == [200, 200]
    given = bench.post("/v1/gpu/lease", lease(500, gpus=[0]))[1]
    card.say("lost 0 nvmlDeviceGetMemoryInfo_v2 15")
    eventually(lambda: bench.get("/v1/gpu/status")[1]["leases"] == [], "the lease ends")
    assert bench.post(f"/v1/gpu/lease/{given['lease_id']}/renew", {"token": given["token"]})[0] == 410
    eventually(lambda: not bench.left("a"), "the model there is ended")
    code, told = bench.chat("a")
    assert code == 503, (told, (bench.home / "log/proxy.log").read_text()[-3000:])
    assert bench.chat("other")[0] == 200
    assert bench.starts("other") == 1
    assert card.status(0)["lost"]
    assert "GPU 0 is lost" in bench.get("/readyz")[1]["degraded"]
    assert bench.post("/v1/gpu/lease", lease(500, gpus=[0]))[0] in (409, 503)
    assert bench.post("/v1/gpu/lease", lease(500, gpus=[1]))[0] == 200


def test_f26_a_driver_that_hangs_delays_no_request(bench: Bench, cards: Callable[..., Cards]) -> None:
    card = cards(a="serve")
    assert bench.chat("a")[0] == 200
    card.say("slow nvmlDeviceGetMemoryInfo_v2 600000")
    times = []
    until = time.monotonic() + 5  # over the sampler's deadline
    while time.monotonic() < until:
        begin = time.monotonic()
        assert bench.chat("a")[0] == 200
        times.append(time.monotonic() - begin)
    assert max(times) < 1.0
    assert card.status()["free_mib"] == 0
    assert bench.post("/v1/gpu/lease", lease(100))[0] == 409
    card.say()
    assert bench.post("/v1/gpu/lease", lease(100, wait_s=25))[0] == 200


def test_f27_pids_of_a_hosts_that_mean_nothing_here_take_nothing_from_grants(
    bench: Bench, cards: Callable[..., Cards]
) -> None:
    card = cards(a="serve")
    bench.chat("a")
    card.say(f"proc 0 {NOBODY} 1000 stay", shown=False)  # the same bytes under the number that the host knows
    eventually(lambda: card.status()["used_mib"] == 1000, "it is seen")
    assert card.status()["foreign_mib"] == 0
    assert card.status()["free_mib"] == 2500
    card.say(f"proc 0 {NOBODY} 1700 stay", shown=False)  # more than what we know to be ours still counts
    eventually(lambda: card.status()["foreign_mib"] == 700, "the difference is a stranger's")
    assert card.status()["free_mib"] == 2300


def test_f20_memory_that_never_comes_back_is_quarantined_until_a_person_says_otherwise(
    bench: Bench, cards: Callable[..., Cards]
) -> None:
    card = cards(a="serve", mib=100)
    holder = bench.spawn("sleep", "600")
    given = bench.post("/v1/gpu/lease", lease(3000, pid=holder.pid))[1]
    card.say(f"proc 0 {holder.pid} 3000 stay")
    eventually(lambda: card.status()["used_mib"] == 3000, "its bytes are seen")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    eventually(lambda: card.status()["quarantined"], "it is quarantined after the bound", 45)
    assert card.status()["quarantined"] == {given["lease_id"]: [holder.pid]}
    assert bench.post("/v1/gpu/lease", lease(1000))[0] == 409
    code, told = bench.post("/v1/gpu/pardon", {"holder": given["lease_id"], "actor": "me"})
    assert (code, told) == (200, {"pardoned": given["lease_id"]})
    assert bench.get("/v1/gpu/status")[1]["leases"] == []
    eventually(lambda: card.status()["free_mib"] == 1000, "the bytes count as a stranger's now")
