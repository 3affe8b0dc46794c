"""Leases over HTTP: who gets one, who waits, who is told what; a real proxy, real processes, engines of this process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from imageworks.contract import Gpu, Leases, Policy
from imageworks.runtime import processes

Make = Callable[..., Any]
Play = Callable[[Coroutine[Any, Any, None]], None]
CARD = {"gpus": (Gpu(0, 20000, 24576),)}
TWO = {"gpus": (Gpu(0, 20000, 24576), Gpu(1, 20000, 24576))}
ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
LEASE = "/v1/gpu/lease"


def lease(mib: int = 6144, **changes: Any) -> dict[str, Any]:
    return {"vram_mib": mib, "owner": "trainer", **changes}


@pytest.fixture
def speed() -> str:
    """The endpoints of leases are aiohttp's; the way that requests take to models has its own tests."""
    return "fast"


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A process that only lives."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**env: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(subprocess.Popen(program, env={**os.environ, **env}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def status(world: Any) -> Any:
    return (await world.get("/v1/gpu/status"))[1]


def test_a_lease_is_given_renewed_shown_and_given_back(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"gpu_mib": {"0": 8000}}}, **CARD) as w:
            code, given, _ = await w.post(lease(request_id="r1", reason="to learn", ttl_s=30), LEASE)
            assert code == 200, given
            assert given == {
                "lease_id": given["lease_id"],
                "token": given["token"],
                "tokens": {"slot-0": given["token"]},
                "gpus": ["slot-0"],
                "slots": [0],
                "mib": 6144,
                "exclusive": False,
                "owner": "trainer",
                "reason": "to learn",
                "priority": 0,
                "request_id": "r1",
                "pid": None,
                "state": "active",
                "ttl_s": 30,
                "expires_in_s": given["expires_in_s"],
                "pids": [],
            }
            assert 29 < given["expires_in_s"] <= 30
            again = (await w.post(lease(request_id="r1", reason="to learn", ttl_s=30), LEASE))[1]
            assert (again["lease_id"], again["token"]) == (given["lease_id"], given["token"])
            seen = await status(w)
            assert [each["lease_id"] for each in seen["leases"]] == [given["lease_id"]]
            assert (seen["gpus"][0]["free_mib"], seen["measured"], seen["mode"]) == (20000 - 6144, False, "enforce")
            name, token = given["lease_id"], given["token"]
            assert (await w.post({"token": token}, f"{LEASE}/{name}/renew"))[0] == 200
            for _ in range(3):
                code, over, _ = await w.post({"lease_id": name, "token": token}, "/v1/gpu/release")
                assert (code, over["state"]) in ((200, "reclaiming"), (200, "free"))
            assert (await status(w))["gpus"][0]["free_mib"] == 20000
            assert (await w.post({"token": token}, f"{LEASE}/{name}/renew"))[0] == 410

    play(story())


