"""HTTP as clients, fools and attackers send it, and what a front of a backend has to do with it. Data only.

`status` lists the statuses of the responses in order, an inner tuple where more than one is right; `open` says whether
the connection serves on after them; `upstream` is the number of requests that may reach an engine, and `sees` is in the
last one. Sources: RFC 9110 and 9112, and the request smuggling literature; every case runs on both speeds.
"""

from __future__ import annotations

from dataclasses import dataclass

ASK = b'{"model":"small","messages":[{"role":"user","content":"hi"}]}'
CHAT = b"/v1/chat/completions"
CLOSED, OPEN = False, True


@dataclass(frozen=True)
class Case:
    name: str
    send: bytes
    status: tuple[int | tuple[int, ...], ...] = (400,)
    open: bool = CLOSED
    upstream: int = 0
    sees: bytes = b""
    method: str = "POST"


def post(*fields: bytes, body: bytes = ASK, path: bytes = CHAT, version: bytes = b"HTTP/1.1", host: bytes = b"Host: localhost", length: bool = True) -> bytes:  # fmt: skip
    lines = [b"POST %b %b" % (path, version), *([host] if host else []), b"Content-Type: application/json", *fields]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def get(path: bytes = b"/healthz", *fields: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"%b %b %b" % (method, path, version), b"Host: localhost", *fields, b"", b""])


def line(text: bytes) -> bytes:
    return text + b"\r\nHost: localhost\r\n\r\n"


def chunked(body: bytes, *fields: bytes, path: bytes = CHAT) -> bytes:
    return post(b"Transfer-Encoding: chunked", *fields, body=body, path=path, length=False)


