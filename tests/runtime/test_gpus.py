"""GPU memory is read off the loop, with a deadline; the real nvidia-ml-py over the stand-in for the driver's library."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks import contract
from imageworks.runtime.events import Reading
from imageworks.runtime.gpus import Gpus, Look, bound_cards, foreign_mib

TWO = "gpu 24576 -1 8 9 GPU-a One\ngpu 24576 -1 8 9 GPU-b Two\n"
Play = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`nvml(text)` says what the cards are and hold from now."""
    file = tmp_path / "nvml-state"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", str(file))

    def say(text: str) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(text, "utf-8")
        fresh.replace(file)

    return say


async def looked(gpus: Gpus) -> Look:
    look = await gpus.look()
    assert gpus.note is None, gpus.note
    return look


def test_a_look_tells_totals_use_and_who_uses_it(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-b", 1: "#0"})
        nvml(TWO + f"base 1 300\nproc 1 {os.getpid()} 1000\nproc 0 {os.getpid()} 7\nproc 0 999999999 900\n")
        look = await looked(gpus)
        assert look.readings == {
            0: Reading(24576, 1300, None, {os.getpid(): 1000}),
            1: Reading(24576, 7, None, {os.getpid(): 7}),
        }
        assert look.uuids == {0: "GPU-b", 1: "GPU-a"}
        assert (look.lost, look.untold) == ((), frozenset())
        nvml(TWO)
        assert (await looked(gpus)).readings[0] == Reading(24576, 0, None, {})
        await gpus.close()

    play(story())


def test_a_slice_is_read_by_its_own_uuid(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "MIG-x"})
        nvml("gpu 81920 1 9 0 GPU-a Big\nmig 0 3 20096 MIG-x Small\nproc mig 0 999999999 512 stay\n")
        assert (await looked(gpus)).readings == {0: Reading(20096, 512, None, {999999999: 512})}
        await gpus.close()

    play(story())


