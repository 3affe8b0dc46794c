"""Another routing table for a proxy that serves: what changes at once, what waits, what stays, and that nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from imageworks import contract, locations
from imageworks.runtime import processes

Make = Callable[..., Any]
Ports = Callable[[int], tuple[int, ...]]


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "x"}], **more}


def with_routes(table: contract.RouteTable, *routes: contract.Route, **changes: Any) -> contract.RouteTable:
    """`table` with other routes, under another hash."""
    kept = {route.id: route for route in routes}
    return replace(table, routes=kept, **{"plan_hash": "q" * 64, **changes})


async def streamed(world: Any, model: str) -> str:
    async with world.http.post("/v1/chat/completions", json=body(model, stream=True)) as answer:
        assert answer.status == 200, await answer.text()
        return str(await answer.text())


async def under_way(world: Any, model: str, engine: Any) -> asyncio.Task[str]:
    """A stream whose first piece has come; it goes on when `engine.go_on` is set."""
    engine.go_on.clear()
    engine.hit.clear()
    stream = asyncio.create_task(streamed(world, model))
    await engine.hit.wait()
    return stream


def test_new_models_are_known_at_once_and_those_that_are_gone_are_not(
    world: Make, route: Make, play: Make, free_ports: Ports
) -> None:
    async def story() -> None:
        async with world({"a": {}, "b": {}}) as w:
            assert (await w.post(body("b")))[0] == 200
            (port,) = free_ports(1)
            table = w.proxy.table
            status, answer = await w.reload(with_routes(table, table.routes["a"], route("c", port)))
            assert status == 200
            assert answer == {
                "plan_hash": "q" * 64,
                "previous_plan_hash": "p" * 64,
                "models": {"added": ["c"], "removed": ["b"], "changed": [], "restarted_when_idle": []},
                "keys_missing": {},
                "restart_needed": [],
            }
            assert (await w.get("/readyz"))[1]["plan_hash"] == "q" * 64
            assert [row["id"] for row in (await w.get("/v1/models"))[1]["data"]] == ["a", "c"]
            assert (await w.post(body("c")))[1]["choices"][0]["message"]["content"] == "I am c"
            assert (await w.post(body("a")))[0] == 200
            assert (await w.post(body("b")))[0] == 404
            await w.until(lambda: "b" not in w.proxy.drive.state.slots)
            assert w.engines["b"].stops == 1

    play(story())


def test_requests_in_flight_end_where_they_began_and_later_ones_get_the_new_way(
    world: Make, play: Make, free_ports: Ports
) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            engine, table = w.engines["a"], w.proxy.table
            assert (await w.post(body("a")))[0] == 200
            stream = await under_way(w, "a", engine)
            (port,) = free_ports(1)
            moved = replace(table.routes["a"], url=f"http://127.0.0.1:{port}", sampling={"temperature": 0.5})
            status, answer = await w.reload(with_routes(table, moved))
            assert (status, answer["models"]["restarted_when_idle"]) == (200, ["a"])
            later = asyncio.create_task(w.post(body("a")))
            await w.until(lambda: w.proxy.drive.state.waiting)
            engine.go_on.set()
            assert (await stream).endswith("data: [DONE]\n\n")
            assert (await later)[0] == 200
            other = w.maker.all[-1]
            assert (other.port, other.seen[-1]["temperature"], other.starts) == (port, 0.5, 1)
            assert (engine.stops, engine.hits) == (1, 2)
            assert [line["stack_hash"][0] for line in w.lines()] == ["p", "p", "q"]

    play(story())


def test_what_needs_no_new_process_counts_from_the_next_request(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            table = w.proxy.table
            assert (await w.post(body("a")))[0] == 200
            assert (await w.post(body("other-name")))[0] == 404
            other = replace(
                table.routes["a"], aliases=("other-name",), sampling={"temperature": 0.5}, concurrency=1, grace_s=1.0
            )
            _, answer = await w.reload(with_routes(table, other))
            assert answer["models"] == {"added": [], "removed": [], "changed": ["a"], "restarted_when_idle": []}
            assert (await w.post(body("other-name")))[0] == 200
            assert w.engines["a"].seen[-1]["temperature"] == 0.5
            assert (w.engines["a"].starts, w.engines["a"].stops) == (1, 0)
            assert w.proxy.drive.state.slots["a"].spec.concurrency == 1

    play(story())


def test_limits_of_the_proxy_itself_change_at_once(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}, body_limit_bytes=400) as w:
            long = body("a", user="u" * 1000)
            assert (await w.post(long))[0] == 413
            table = w.proxy.table
            assert (await w.reload(replace(table, proxy=replace(table.proxy, body_limit_bytes=4000))))[0] == 200
            assert (await w.post(long))[0] == 200
            assert (await w.reload(table))[0] == 200
            assert (await w.post(long))[0] == 413

    play(story())


def started_from(folder: Path, spec: contract.ExecSpec) -> None:
    """The launcher's word that the program runs (as this process, which is there) and from what."""
    path = locations.started_file(folder, spec.program)
    path.parent.mkdir(parents=True, exist_ok=True)
    me = processes.identity(os.getpid())
    assert me is not None
    word = {"schema": 1, "pid": me.pid, "start": me.start, "boot": processes.boot_id(), "spec": spec}
    path.write_text(contract.to_json(word))


