"""`imageworks ask "…"`: one request through the proxy, the answer streamed to stdout.

Owns a minimal OpenAI client over http.client, so that asking costs no import. Exit 1 on an HTTP error.
"""

from __future__ import annotations

import base64
import http.client
import json
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from imageworks.commands import client_key
from imageworks.commands.console import fail
from imageworks.commands.proxy_url import url_option

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")


@click.command("ask", help="Send TEXT (and images) to a role or a model and stream the answer.")
@click.argument("text")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path), help="An image file (repeatable).")
@click.option("--role", metavar="NAME", help="The role that answers. [default: chat, with images: caption]")
@click.option("--model", metavar="NAME", help="A model instead of a role.")
@url_option
def command(text: str, images: tuple[Path, ...], role: str | None, model: str | None, url: str) -> int:
    """Exit 0 when an answer came, 1 otherwise."""
    if role and model:
        return fail("--role and --model exclude each other")
    name = model or f"role:{role or ('caption' if images else 'chat')}"
    try:
        parts = [image_part(path) for path in images]
    except OSError as error:
        return fail(f"cannot read {error.filename}: {error.strerror}")
    except ValueError as error:
        return fail(str(error))
    return ask(url, name, text, parts)


def image_part(path: Path) -> dict[str, Any]:
    """The content part of one image file. Raises ValueError for a type that models do not take."""
    kind = mimetypes.guess_type(path.name)[0]
    if kind not in IMAGE_TYPES:
        raise ValueError(f"{path} is no JPEG, PNG or WebP image")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def ask(url: str, model: str, text: str, images: Sequence[dict[str, Any]] = ()) -> int:
    """Send one streaming chat request and print the answer as it comes; returns the exit code."""
    content: object = [*images, {"type": "text", "text": text}] if images else text
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True}
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), client_key.headers())
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            return _refused(response.status, response.read())
        return _print(_events(response))
    except ConnectionRefusedError:
        return fail(f"nothing answers at {url}", "start it: imageworks up")
    except (OSError, http.client.HTTPException) as error:
        return fail(
            f"the connection to {url} broke: {str(error) or type(error).__name__}",
            "imageworks logs shows the proxy's side",
        )
    finally:
        connection.close()


def _print(events: Iterator[dict[str, Any]]) -> int:
    for event in events:
        if "error" in event:
            click.echo()
            return fail(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", ()):
            click.echo(choice.get("delta", {}).get("content") or "", nl=False)
    click.echo()
    return 0


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON documents of a server-sent event stream, until `[DONE]`. Raises OSError when it ends without."""
    for line in response:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
    raise OSError("the answer ended early")


def _refused(status: int, body: bytes) -> int:
    try:
        error = json.loads(body)["error"]
        hint = client_key.HINT if status == http.HTTPStatus.UNAUTHORIZED else error.get("hint")
        return fail(str(error["message"]), *([str(hint)] if hint else []))
    except (ValueError, KeyError, TypeError):
        return fail(f"HTTP {status}: {body[:300].decode(errors='replace')}")