def test_who_finds_the_gpu_taken_is_told_by_whom_and_where_he_stands(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            first = (await w.post(lease(15000), LEASE))[1]
            code, told, headers = await w.post(lease(15000, wait_s=0), LEASE)
            assert (code, told["error"]["code"], headers["x-should-retry"]) == (409, "gpu_busy", "true")
            assert "15000 MiB are asked for; GPU 0: 5000 of 20000 MiB are free" in told["error"]["message"]
            assert first["lease_id"] in told["error"]["message"]
            assert int(headers["Retry-After"]) >= 1
            assert "position" in told
            waiting = asyncio.create_task(w.post(lease(15000, wait_s=20, owner="patient"), LEASE))
            await w.until(lambda: w.proxy.drive.state.by_call)
            (shown,) = (await status(w))["waiting"]
            assert (shown["owner"], shown["position"], shown["mib"]) == ("patient", 1, 15000)
            await w.post({"lease_id": first["lease_id"], "token": first["token"]}, "/v1/gpu/release")
            code, second, _ = await waiting
            assert code == 200
            assert second["token"] > first["token"]

    play(story())


def test_a_client_that_vanishes_while_it_waits_leaves_the_queue(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            await w.post(lease(15000), LEASE)
            waiting = asyncio.create_task(w.post(lease(15000, wait_s=60), LEASE))
            await w.until(lambda: w.proxy.drive.state.by_call)
            waiting.cancel()
            await w.until(lambda: not w.proxy.drive.state.by_call)
            assert (await status(w))["waiting"] == []
            assert not w.proxy.drive.leases._calls

    play(story())


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (lease(25000), 422, "impossible"),
        (lease(1 << 29), 422, "impossible"),
        (lease(6144, count=2), 422, "impossible"),
        (lease(-1), 400, "invalid_request"),
        (lease(0), 400, "invalid_request"),
        (lease(1 << 31), 400, "invalid_request"),
        (lease(100, gpus=[3]), 400, "invalid_request"),
        (lease(100, gpus=["GPU-nobody"]), 400, "invalid_request"),
        (lease(100, pid=4194303), 400, "invalid_request"),
        (lease(100, pid=1), 400, "invalid_request"),
        (b'{"vram_mib": NaN, "owner": "x"}', 400, "invalid_request"),
        (b"[" * 60_000, 400, "invalid_request"),
        (b" " * 70_000 + b"{}", 400, "invalid_request"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    world: Make, play: Play, body: Any, code: int, said: str
) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            answered, told, _ = await w.post(body, LEASE)
            assert (answered, told["error"]["code"]) == (code, said), told
            seen = await status(w)
            assert (seen["leases"], seen["waiting"], seen["gpus"][0]["free_mib"]) == ([], [], 20000)

    play(story())


def test_wrong_stale_and_forged_tokens_change_nothing(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            given = (await w.post(lease(), LEASE))[1]
            name, token = given["lease_id"], given["token"]
            for path, body in (
                (f"{LEASE}/{name}/renew", {}),
                ("/v1/gpu/release", {"lease_id": name}),
                (f"{LEASE}/{name}/handover", {"owner": "thief"}),
            ):
                assert (await w.post({**body, "token": token - 1}, path))[0] == 410
                assert (await w.post({**body, "token": token + 1}, path))[0] == 403
                assert (await w.post({**body, "token": -1}, path))[0] == 400
            assert (await w.post({"token": token}, f"{LEASE}/nobody/renew"))[0] == 404
            assert (await w.post({"lease_id": "nobody", "token": 1}, "/v1/gpu/release"))[0] == 404
            (still,) = (await status(w))["leases"]
            assert (still["state"], still["owner"], still["token"]) == ("active", "trainer", token)

    play(story())


def test_a_lease_changes_hands_and_the_old_token_is_stale(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            given = (await w.post(lease(), LEASE))[1]
            over = f"{LEASE}/{given['lease_id']}/handover"
            assert (await w.post({"token": given["token"]}, over))[0] == 400
            assert (await w.post({"token": given["token"], "model": "nobody"}, over))[0] == 404
            code, taken, _ = await w.post({"token": given["token"], "owner": "critique"}, over)
            assert (code, taken["owner"]) == (200, "critique")
            assert taken["token"] > given["token"]
            assert (await w.post({"token": given["token"]}, f"{LEASE}/{given['lease_id']}/renew"))[0] == 410
            assert (await w.post({"token": taken["token"]}, f"{LEASE}/{given['lease_id']}/renew"))[0] == 200

    play(story())


def test_a_lease_handed_to_a_model_loads_it_once(world: Make, play: Play) -> None:
    async def story() -> None:
        routes = {"small": {"gpu_mib": {"0": 8000}}, "big": {"gpu_mib": {"0": 18000}}}
        async with world(routes, policy=Policy("concurrent_limited", 2, 4096, ()), **CARD) as w:
            assert (await w.post(ASK))[0] == 200
            given = (await w.post(lease(20000, exclusive=True, wait_s=10), LEASE))[1]
            assert w.engines["small"].stops == 1
            code, _, _ = await w.post(
                {"token": given["token"], "model": "big"}, f"{LEASE}/{given['lease_id']}/handover"
            )
            assert code == 200
            await w.until(lambda: w.proxy.drive.state.slots["big"].residency == "ready")
            assert (w.engines["small"].starts, w.engines["big"].starts) == (1, 1)

    play(story())


def test_a_model_behind_a_lease_is_told_who_has_the_gpu(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"gpu_mib": {"0": 8000}}}, queue_wait_s=0.2, **CARD) as w:
            given = (await w.post(lease(20000, exclusive=True, reason="a run"), LEASE))[1]
            code, told, _ = await w.post(ASK)
            assert (code, told["error"]["code"]) == (423, "lease_blocks")
            assert "trainer" in told["error"]["message"]
            assert "a run" in told["error"]["message"]
            shown = {"X-GPU-Lease-Token": f"{given['lease_id']}:{given['token']}"}
            assert (await w.post(ASK, headers=shown))[0] == 200  # its own holder may use the model inside the lease
            (lives,) = (row for row in (await w.get("/running"))[1]["running"])
            assert lives["lease"] == given["lease_id"]

    play(story())


@pytest.mark.parametrize(("shown", "code"), [("{id}:{old}", 410), ("nobody:1", 410), ("rubbish", 400), ("", 400)])
def test_a_request_with_a_token_that_is_no_good_is_refused(world: Make, play: Play, shown: str, code: int) -> None:
    async def story() -> None:
        async with world({"small": {"gpu_mib": {"0": 8000}}}, **CARD) as w:
            given = (await w.post(lease(9000), LEASE))[1]
            header = shown.format(id=given["lease_id"], old=given["token"] - 1)
            answered, _, _ = await w.post(ASK, headers={"X-GPU-Lease-Token": header})
            assert answered == code
            assert w.engines["small"].hits == 0

    play(story())


def test_the_model_that_was_there_comes_back_after_an_exclusive_lease(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {"gpu_mib": {"0": 8000}}}, **CARD) as w:
            assert (await w.post(ASK))[0] == 200
            given = (await w.post(lease(6144, exclusive=True, wait_s=10), LEASE))[1]
            assert w.engines["small"].stops == 1
            await w.post({"lease_id": given["lease_id"], "token": given["token"]}, "/v1/gpu/release")
            await w.until(lambda: w.proxy.drive.state.slots["small"].residency == "ready")
            assert w.engines["small"].starts == 2

    play(story())


def test_the_end_of_the_holders_process_ends_the_lease_and_what_it_left(
    world: Make, play: Play, sleeper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            process = sleeper()
            other = sleeper(IMAGEWORKS_LEASE="another")
            given = (await w.post(lease(pid=process.pid), LEASE))[1]
            assert given["pid"] == process.pid
            left = sleeper(IMAGEWORKS_LEASE=given["lease_id"])
            process.kill()
            await w.until(lambda: not w.proxy.drive.state.leases)
            assert left.wait(10) != 0
            assert other.poll() is None

    play(story())


def test_who_does_not_renew_loses_the_lease_and_his_processes(
    world: Make, play: Play, sleeper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            process = sleeper()
            given = (await w.post(lease(pid=process.pid, ttl_s=1), LEASE))[1]
            holder = processes.identity(process.pid)
            assert holder is not None
            await w.until(lambda: not w.proxy.drive.state.leases)
            assert process.wait(10) != 0
            assert (await w.post({"token": given["token"]}, f"{LEASE}/{given['lease_id']}/renew"))[0] == 410

    play(story())


def test_a_person_ends_somebodys_lease(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            given = (await w.post(lease(), LEASE))[1]
            body = {"lease_id": given["lease_id"], "actor": "root@host"}
            assert (await w.post(body, "/v1/gpu/force_release"))[0] == 200
            await w.until(lambda: not w.proxy.drive.state.leases)
            assert (await w.post(body | {"lease_id": "nobody"}, "/v1/gpu/force_release"))[0] == 404
            assert (await w.post({"holder": "nobody", "actor": "me"}, "/v1/gpu/pardon"))[0] == 404

    play(story())


def test_all_or_nothing_over_two_gpus(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **TWO) as w:
            one = (await w.post(lease(15000, gpus=[1]), LEASE))[1]
            code, _, _ = await w.post(lease(15000, count=2), LEASE)
            assert code == 409
            assert [gpu["free_mib"] for gpu in (await status(w))["gpus"]] == [20000, 5000]
            await w.post({"lease_id": one["lease_id"], "token": one["token"]}, "/v1/gpu/release")
            both = (await w.post(lease(15000, count=2), LEASE))[1]
            assert (both["slots"], both["gpus"]) == ([0, 1], ["slot-0", "slot-1"])
            assert set(both["tokens"]) == {"slot-0", "slot-1"}

    play(story())


def test_where_leases_are_only_observed_nobody_is_blocked(
    world: Make, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        observed = Leases(mode="observe")
        async with world({"small": {"gpu_mib": {"0": 8000}}}, leases=observed, **CARD) as w:
            for _ in range(2):
                assert (await w.post(lease(20000, exclusive=True), LEASE))[0] == 200
            assert (await w.post(ASK))[0] == 200
            assert len((await status(w))["leases"]) == 2

    play(story())
    assert "would have been blocked" in caplog.text


def test_ten_thousand_calls_at_once_leave_a_consistent_state(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:
            desk, clock = w.proxy.drive.leases, w.proxy.drive.clock
            gate = asyncio.Semaphore(200)

            async def one(number: int) -> int:
                async with gate:
                    body = lease(5000, request_id=f"r{number % 2500}")
                    return int((await w.post(body, LEASE))[0])

            codes = await asyncio.gather(*(one(number) for number in range(10_000)))
            assert set(codes) <= {200, 409}
            seen = await status(w)
            assert len(seen["leases"]) == 4  # all that fit
            assert codes.count(200) >= 4
            assert seen["gpus"][0]["free_mib"] == 0
            assert seen["waiting"] == []
            assert (desk._calls, desk.queued) == ({}, {})
            assert clock() > 0

    play(story())


def test_every_move_is_told_as_an_event_and_a_reader_goes_on_where_it_stopped(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, **CARD) as w:

            async def until(answer: Any, word: bytes) -> list[bytes]:
                lines: list[bytes] = []
                while not lines or word not in lines[-1]:
                    lines.append(await answer.content.readline())
                return lines

            async with w.http.get("/v1/gpu/events") as answer:
                assert answer.headers["Content-Type"] == "text/event-stream"
                await until(answer, b": follows")
                given = (await w.post(lease(), LEASE))[1]
                lines = await until(answer, b"data: ")
                told = json.loads(lines[-1].removeprefix(b"data: "))
                assert (told["subject"], told["kind"], told["after"]) == (given["lease_id"], "lease", "active")
                last = next(line for line in lines if line.startswith(b"id: ")).split()[1].decode()
            await w.post({"lease_id": given["lease_id"], "token": given["token"]}, "/v1/gpu/release")
            async with w.http.get("/v1/gpu/events", headers={"Last-Event-ID": last}) as answer:
                lines = await until(answer, b'"after":"free"')
                assert b"event: gap\n" not in lines

    play(story())


def test_before_it_is_known_what_runs_no_lease_is_given(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({}, opened=False, **CARD) as w:
            code, told, headers = await w.post(lease(), LEASE)
            assert (code, told["error"]["code"], headers["x-should-retry"]) == (503, "not_reconciled", "true")
            for path, body in (
                (f"{LEASE}/earlier/renew", {"token": 1}),
                (f"{LEASE}/earlier/handover", {"token": 1, "owner": "x"}),
                ("/v1/gpu/release", {"lease_id": "earlier", "token": 1}),
                ("/v1/gpu/force_release", {"lease_id": "earlier", "actor": "x"}),
            ):
                code, told, _ = await w.post(body, path)  # perhaps it is known in a moment: nobody must give up now
                assert (code, told["error"]["code"]) == (503, "not_reconciled"), path
            waiting = asyncio.create_task(w.post(lease(wait_s=10), LEASE))
            await w.until(lambda: w.proxy.drive.state.by_call)
            await w.proxy.drive.open()
            assert (await waiting)[0] == 200

    play(story())