def generated(folder: Path, spec: contract.ExecSpec) -> None:
    (folder / "exec").mkdir(exist_ok=True)
    (folder / "exec" / f"{spec.program}.json").write_text(contract.to_json(spec))


def spec_of(program: str, *argv: str) -> contract.ExecSpec:
    return contract.ExecSpec(program, argv, {}, (), "{stack}", "..", {}, (), ())


def test_a_model_with_another_exec_spec_is_restarted_and_the_others_stay(
    world: Make, play: Make, tmp_path: Path
) -> None:
    async def story() -> None:
        async with world({"a": {}, "b": {}}) as w:
            for name in ("a", "b"):
                assert (await w.post(body(name)))[0] == 200
                started_from(tmp_path, spec_of(f"model-{name}", "server"))
                generated(tmp_path, spec_of(f"model-{name}", "server"))
            _, answer = await w.reload(w.proxy.table)
            assert answer["models"]["changed"] == []
            generated(tmp_path, spec_of("model-a", "server", "--longer"))
            _, answer = await w.reload(w.proxy.table)
            assert answer["models"] == {"added": [], "removed": [], "changed": ["a"], "restarted_when_idle": ["a"]}
            assert [(await w.post(body(name)))[0] for name in ("a", "b")] == [200, 200]
            assert (w.engines["a"].starts, w.engines["b"].starts) == (2, 1)
            (tmp_path / "exec" / "model-a.json").write_text("{")
            assert (await w.reload(w.proxy.table))[0] == 422

    play(story())


def remote(table: contract.RouteTable) -> contract.RouteTable:
    return with_routes(table, replace(table.routes["a"], backend="openai", program=None))


