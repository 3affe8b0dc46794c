"""Known causes of a failed start, from the words that vLLM really writes (collected from its users' logs)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from imageworks.runtime.backends.causes import known
from imageworks.runtime.backends.probe import bring_up
from imageworks.runtime.backends.protocol import DriverError, StartError, Status

KV = (
    "(EngineCore pid=81) ERROR 04-19 10:59:54 [core.py:1108] EngineCore failed to start.\n"
    "(EngineCore pid=81) ValueError: To serve at least one request with the models's max seq len (16384), (3.0 GiB KV cache "
    "is needed, which is larger than the available KV cache memory (0.18 GiB). Based on the available memory, the estimated "
    "maximum model length is 976. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`.\n"
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n"
)
KV_WITHOUT_BRACKET = (
    "ValueError: To serve at least one request with the model's max seq len (1048576), 7.89 GiB KV cache is needed, which is "
    "larger than the available KV cache memory (4.0 GiB)."
)
PROFILING = (
    "AssertionError: Error in memory profiling. Initial free memory 98.0 GiB, current free memory 100.59 GiB. This happens "
    "when other processes sharing the same container release GPU memory while vLLM is profiling during initialization."
)
OLD_PROFILING = (
    "AssertionError: Error in memory profiling. Initial free memory 8428, current free memory 8822. This happens when the GPU "
    "memory was not properly cleaned up before initializing the vLLM instance."
)
FREE = (
    "ValueError: Free memory on device cuda:0 (12.18/23.56 GiB) on startup is less than desired GPU memory utilization "
    "(0.92, 21.67 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
OLD_FREE = FREE.replace("device cuda:0 ", "device ")


def test_a_context_that_does_not_fit_is_told_with_the_numbers_and_the_fix() -> None:
    cause = known(KV)
    assert cause is not None
    assert not cause.again
    assert cause.message == (
        "vLLM has 0.18 GiB left for its KV cache, and one request of the whole context (16384 tokens) needs 3.0 GiB: "
        "set `context: 976` or less for the model, or place it where it gets more memory"
    )
    without = known(KV_WITHOUT_BRACKET)
    assert without is not None
    assert "(1048576 tokens) needs 7.89 GiB: set a smaller `context` for the model" in without.message


@pytest.mark.parametrize("text", [PROFILING, OLD_PROFILING])
def test_f23_a_neighbour_that_frees_memory_meanwhile_is_worth_one_more_try(text: str) -> None:
    cause = known(f"INFO loading\n{text}\n")
    assert cause is not None
    assert cause.again
    assert cause.message.startswith("another process freed GPU memory while vLLM measured it (free before ")


@pytest.mark.parametrize("text", [FREE, OLD_FREE])
def test_f21_memory_that_another_process_holds_is_told_in_gib_and_not_tried_at_once(text: str) -> None:
    cause = known(text)
    assert cause is not None
    assert not cause.again
    assert "needs 21.67 GiB of the GPU and 12.18 of 23.56 GiB are free" in cause.message


@pytest.mark.parametrize("text", ["", "0.00.2 E failed to open GGUF file", "ValueError: To serve at least one request"])
def test_what_is_not_known_is_left_to_the_log(text: str) -> None:
    assert known(text) is None


class Dying:
    """A driver whose program ends with these words."""

    def __init__(self, words: str) -> None:
        self.words = words

    async def start(self) -> None:
        return None

    async def status(self) -> Status:
        return Status(alive=False, note="EXITED")

    def log(self) -> str:
        return self.words

    def obstacle(self) -> str:
        return ""


@pytest.mark.parametrize(("words", "again"), [(PROFILING, True), (KV, False), ("RuntimeError: x", False)])
def test_f23_the_failure_of_a_start_says_whether_to_try_again_at_once(words: str, again: bool) -> None:  # noqa: FBT001 - a case
    driver: Any = Dying(words)
    with pytest.raises(StartError) as caught:
        asyncio.run(bring_up(driver, 5))
    assert caught.value.again is again


def test_a_driver_that_cannot_start_it_is_the_cause_where_the_log_has_none() -> None:
    class Refusing(Dying):
        async def start(self) -> None:
            raise DriverError("port 1 is taken by pid 2 (nc)")

    driver: Any = Refusing("")
    with pytest.raises(StartError, match=r"^port 1 is taken by pid 2 \(nc\)$"):
        asyncio.run(bring_up(driver, 5))


@pytest.mark.parametrize(
    ("words", "obstacle", "told"),
    [
        ("listening\n", "port 1 serves b, not a", ": port 1 serves b, not a"),
        ("listening\n", "", "; the last it said: listening"),
        ("", "", ""),
    ],
)
def test_what_never_gets_ready_is_told_with_who_answers_instead_or_the_last_it_said(
    words: str, obstacle: str, told: str
) -> None:
    class Loading(Dying):
        async def status(self) -> Status:
            return Status(alive=True, note="RUNNING")

        async def ready(self) -> bool:
            return False

        def obstacle(self) -> str:
            return obstacle

    driver: Any = Loading(words)
    with pytest.raises(StartError, match=f"^not ready after 0.05 s{told}$"):
        asyncio.run(bring_up(driver, 0.05))