def chunks(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


SIZE = b"%x" % len(ASK)

PLAIN = (
    Case("post", post(), (200,), OPEN, 1),
    Case("get", get(), (200,), OPEN),
    Case("get models", get(b"/v1/models"), (200,), OPEN),
    Case("post completions", post(path=b"/v1/completions", body=b'{"model":"small","prompt":"x"}'), (200,), OPEN, 1),
    Case("post embeddings", post(path=b"/v1/embeddings", body=b'{"model":"small","input":"x"}'), (200,), OPEN, 1),
    Case("an empty line before", b"\r\n" + post(), (200,), OPEN, 1),
    Case("two empty lines before", b"\r\n\r\n" + post()),
    Case("a query", post(path=CHAT + b"?a=1"), (200,), OPEN, 1),
    Case(
        "field names in capitals",
        post().upper().split(b"\r\n\r\n")[0].replace(CHAT.upper(), CHAT) + b"\r\n\r\n" + ASK,
        (200,),
        OPEN,
        1,
    ),
    Case("no space after the colon", post(b"X-A:b"), (200,), OPEN, 1),
    Case("spaces around a value", post(b"X-A: \t b \t "), (200,), OPEN, 1),
    Case("an empty value", post(b"X-A:"), (200,), OPEN, 1),
    Case("obsolete text in a value", post(b"X-A: \xe9\xff"), (200,), OPEN, 1),
    Case("a hundred fields", post(*(b"X-%d: y" % number for number in range(97))), (200,), OPEN, 1),
)
REQUEST_LINES = (
    Case("bare line feeds", post().replace(b"\r\n", b"\n")),
    Case("a bare line feed after the line", b"GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n"),
    Case("a bare carriage return", b"GET /healthz HTTP/1.1\rHost: localhost\r\n\r\n"),
    Case("HTTP/0.9", b"GET /healthz\r\n\r\n"),
    Case("no version", line(b"GET /healthz ")),
    Case("lower-case protocol", line(b"GET /healthz http/1.1")),
    Case("HTTP/1.2", line(b"GET /healthz HTTP/1.2"), (505,)),
    Case("HTTP/2.0", line(b"GET /healthz HTTP/2.0"), (505,)),
    Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
    Case("HTTP/11.1", line(b"GET /healthz HTTP/11.1")),
    Case("HTTP/1.1 with a tail", line(b"GET /healthz HTTP/1.1x")),
    Case("two spaces", line(b"GET  /healthz HTTP/1.1")),
    Case("a tab", line(b"GET\t/healthz HTTP/1.1")),
    Case("a leading space", line(b" GET /healthz HTTP/1.1")),
    Case("a trailing space", line(b"GET /healthz HTTP/1.1 ")),
    Case("three words too many", line(b"GET /healthz x HTTP/1.1")),
    Case("no path", line(b"GET HTTP/1.1")),
    Case("a path without slash", line(b"GET healthz HTTP/1.1")),
    Case("a NUL in the path", line(b"GET /health\0z HTTP/1.1")),
    Case("a letter beyond ASCII in the path", line(b"GET /\xc3\xa9 HTTP/1.1")),
    Case("a fragment", line(b"GET /healthz#x HTTP/1.1")),
    Case("a method in brackets", line(b"G(T /healthz HTTP/1.1")),
    Case("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 64),
    Case("SSH", b"SSH-2.0-x\r\nHost: localhost\r\n\r\n"),
    Case("a long target", line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"), (414,)),
    Case("a long method", line(b"A" * 9000 + b" / HTTP/1.1"), (414,)),
    Case("an unknown method", line(b"BREW /healthz HTTP/1.1"), (405,)),
    Case("a lower-case method", line(b"get /healthz HTTP/1.1"), (405,)),
    Case("TRACE", line(b"TRACE /healthz HTTP/1.1"), (405,)),
    Case("CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
    Case("OPTIONS *", line(b"OPTIONS * HTTP/1.1"), ((404, 405),), OPEN),
    Case("GET *", line(b"GET * HTTP/1.1")),
    Case("an address of this host", b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", (200,), OPEN),
    Case("an address of another host", b"GET http://example.org/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Case("an address of another scheme", b"GET ftp://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
)
FIELDS = (
    Case("a space before the colon", post(b"X-A : b")),
    Case("a tab before the colon", post(b"X-A\t: b")),
    Case(
        "a space before the colon of Content-Length",
        post(length=False).replace(b"\r\n\r\n", b"\r\nContent-Length : 5\r\n\r\n"),
    ),
    Case("a folded line", post(b"X-A: b\r\n c")),
    Case("a line folded by a tab", post(b"X-A: b\r\n\tc")),
    Case("a first line that is folded", b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    Case("no name", post(b": b")),
    Case("no colon", post(b"X-A b")),
    Case("a NUL in a value", post(b"X-A: b\0c")),
    Case("a NUL in a name", post(b"X\0A: b")),
    Case("a carriage return in a value", post(b"X-A: b\rc")),
    Case("a line feed in a value", post(b"X-A: b\nc: d")),
    Case("a field that ends in a bare line feed", post().replace(b"application/json\r\n", b"application/json\n")),
    Case("two carriage returns", post().replace(b"application/json\r\n", b"application/json\r\r\n")),
    Case("a control character", post(b"X-A: \x01")),
    Case("DEL", post(b"X-A: \x7f")),
    Case("a vertical tab before a value", post(b"Transfer-Encoding:\x0bchunked")),
    Case("brackets in a name", post(b"X(A): b")),
    Case("a quote in a name", post(b'X"A: b')),
    Case("a letter beyond ASCII in a name", post(b"X\xe9: b")),
    Case("101 fields", post(*(b"X-%d: y" % number for number in range(99))), (431,)),
    Case("a thousand fields", post(*(b"X-%d: y" % number for number in range(1000))), (431,)),
    Case("a field of 9 KiB", post(b"X-A: " + b"b" * 9000), (431,)),
    Case("a head of 40 KiB", post(*(b"X-%d: " % number + b"y" * 4000 for number in range(10))), (431,)),
    Case("an endless head", b"GET /healthz HTTP/1.1\r\n" + b"X-A: b\r\n" * 5000, (431,)),
    Case("no Host", post(host=b"")),
    Case("no Host in HTTP/1.0", post(host=b"", version=b"HTTP/1.0"), (403,)),
    Case("two Hosts", post(b"Host: localhost")),
    Case("two different Hosts", post(b"host: example.org")),
    Case("an empty Host", post(host=b"Host:"), (403,), OPEN),
    Case("another Host", post(host=b"Host: example.org"), (403,), OPEN),
    Case("a rebound Host", post(host=b"Host: 127.0.0.1.example.org:8100"), (403,), OPEN),
    Case("a Host with a user", post(host=b"Host: localhost@example.org")),
    Case("a Host with a path", post(host=b"Host: localhost/x")),
    Case("a Host with a comma", post(host=b"Host: localhost, example.org")),
    Case("a Host with a space", post(host=b"Host: local host")),
    Case("a Host with a port that is none", post(host=b"Host: localhost:http")),
    Case("a Host with a final dot", post(host=b"Host: localhost."), (403,), OPEN),
    Case("a Host in capitals with port", post(host=b"Host: LOCALHOST:8100"), (200,), OPEN, 1),
    Case("an IPv4 Host", post(host=b"Host: 127.0.0.1:8100"), (200,), OPEN, 1),
    Case("an IPv6 Host", post(host=b"Host: [::1]:8100"), (200,), OPEN, 1),
    Case("another IPv6 Host", post(host=b"Host: [fe80::1]"), (403,), OPEN),
    Case("an Origin of this machine", post(b"Origin: http://localhost:3000"), (200,), OPEN, 1),
    Case("a foreign Origin", post(b"Origin: https://example.org"), (403,), OPEN),
    Case("the Origin null", post(b"Origin: null"), (403,), OPEN),
    Case("two Origins", post(b"Origin: http://localhost", b"Origin: https://example.org")),
    Case("two Content-Types", post(b"Content-Type: text/plain")),
    Case("two Authorizations", post(b"Authorization: Bearer a", b"Authorization: Bearer b")),
)
LENGTHS = (
    Case("length and chunks", chunked(chunks(ASK), b"Content-Length: 5")),
    Case("chunks and length", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", length=False, body=chunks(ASK))),
    Case("two lengths", post(b"Content-Length: 5")),
    Case("the same length twice", post(b"Content-Length: %d" % len(ASK))),
    Case("a list of lengths", post(b"Content-Length: 5, 5", length=False)),
    Case("a length with a sign", post(b"Content-Length: +5", length=False)),
    Case("a negative length", post(b"Content-Length: -5", length=False)),
    Case("a hexadecimal length", post(b"Content-Length: 0x5", length=False)),
    Case("a length with an underscore", post(b"Content-Length: 1_0", length=False)),
    Case("a length with a point", post(b"Content-Length: 5.0", length=False)),
    Case("a length with a space inside", post(b"Content-Length: 5 5", length=False)),
    Case("a length of other digits", post(b"Content-Length: \xd9\xa5", length=False)),
    Case("an empty length", post(b"Content-Length:", length=False)),
    Case("a length beyond all numbers", post(b"Content-Length: " + b"9" * 30, length=False)),
    Case("a length over the limit", post(b"Content-Length: 99999999", length=False), (413,)),
    Case("a length with zeros before", post(b"Content-Length: 000%d" % len(ASK), length=False), (200,), OPEN, 1),
    Case("a body that is longer than its length", post(body=ASK) + b"tail\r\n\r\n", (200, 400), CLOSED, 1),
    Case("no body", post(body=b""), (400,), OPEN),
    Case("no length", post(body=b"", length=False), (400,), OPEN),
    Case("a GET with a body", get(b"/healthz", b"Content-Length: 5") + b"12345", (200,), OPEN),
    Case("a GET with chunks", get(b"/healthz", b"Transfer-Encoding: chunked") + chunks(b"12345"), (200,), OPEN),
    Case("a GET with both", get(b"/healthz", b"Transfer-Encoding: chunked", b"Content-Length: 5") + chunks(b"12345")),
    Case("two codings", chunked(chunks(ASK), b"Transfer-Encoding: identity")),
    Case("chunked in HTTP/1.0", post(b"Transfer-Encoding: chunked", version=b"HTTP/1.0", length=False, body=chunks(ASK))),
    *(
        Case(f"the coding {coding.decode()!r}", post(b"Transfer-Encoding: " + coding, length=False, body=chunks(ASK)), (501,))
        for coding in (b"identity", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, identity", b"xchunked", b"", b"chunked;q=1", b'"chunked"')
    ),
)  # fmt: skip
CHUNKED = (
    Case("one chunk", chunked(chunks(ASK)), (200,), OPEN, 1, b'"content":"hi"'),
    Case("many chunks", chunked(chunks(*(ASK[at : at + 1] for at in range(len(ASK))))), (200,), OPEN, 1),
    Case("the coding in capitals", post(b"Transfer-Encoding: Chunked", length=False, body=chunks(ASK)), (200,), OPEN, 1),
    Case("a size in capitals with zeros", chunked(b"000" + SIZE.upper() + b"\r\n" + ASK + b"\r\n0\r\n\r\n"), (200,), OPEN, 1),
    Case("an extension", chunked(SIZE + b";a=b\r\n" + ASK + b"\r\n0;c\r\n\r\n"), (200,), OPEN, 1),
    Case("a space and an extension", chunked(SIZE + b" ;a\r\n" + ASK + b"\r\n0\r\n\r\n"), (200,), OPEN, 1),
    Case("trailers", chunked(chunks(ASK, end=b"0\r\nX-A: b\r\nX-C: d\r\n\r\n")), (200,), OPEN, 1),
    Case("a trailer that would be a header", chunked(chunks(ASK, end=b"0\r\nHost: example.org\r\nContent-Length: 9\r\n\r\n")), (200,), OPEN, 1),
    Case("a request behind it", chunked(chunks(ASK)) + get(), (200, 200), OPEN, 1),
    Case("a bare line feed after a size", chunked(SIZE + b"\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a bare line feed after the data", chunked(SIZE + b"\r\n" + ASK + b"\n0\r\n\r\n")),
    Case("a bare line feed after the end", chunked(chunks(ASK, end=b"0\n\n"))),
    Case("no line end after the data", chunked(SIZE + b"\r\n" + ASK + b"0\r\n\r\n")),
    Case("more data than its size", chunked(b"5\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size that is none", chunked(b"xyz\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("an empty size", chunked(b"\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a negative size", chunked(b"-5\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size with a sign", chunked(b"+" + SIZE + b"\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size with a prefix", chunked(b"0x" + SIZE + b"\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size with an underscore", chunked(b"3_d\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size with a space before", chunked(b" " + SIZE + b"\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size with a space behind", chunked(SIZE + b" \r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a size beyond all numbers", chunked(b"f" * 17 + b"\r\n" + ASK)),
    Case("a size over the limit", chunked(b"fffffff\r\n" + ASK), (413,)),
    Case("a long extension", chunked(SIZE + b";" + b"a" * 300 + b"\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("an extension without end", chunked(SIZE + b";" + b"a" * 300)),
    Case("an extension with a line feed", chunked(SIZE + b";a\nb\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("an extension with a NUL", chunked(SIZE + b";\0\r\n" + ASK + b"\r\n0\r\n\r\n")),
    Case("a trailer that is none", chunked(chunks(ASK, end=b"0\r\nno trailer\r\n\r\n"))),
    Case("a folded trailer", chunked(chunks(ASK, end=b"0\r\nX-A: b\r\n c\r\n\r\n"))),
    Case("trailers without end", chunked(chunks(ASK, end=b"0\r\n" + b"X-A: b\r\n" * 1000))),
)  # fmt: skip
CONTINUES = (
    Case("Expect: 100-continue with the body", post(b"Expect: 100-continue"), (200,), OPEN, 1),
    Case("another Expect", post(b"Expect: 200-ok"), (417,)),
    Case("Expect for a body over the limit", post(b"Expect: 100-continue", b"Content-Length: 99999999", length=False, body=b""), (413,)),
    Case("Expect in HTTP/1.0", post(b"Expect: 100-continue", version=b"HTTP/1.0"), (200,), CLOSED, 1),
    Case("two Expects", post(b"Expect: 100-continue", b"Expect: 100-continue")),
)  # fmt: skip
CONNECTIONS = (
    Case("close", post(b"Connection: close"), (200,), CLOSED, 1),
    Case("close among others", post(b"Connection: x, Close"), (200,), CLOSED, 1),
    Case("close in a second field", post(b"Connection: keep-alive", b"Connection: close"), (200,), CLOSED, 1),
    Case("keep-alive", post(b"Connection: keep-alive"), (200,), OPEN, 1),
    Case("HTTP/1.0", post(version=b"HTTP/1.0"), (200,), CLOSED, 1),
    Case("HTTP/1.0 with keep-alive", post(b"Connection: keep-alive", version=b"HTTP/1.0"), (200,), OPEN, 1),
    Case("HTTP/1.0 get", get(version=b"HTTP/1.0"), (200,), CLOSED),
    Case("an upgrade to a websocket", post(b"Connection: upgrade", b"Upgrade: websocket"), (200,), OPEN, 1),
    Case(
        "an upgrade to HTTP/2",
        post(b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),
        (200,),
        OPEN,
        1,
    ),
    Case("Host named in Connection", post(b"Connection: host"), (200,), OPEN, 1),
    Case("Content-Length named in Connection", post(b"Connection: content-length"), (200,), OPEN, 1),
    Case("Content-Type named in Connection", post(b"Connection: content-type"), (200,), OPEN, 1),
    Case("a strange Proxy-Connection", post(b"Proxy-Connection: close"), (200,), OPEN, 1),
    Case("two posts at once", post() + post(), (200, 200), OPEN, 2),
    Case("post, get, post at once", post() + get() + post(), (200, 200, 200), OPEN, 2),
    Case("get, post at once", get() + post(), (200, 200), OPEN, 1),
    Case("twenty gets at once", get() * 20, (200,) * 20, OPEN),
    Case("an unknown path, then a post", get(b"/nope") + post(), (404, 200), OPEN, 1),
    Case("a bad body, then a post", post(body=b"{") + post(), (400, 200), OPEN, 1),
    Case("an unknown model, then a post", post(body=b'{"model":"x"}') + post(), (404, 200), OPEN, 1),
    Case("a bad head, then a post", line(b"GET") + post(), (400,), CLOSED),
    Case("a bad chunk, then a post", chunked(b"xyz\r\n") + post(), (400,), CLOSED),
    Case(
        "a body over the limit, then a post", post(b"Content-Length: 99999999", length=False) + post(), (413,), CLOSED
    ),
    Case("close, then a post that is not to be served", post(b"Connection: close") + post(), (200,), CLOSED, 1),
    Case("a smuggled request in a body", post(body=ASK[:-1] + b',"user":"GET / HTTP/1.1\\r\\n"}'), (200,), OPEN, 1),
    Case("CL.TE", post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + get(b"/running"))),
    Case("TE.CL", chunked(chunks(get(b"/running")), b"Content-Length: 3")),
    Case("TE.TE", chunked(chunks(ASK), b"Transfer-encoding: cow")),
    Case("CL.0", get(b"/healthz", b"Content-Length: 40") + get(b"/running")[:40], (200,), OPEN),
)
PATHS = (
    Case("an unknown path", get(b"/nope"), (404,), OPEN),
    Case("a GET for a POST", get(CHAT), (405,), OPEN),
    Case("a POST for a GET", post(path=b"/v1/models"), (405,), OPEN),
    Case("HEAD", get(b"/healthz", method=b"HEAD"), (200,), OPEN, method="HEAD"),
    Case("a slash at the end", post(path=CHAT + b"/"), (404,), OPEN),
    Case("two slashes", post(path=b"//v1/chat/completions")),
    Case("two slashes inside", post(path=b"/v1//chat/completions")),
    Case("a dot segment", post(path=b"/v1/./chat/completions")),
    Case("two dots", post(path=b"/v1/../v1/chat/completions")),
    Case("two dots at the end", get(b"/v1/..")),
    Case("encoded dots", post(path=b"/v1/%2e%2e/v1/chat/completions")),
    Case("an encoded slash", post(path=b"/v1%2fchat/completions")),
    Case("an encoded backslash", get(b"/v1%5cmodels")),
    Case("an encoded NUL", get(b"/healthz%00")),
    Case("an encoded line feed", get(b"/healthz%0a")),
    Case("an encoded letter", post(path=b"/v1/%63hat/completions")),
    Case("a doubly encoded dot", get(b"/v1/%252e%252e/x")),
    Case("a percent sign alone", get(b"/healthz%")),
    Case("a broken escape", get(b"/healthz%zz")),
    Case("a backslash", get(b"/v1\\models")),
    Case("a semicolon", post(path=CHAT + b";x=1")),
    Case("other letters", post(path=b"/V1/chat/completions"), (404,), OPEN),
    *(
        Case(f"the engine's own {path.decode()}", post(path=path), ((404, 405),), OPEN)
        for path in (b"/invocations", b"/pause", b"/collective_rpc", b"/update_weights", b"/sleep", b"/wake_up", b"/load_lora_adapter",
                     b"/v1/load_lora_adapter", b"/api/pull", b"/api/push", b"/api/create", b"/api/delete", b"/api/copy",
                     b"/slots/0?action=erase", b"/props", b"/lora-adapters", b"/tokenize", b"/reset_prefix_cache")
    ),
)  # fmt: skip
BODIES = (
    Case("no JSON", post(body=b"{"), (400,), OPEN),
    Case("an array", post(body=b"[]"), (400,), OPEN),
    Case("a string", post(body=b'"x"'), (400,), OPEN),
    Case("two objects", post(body=ASK + ASK), (400,), OPEN),
    Case("NaN", post(body=b'{"model":"small","temperature":NaN}'), (400,), OPEN),
    Case("a comment", post(body=b'{"model":"small"/**/}'), (400,), OPEN),
    Case("a comma too many", post(body=b'{"model":"small",}'), (400,), OPEN),
    Case("a byte order mark", post(body=b"\xef\xbb\xbf" + ASK), (400,), OPEN),
    Case("UTF-16", post(body=ASK.decode().encode("utf-16")), (400,), OPEN),
    Case("bytes that are no UTF-8", post(body=ASK.replace(b"hi", b"\xff")), (400,), OPEN),
    Case("an overlong letter", post(body=ASK.replace(b"hi", b"\xc0\xaf")), (400,), OPEN),
    Case("a surrogate in UTF-8", post(body=ASK.replace(b"hi", b"\xed\xa0\x80")), (400,), OPEN),
    Case("a control character in a string", post(body=ASK.replace(b"hi", b"a\nb")), (400,), OPEN),
    Case("a hundred thousand brackets", post(body=b'{"model":"small","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), (400,), OPEN),
    Case("a hundred thousand braces", post(body=b'{"a":' * 100_000), (400,), OPEN),
    Case("a second model", post(body=b'{"model":"gone","messages":[],"model":"small"}'), (200,), OPEN, 1, b'"model":"served-small"'),
    Case("a second model by an escape", post(body=b'{"model":"gone","messages":[],"mod\\u0065l":"small"}'), (200,), OPEN, 1, b'{"model":"served-small"'),
    Case("a number of a megabyte", post(body=b'{"model":"small","messages":[],"seed":' + b"1" * 1_000_000 + b"}"), ((200, 400),), OPEN, 1),
    Case("an unknown model", post(body=b'{"model":"nope"}'), (404,), OPEN),
    Case("no model", post(body=b"{}"), (400,), OPEN),
    Case("a model that is a number", post(body=b'{"model":3}'), (400,), OPEN),
    Case("a compressed body", post(b"Content-Encoding: gzip"), (415,), OPEN),
    Case("a body in an unknown coding", post(b"Content-Encoding: zstd"), (415,), OPEN),
    Case("a remote image", post(body=ASK.replace(b'"hi"', b'[{"type":"image_url","image_url":{"url":"http://h/x"}}]')), (400,), OPEN),
)  # fmt: skip
CASES = (*PLAIN, *REQUEST_LINES, *FIELDS, *LENGTHS, *CHUNKED, *CONTINUES, *CONNECTIONS, *PATHS, *BODIES)
