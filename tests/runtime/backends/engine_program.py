"""A tiny engine as a program of its own, for supervisors to start: argv = port, served name, mode.

Modes: `serve`; `broken` prints like llama.cpp that it cannot start, and ends; `other` serves under another name;
`deaf` takes its port and never answers.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    name = ""

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer({"data": [{"id": self.name}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"I am {self.name}"}
        self.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def main() -> int:
    port, Handler.name, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if mode == "broken":
        sys.stdout.write("0.00.1 I loading\n0.00.2 E failed to open GGUF file\nRuntimeError: Failed to init server\n")
        return 1
    if mode == "other":
        Handler.name = "somebody-else"
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    if mode == "deaf":
        time.sleep(3600)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
