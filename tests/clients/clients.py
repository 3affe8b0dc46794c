"""One Python client library against a running proxy: `python clients.py NAME URL`, a JSON line for each check.

Run by tests/e2e/test_conformance.py and scripts/conformance.py as a process of its own, because the libraries want
different versions of each other. Models: `small` answers, `eyes` sees, `none` is not there.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
HI = [{"role": "user", "content": "Name a colour."}]
Checks = dict[str, Callable[[], object]]


def picture() -> str:
    """A PNG of 16 x 16 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + _row(y) for y in range(16))
    data = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")).decode()


def _row(y: int) -> bytes:
    return bytes(value for x in range(16) for value in (16 * x, 16 * y, 128))


SEE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}},
        ],
    }
]


def colour(text: object) -> None:
    """The schema held."""
    assert json.loads(str(text))["colour"] in ("red", "green"), text


def raises(kind: type[Exception], call: Callable[[], object], told: str) -> None:
    """The call fails as the library names it, with the proxy's own words."""
    try:
        call()
    except kind as error:
        if told not in str(error):
            raise AssertionError(str(error)) from None
    else:
        raise AssertionError(f"no {kind.__name__}")


def openai_checks(url: str) -> Checks:  # noqa: C901 - one line of the table each
    """The official SDK."""
    import openai  # noqa: PLC0415 - the other clients' environment may lack it

    client: Any = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    chat = client.chat.completions.create

    def short() -> None:
        answer = chat(model="small", messages=HI, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert 0 < answer.usage.completion_tokens <= 8

    def stream() -> None:
        chunks = list(
            chat(model="small", messages=HI, max_tokens=8, stream=True, stream_options={"include_usage": True})
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length")
        assert chunks[-1].usage.completion_tokens > 0

    def schema() -> None:
        form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True}}
        colour(chat(model="small", messages=HI, max_tokens=64, response_format=form).choices[0].message.content)

    def logprobs() -> None:
        answer = chat(model="small", messages=HI, max_tokens=4, logprobs=True, top_logprobs=3)
        tokens = answer.choices[0].logprobs.content
        assert tokens
        assert len(tokens[0].top_logprobs) == 3
        assert all(token.logprob <= 0 for token in tokens)

    def several() -> None:
        answer = chat(model="small", messages=HI, max_tokens=4, n=2)
        assert [choice.index for choice in answer.choices] == [0, 1]

    def seen() -> None:
        assert chat(model="eyes", messages=SEE, max_tokens=4).choices[0].finish_reason

    def text() -> None:
        assert client.completions.create(model="small", prompt="The sky is", max_tokens=4).choices[0].text

    def responses() -> None:
        answer = client.responses.create(model="small", input="Name a colour.", max_output_tokens=16)
        assert answer.output_text
        assert answer.usage.output_tokens > 0

    def responses_stream() -> None:
        events = list(client.responses.create(model="small", input="Name a colour.", max_output_tokens=16, stream=True))
        assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]

    def cancel() -> None:
        with chat(model="small", messages=HI, max_tokens=400, stream=True) as answer:
            next(iter(answer))
        assert chat(model="small", messages=HI, max_tokens=2).choices  # the one place of the model is free again

    def models() -> None:
        assert {"small", "eyes", "role:chat"} <= {model.id for model in client.models.list().data}

    async def together() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as many:
            create: Any = many.chat.completions.create
            asks = (create(model="role:chat", messages=HI, max_tokens=2) for _ in range(4))
            assert all(answer.choices for answer in await asyncio.gather(*asks))

    return {
        "one answer": short,
        "stream with usage": stream,
        "JSON schema": schema,
        "log probabilities": logprobs,
        "n": several,
        "image": seen,
        "text completion": text,
        "responses": responses,
        "responses, stream": responses_stream,
        "cancelled stream": cancel,
        "list of models": models,
        "four at once": lambda: asyncio.run(together()),
        "unknown model": lambda: raises(
            openai.NotFoundError, lambda: chat(model="none", messages=HI), "No model found"
        ),
        "refused parameter": lambda: raises(
            openai.BadRequestError,
            lambda: chat(model="small", messages=HI, extra_body={"chat_template": "x"}),
            "CVE-2025-61620",
        ),
        "error of the engine": lambda: raises(
            openai.BadRequestError,
            lambda: chat(model="small", messages=[{"role": "user", "content": "hi " * 4000}]),
            "",
        ),
    }


