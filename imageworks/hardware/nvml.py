"""The NVIDIA GPUs of this machine, through NVML (nvidia-ml-py).

Owns what counts as a GPU: a card, or, where MIG is on, each of its slices instead of the card. A card that fails is
left out and named; a machine without driver or GPU is an answer, not an error. Chooses nothing, sets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device that CUDA can use. `uuid` is what CUDA_VISIBLE_DEVICES takes, `total_bytes` NVML's total, `compute` its capability."""

    uuid: str
    name: str
    total_bytes: int
    compute: tuple[int, int]
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found, cards in PCI order; `note` says why there is less than expected, "" when nothing is odd."""

    gpus: tuple[Gpu, ...]
    note: str = ""


def detect() -> Detection:
    """Ask NVML. Never raises for the state of driver or cards."""
    import pynvml  # noqa: PLC0415 - only needed on request, and it looks for the driver's library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Detection((), _no_driver(pynvml, error))
    try:
        return _cards(pynvml)
    except pynvml.NVMLError as error:
        return Detection((), f"NVML does not answer: {error}")
    finally:
        pynvml.nvmlShutdown()


def _no_driver(nvml: Any, error: Exception) -> str:
    if isinstance(error, nvml.NVMLError_LibraryNotFound):
        return "no NVIDIA driver: libnvidia-ml.so.1 is not installed"
    if isinstance(error, nvml.NVMLError_DriverNotLoaded):
        return "the NVIDIA driver is installed but not loaded"
    return f"the NVIDIA driver does not answer: {error}"


def _cards(nvml: Any) -> Detection:
    gpus: list[Gpu] = []
    notes: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus += _devices(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index, notes)
        except nvml.NVMLError as error:
            notes.append(f"GPU {index} is left out: {error}")
    return Detection(tuple(gpus), "; ".join(notes))


def _devices(nvml: Any, card: Any, index: int, notes: list[str]) -> list[Gpu]:
    """The card itself, or its slices where MIG is on."""
    whole = _gpu(nvml, card, nvml.nvmlDeviceGetCudaComputeCapability(card), mig=False)
    if not _mig_enabled(nvml, card):
        return [whole]
    slices = [_gpu(nvml, part, whole.compute, mig=True) for part in _slices(nvml, card)]
    if not slices:
        notes.append(f"GPU {index} ({whole.name}) is left out: MIG is on, but it has no slices")
    return slices


def _gpu(nvml: Any, handle: Any, compute: tuple[int, int], *, mig: bool) -> Gpu:
    return Gpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute=(int(compute[0]), int(compute[1])),
        mig=mig,
    )


def _mig_enabled(nvml: Any, card: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(card)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return False


def _slices(nvml: Any, card: Any) -> Iterator[Any]:
    """Handles of the card's MIG devices; their numbers may have gaps."""
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
        except nvml.NVMLError_NotFound:
            continue


def _text(value: str | bytes) -> str:
    """Older versions of the library return bytes."""
    return value.decode() if isinstance(value, bytes) else value
