"""A stand-in for the Ollama daemon that checks how it is called: argv = port, folder.

After ollama/server/routes.go, api/types.go (fb307609) and docs/api.md, and held to the recorded answers of that Ollama by
tests/runtime/ollama/test_recordings.py. It knows the real routes only and the real fields of
/api/generate, /api/create and /api/chat only, with their types: anything else is refused and noted in FOLDER/violations,
also where the real one would not look at it. VRAM is FOLDER/ledger.json (tag -> MiB). A load ends with its
client (ollama#4427); an unload is answered before the memory is back. FOLDER/knobs.json, read at every request:
  load_s      how long a load takes
  lag_looks   how many looks at /api/ps still list a model after its unload; -1: for ever (`Stopping...`)
  keeps_mib   VRAM that stays after the list is empty, until the knob is gone
  deaf        accepts and answers nothing
  chat        the lines of an answer of /api/chat; WAIT: until FOLDER/go_on is there, CUT: the connection breaks
  chat_status the status of that answer
Every request is noted in FOLDER/journal as `METHOD path [what became of it]`.
"""

from __future__ import annotations

import base64
import binascii
import json
import select
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
MIB = 4000
ROUTES = {
    ("HEAD", "/"), ("GET", "/"), ("HEAD", "/api/version"), ("GET", "/api/version"), ("HEAD", "/api/tags"),
    ("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/api/ps"), ("POST", "/api/generate"), ("POST", "/api/chat"),
    ("POST", "/api/embed"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"), ("POST", "/api/create"),
}  # fmt: skip
FIELDS = {
    "model", "prompt", "suffix", "system", "template", "context", "stream", "raw", "format", "keep_alive", "images",
    "options", "think",
}  # fmt: skip
CREATE = {
    "model",
    "from",
    "files",
    "adapters",
    "template",
    "license",
    "system",
    "parameters",
    "messages",
    "stream",
    "quantize",
}
# api.ChatRequest, api.Message, api.Options with api.Runner, each with what its type takes (Options.FromMap, encoding/json).
CHAT: dict[str, tuple[type, ...]] = {
    "model": (str,), "messages": (list,), "stream": (bool,), "format": (str, dict), "keep_alive": (str, int, float),
    "tools": (list,), "options": (dict,), "think": (bool, str), "truncate": (bool,), "shift": (bool,),
    "logprobs": (bool,), "top_logprobs": (int,),
}  # fmt: skip
MESSAGE: dict[str, tuple[type, ...]] = {
    "role": (str,), "content": (str,), "thinking": (str,), "images": (list,), "tool_calls": (list,), "tool_name": (str,),
    "tool_call_id": (str,),
}  # fmt: skip
OPTIONS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu"), (int,)),
    **dict.fromkeys(("main_gpu", "num_thread", "draft_num_predict"), (int,)),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature", "repeat_penalty"), (int, float)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (int, float)),
    "use_mmap": (bool,), "stop": (list,),
}  # fmt: skip
# openai.CompletionRequest: what it does not have is dropped by the real one.
COMPLETIONS = {
    "model", "prompt", "frequency_penalty", "max_tokens", "presence_penalty", "seed", "stop", "stream", "stream_options",
    "temperature", "top_p", "suffix", "logprobs",
}  # fmt: skip
THINK = ("high", "medium", "low", "max")
WAIT, CUT = "WAIT", "CUT"
leaving: dict[str, int] = {}


def misfits(what: str, given: dict[str, Any], known: Mapping[str, tuple[type, ...]]) -> list[str]:
    """Fields that the type does not have, and values that do not fit it."""
    strange = [f"{what}.{name}" for name in given if name not in known]
    wrong = [
        f"{what}.{name} is {type(value).__name__}"
        for name, value in given.items()
        if name in known and (not isinstance(value, known[name]) or isinstance(value, bool) > (bool in known[name]))
    ]
    return strange + wrong


def chat_misfits(body: dict[str, Any]) -> list[str]:
    if found := misfits("chat", body, CHAT):
        return found
    found = misfits("options", body.get("options", {}), OPTIONS)
    for message in body.get("messages", []):
        found += misfits("message", message, MESSAGE)
        for image in message.get("images", []):
            try:
                base64.b64decode(image, validate=True)
            except binascii.Error as error:
                found.append(f"image: {error}")
        for call in message.get("tool_calls", []):
            found += misfits("call", call, {"id": (str,), "function": (dict,)})
            function = {"index": (int,), "name": (str,), "arguments": (dict,)}
            found += misfits("function", call.get("function", {}), function)
    if isinstance(body.get("format"), str) and body["format"] != "json":
        found.append(f"format {body['format']}")
    if isinstance(body.get("think"), str) and body["think"] not in THINK:
        found.append(f"think {body['think']}")
    if not 0 <= body.get("top_logprobs", 0) <= 20:
        found.append("top_logprobs must be between 0 and 20")
    if not all(isinstance(word, str) for word in body.get("options", {}).get("stop", [])):
        found.append("option stop must be of an array of strings")
    return found


def note(file: str, text: str) -> None:
    with (FOLDER / file).open("a") as out:
        out.write(text + "\n")


def read(file: str) -> dict[str, Any]:
    path = FOLDER / file
    return json.loads(path.read_text()) if path.exists() else {}


