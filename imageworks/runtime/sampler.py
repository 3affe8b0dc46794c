"""`python -m imageworks.runtime.sampler DEVICE…`: reads GPU memory for the runtime, one JSON line for each line asked.

Owns the calls into NVML, in a process of its own: a driver that hangs or crashes takes this process, not the proxy.
DEVICE is a UUID, or `#N` for the N-th card in PCI order. An answer is `{"cards": {DEVICE: {"uuid", "total", "used",
"pids"} | null}, "lost": [DEVICE…]}` in MiB, or `{"error": …}`. Ends with its standard input, or with exit code 3 where
there is no driver's library. Decides nothing, changes nothing.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

EXIT_ABSENT = 3
_PR_SET_PDEATHSIG = 1
_MIB = 1 << 20


def main(devices: Sequence[str]) -> int:
    """Answer until nobody asks any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    import pynvml  # noqa: PLC0415 - this process exists to hold it

    begun = False
    for _ in sys.stdin:
        try:
            if not begun:
                pynvml.nvmlInit()
                begun = True
            answer: Mapping[str, Any] = _cards(pynvml, devices)
        except pynvml.NVMLError_LibraryNotFound:
            return EXIT_ABSENT
        except pynvml.NVMLError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def _cards(nvml: Any, devices: Sequence[str]) -> Mapping[str, Any]:
    cards: dict[str, Any] = {}
    lost = []
    for device in devices:
        try:
            cards[device] = _card(nvml, device)
        except nvml.NVMLError as error:
            cards[device] = None
            if isinstance(error, nvml.NVMLError_GpuIsLost):
                lost.append(device)
    return {"cards": cards, "lost": lost}


def _card(nvml: Any, device: str) -> Mapping[str, Any]:
    if device.startswith("#"):
        handle = nvml.nvmlDeviceGetHandleByIndex(int(device[1:]))
    else:
        handle = nvml.nvmlDeviceGetHandleByUUID(device)
    total, used = _memory(nvml, handle)
    return {
        "uuid": nvml.nvmlDeviceGetUUID(handle),
        "total": total // _MIB,
        "used": -(-used // _MIB),
        "pids": _processes(nvml, handle),
    }


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """What processes can share, and what they use: without the driver's own reserve, where NVML tells it apart."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported, AttributeError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.used + memory.free), int(memory.used)


def _processes(nvml: Any, handle: Any) -> Mapping[str, int | None] | None:
    """MiB by pid, None for one whose share the driver does not tell; None as a whole where it tells nobody."""
    try:
        found = nvml.nvmlDeviceGetComputeRunningProcesses(handle) + _graphics(nvml, handle)
    except _refusals(nvml):
        return None
    return {str(each.pid): None if each.usedGpuMemory is None else -(-each.usedGpuMemory // _MIB) for each in found}


def _graphics(nvml: Any, handle: Any) -> Any:
    try:
        return nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    except _refusals(nvml):
        return []  # slices have none


def _refusals(nvml: Any) -> tuple[type[Exception], ...]:
    """What a driver that cannot do it raises; for one that is too old the library has an error outside its own family."""
    return (nvml.NVMLError, getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
