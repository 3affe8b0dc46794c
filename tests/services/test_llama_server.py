"""The real engine in a process of its own: what it serves and how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol

import pytest

from imageworks.services import llama_server

Process = subprocess.Popen[str]


class Servers(Protocol):
    port: int
    url: str

    def start(self, model: Path, *words: str) -> Process: ...
    def until(self, process: Process, words: str) -> None: ...
    def ready(self, model: Path, *words: str) -> Process: ...


def get(url: str, **headers: str) -> HTTPResponse:
    response: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20)
    return response


def chat(url: str, **changes: Any) -> HTTPResponse:
    body = {"messages": [{"role": "user", "content": "Count from one to one thousand."}], "max_tokens": 8} | changes
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
    response: HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return response


def ended(process: Process) -> tuple[int, str]:
    """Exit status and the rest of the log."""
    _, log = process.communicate(timeout=30)
    return process.returncode, log


def engine_of(process: Process) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()[0])


@pytest.mark.e2e
def test_it_answers_under_the_name_it_was_given(servers: Servers, smollm2: Path) -> None:
    servers.ready(smollm2, "--alias", "tiny", "--ctx-size", "512")
    with get(f"{servers.url}/v1/models") as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["tiny"]
    with chat(servers.url) as response:
        answer = json.load(response)
    assert answer["model"] == "tiny"
    assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.e2e
def test_the_context_is_shared_among_the_slots(servers: Servers, smollm2: Path) -> None:
    process = servers.start(smollm2, "--ctx-size", "1024", "--parallel", "2")
    servers.until(process, "n_slots = 2, n_ctx_slot = 512")


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_stream_is_obeyed_at_once(servers: Servers, smollm2: Path, number: int) -> None:
    process = servers.ready(smollm2, "--ctx-size", "2048")
    with chat(servers.url, stream=True, max_tokens=1900) as stream:
        assert stream.readline().startswith(b"data: ")
        start = time.monotonic()
        process.send_signal(number)
        status, _ = ended(process)
        took = time.monotonic() - start
    assert status == 0
    assert took < 1


@pytest.mark.e2e
def test_a_stop_while_it_loads_is_obeyed_at_once(servers: Servers, smollm2: Path) -> None:
    process = servers.start(smollm2, "--ctx-size", "8192")
    servers.until(process, "loading model")
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status, log = ended(process)
    assert (status, "error: " in log) == (0, False)
    assert "listening" not in log
    assert time.monotonic() - start < 1


@pytest.mark.e2e
def test_a_stop_of_the_whole_group_is_no_crash(servers: Servers, smollm2: Path) -> None:
    process = servers.ready(smollm2, "--ctx-size", "512")
    os.kill(engine_of(process), signal.SIGTERM)
    with get(f"{servers.url}/v1/models") as response:
        assert response.status == 200  # only the server's own end is the engine's
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "")


@pytest.mark.e2e
def test_a_killed_server_leaves_no_engine(servers: Servers, smollm2: Path) -> None:
    process = servers.ready(smollm2, "--ctx-size", "512")
    engine = os.pidfd_open(engine_of(process))
    process.kill()
    gone = select.select([engine], [], [], 20)[0]  # readable once the process has ended
    os.close(engine)
    assert gone, "the engine outlived its server"


@pytest.mark.e2e
def test_an_engine_that_dies_ends_the_server_with_the_reason(servers: Servers, smollm2: Path) -> None:
    process = servers.ready(smollm2, "--ctx-size", "512")
    os.kill(engine_of(process), signal.SIGKILL)
    status, log = ended(process)
    assert status == 1
    assert log == f"error: llama.cpp was ended by SIGKILL with {smollm2}, most likely because memory ran out\n"


@pytest.mark.e2e
def test_web_pages_may_not_ask(servers: Servers, smollm2: Path) -> None:
    servers.ready(smollm2, "--ctx-size", "512")
    for origin in ("http://evil.example", "null", servers.url):
        with get(f"{servers.url}/v1/models", Origin=origin) as response:
            assert response.headers.get("Access-Control-Allow-Origin", "") == ""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(servers.url)


def last_line(process: Process) -> str:
    status, log = ended(process)
    assert status == 1
    assert "Traceback" not in log
    return log.splitlines()[-1]


@pytest.mark.e2e
def test_a_taken_port_is_the_reason_given(servers: Servers, smollm2: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", servers.port))
        other.listen()
        said = last_line(servers.start(smollm2))
    assert said == f"error: port {servers.port} on 127.0.0.1 is taken by another program"


@pytest.mark.e2e
def test_a_cut_off_model_is_the_reason_given(servers: Servers, smollm2: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as whole:
        cut.write_bytes(whole.read(3 << 20))
    assert last_line(servers.start(cut)).endswith("is not within the file bounds, model is corrupted or incomplete")


def test_a_file_that_is_no_model_is_the_reason_given(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"not a model at all" * 100)
    said = last_line(servers.start(file))
    assert said.startswith(f"error: llama.cpp cannot serve {file}: ")
    assert "invalid magic characters" in said


@pytest.mark.parametrize("words", [("-m", "/nowhere/x.gguf"), ("-m", __file__, "--mmproj", "/nowhere/x.gguf")])
def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert llama_server.main(words) == 1
    assert capsys.readouterr().err == "error: model file /nowhere/x.gguf does not exist\n"


def test_a_gpu_that_the_build_cannot_use_is_refused(servers: Servers) -> None:
    said = last_line(servers.start(Path(__file__), "--n-gpu-layers", "999"))
    assert said.startswith("error: --n-gpu-layers asks for a GPU, but this build of llama.cpp has no GPU support")
    assert "placement: cpu" in said


def test_a_missing_engine_is_said_with_the_command_that_installs_it() -> None:
    code = f"import sys; sys.modules['xllamacpp'] = None; from imageworks.services.llama_server import main; main(['-m', {__file__!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "error: the bundled llama.cpp is not installed: pip install 'imageworks[demo]'\n"


def test_the_flags_reach_the_engine_and_nothing_is_left_to_the_machine() -> None:
    import xllamacpp  # noqa: PLC0415 - an extra

    words = "-m m.gguf --mmproj p.gguf -a tiny --port 4242 -c 4096 -np 3 -t 2 -ngl 0"
    values = llama_server.parameters(llama_server.parser().parse_args(words.split()), xllamacpp)
    assert (values.model.path, values.mmproj.path, values.mmproj_use_gpu) == ("m.gguf", "p.gguf", False)
    assert (values.model_alias, values.hostnames, values.port) == ({"tiny"}, ["127.0.0.1"], 4242)
    assert (values.n_ctx, values.n_parallel, values.n_gpu_layers) == (4096, 3, 0)
    assert (values.cpuparams.n_threads, values.cpuparams_batch.n_threads, values.n_threads_http) == (2, 2, 7)
    assert (values.fit_params, values.cache_ram_mib) == (False, 0)


@pytest.mark.parametrize("last", [b"0.4 I cleaning up\n", b"0.4 I clean"])
def test_the_root_cause_is_the_first_error_line_and_the_copy_ends_with_a_line(last: bytes) -> None:
    reader, writer = os.pipe()
    log = [b"0.1 I srv: loading\n", b"0.2 E cannot open it\n", b"0.3 E so nothing works\n", last]
    assert llama_server.forward(log, writer) == "cannot open it"
    os.close(writer)
    with os.fdopen(reader, "rb") as copied:
        assert copied.read() == b"".join(log).removesuffix(b"\n") + b"\n"
