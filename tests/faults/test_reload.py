"""Faults of a reload (F57-F59): the real proxy as a process, told by SIGHUP, with real programs under real supervisord."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from imageworks import contract

from .conftest import Bench, eventually
from .test_proxy_life import CARD, in_turn, never_together


def rewrite(bench: Bench, change: Callable[[dict[str, Any]], object]) -> None:
    """Put another table where the one in force was read from."""
    path = bench.stack / "routes.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table | {"plan_hash": "q" * 64}))


def hang_up(bench: Bench) -> dict[str, Any]:
    """SIGHUP; what came of it."""
    assert bench.proxy is not None
    before = bench.get("/readyz")[1]["reload"]["number"]
    os.kill(bench.proxy.pid, signal.SIGHUP)
    eventually(lambda: bench.get("/readyz")[1]["reload"]["number"] > before, "the reload is over")
    told: dict[str, Any] = bench.get("/readyz")[1]
    return told


@pytest.mark.parametrize(
    ("text", "status"), [("{", 422), (None, 422), ('{"schema": 999}', 422)], ids=["broken", "missing", "newer"]
)
def test_f57_a_broken_table_changes_nothing_and_is_told(bench: Bench, text: str | None, status: int) -> None:
    bench.engine("a", "serve")
    bench.supervise()
    bench.serve()
    assert bench.chat("a")[0] == 200
    good = (bench.stack / "routes.json").read_text()
    (bench.stack / "routes.json").unlink()
    if text is not None:
        (bench.stack / "routes.json").write_text(text)
    ready = hang_up(bench)
    assert (ready["ready"], ready["plan_hash"]) == (True, "p" * 64)
    assert "the last reload failed, plan pppppppppppp goes on" in ready["degraded"][0]
    assert "no reload, plan pppppppppppp goes on" in (bench.home / "log" / "proxy.log").read_text()
    code, answer = bench.post("/v1/reload", {})
    assert (code, answer["error"]["code"]) == (status, "reload_unreadable")
    assert bench.chat("a")[0] == 200
    (bench.stack / "routes.json").write_text(good)
    ready = hang_up(bench)
    assert (ready["degraded"], ready["reload"]["failed"]) == ([], None)
    assert bench.starts("a") == 1


def test_f58_a_reload_in_a_swap_loses_nobody_and_lets_no_two_hold_the_memory(bench: Bench) -> None:
    with never_together(bench, "a", "b") as together:
        asking = in_turn(bench)
        rewrite(bench, lambda table: table["routes"]["b"].update(aliases=["bee"], concurrency=2))
        ready = hang_up(bench)
        assert ready["plan_hash"] == "q" * 64
        assert bench.state("a") in ("stopping", "reclaiming", "stopped")  # the reload waited for nothing
        asking.join()
        assert bench.chat("bee")[0] == 200
    assert together == []
    assert (bench.starts("a"), bench.starts("b")) == (1, 1)


def test_f59_a_model_that_is_taken_away_ends_its_streams_and_then_goes(bench: Bench) -> None:
    folder = bench.engine("a", "serve", gpu_mib={"0": 1500})
    bench.engine("b", "serve", gpu_mib={"0": 1500})
    bench.supervise()
    bench.serve(gpus=CARD, leases=contract.Leases(min_residency_s=0.0))
    assert bench.chat("a")[0] == 200
    (folder / "hold").touch()
    with bench.stream("a") as answer:
        assert answer.readline().startswith(b"data:")
        rewrite(bench, lambda table: table["routes"].pop("a"))
        hang_up(bench)
        assert bench.chat("a")[0] == 404
        assert bench.state("a") == "ready"
        asking = threading.Thread(target=lambda: bench.chat("b"))
        asking.start()
        eventually(lambda: [row for row in bench.get("/running")[1]["running"] if row["waiting"]], "b waits")
        assert bench.ledger("b") == []
        (folder / "hold").unlink()
        assert answer.read().endswith(b"data: [DONE]\n\n")
    asking.join()
    eventually(lambda: not bench.left("a"), "it is gone")
    assert bench.ledger("b")
    assert "a" not in {row["model"] for row in bench.get("/running")[1]["running"]}
    assert bench.get("/v1/gpu/status")[1]["gpus"][0]["free_mib"] == 500
