from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[[str | None], dict[str, Any]]
A4000 = "gpu 15352 -1 8 6 GPU-aaaa NVIDIA RTX A4000\n"
H100 = "gpu 81559 0 9 0 GPU-bbbb NVIDIA H100 80GB HBM3\n"
SLICED = "gpu 81559 1 9 0 GPU-cccc NVIDIA H100 80GB HBM3\n"
MIB = 1 << 20


def test_a_card_is_found_with_all_that_a_profile_matches_on(ask: Ask) -> None:
    found = ask(A4000)
    card = {"uuid": "GPU-aaaa", "name": "NVIDIA RTX A4000", "total_bytes": 15352 * MIB, "compute": [8, 6], "mig": False}
    assert found == {"gpus": [card], "note": ""}


def test_cards_keep_the_order_of_the_driver(ask: Ask) -> None:
    assert [gpu["uuid"] for gpu in ask(H100 + A4000)["gpus"]] == ["GPU-bbbb", "GPU-aaaa"]


def test_a_sliced_card_is_its_slices_and_not_itself(ask: Ask) -> None:
    found = ask(SLICED + "mig 0 0 40192 MIG-1 H100 MIG 3g.40gb\nmig 0 4 40192 MIG-2 H100 MIG 3g.40gb\n" + A4000)
    assert [(gpu["uuid"], gpu["mig"]) for gpu in found["gpus"]] == [
        ("MIG-1", True),
        ("MIG-2", True),
        ("GPU-aaaa", False),
    ]
    assert found["gpus"][1]["total_bytes"] == 40192 * MIB
    assert found["gpus"][1]["compute"] == [9, 0]
    assert found["note"] == ""


def test_mig_without_slices_is_no_gpu_and_is_said(ask: Ask) -> None:
    found = ask(SLICED)
    assert found["gpus"] == []
    assert found["note"] == "GPU 0 (NVIDIA H100 80GB HBM3) is left out: MIG is on, but it has no slices"


@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMigMode"],
)
def test_a_lost_card_is_left_out_and_named_and_the_others_stay(ask: Ask, function: str) -> None:
    found = ask(H100 + A4000 + f"lost 0 {function} 15\n")
    assert [gpu["uuid"] for gpu in found["gpus"]] == ["GPU-aaaa"]
    assert found["note"] == "GPU 0 is left out: GPU is lost"


def test_a_driver_that_is_not_loaded_is_an_answer(ask: Ask) -> None:
    assert ask(None) == {"gpus": [], "note": "the NVIDIA driver is installed but not loaded"}


def test_a_driver_that_cannot_count_is_an_answer(ask: Ask) -> None:
    found = ask(H100 + "fail nvmlDeviceGetCount_v2 999\n")
    assert found["gpus"] == []
    assert "NVML does not answer" in found["note"]


def test_a_machine_without_the_library_is_an_answer(tmp_path: Path) -> None:
    code = (
        "import ctypes, json, dataclasses\n"
        "def missing(*_args, **_kwargs): raise OSError('no such library')\n"
        "import pynvml\n"
        "pynvml.CDLL = missing\n"
        "from imageworks.hardware.nvml import detect\n"
        "print(json.dumps(dataclasses.asdict(detect())))"
    )
    environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"gpus": [], "note": "no NVIDIA driver: libnvidia-ml.so.1 is not installed"}
