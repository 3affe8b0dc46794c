"""plan and apply on a stack that runs: only what changed is touched, requests survive, and failures are undone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from .conftest import StackFolder, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(stack: StackFolder) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def edit(stack: StackFolder, old: str, new: str) -> None:
    """Replace a text that stands in stack.yaml."""
    file = stack.folder / "stack.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def ask(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert answer.choices[0].message.content


def planned(stack: StackFolder) -> tuple[int, Any]:
    done = stack.run("plan", "--format", "json")
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, json.loads(done.stdout)


def verbs(document: Any) -> dict[str, str]:
    return {row["program"]: row["verb"] for row in document["programs"]}


def pids(stack: StackFolder) -> dict[str, int]:
    rows = json.loads(stack.run("status", "--format", "json").stdout)["programs"]
    return {row["name"]: row["pid"] for row in rows}


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Inside, the process stands still, so that what it does is not over."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class LongAnswer:
    """One long stream that is under way: its first piece has arrived."""

    def __init__(self, client: openai.OpenAI, model: str, tokens: int) -> None:
        self.finish: str | None = None
        self.error: Exception | None = None
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(client, model, tokens))
        self._thread.start()
        assert self._first.wait(60)

    def _read(self, client: openai.OpenAI, model: str, tokens: int) -> None:
        try:
            for chunk in client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Tell me a very long story about a lighthouse."}],
                max_tokens=tokens,
                stream=True,
                extra_body={"ignore_eos": True},
            ):
                self._first.set()
                if chunk.choices:
                    self.finish = chunk.choices[0].finish_reason or self.finish
        except openai.OpenAIError as error:
            self.error = error
        finally:
            self._first.set()

    def end(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()


def test_only_what_changed_is_touched_and_a_second_apply_does_nothing(
    stack: StackFolder, client: openai.OpenAI
) -> None:
    stack.write()
    edit(stack, "development: {", "development: {strategy: concurrent_limited, max_concurrent_models: 2, ")
    assert planned(stack)[0] == 2
    first = stack.run("apply")  # nothing runs yet: it starts everything
    assert first.returncode == 0, first.stderr
    assert planned(stack)[0] == 0
    ask(client, "small")
    ask(client, "small-long")
    before = pids(stack)

    edit(stack, "context: 4096", "context: 3072")
    code, document = planned(stack)
    assert code == 2
    assert verbs(document) == {"imageworks-proxy": "reload", "model-small": "keep", "model-small-long": "restart"}
    line = (stack.folder / "stack.yaml").read_text().split("context: 3072")[0].count("\n") + 1
    (reason,) = next(row for row in document["programs"] if row["verb"] == "restart")["reasons"]
    assert reason == {"field": "models.small-long.context", "old": 4096, "new": 3072, "at": f"stack.yaml:{line}"}

    done = stack.run("apply")
    assert done.returncode == 0, done.stderr
    after = pids(stack)
    assert after["model-small"] == before["model-small"] > 0
    assert after["model-small-long"] != before["model-small-long"]
    assert after["imageworks-proxy"] == before["imageworks-proxy"] > 0  # it took its table over while it served
    assert stack.state("small") == "ready"
    assert stack.get("/readyz")[1]["plan_hash"] == document["plan_hash"]
    ask(client, "small-long")
    code, document = planned(stack)
    assert (code, set(verbs(document).values())) == (0, {"keep"})

    again = stack.run("apply")
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert pids(stack)["imageworks-proxy"] == after["imageworks-proxy"]


def test_a_request_in_flight_is_announced_and_finishes(stack: StackFolder, client: openai.OpenAI) -> None:
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    ask(client, "small")
    engine = pids(stack)["model-small"]
    edit(stack, "roles: {chat: 15}", "roles: {chat: 25}")
    # one answer for each verb: long enough to be seen by it, also on a busy machine; the restart's ends within the drain
    story = LongAnswer(client, "small", 300)
    with held(engine):
        _, document = planned(stack)
    (proxy,) = (row for row in document["programs"] if row["program"] == "imageworks-proxy")
    assert (proxy["verb"], proxy["load"]["in_flight"], story.error) == ("reload", 1, None)
    story.end()
    proxy_pid = pids(stack)["imageworks-proxy"]
    story = LongAnswer(client, "small", 900)
    done = stack.run("apply")
    story.end()
    assert done.returncode == 0, done.stderr
    assert "1 in flight" in done.stdout
    assert (story.error, story.finish) == (None, "length")
    assert pids(stack)["imageworks-proxy"] == proxy_pid
    story = LongAnswer(client, "small", 300)
    edit(stack, f"127.0.0.1:{stack.port}", f"127.0.0.1:{stack.model_ports[2]}")  # only a restart moves it
    done = stack.run("apply")
    story.end()
    assert done.returncode == 0, done.stderr
    assert (story.error, story.finish) == (None, "length")
    stack.port = stack.model_ports[2]
    assert stack.get("/readyz")[0] == 200
    assert pids(stack)["imageworks-proxy"] != proxy_pid


def test_a_model_that_answers_is_replaced_when_its_answer_ended(stack: StackFolder, client: openai.OpenAI) -> None:
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    ask(client, "small")
    before = pids(stack)
    story = LongAnswer(client, "small", 300)
    edit(stack, "context: 2048", "context: 1536")
    done = stack.run("apply")
    story.end()
    assert done.returncode == 0, done.stderr
    assert (story.error, story.finish) == (None, "length")
    ask(client, "small")
    after = pids(stack)
    assert after["imageworks-proxy"] == before["imageworks-proxy"]
    assert after["model-small"] != before["model-small"]
    assert planned(stack)[0] == 0


def test_programs_come_and_go_with_the_stack(stack: StackFolder, client: openai.OpenAI) -> None:
    third = f"""  third:
    backend: llamacpp
    source: {{same_as: small}}
    context: 1024
    placement: cpu
    pin: {{port: {{value: {stack.model_ports[2]}, because: "tests choose free ports"}}}}
