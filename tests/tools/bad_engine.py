"""An engine that misbehaves in one chosen way, for supervisors to start: argv = port, served name, mode, folder.

Standard library only, so that it starts at once. It "allocates VRAM" by a line in FOLDER/ledger ("pid mib"), removes it
at an orderly end, and counts its starts in FOLDER/starts. Modes:
  serve       as it should be
  grandchild  a child in a session of its own holds the "VRAM"; it ignores SIGTERM and outlives its parent
  worker      as grandchild, but the API server notices nothing of its worker's death except in /health
  deaf        ignores SIGTERM
  exit0       prints a fatal error and ends with code 0, at once
  dies        prints an error and ends with code 1, at once
  late        ends like `exit0` when FOLDER/die appears
  portless    runs, but never listens
  frozen      accepts connections and answers nothing from the moment that FOLDER/freeze exists
  flap        /health alternates between 200 and 503
  sick        /health says 503 from the moment that FOLDER/sick exists
  zombie      answers /health and /v1/models, but completes nothing while FOLDER/stuck exists
  busy        /health hangs while a completion is being computed
  chatty      prints 1 MiB for every request
  drip        streams slowly, for ever
Completions stream when asked; every one is noted in FOLDER/hits.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, NAME, MODE, FOLDER = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
MIB = 1000
working = threading.Event()
workers: list[int] = []
looks: list[float] = []


def note(file: str, text: str) -> None:
    with (FOLDER / file).open("a") as out:
        out.write(text + "\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no error of ours, and no line in the log."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def wait_while(self, file: str) -> None:
        while (FOLDER / file).exists():
            time.sleep(0.02)

    def answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if MODE == "frozen":
            self.wait_while("freeze")
        if self.path == "/health":
            self.answer({}, self.health())
        else:
            self.answer({"data": [{"id": NAME}]})

    def health(self) -> int:
        looks.append(time.monotonic())
        note("looks", str(time.monotonic()))
        if MODE == "flap":
            return 503 if len(looks) > 3 and len(looks) % 2 else 200
        if MODE == "sick" and (FOLDER / "sick").exists():
            return 503
        if MODE == "worker":
            return 200 if Path(f"/proc/{workers[0]}/stat").read_text().split()[2] != "Z" else 503
        if MODE == "busy" and working.is_set():
            time.sleep(600)
        return 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "frozen":
            self.wait_while("freeze")
        if MODE == "zombie":
            self.wait_while("stuck")
        if MODE == "chatty":
            sys.stdout.write("x" * (1 << 20) + "\n")
            sys.stdout.flush()
        note("hits", self.path)
        if body.get("stream"):
            self.stream()
        elif "completions" in self.path and "chat" not in self.path:
            self.answer({"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]})
        else:
            message = {"role": "assistant", "content": f"I am {NAME}"}
            self.wait_while("hold")
            self.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        working.set()
        piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}}]})
        for _ in range(100_000 if MODE in ("drip", "busy") else 3):
            self.chunk(f"data: {piece}\n\n")
            time.sleep(0.05)
        self.wait_while("hold")
        self.chunk("data: [DONE]\n\n")
        self.chunk("")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


def child_with_memory() -> int:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("ledger", f"{os.getpid()} {MIB}")
        os.write(told, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    return child


def forget(*_: object) -> None:
    ledger = FOLDER / "ledger"
    lines = [line for line in ledger.read_text().splitlines() if not line.startswith(f"{os.getpid()} ")]
    ledger.write_text("".join(f"{line}\n" for line in lines))
    os._exit(0)


def main() -> int:
    note("starts", str(os.getpid()))
    if MODE in ("exit0", "dies"):
        sys.stdout.write("ERROR 11-22 10:00:00 [core.py:1] RuntimeError: the engine core failed to start\n")
        return 1 if MODE == "dies" else 0
    if MODE in ("grandchild", "worker"):
        workers.append(child_with_memory())
    else:
        note("ledger", f"{os.getpid()} {MIB}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if MODE == "deaf" else forget)
    if MODE == "portless":
        while True:
            signal.pause()
    server = Server(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    while not (MODE == "late" and (FOLDER / "die").exists()):
        time.sleep(0.02)
    sys.stdout.write("ERROR 11-22 10:00:00 [core.py:1] RuntimeError: EngineDeadError, shutting down\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
