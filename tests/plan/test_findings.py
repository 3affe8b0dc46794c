"""What a person reads: one snapshot for each kind of finding of the planner."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from syrupy.assertion import SnapshotAssertion

from imageworks.diagnostics.codes import CODES
from imageworks.diagnostics.human import full
from imageworks.diagnostics.machine import json
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.resolve import resolve

CARD = 'version: 1\nprofiles:\n  card: {match: {gpus: 1, vram: ">=16GiB"}, headroom: 1GiB, max_concurrent_models: 2, strategy: concurrent_limited}\n'
PAIR = (
    "models:\n"
    "  a: {backend: vllm, source: {path: o/a}, context: 1024, quantization: fp8}\n"
    "  b: {backend: vllm, source: {path: o/b}, context: 1024}\n"
)
CASES = {
    "IW401": 'version: 1\nprofiles:\n  a: {match: {gpus: 1, vram: ">=15GiB <24GiB"}}\n  b: {match: {gpus: 1, vram: ">=22GiB"}}\nmodels: {}\n',
    "IW402": CARD + PAIR + "roles:\n  chat: {requires: [chat, tools], may_be_missing_on: [development]}\n",
    "IW403": CARD.replace("concurrent_limited", "load_unload") + "models: {}\n",
    "IW404": CARD.replace("headroom", "tensor_parallel_above: 9GiB, headroom") + "models: {}\n",
    "IW405": "version: 1\nmodels:\n  a: {backend: vllm, source: {path: o/a}, placement: cpu}\n",
    "IW406": CARD + PAIR.replace("context: 1024}", "context: 8192, keep: pinned}"),
    "IW407": CARD.replace("16GiB", "1GiB") + "models: {}\n",
    "IW408": CARD.replace('gpus: 1, vram: ">=16GiB"', 'vram: ">=16GiB"') + "models: {}\n",
    "IW410": CARD.replace("16GiB", "9GiB") + PAIR.replace("context: 1024}", "keep: pinned}"),
    "IW411": CARD.replace("16GiB", "14GiB") + PAIR + "groups:\n  both: {models: [a, b], profiles: [card]}\n",
    "IW412": CARD
    + PAIR.replace("vllm, source: {path: o/b}", "llamacpp, source: {path: o/b}, placement: cpu, keep: pinned"),
    "IW413": CARD + PAIR.replace("quantization: fp8", "capabilities: [chat, vision], roles: {judge: 50}"),
    "IW414": CARD + PAIR.replace("1024", "300_000"),
    "IW415": CARD + PAIR.replace("1024}", "1024, pin: {port: {value: 8100, because: habit}}}"),
    "IW416": CARD + PAIR.replace("1024}", "1024, pin: {port: {value: 24002, because: habit}}}"),
    "IW417": CARD + PAIR + "ports: {first: 24001, last: 24001}\n",
    "IW418": CARD + PAIR.replace("1024", "1024, keep: pinned"),
    "IW419": CARD
    + PAIR
    + "groups:\n  day: {models: [a], profiles: [card], allocation: balanced}\n  night: {models: [b], profiles: [card], allocation: priority}\n",
    "IW420": CARD + PAIR.replace("fp8", "awq"),
    "IW421": CARD + PAIR.replace("  b:", "  c:"),
    "IW422": CARD + PAIR.replace("1024}", "1024, vram: {total: 2GiB}}"),
    "IW502": CARD + PAIR.replace("1024}", "1024, vllm: {max-model-len: 9}}"),
}


@pytest.mark.parametrize("code", sorted(CASES))
def test_findings_read_well(
    code: str, read: Callable[..., Loaded], known: Callable[..., LockedModel], snapshot: SnapshotAssertion
) -> None:
    loaded = read(CASES[code], a=known(6, quantization="fp8"), b=known(6))
    found = [item for item in resolve(loaded)[1] if item.code == code]
    assert found
    assert full(found, {"stack.yaml": CASES[code]}) == snapshot


@pytest.mark.parametrize("code", sorted(CASES))
def test_findings_are_whole_for_machines(
    code: str, read: Callable[..., Loaded], known: Callable[..., LockedModel], snapshot: SnapshotAssertion
) -> None:
    loaded = read(CASES[code], a=known(6, quantization="fp8"), b=known(6))
    assert json([item for item in resolve(loaded)[1] if item.code == code]) == snapshot


def test_every_finding_is_explained() -> None:
    assert set(CASES) <= set(CODES)
