"""scripts/gpu-check, run whole: real supervisord, real processes, and figures through the fake NVML."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def machine(tmp_path: Path, library: Path, mib: int, base: int) -> dict[str, str]:
    """The environment of a machine whose state lies beside the driver's library, where every process finds it."""
    ledger, folder = tmp_path / "ledger", tmp_path / "lib"
    ledger.mkdir()
    shutil.copytree(library, folder)
    (folder / "state").write_text(f"gpu {mib} 0 8 9 GPU-aaaa NVIDIA Test\nbase 0 {base}\nmore {ledger}\n")
    return {"LD_LIBRARY_PATH": str(folder), "GPU_HOLDER_LEDGER": str(ledger)}


def test_every_check_holds_where_memory_comes_back(nvml_library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(machine(tmp_path, nvml_library, 24564, 200), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(out.read_text())["checks"]
    assert set(checks) == {"measured", "exclusive", "hard_end", "killed_model", "foreign"}
    assert all(check["held"] for check in checks.values())
    assert checks["measured"]["used_mib"] >= 200 + 2048 + 3072
    assert checks["hard_end"]["left_mib"] == 0


def test_a_card_that_is_full_already_fails_and_says_why(nvml_library: Path, tmp_path: Path) -> None:
    done = run(machine(tmp_path, nvml_library, 6000, 5800), "measured")
    assert done.returncode == 1
    assert "'held': False" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run({"FAKE_NVML": str(tmp_path / "none"), "LD_LIBRARY_PATH": str(tmp_path)})
    assert (done.returncode, done.stderr.startswith("gpu-check: no GPU")) == (1, True)