def anthropic_checks(url: str) -> Checks:
    """Anthropic's SDK: its Messages API through the proxy."""
    import anthropic  # noqa: PLC0415 - as above

    client: Any = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)

    def short() -> None:
        answer = client.messages.create(model="small", max_tokens=8, messages=HI, system="Be short.")
        assert answer.content[0].text
        assert answer.usage.output_tokens > 0

    def stream() -> None:
        with client.messages.stream(model="small", max_tokens=8, messages=HI) as answer:
            assert "".join(answer.text_stream)
            assert answer.get_final_message().stop_reason in ("end_turn", "max_tokens")

    def image() -> None:
        source = {"type": "base64", "media_type": "image/png", "data": picture()}
        parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
        assert client.messages.create(
            model="eyes", max_tokens=4, messages=[{"role": "user", "content": parts}]
        ).stop_reason

    return {
        "one answer": short,
        "stream": stream,
        "image": image,
        "count of tokens": lambda: client.messages.count_tokens(model="small", messages=HI).input_tokens or _nothing(),
        "unknown model": lambda: raises(
            anthropic.NotFoundError, lambda: client.messages.create(model="none", max_tokens=1, messages=HI), "No model"
        ),
    }


def langchain_checks(url: str) -> Checks:
    """LangChain's client for OpenAI's API."""
    import openai  # noqa: PLC0415 - as above
    from langchain_core.messages import HumanMessage  # noqa: PLC0415
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    def made(model: str = "small", **more: Any) -> Any:
        return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key="none", max_retries=0, max_tokens=16, **more)

    def schema() -> None:
        answer = made(max_completion_tokens=64).with_structured_output(
            {**SCHEMA, "title": "colour"}, method="json_schema"
        )
        assert answer.invoke("Name a colour.")["colour"] in ("red", "green")

    def stream() -> None:
        found = list(made(stream_usage=True).stream("Name a colour."))
        assert "".join(str(chunk.content) for chunk in found)
        assert any(chunk.usage_metadata for chunk in found)

    async def astream() -> None:
        assert [chunk async for chunk in made().astream("Name a colour.")]

    def logprobs() -> None:
        found = made().bind(logprobs=True, top_logprobs=2).invoke("Name a colour.")
        assert found.response_metadata["logprobs"]["content"]

    return {
        "one answer": lambda: made().invoke("Name a colour.").content or _nothing(),
        "stream with usage": stream,
        "asynchronous stream": lambda: asyncio.run(astream()),
        "batch": lambda: made().batch(["Name a colour.", "Name a fruit."]),
        "JSON schema": schema,
        "log probabilities": logprobs,
        "n": lambda: made(n=2).generate([[HumanMessage("Name a colour.")]]).generations[0][1],
        "image": lambda: made("eyes").invoke([HumanMessage(SEE[0]["content"])]),
        "unknown model": lambda: raises(openai.NotFoundError, lambda: made("none").invoke("hi"), "No model found"),
    }


def llamaindex_checks(url: str) -> Checks:
    """LlamaIndex's client for OpenAI-like servers."""
    import openai  # noqa: PLC0415 - as above
    from llama_index.core.llms import ChatMessage  # noqa: PLC0415
    from llama_index.llms.openai_like import OpenAILike  # noqa: PLC0415

    def made(model: str = "small", **more: Any) -> Any:
        base = f"{url}/v1"
        return OpenAILike(
            model=model, api_base=base, api_key="none", is_chat_model=True, max_retries=0, max_tokens=64, **more
        )

    def schema() -> None:
        form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA}}
        colour(made(additional_kwargs={"response_format": form}).complete("Name a colour."))

    async def achat() -> None:
        assert str(await made().achat([ChatMessage("Name a colour.")]))

    return {
        "one answer": lambda: str(made().chat([ChatMessage("Name a colour.")])) or _nothing(),
        "stream": lambda: (
            "".join(str(c.delta) for c in made().stream_chat([ChatMessage("Name a colour.")])) or _nothing()
        ),
        "asynchronous": lambda: asyncio.run(achat()),
        "text completion": lambda: str(made(is_function_calling_model=False).complete("The sky is")) or _nothing(),
        "JSON schema": schema,
        "unknown model": lambda: raises(
            openai.NotFoundError, lambda: made("none").chat([ChatMessage("hi")]), "No model found"
        ),
    }


def _nothing() -> object:
    raise AssertionError("nothing was answered")


CLIENTS: dict[str, tuple[str, Callable[[str], Checks]]] = {
    "openai": ("openai", openai_checks),
    "anthropic": ("anthropic", anthropic_checks),
    "langchain": ("langchain-openai", langchain_checks),
    "llamaindex": ("llama-index-llms-openai-like", llamaindex_checks),
}


def run(checks: Checks) -> Iterator[tuple[str, str | None]]:
    """Each check, and what went wrong."""
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the check's result
            yield name, f"{type(error).__name__}: {error}"
        else:
            yield name, None


def main(name: str, url: str) -> int:
    """Run one client's checks; 1 where one failed."""
    package, checks = CLIENTS[name]
    failed = 0
    for check, problem in run(checks(url)):
        failed += problem is not None
        row = {"client": f"{package} {importlib.metadata.version(package)}", "check": check, "problem": problem}
        sys.stdout.write(json.dumps(row) + "\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
