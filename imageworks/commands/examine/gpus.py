"""Doctor: the NVIDIA driver, NVML, and whether the cards that the plan was bound to are still there.

Owns the findings about GPUs. Asks NVML through `imageworks.hardware`; a machine without a GPU is no fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from imageworks import locations
from imageworks.commands.examine.finding import Finding
from imageworks.hardware.nvml import Detection, detect

ABSENT = "no NVIDIA driver"


def check(folder: Path) -> Iterator[Finding]:
    """Driver, cards, binding."""
    found = detect()
    yield driver(found)
    yield from binding(found, bound(folder))


def driver(found: Detection) -> Finding:
    """What NVML says."""
    if found.note.startswith(ABSENT):
        return Finding("gpu", "ok", f"{found.note}; models run on the CPU and memory is accounted, not measured")
    if not found.gpus:
        return Finding(
            "gpu", "error", found.note or "NVML finds no GPU", "look at nvidia-smi and `dmesg | grep -i nvrm`"
        )
    cards = ", ".join(f"{gpu.name} {gpu.total_bytes >> 20} MiB{' (MIG)' if gpu.mig else ''}" for gpu in found.gpus)
    if found.note:
        return Finding(
            "gpu", "error", f"{cards}; {found.note}", "look at nvidia-smi: a lost card needs a reset or a reboot"
        )
    return Finding("gpu", "ok", cards)


def bound(folder: Path) -> tuple[str, ...]:
    """UUIDs that `imageworks up` bound the plan to; empty before the first start."""
    try:
        return tuple(str(uuid) for uuid in json.loads(locations.devices_file(folder).read_bytes())["uuids"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def binding(found: Detection, uuids: tuple[str, ...]) -> Iterator[Finding]:
    """Is every bound card there? Leases and models are bound to UUIDs, never to numbers."""
    missing = [uuid for uuid in uuids if uuid not in {gpu.uuid for gpu in found.gpus}]
    if missing:
        todo = "put the card back, or bind anew: imageworks down && imageworks up"
        yield Finding(
            "gpu binding", "error", f"the plan is bound to {', '.join(missing)}, which NVML does not see", todo
        )
