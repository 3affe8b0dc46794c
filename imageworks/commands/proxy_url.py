"""Which proxy our own clients talk to: the option `--url` and what it is when it is not given."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from imageworks.commands import here

DEFAULT_URL = "http://127.0.0.1:8100"


def _checked(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    """`url` with its scheme. Raises BadParameter where no plain HTTP connection can be made from it."""
    whole = url if "//" in url else f"http://{url}"
    try:
        address = urlsplit(whole)
        good = address.scheme == "http" and address.hostname is not None and address.port != 0
    except ValueError:  # a port above 65535, an IPv6 address that is not closed
        good = False
    if not good:
        raise click.BadParameter(f"{url} is no http address; write it like {DEFAULT_URL}")
    return whole


url_option = click.option(
    "--url",
    callback=_checked,
    default=lambda: os.environ.get("IMAGEWORKS_URL") or here.address(Path.cwd()) or DEFAULT_URL,
    help=f"The proxy. [default: $IMAGEWORKS_URL, the one of the stack in this folder, {DEFAULT_URL}]",
)
