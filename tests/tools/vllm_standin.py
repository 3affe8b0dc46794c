"""A stand-in for vLLM with sleep mode: argv = port, served name, folder.

After vllm/entrypoints/serve/{sleep,rpc,cache}/api_router.py: the level comes from the query string only (default 1), a
body is ignored; these routes exist in development mode only; /is_sleeping is true until every part is awake. What is in
flight at /sleep is aborted; a completion while it sleeps ends the engine (vllm#15483). After level 2 the weights are
nonsense until `reload_weights` (vllm#29341), and cached prefixes too until /reset_prefix_cache. FOLDER/ledger.json holds
the MiB of its process. FOLDER/knobs.json: `stays_mib` after sleeping, `answers_early_s` (200 before it sleeps), `wrong`
(another answer after waking), `wake_fails` (HTTP 500), `forgets` (reload_weights does nothing).
FOLDER/calls holds every call in order. 1,200 MiB stay when it sleeps as it should, 20,000 are its own awake.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PORT, NAME, FOLDER = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
AWAKE_MIB, ASLEEP_MIB = 20_000, 1_200
DEV_MODE = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"


class Engine:
    awake: set[str] = {"weights", "kv_cache"}  # noqa: RUF012 - one engine
    weights = "good"
    prefixes = "good"
    dead = False


def knobs() -> dict[str, Any]:
    path = FOLDER / "knobs.json"
    return json.loads(path.read_text()) if path.exists() else {}


def hold(mib: int) -> None:
    new = FOLDER / "ledger.new"
    new.write_text(json.dumps({str(os.getpid()): mib}))
    new.replace(FOLDER / "ledger.json")


def fall_asleep(level: int) -> None:
    Engine.awake = set()
    if level == 2:
        Engine.weights = Engine.prefixes = "gone"
    hold(int(knobs().get("stays_mib", ASLEEP_MIB)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def answer(self, value: object = None, status: int = 200) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/is_sleeping" and DEV_MODE:
            self.answer({"is_sleeping": len(Engine.awake) < 2})
        elif self.path == "/health":
            self.answer(status=503 if Engine.dead else 200)
        elif self.path == "/v1/models":
            self.answer({"data": [{"id": NAME}]})
        else:
            self.answer({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with (FOLDER / "calls").open("a") as calls:
            calls.write(f"{self.path}{' ' + text.decode() if self.path == '/collective_rpc' else ''}\n")
        where = urlsplit(self.path)
        name = where.path.strip("/").replace("/", "_")
        if name not in ("v1_completions", "sleep", "wake_up", "collective_rpc", "reset_prefix_cache") or not (
            DEV_MODE or name.startswith("v1")
        ):
            self.answer({"detail": "Not Found"}, 404)
            return
        getattr(self, name)(parse_qs(where.query), text)

    def sleep(self, query: dict[str, list[str]], _text: bytes) -> None:
        level = int(query.get("level", ["1"])[0])
        early_s = float(knobs().get("answers_early_s", 0))
        if early_s:
            threading.Timer(early_s, fall_asleep, (level,)).start()
        else:
            fall_asleep(level)
        self.answer()

    def wake_up(self, query: dict[str, list[str]], _text: bytes) -> None:
        if knobs().get("wake_fails"):
            self.answer({"error": "CUDA out of memory"}, 500)
            return
        Engine.awake |= set(query.get("tags", ["weights", "kv_cache"]))
        hold(AWAKE_MIB if len(Engine.awake) == 2 else AWAKE_MIB // 2)
        self.answer()

    def collective_rpc(self, _query: dict[str, list[str]], text: bytes) -> None:
        if json.loads(text).get("method") == "reload_weights" and not knobs().get("forgets"):
            Engine.weights = "good"
        self.answer({"results": [None]})

    def reset_prefix_cache(self, _query: dict[str, list[str]], _text: bytes) -> None:
        Engine.prefixes = "good"
        self.answer()

    def v1_completions(self, _query: dict[str, list[str]], _text: bytes) -> None:
        if len(Engine.awake) < 2:
            Engine.dead = True
        if Engine.dead:
            self.answer({"error": "EngineDeadError"}, 500)
            return
        sane = Engine.weights == Engine.prefixes == "good" and not knobs().get("wrong")
        self.answer({"choices": [{"index": 0, "text": " Paris" if sane else " ###"}]})


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    hold(AWAKE_MIB)
    time.sleep(0)
    Server(("127.0.0.1", PORT), Handler).serve_forever()