REFUSED: Mapping[str, tuple[int, Callable[[contract.RouteTable], contract.RouteTable | str], str]] = {
    "broken": (422, lambda _: "{", "cannot be read"),
    "no schema": (422, lambda _: "{}", "no schema number"),
    "newer": (422, lambda table: contract.to_json(table).replace('"schema": 1', '"schema": 999'), "newer ImageWorks"),
    "half": (422, lambda table: contract.to_json(table).replace('"routes"', '"ruts"'), "missing required field"),
    "another profile": (409, lambda table: replace(table, profile="big", roles={"big": {}}), "of profile big"),
    "other GPUs": (409, lambda table: replace(table, gpus=(contract.Gpu(0, 1000, 2000),)), "other GPUs"),
    "another kind": (409, remote, "`a` becomes a server elsewhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_used_changes_nothing_and_is_told(world: Make, play: Make, case: str) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            status, make, says = REFUSED[case]
            assert (await w.post(body("a")))[0] == 200
            before = w.proxy.table
            code, answer = await w.reload(make(before))
            assert (code, says in answer["error"]["message"]) == (status, True), answer
            assert w.proxy.table is before
            assert w.proxy.drive.table is before
            _, ready = await w.get("/readyz")
            assert ready["ready"] is True
            assert says in ready["degraded"][0]
            assert (await w.post(body("a")))[0] == 200
            assert w.engines["a"].starts == 1
            assert (await w.reload(before))[0] == 200
            assert (await w.get("/readyz"))[1]["degraded"] == []

    play(story())


def test_a_missing_table_changes_nothing(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            status, answer, _ = await w.post(b"", "/v1/reload")
            assert (status, answer["error"]["code"]) == (422, "reload_unreadable")
            assert (await w.post(body("a")))[0] == 200

    play(story())


def test_what_only_a_restart_can_change_is_named_and_stays_as_it_is(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            table = w.proxy.table
            other = replace(
                table,
                proxy=replace(table.proxy, port=9, queue=3),
                leases=replace(table.leases, mode="observe"),
                roots={"state": contract.Root("OTHER_STATE", "elsewhere")},
            )
            status, answer = await w.reload(other)
            assert status == 200
            assert answer["restart_needed"] == [
                "proxy.bind: 127.0.0.1:8100 -> 127.0.0.1:9",
                "leases.mode: enforce -> observe",
                "roots.state: default -> $OTHER_STATE, else elsewhere",
            ]
            now = w.proxy.table
            assert (now.proxy.port, now.leases.mode, now.roots, now.proxy.queue) == (8100, "enforce", {}, 3)
            assert "only a restart" in (await w.get("/readyz"))[1]["degraded"][0]

    play(story())


def test_a_table_without_keys_is_refused_where_others_can_reach_the_proxy(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            table = w.proxy.table
            w.proxy.table = replace(table, proxy=replace(table.proxy, host="0.0.0.0"))
            status, answer = await w.reload(table)
            assert (status, "declares no keys" in answer["error"]["message"]) == (409, True)

    play(story())


def test_who_waits_for_a_model_that_is_taken_away_is_told_and_who_streams_from_it_ends(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {"concurrency": 1}, "b": {}}) as w:
            engine, table = w.engines["a"], w.proxy.table
            assert (await w.post(body("a")))[0] == 200
            stream = await under_way(w, "a", engine)
            waiting = asyncio.create_task(w.post(body("a")))
            await w.until(lambda: w.proxy.drive.state.waiting)
            assert (await w.reload(with_routes(table, table.routes["b"])))[0] == 200
            status, answer, _ = await waiting
            assert (status, answer["error"]["code"]) == (404, "model_removed")
            assert [row["model"] for row in (await w.get("/running"))[1]["running"]] == ["a"]
            assert engine.stops == 0
            engine.go_on.set()
            assert (await stream).endswith("data: [DONE]\n\n")
            await w.until(lambda: "a" not in w.proxy.drive.state.slots)
            assert engine.stops == 1
            assert (await w.reload(table))[0] == 200
            assert (await w.post(body("a")))[0] == 200

    play(story())


def test_who_waits_goes_by_the_table_that_is_in_force_when_he_is_served(world: Make, play: Make) -> None:
    async def story() -> None:
        async with world({"a": {}}) as w:
            engine, table = w.engines["a"], w.proxy.table
            engine.loaded.clear()
            waiting = asyncio.create_task(w.post(body("a")))
            await w.until(lambda: w.proxy.drive.state.waiting)
            other = replace(table.routes["a"], sampling={"temperature": 0.5})
            assert (await w.reload(with_routes(table, other)))[0] == 200
            engine.loaded.set()
            assert (await waiting)[0] == 200
            assert (engine.seen[-1]["temperature"], engine.starts) == (0.5, 1)

    play(story())


def test_keys_of_servers_elsewhere_are_read_again(world: Make, play: Make) -> None:
    async def story() -> None:
        key = contract.Secret("hosted", env="HOSTED_KEY")
        environ = {"OTHER": "x"}
        async with world({"r": {"backend": "openai", "program": None, "key": key}}, environ=environ) as w:
            await w.engines["r"].listen()
            assert (await w.post(body("r")))[0] == 503
            assert list((await w.reload(w.proxy.table))[1]["keys_missing"]) == ["r"]
            environ["HOSTED_KEY"] = "sesame"
            assert (await w.reload(w.proxy.table))[1]["keys_missing"] == {}
            assert (await w.post(body("r")))[0] == 200
            assert w.engines["r"].headers[-1]["Authorization"] == "Bearer sesame"

    play(story())


@pytest.mark.parametrize("opened", [False])
def test_nothing_is_reloaded_before_it_is_known_what_runs_or_while_the_proxy_ends(
    world: Make, play: Make, *, opened: bool
) -> None:
    async def story() -> None:
        async with world({"a": {}}, opened=opened) as w:
            assert (await w.reload(w.proxy.table))[0] == 503
            await w.proxy.drive.open()
            assert (await w.reload(w.proxy.table))[0] == 200
            w.proxy.ending = True
            assert (await w.reload(w.proxy.table))[0] == 503

    play(story())


STREAMS, RELOADS = 200, int(os.environ.get("IMAGEWORKS_TEST_RELOADS", "30"))
"""A sample by default; 100 reloads take a minute."""


def test_no_request_fails_under_200_streams_and_many_reloads(world: Make, route: Make, free_ports: Ports) -> None:
    """Each reload changes something else: names, sampling, limits, models that nobody asks, and the process of one that is asked."""
    ports = free_ports(3)

    async def story() -> None:
        async with world({"a": {"concurrency": 64}, "b": {"concurrency": 64}}, queue=STREAMS, policy=POLICY) as w:
            table, over, more = w.proxy.table, asyncio.Event(), asyncio.Event()
            served = 0
            await w.http.close()
            w.http = aiohttp.ClientSession(w.url, connector=aiohttp.TCPConnector(limit=STREAMS + 1))

            async def ask(number: int) -> None:
                nonlocal served
                while not over.is_set():
                    text = await streamed(w, "ab"[number % 2])
                    assert text.endswith("data: [DONE]\n\n"), text
                    assert "error" not in text
                    served += 1
                    more.set()

            streams = [asyncio.create_task(ask(number)) for number in range(STREAMS)]
            whole: asyncio.Future[Any] = asyncio.gather(*streams)
            for number in range(RELOADS):
                a, b = table.routes["a"], table.routes["b"]
                changed = replace(a, sampling={"temperature": number / RELOADS}, concurrency=32 + number % 33)
                if number % 20 > 9:
                    b = replace(b, url=f"http://127.0.0.1:{ports[0]}")
                extra = [route(f"extra-{number % 3}", ports[1 + number % 2])] if number % 2 else []
                status, answer = await w.reload(with_routes(table, changed, b, *extra, plan_hash=f"{number:064d}"))
                assert status == 200, answer
                more.clear()
                another: asyncio.Future[Any] = asyncio.ensure_future(more.wait())
                await asyncio.wait([whole, another], return_when="FIRST_COMPLETED")
                another.cancel()
            over.set()
            await whole
            await w.http.close()
            assert served >= RELOADS
            lines = w.lines()
            assert {line["outcome"] for line in lines} == {"ok"}
            assert len({line["stack_hash"] for line in lines}) > RELOADS // 2
            assert w.proxy.drive.state.slots["b"].life > RELOADS // 10  # moved there and back, each a stop and a start

    async def bounded() -> None:
        async with asyncio.timeout(2 * RELOADS):
            await story()

    asyncio.run(bounded())


POLICY = contract.Policy("concurrent_limited", 8, 4096, ())
