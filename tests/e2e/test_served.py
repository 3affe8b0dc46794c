"""From stack.yaml to a served answer: real supervisord, real llama.cpp, real model, the official client."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from .conftest import StackFolder, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(stack: StackFolder) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def question(text: str = "Say hello.") -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_a_role_is_answered_streamed_swapped_unloaded_healed_and_taken_down(
    stack: StackFolder, client: openai.OpenAI
) -> None:
    stack.write(grace="4s")
    up = stack.run("up", "-d")
    assert up.returncode == 0, up.stderr
    assert f"serving {stack.url}/v1" in up.stderr

    # the first request starts the model
    assert stack.state("small") == "stopped"
    answer = client.chat.completions.create(model="role:chat", messages=question(), max_tokens=16)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert stack.state("small") == "ready"

    # a stream arrives in pieces
    stream = client.chat.completions.create(model="Small (Q4_1)", messages=question(), max_tokens=24, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert sum(piece is not None for piece in pieces) > 3

    # one model at a time: the second takes the place of the first
    answer = client.chat.completions.create(model="small-long", messages=question(), max_tokens=8)
    assert answer.choices[0].message.content
    assert (stack.state("small"), stack.state("small-long")) == ("stopped", "ready")

    # a killed backend heals with the next request
    pid = int(re.search(r"model-small-long\s+running\s+(\d+)", stack.run("status").stdout)[1])  # type: ignore[index]
    os.kill(pid, signal.SIGKILL)
    answer = client.chat.completions.create(model="small-long", messages=question(), max_tokens=8)
    assert answer.choices[0].message.content

    # idle models are unloaded after their grace
    eventually(lambda: stack.state("small-long") == "stopped", "the idle model is unloaded")

    # every request left a record
    records = eventually(lambda: len(stack.records()) == 4 and stack.records(), "four records are written")
    assert {record["outcome"] for record in records} <= {"ok", "truncated"}  # truncated: max_tokens reached
    assert all(record["t"]["total_ms"] > 0 and record["stack_hash"] for record in records)
    assert records[0]["tokens"]["out"] > 0
    assert [record["warm"] for record in records[:3]] == [False, True, False]

    down = stack.run("down")
    assert down.returncode == 0, down.stderr
    assert stack.processes() == []


def test_supervisors_own_tools_serve_the_stack_too(stack: StackFolder, client: openai.OpenAI) -> None:
    stack.write()
    assert stack.run("up", "--once").returncode == 0  # brings the weights; everything is stopped again
    assert stack.processes() == []
    assert stack.run("compile", "--all").returncode == 0
    conf = "generated/development/supervisord.conf"
    started = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", conf],
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    eventually(lambda: "imageworks-proxy" in stack.supervisorctl("status", conf=conf).stdout, "supervisord answers")

    # from the stack's folder, without -c
    start = stack.supervisorctl("start", "imageworks-proxy")
    assert "imageworks-proxy: started" in start.stdout, start
    eventually(lambda: stack.get("/readyz")[0] == 200, "the proxy is ready")
    assert (
        client.chat.completions.create(model="role:chat", messages=question(), max_tokens=8).choices[0].message.content
    )
    assert "RUNNING" in stack.supervisorctl("status", "model-small", conf=conf).stdout
    assert "stopped" in stack.supervisorctl("stop", "model-small", conf=conf).stdout
    assert (
        client.chat.completions.create(model="role:chat", messages=question(), max_tokens=8).choices[0].message.content
    )


def test_ask_streams_an_answer_and_says_when_nothing_listens(stack: StackFolder) -> None:
    stack.write()
    nobody = stack.run("ask", "hello", "--url", stack.url)
    assert nobody.returncode == 1
    assert "imageworks up" in nobody.stderr
    assert stack.run("up", "-d").returncode == 0
    asked = stack.run("ask", "Say hello.")  # in the stack's folder: its own proxy is found
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
    unknown = stack.run("ask", "hello", "--url", stack.url, "--model", "smal")
    assert unknown.returncode == 1
    assert "small" in unknown.stderr


def test_ctrl_c_leaves_nothing_behind_at_any_moment(stack: StackFolder) -> None:
    stack.write()
    for moment in ("starting supervisord", "serving"):
        up = stack.start("up")
        assert up.stdout is not None
        for line in up.stdout:
            if moment == "starting supervisord" or moment in line:
                break
        up.send_signal(signal.SIGINT)
        output = up.stdout.read()
        assert up.wait(timeout=60) == 130, output
        up.stdout.close()
        assert stack.processes() == []


def test_a_killed_up_takes_its_supervisord_along(stack: StackFolder) -> None:
    stack.write()
    up = stack.start("up")
    assert up.stdout is not None
    assert any("serving" in line for line in up.stdout)
    up.kill()
    up.wait(timeout=60)
    up.stdout.close()
    eventually(lambda: not stack.processes(), "supervisord and its programs are gone")


def test_a_taken_port_is_named_before_anything_starts(stack: StackFolder) -> None:
    stack.write()
    with socket.create_server(("127.0.0.1", stack.port)):
        up = stack.run("up", "-d")
    assert up.returncode == 1
    assert f"127.0.0.1:{stack.port}" in up.stderr
    assert "proxy: {bind:" in up.stderr
    assert stack.processes() == []


def test_a_second_up_says_that_one_runs(stack: StackFolder) -> None:
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    second = stack.run("up")
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert "imageworks down" in second.stderr
    assert stack.run("up", "-d").returncode == 0


def test_a_model_that_cannot_start_answers_with_its_root_cause(stack: StackFolder, client: openai.OpenAI) -> None:
    broken = f"""  broken:
    backend: llamacpp
    source: {{path: broken.gguf}}
    context: 2048
    placement: cpu
    vram: {{total: 100MiB, because: "a test"}}
    pin: {{port: {{value: {stack.model_ports[2]}, because: "tests choose free ports"}}}}
"""
    stack.write(extra=broken)
    (stack.folder / "models").mkdir()
    weights = stack.folder / "models" / "broken.gguf"
    assert stack.run("up", "-d").returncode == 0

    with pytest.raises(openai.InternalServerError) as missing:
        client.chat.completions.create(model="broken", messages=question())
    assert missing.value.status_code == 503
    assert "broken.gguf" in missing.value.message

    weights.write_bytes(b"GGUF this is none")
    with pytest.raises(openai.InternalServerError) as cause:
        client.chat.completions.create(model="broken", messages=question())
    assert cause.value.status_code == 503
    assert "broken" in cause.value.message
    assert "log" in str(cause.value.body)
    # the others are not touched by it
    assert client.chat.completions.create(model="small", messages=question(), max_tokens=8).choices[0].message.content


def test_no_write_permission_is_one_clear_message(stack: StackFolder, tmp_path: Path) -> None:
    stack.write()
    if os.geteuid() == 0:
        (tmp_path / "generated").write_text("a file where a folder must be")
    else:
        tmp_path.chmod(0o500)
    try:
        compiled = stack.run("compile")
    finally:
        tmp_path.chmod(0o700)
    assert compiled.returncode == 1
    assert "generated" in compiled.stderr
    assert "Traceback" not in compiled.stderr
    assert not (tmp_path / "generated" / "development").exists()
