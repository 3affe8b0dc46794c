"""The table of machine layouts, from the driver's answers to the chosen profile.

The real nvidia-ml-py talks to a stand-in for the driver's library (tests/tools/fake_nvml.c); every row is one state
of it. One process answers all rows, because the stand-in reads its state anew at every call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ASK = """
import json, os, sys
from imageworks.commands.machine import UnknownProfileError, choose_profile
from imageworks.model.load import load
from imageworks.source.files import MemoryFiles
profiles = load("stack.yaml", MemoryFiles({"stack.yaml": "version: 1\\nmodels: {}\\n"}), "studio").loaded.stack.profiles
answers = {}
for row, state in json.load(open(sys.argv[1])).items():
    with open(os.environ["FAKE_NVML"], "w") as file:
        file.write(state)
    chosen = choose_profile(profiles, None, {})
    answers[row] = {"profile": chosen.profile, "uuids": chosen.uuids, "why": chosen.why}
print(json.dumps(answers))
"""


def cards(*rows: str) -> str:
    """State of whole cards: `MiB` or `MiB@compute`, with the UUIDs GPU-0, GPU-1, …"""
    lines = []
    for index, row in enumerate(rows):
        mib, _, compute = row.partition("@")
        major, minor = (compute or "8.9").split(".")
        lines.append(f"gpu {mib} -1 {major} {minor} GPU-{index} NVIDIA card of {mib}\n")
    return "".join(lines)


def sliced(count: int, mib: int, name: str) -> str:
    """State of one H100 with MIG slices, whose numbers have gaps."""
    parts = "".join(f"mig 0 {2 * slot} {mib} MIG-{slot} NVIDIA H100 80GB HBM3 MIG {name}\n" for slot in range(count))
    return f"gpu 81559 1 9 0 GPU-0 NVIDIA H100 80GB HBM3\n{parts}"


MATCH, UNDER = "matches", "fits under"
LAYOUTS: dict[str, tuple[str, str, str, list[str]]] = {
    "cpu only": ("", "development", MATCH, []),
    "1x8": (cards("8188"), "compact_8gb", MATCH, ["GPU-0"]),
    "1x12": (cards("12282"), "compact_12gb", MATCH, ["GPU-0"]),
    "1x16": (cards("16376"), "constrained_16gb", MATCH, ["GPU-0"]),
    "1x20": (cards("20475"), "constrained_16gb", MATCH, ["GPU-0"]),
    "1x20 exactly": (cards("20480"), "constrained_16gb", MATCH, ["GPU-0"]),
    "1x16 T4": (cards("15360@7.5"), "compact_12gb", UNDER, ["GPU-0"]),
    "1x24": (cards("24564"), "balanced_24gb", MATCH, ["GPU-0"]),
    "L4": (cards("23034"), "balanced_24gb", MATCH, ["GPU-0"]),
    "L4 with ECC": (cards("22731"), "balanced_24gb", MATCH, ["GPU-0"]),
    "1x32": (cards("32607@12.0"), "balanced_24gb", MATCH, ["GPU-0"]),
    "1x48": (cards("49140"), "roomy_40gb", MATCH, ["GPU-0"]),
    "L40S": (cards("46068"), "roomy_40gb", MATCH, ["GPU-0"]),
    "H100": (cards("81559@9.0"), "generous_80gb", MATCH, ["GPU-0"]),
    "A100 80": (cards("81920@8.0"), "generous_80gb", MATCH, ["GPU-0"]),
    "1x96": (cards("97887@12.0"), "generous_96gb", MATCH, ["GPU-0"]),
    "1x141": (cards("143771@9.0"), "generous_96gb", MATCH, ["GPU-0"]),
    "2x16": (cards("16376", "16376"), "multi_gpu_2x16gb", MATCH, ["GPU-0", "GPU-1"]),
    "2x24": (cards("24564", "24564"), "multi_gpu_2x16gb", MATCH, ["GPU-0", "GPU-1"]),
    "2x80": (cards("81559@9.0", "81559@9.0"), "generous_80gb", UNDER, ["GPU-0"]),
    "3x8": (cards("8188", "8188", "8188"), "compact_8gb", UNDER, ["GPU-0"]),
    "4x24": (cards(*["24564"] * 4), "multi_gpu_2x16gb", UNDER, ["GPU-0", "GPU-1"]),
    "24+8": (cards("24564", "8188"), "balanced_24gb", UNDER, ["GPU-0"]),
    "8+24": (cards("8188", "24564"), "balanced_24gb", UNDER, ["GPU-1"]),
    "2 x 3g.40gb": (sliced(2, 40192, "3g.40gb"), "roomy_40gb", UNDER, ["MIG-0"]),
    "7 x 1g.10gb": (sliced(7, 9728, "1g.10gb"), "compact_8gb", UNDER, ["MIG-0"]),
    "3 x 2g.20gb": (sliced(3, 19968, "2g.20gb"), "constrained_16gb", UNDER, ["MIG-0"]),
    "a lost card among good ones": (
        cards("24564", "24564") + "lost 0 nvmlDeviceGetMemoryInfo 15\n",
        "balanced_24gb",
        MATCH,
        ["GPU-1"],
    ),
    "MIG without slices": (sliced(0, 0, ""), "development", MATCH, []),
}


@pytest.fixture(scope="session")
def answers(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every layout gives."""
    folder = tmp_path_factory.mktemp("layouts")
    rows = folder / "rows.json"
    rows.write_text(json.dumps({name: layout[0] for name, layout in LAYOUTS.items()}), "utf-8")
    environ = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(folder / "state")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(rows)], env=environ, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_driver_s_answers_lead_to_the_profile(answers: dict[str, Any], layout: str) -> None:
    _, profile, how, uuids = LAYOUTS[layout]
    answer = answers[layout]
    assert (answer["profile"], answer["uuids"]) == (profile, uuids)
    assert any(f"{profile} {how}" in line for line in answer["why"])


def test_what_stays_unused_is_told_with_the_command_that_uses_it(answers: dict[str, Any]) -> None:
    assert any("9.74 GiB of NVIDIA card of 32607 are beyond" in line for line in answers["1x32"]["why"])
    for layout in ("1x32", "24+8", "2 x 3g.40gb", "2x80"):
        assert answers[layout]["why"][-1].endswith("imageworks profile add --from-this-machine")


def test_what_is_left_out_is_named(answers: dict[str, Any]) -> None:
    assert "GPU 0 is left out: GPU is lost" in answers["a lost card among good ones"]["why"]
    assert any("MIG is on, but it has no slices" in line for line in answers["MIG without slices"]["why"])