"""
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    ask(client, "small")
    stack.write(extra=third)
    assert verbs(planned(stack)[1])["model-third"] == "add"
    assert stack.run("apply").returncode == 0
    ask(client, "third")
    stack.write()
    assert verbs(planned(stack)[1])["model-third"] == "stop"
    assert stack.run("apply").returncode == 0
    assert "model-third" not in pids(stack)
    assert not any("--alias third" in words for words in stack.processes())
    ask(client, "small")


def unhealthy(stack: StackFolder) -> None:
    """A stack that compiles but can serve nothing: every model is left out."""
    edit(stack, "development: {", "development: {host_memory: 1MiB, ")


def test_what_does_not_become_healthy_is_undone(stack: StackFolder, client: openai.OpenAI) -> None:
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    ask(client, "small")
    before, good = pids(stack), stack.get("/readyz")[1]["plan_hash"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        edit(stack, f"127.0.0.1:{stack.port}", taken)
        refused = stack.run("apply")
        edit(stack, taken, f"127.0.0.1:{stack.port}")
    assert refused.returncode == 1
    assert taken in refused.stderr
    assert pids(stack) == before  # nothing was touched
    routes = stack.folder / "generated" / "development" / "routes.json"
    bytes_before = routes.read_bytes()
    unhealthy(stack)
    assert stack.run("compile").returncode == 0  # the files that serve are overwritten: only the kept copy has them
    assert routes.read_bytes() != bytes_before
    done = stack.run("apply", "--wait", "1")
    assert done.returncode == 1
    assert "no model is placed" in done.stderr
    assert "what served before serves again" in done.stderr
    ready = stack.get("/readyz")[1]
    assert (ready["ready"], ready["plan_hash"]) == (True, good)
    assert routes.read_bytes() == bytes_before
    ask(client, "small")
    assert pids(stack).keys() == before.keys()
    # the wish is still a wish: plan says so, and a mended stack applies
    assert planned(stack)[0] == 2
    edit(stack, "host_memory: 1MiB, ", "host_memory: 5GiB, ")
    mended = stack.run("apply")
    assert mended.returncode == 0, mended.stderr
    ask(client, "small-long")


def test_an_interrupted_apply_leaves_what_ran(stack: StackFolder, client: openai.OpenAI) -> None:
    stack.write()
    assert stack.run("up", "-d").returncode == 0
    ask(client, "small")
    good = stack.get("/readyz")[1]["plan_hash"]
    story = LongAnswer(client, "small", 600)
    edit(stack, f"127.0.0.1:{stack.port}", f"127.0.0.1:{stack.model_ports[2]}")  # the proxy has to be restarted
    apply = stack.start("apply")
    eventually(lambda: (stack.get("/readyz")[1] or {}).get("reason") == "the proxy is stopping", "the proxy drains")
    apply.send_signal(signal.SIGINT)
    output, _ = apply.communicate(timeout=120)
    story.end()
    assert apply.returncode == 130, output
    assert "what served before serves again" in output
    assert story.error is None
    assert stack.get("/readyz")[1]["plan_hash"] == good
    ask(client, "small")


def test_another_profile_is_refused_with_the_way_to_it(stack: StackFolder) -> None:
    stack.write(extra="")
    text = (stack.folder / "stack.yaml").read_text()
    (stack.folder / "stack.yaml").write_text(
        re.sub(r"(  development: .*\n)", r"\1  tiny: {match: {gpus: 1, vram: '>=8GiB'}, headroom: 1GiB}\n", text)
    )
    assert stack.run("up", "-d").returncode == 0
    refused = stack.run("apply", "--profile", "tiny")
    assert refused.returncode == 1
    assert "imageworks down && imageworks up" in refused.stderr
    code = stack.run("plan", "--profile", "tiny")
    assert code.returncode == 2
    assert "development -> tiny" in code.stdout
