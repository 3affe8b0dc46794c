"""A program that holds real GPU memory, for scripts/gpu-check.

`gpu_holder.py hold MIB [--children N] [--detached]` allocates and sleeps; `gpu_holder.py serve MIB PORT NAME` does so and
answers like an OpenAI server. Memory is taken with the driver's own calls (cuMemAlloc), so that nothing but libcuda is
needed. Where GPU_HOLDER_LEDGER names a folder, the figures are written there instead: that is how the tests run it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LEDGER = os.environ.get("GPU_HOLDER_LEDGER")


def allocate(mib: int) -> None:
    """Take `mib` of the first visible GPU and keep it as long as the process lives. Raises OSError or RuntimeError."""
    if LEDGER:
        (Path(LEDGER) / str(os.getpid())).write_text(f"{os.getpid()} {mib}\n", "ascii")
        return
    cuda = ctypes.CDLL("libcuda.so.1")
    steps: tuple[Callable[[], int], ...]
    context, place = ctypes.c_void_p(), ctypes.c_uint64()
    steps = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0),
        lambda: cuda.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(mib << 20)),
        lambda: cuda.cuMemsetD8_v2(place, ctypes.c_ubyte(1), ctypes.c_size_t(mib << 20)),
        cuda.cuCtxSynchronize,
    )
    for call in steps:
        if code := call():
            raise RuntimeError(f"the CUDA driver refused {mib} MiB (error {code})")


class Handler(BaseHTTPRequestHandler):
    """Just enough of an OpenAI server: /health, /v1/models and an answer."""

    name = ""

    def do_GET(self) -> None:
        """The model's identity."""
        self._answer({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    def do_POST(self) -> None:
        """One word."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        choice = {"index": 0, "message": {"role": "assistant", "content": "here"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._answer({"id": "1", "object": "chat.completion", "model": self.name, "choices": [choice], "usage": usage})

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(words: list[str]) -> None:
    """See the module."""
    kind, mib, rest = words[0], int(words[1]), words[2:]
    if kind == "serve":
        allocate(mib)
        Handler.name = rest[1]
        ThreadingHTTPServer(("127.0.0.1", int(rest[0])), Handler).serve_forever()
    children = int(rest[rest.index("--children") + 1]) if "--children" in rest else 0
    for _ in range(children):
        subprocess.Popen([sys.executable, __file__, "hold", str(mib)], start_new_session="--detached" in rest)
    if not children:
        allocate(mib)
    print("holding", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