def test_a_lost_card_is_named_and_the_others_are_read(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a", 1: "GPU-b"})
        nvml(TWO + "lost 0 nvmlDeviceGetMemoryInfo_v2 15\n")
        look = await looked(gpus)
        assert look.lost == (0,)
        assert look.readings == {0: None, 1: Reading(24576, 0, None, {})}
        await gpus.close()

    play(story())


def test_an_old_driver_without_the_second_memory_call_is_read(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a"})
        nvml(TWO + "base 0 5\nfail nvmlDeviceGetMemoryInfo_v2 13\n")
        assert (await looked(gpus)).readings == {0: Reading(24576, 5, None, {})}
        await gpus.close()

    play(story())


def test_a_driver_that_does_not_name_processes_is_said_to_be_untold(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a", 1: "GPU-b"})
        nvml(TWO + "lost 1 nvmlDeviceGetComputeRunningProcesses_v3 3\n")
        assert (await looked(gpus)).untold == {1}
        await gpus.close()

    play(story())


def test_a_driver_that_hangs_costs_its_readings_and_no_time_of_the_loop(
    nvml: Callable[[str], None], play: Play
) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a"}, deadline_s=2.0)
        nvml(TWO)
        await looked(gpus)
        nvml(TWO + "slow nvmlDeviceGetMemoryInfo_v2 60000\n")
        lags = [0.0]
        looking = asyncio.create_task(gpus.look())
        while not looking.done():
            begin = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - begin - 0.01)
        assert (await looking).readings == {0: None}
        assert gpus.note == "NVML did not answer within 2 s"
        assert max(lags) < 1.0
        assert gpus._process is None  # nothing is left hanging
        nvml(TWO)
        gpus._rest_until = 0.0
        assert (await looked(gpus)).readings[0] is not None
        await gpus.close()

    play(story())


def test_a_look_that_was_given_up_leaves_no_answer_for_the_next(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a"})
        nvml(TWO + "base 0 111\n")
        await looked(gpus)
        nvml(TWO + "base 0 222\nslow nvmlDeviceGetMemoryInfo_v2 300\n")
        looking = asyncio.create_task(gpus.look())
        await asyncio.sleep(0.1)  # the question is under way
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        nvml(TWO + "base 0 333\n")
        assert (await looked(gpus)).readings[0] == Reading(24576, 333, None, {})
        await gpus.close()

    play(story())


def test_a_crash_inside_the_library_takes_only_the_sampler(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a"})
        nvml(TWO + "crash nvmlDeviceGetMemoryInfo_v2\n")
        assert (await gpus.look()).readings == {0: None}
        assert gpus.note == "the sampler of NVML ended"
        nvml(TWO)
        assert (await gpus.look()).readings == {0: None}  # it rests first
        gpus._rest_until = 0.0
        assert (await looked(gpus)).readings[0] is not None
        await gpus.close()

    play(story())


def test_a_driver_that_loads_later_is_used_from_then(nvml: Callable[[str], None], play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({0: "GPU-a"})
        assert (await gpus.look()).readings == {0: None}
        assert "Driver Not Loaded" in (gpus.note or "")
        assert not gpus.absent
        nvml(TWO)
        assert (await looked(gpus)).readings[0] is not None
        await gpus.close()

    play(story())


def test_without_the_library_nobody_looks_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, play: Play) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    async def story() -> None:
        gpus = Gpus({0: "GPU-a"})
        assert (await gpus.look()).readings == {0: None}
        if not gpus.absent:
            pytest.skip("this machine has a driver of its own")
        assert gpus.note == "no NVIDIA driver: libnvidia-ml.so.1 is not installed"
        await gpus.close()

    play(story())


def test_a_plan_without_gpus_starts_no_process(play: Play) -> None:
    async def story() -> None:
        gpus = Gpus({})
        assert gpus.absent
        assert (await gpus.look()).readings == {}
        assert gpus._process is None

    play(story())


def test_the_sampler_dies_with_who_asked_also_inside_a_hanging_call(nvml: Callable[[str], None]) -> None:
    nvml(TWO + "slow nvmlInitWithFlags 60000\nslow nvmlInit_v2 60000\n")
    parent = "import subprocess, sys, time\np = subprocess.Popen([sys.executable, '-m', 'imageworks.runtime.sampler', 'GPU-a'], stdin=-1, stdout=-1)\np.stdin.write(b'1\\n'); p.stdin.flush()\nprint(p.pid, flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        handle = os.pidfd_open(child)
        maps = Path(f"/proc/{child}/maps")
        while "libnvidia-ml" not in maps.read_text():  # the call hangs only once it is made; the test has a limit
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(10_000), "the sampler outlives who asked"
    os.close(handle)


def test_slots_are_bound_as_up_bound_them_and_to_the_order_of_the_bus_else(
    tmp_path: Path, table: Callable[..., contract.RouteTable]
) -> None:
    two = table(gpus=(contract.Gpu(0, 20000, 24576), contract.Gpu(1, 20000, 24576)))
    assert bound_cards(tmp_path, two) == {0: "#0", 1: "#1"}
    file = tmp_path / ".imageworks" / "run" / "devices.json"
    file.parent.mkdir(parents=True)
    word = {"schema": 1, "profile": two.profile, "uuids": ["GPU-b", "GPU-a"]}
    file.write_text(json.dumps(word))
    assert bound_cards(tmp_path, two) == {0: "GPU-b", 1: "GPU-a"}
    file.write_text(json.dumps(word | {"profile": "another"}))
    assert bound_cards(tmp_path, two) == {0: "#0", 1: "#1"}
    assert bound_cards(tmp_path, dataclasses.replace(two, gpus=())) == {}


@pytest.mark.parametrize(
    ("pids", "ours", "visible", "foreign"),
    [
        ({1: 100, 2: 50}, {1}, {1, 2}, 50),
        ({1: 100, 2: 50}, {1, 2}, {1, 2}, 0),
        ({}, {1}, set(), 0),
        ({1: 100, 7: 50}, {1}, {1}, None),
    ],
)
def test_strangers_count_only_where_every_process_can_be_seen(
    pids: dict[int, int], ours: set[int], visible: set[int], foreign: int | None
) -> None:
    assert foreign_mib(Reading(1000, 200, None, pids), ours.__contains__, visible.__contains__) == foreign