def write(file: str, value: object) -> None:
    new = FOLDER / f"{file}.new"
    new.write_text(json.dumps(value))
    new.replace(FOLDER / file)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def answer(self, value: object, status: int = 200, allow: str = "") -> None:
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        kind = "application/json; charset=utf-8"
        if isinstance(value, str):
            kind = "text/plain; charset=utf-8" if status == 200 else "text/plain"
        self.send_response(status)
        if allow:
            self.send_header("Allow", allow)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length) or b"{}"
        if read("knobs.json").get("deaf"):
            time.sleep(600)
        if (self.command, self.path) not in ROUTES:
            note("violations", f"{self.command} {self.path}")
            if others := ", ".join(method for method, path in sorted(ROUTES) if path == self.path):
                self.answer("405 method not allowed", 405, others)
            else:
                self.answer("404 page not found", 404)
            return
        try:
            body = json.loads(text)
        except ValueError:
            note("violations", f"{self.command} {self.path} is not JSON")
            self.answer({"error": "unexpected EOF"}, 400)
            return
        name = self.path.removeprefix("/").replace("/", "_")
        getattr(self, name, self.plain)(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the library's names

    def plain(self, _body: dict[str, Any]) -> None:
        note("journal", f"{self.command} {self.path}")
        self.answer("Ollama is running" if self.path == "/" else {"version": "0.20.1"})

    def v1_completions(self, body: dict[str, Any]) -> None:
        if dropped := body.keys() - COMPLETIONS:
            note("violations", f"POST /v1/completions {sorted(dropped)}")
        self.answer({"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]})

    def api_ps(self, _body: dict[str, Any]) -> None:
        ledger = read("ledger.json")
        for tag, looks in tuple(leaving.items()):
            if looks == 0:
                del leaving[tag]
                kept = read("knobs.json").get("keeps_mib")
                ledger.pop(tag, None)
                write("ledger.json", ledger | ({"(held)": kept} if kept else {}))
            elif looks > 0:
                leaving[tag] -= 1
        held = [tag for tag in ledger if tag != "(held)"]
        rows = [
            {"name": tag, "model": tag, "size": ledger[tag] << 20, "size_vram": ledger[tag] << 20, "digest": "0" * 64}
            for tag in held
        ]
        note("journal", f"GET /api/ps {','.join(held)}")
        self.answer({"models": rows})

    def api_show(self, body: dict[str, Any]) -> None:
        known = body.get("model") != "nobody"
        self.answer({"details": {}} if known else {"error": "model 'nobody:latest' not found"}, 200 if known else 404)

    def api_create(self, body: dict[str, Any]) -> None:
        strange = body.keys() - CREATE
        if strange or not body.get("model") or not body.get("from"):
            note("violations", f"POST /api/create {sorted(strange)}")
            self.answer({"error": f"unknown fields: {sorted(strange)}"}, 400)
            return
        note("journal", f"create {body['model']} from {body['from']} {json.dumps(body.get('parameters'))}")
        self.answer({"status": "success"})

    def api_chat(self, body: dict[str, Any]) -> None:
        if found := chat_misfits(body):
            note("violations", f"POST /api/chat {found}")
            self.answer({"error": f"misfits: {found}"}, 400)
            return
        note("journal", f"chat {json.dumps(body)}")
        knobs = read("knobs.json")
        lines, status = knobs["chat"], knobs.get("chat_status", 200)
        if status != 200 or body.get("stream") is False:
            self.answer(json.loads(lines[0]), status)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            if not self.chat_line(line):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def chat_line(self, line: str) -> bool:
        if line == CUT:
            return False
        if line == WAIT:
            while not (FOLDER / "go_on").exists():
                if select.select([self.connection], [], [], 0.02)[0]:
                    note("journal", "chat cancelled")
                    return False
            return True
        piece = line.encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.flush()
        return True

    def api_generate(self, body: dict[str, Any]) -> None:
        strange = (body.keys() - FIELDS) | (body.get("options", {}).keys() - OPTIONS.keys())
        if strange or "model" not in body:
            note("violations", f"POST /api/generate {sorted(strange)}")
            self.answer({"error": f"unknown fields: {sorted(strange)}"}, 400)
        elif body["model"] == "nobody":
            self.answer({"error": "model 'nobody' not found"}, 404)
        else:
            self.generate(body["model"] if ":" in body["model"] else f"{body['model']}:latest", body)

    def moved(self, body: dict[str, Any], reason: str) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.answer({"model": body["model"], "created_at": at, "response": "", "done": True, "done_reason": reason})

    def generate(self, tag: str, body: dict[str, Any]) -> None:
        if body.get("keep_alive") == 0:
            leaving[tag] = int(read("knobs.json").get("lag_looks", 2))
            note("journal", f"unload {tag}")
            self.moved(body, "unload")
            return
        note("journal", f"load {tag} begins {json.dumps(body, sort_keys=True)}")
        until = time.monotonic() + float(read("knobs.json").get("load_s", 0))
        while time.monotonic() < until:
            if select.select([self.connection], [], [], 0.02)[0]:
                note("journal", f"load {tag} cancelled")
                self.close_connection = True
                return
        write("ledger.json", read("ledger.json") | {tag: MIB})
        note("journal", f"load {tag} done")
        self.moved(body, "load")


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", PORT), Handler).serve_forever()
