"""Known ways in which an engine fails to start, and what a person does about them.

Owns the patterns of messages (vLLM words them in `vllm/v1/core/kv_cache_utils.py` and `v1/worker/gpu_worker.py`; they vary
a little between versions) and the sentence that each becomes. Knows which of them come from the neighbourhood only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_KV_CACHE = re.compile(
    r"max seq len\s+\((?P<length>\d+)\)[\s,(]*(?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the\s+available "
    r"KV cache memory\s+\((?P<there>[\d.]+) GiB\)(?:[^\n]*?estimated maximum model length is (?P<fits>\d+))?"
)
_PROFILING = re.compile(
    r"Error in memory profiling\.\s+Initial free memory (?P<before>[\d.]+(?: GiB)?),\s+current free memory (?P<after>[\d.]+(?: GiB)?)"
)
_FREE = re.compile(
    r"Free memory on device (?:\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired GPU memory "
    r"utilization \([\d.]+, (?P<wanted>[\d.]+) GiB\)"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a start failed. `again`: another process disturbed it, so one more try is worth it at once."""

    message: str
    again: bool = False


def _kv_cache(match: re.Match[str]) -> Cause:
    length, needed, there, fits = match.group("length", "needed", "there", "fits")
    fix = f"set `context: {fits}` or less" if fits else "set a smaller `context`"
    return Cause(
        f"vLLM has {there} GiB left for its KV cache, and one request of the whole context ({length} tokens) needs {needed} GiB: "
        f"{fix} for the model, or place it where it gets more memory"
    )


def _profiling(match: re.Match[str]) -> Cause:
    return Cause(
        f"another process freed GPU memory while vLLM measured it (free before {match['before']}, after {match['after']})",
        again=True,
    )


def _free(match: re.Match[str]) -> Cause:
    return Cause(
        f"vLLM needs {match['wanted']} GiB of the GPU and {match['free']} of {match['total']} GiB are free: another process holds "
        "the rest; see it with nvidia-smi"
    )


_KNOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Cause]], ...] = (
    (_KV_CACHE, _kv_cache),
    (_PROFILING, _profiling),
    (_FREE, _free),
)


def known(log: str) -> Cause | None:
    """The first known cause that the log speaks of."""
    for pattern, explain in _KNOWN:
        if match := pattern.search(log):
            return explain(match)
    return None
