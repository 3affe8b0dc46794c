"""Answers as engines send them, in the pieces they come in. Data only.

Written after what the engines put on the wire (vLLM 0.32 through uvicorn, llama.cpp's server, Ollama's OpenAI endpoint):
tool calls in fragments, reasoning, usage, log probabilities, comments, named events, text cut inside a letter.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """`body` in the `pieces` that the engine writes; `framing` is chunked, length or close."""

    name: str
    pieces: tuple[bytes, ...]
    stream: bool = True
    framing: str = "chunked"
    kind: bytes = b"text/event-stream; charset=utf-8"
    status: bytes = b"200 OK"

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def wire(self) -> tuple[bytes, ...]:
        """The response, as pieces of bytes."""
        head = b"HTTP/1.1 %b\r\ndate: Sun, 22 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: %b\r\n" % (
            self.status,
            self.kind,
        )
        if self.framing == "chunked":
            pieces = tuple(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in self.pieces if piece)
            return (head + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n")
        if self.framing == "length":
            return (head + b"content-length: %d\r\n\r\n" % len(self.body), *self.pieces)
        return (head + b"Connection: close\r\n\r\n", *self.pieces, b"")


def delta(text: bytes, more: bytes = b"") -> bytes:
    return (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":null%b}]}\n\n'
        % (text, more)
    )


def split(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


DONE = b"data: [DONE]\n\n"
TEXT = delta(b'"role":"assistant","content":""') + delta(b'"content":"Hello"') + delta(b'"content":" world"')
TOOLS = (
    delta(
        b'"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"caption","arguments":""}}]'
    )
    + b"".join(
        delta(b'"tool_calls":[{"index":0,"function":{"arguments":%b}}]' % part)
        for part in (b'"{\\"te"', b'"xt\\": \\"a c"', b'"at\\"}"')
    )
    + delta(b'"content":""', b',"stop_reason":null').replace(b'"finish_reason":null', b'"finish_reason":"tool_calls"')
)
REASONING = b"".join(
    delta(b'"reasoning_content":%b' % part) for part in (b'"First"', b'", I look"', b'".\\n"')
) + delta(b'"content":"{\\"looks\\": \\"like a tool call\\"}"')
USAGE = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":8}}}\n\n'
UNICODE = "".join(
    f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'
    for text in ("é", "日本語", "😀👩‍👩‍👧", "\u202e", "ﬁ", "a\u0301")
).encode()
LLAMA = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"created":1,"timings":{"prompt_n":12,"cache_n":4,"predicted_n":7,"predicted_ms":3.5}}\n\n'
OLLAMA = b'data: {"id":"chatcmpl-1","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}\n\n'
WHOLE = b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}],"reasoning_content":"h\xc3\xa9"},"logprobs":{"content":[{"token":"a","bytes":[97],"logprob":-0.1,"top_logprobs":[]}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
JSON = b"application/json"
ODD = (
    b": comment\n\n",
    b"event: message\nid: 7\nretry: 10\n",
    b"data: first\ndata: second\n\n",
    b"data:no space\r\n\r\n",
    b"\n\n\n",
    b"data: x\r\rdata: y\n",
)

ANSWERS = (
    Answer("vllm text", (*split(TEXT, 175), DONE)),
    Answer("vllm tools", (TOOLS, DONE)),
    Answer("vllm reasoning", (REASONING, USAGE, DONE)),
    Answer("vllm in single bytes", split(TEXT + DONE, 1)),
    Answer("vllm in one piece", (TEXT + TOOLS + REASONING + USAGE + DONE,)),
    Answer("unicode cut inside letters", (*split(UNICODE, 3), DONE)),
    Answer("unicode cut everywhere", (*split(UNICODE, 7), DONE)),
    Answer("llama.cpp text and timings", (TEXT, LLAMA, DONE)),
    Answer("llama.cpp errors in a stream", (TEXT, b'data: {"error":{"code":500,"message":"context full"}}\n\n', DONE)),
    Answer("ollama", (OLLAMA, USAGE, DONE), kind=b"text/event-stream"),
    Answer("comments, names, several lines, lone carriage returns", (*ODD, DONE)),
    Answer("cut inside line ends", split(b"data: a\r\n\r\ndata: b\r\n\r\n" + DONE, 1)),
    Answer("no line end at the end", (TEXT, b"data: [DONE]")),
    Answer("an event of a megabyte", (delta(b'"content":"%b"' % (b"x" * (1 << 20))), DONE)),
    Answer("an event of a megabyte in pieces", (*split(delta(b'"content":"%b"' % (b"y" * (1 << 20))), 10_000), DONE)),
    Answer("until the connection closes", (TEXT, DONE), framing="close"),
    Answer("of known length", (TEXT, DONE), framing="length"),
    Answer("an error instead of a stream", (b'{"object":"error","message":"too long","code":400}',), kind=JSON, status=b"400 Bad Request"),
    Answer("a whole answer", (WHOLE,), stream=False, framing="length", kind=JSON),
    Answer("a whole answer in chunks", split(WHOLE, 40), stream=False, kind=JSON),
    Answer("a whole answer until close", (WHOLE,), stream=False, framing="close", kind=JSON),
    Answer("an empty answer", (), stream=False, framing="length", kind=JSON),
    Answer("embeddings of a megabyte", split(b'{"data":[{"embedding":[%b0]}]}' % (b"0.123," * 200_000), 1 << 16), stream=False, kind=JSON),
    Answer("a server error", (b'{"error":{"message":"CUDA"}}',), stream=False, framing="length", kind=JSON, status=b"500 Internal Server Error"),
    Answer("too many requests", (b"slow down",), stream=False, framing="length", kind=b"text/plain\r\nRetry-After: 7", status=b"429 Too Many Requests"),
    Answer("an unknown status", (b"{}",), stream=False, framing="length", kind=JSON, status=b"499 Client Closed"),
)  # fmt: skip
