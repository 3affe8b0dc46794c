"""A grant is for one life of a model: what was granted in an earlier one is never sent to the next."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from imageworks.runtime.answer import unreachable

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def speed() -> str:
    """The slow way; the fast one has its own test of this."""
    return "slow"


def test_a_request_whose_model_went_meanwhile_is_granted_anew_and_sent_once(
    world: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            assert (await w.post(ASK))[0] == 200
            asked: list[str] = []
            real = w.proxy.drive.current

            def current(ticket: str) -> bool:
                asked.append(ticket)
                return len(asked) > 1 and bool(real(ticket))

            monkeypatch.setattr(w.proxy.drive, "current", current)
            before = w.engines["small"].hits
            assert (await w.post(ASK))[0] == 200
            assert w.engines["small"].hits == before + 1
            assert len(set(asked)) == 2
            assert not w.proxy.drive.state.granted

    play(story())


def test_a_limit_of_our_own_is_no_fault_of_the_engine(route: Make) -> None:
    shed = unreachable(route("a"), OSError(errno.EMFILE, "too many open files"))
    assert (shed.status, shed.code, shed.retry) == (503, "overloaded", True)
    assert unreachable(route("a"), OSError(errno.ECONNREFUSED, "refused")).status == 502
