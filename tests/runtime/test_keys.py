"""Keys of remote servers: sent where they belong, and seen by nobody else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from imageworks.contract import Secret
from imageworks.runtime import keys

ASK = {"model": "far", "messages": [{"role": "user", "content": "hi"}]}
CANARY = "canary-4711-Zq"
KEY = Secret("FAR_KEY", env="IMAGEWORKS_FAR_KEY")
SET = {"IMAGEWORKS_FAR_KEY": CANARY}

Play = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., Any]


def test_only_the_server_that_a_key_is_for_gets_it(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"far": {"key": KEY}, "near": {}}, environ=SET) as w:
            for model in ("far", "near"):
                status, _, _ = await w.post(ASK | {"model": model}, headers={"Authorization": "Bearer the-clients-own"})
                assert status == 200
            assert w.engines["far"].headers[0]["Authorization"] == f"Bearer {CANARY}"
            assert "Authorization" not in w.engines["near"].headers[0]

    play(story())


@pytest.mark.parametrize(("stream", "quiet_s"), [(False, 60.0), (True, 60.0), (True, 0.01)])
def test_a_server_that_quotes_its_key_does_not_tell_the_client(
    world: Make, play: Play, *, stream: bool, quiet_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The last case: the answer has begun with comments, so that the error becomes an event of the stream."""
    begun = quiet_s < 1

    async def story() -> None:
        async with world({"far": {"key": KEY}}, environ=SET, quiet_s=quiet_s) as w:
            far = w.engines["far"]
            far.status_code, far.refusal = 401, "Incorrect API key provided: {key}"
            if begun:
                far.go_on.clear()
            async with w.http.post("/v1/chat/completions", json=ASK | {"stream": stream}) as answer:
                assert answer.status == (200 if begun else 401)
                far.go_on.set()
                body = await answer.text()
            assert "Incorrect API key provided: Bearer [key]" in body
            assert CANARY not in body + str(answer.headers) + str(w.lines()) + caplog.text

    play(story())


def test_a_model_without_its_key_is_refused_with_the_way_to_set_it(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"far": {"key": KEY}}) as w:
            status, answer, headers = await w.post(ASK)
            assert (status, answer["error"]["code"], headers["x-should-retry"]) == (503, "secret_missing", "false")
            assert "export IMAGEWORKS_FAR_KEY=…" in answer["error"]["hint"]
            assert w.engines["far"].hits == 0

    play(story())


def test_a_role_goes_on_with_the_models_that_have_their_keys(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"far": {"key": KEY}, "near": {}}, roles={"chat": role("far", "near")}) as w:
            status, answer, _ = await w.post(ASK | {"model": "role:chat"})
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "I am near")

    play(story())


@pytest.mark.parametrize("value", ["two words", "line\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_not_used(value: str, table: Make, route: Make) -> None:
    found = keys.read(table(route("far", key=KEY)), Path("/stack"), {"IMAGEWORKS_FAR_KEY": value})
    assert found.values == {}
    assert found.missing == {"far": "secret FAR_KEY holds characters that no HTTP header can carry"}


def test_keys_do_not_show_their_values(table: Make, route: Make) -> None:
    assert CANARY not in repr(keys.read(table(route("far", key=KEY)), Path("/stack"), SET))
