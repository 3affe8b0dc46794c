"""`imageworks lease`: hold GPU memory outside the models.

Owns the verbs and what they print. `run` is the one to use; `acquire`, `renew` and `release` are for programs that
hold a lease themselves. `list` shows who holds what.
"""

from __future__ import annotations

import http
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from imageworks.commands.console import fail, result
from imageworks.commands.duration import seconds
from imageworks.commands.lease_client import Answer, Proxy, UnreachableError
from imageworks.commands.proxy_url import url_option

DEFAULT_WAIT = "10m"


@click.group("lease", help="Hold GPU memory around a command, or see who holds it.")
def command() -> None:
    """Each verb says what it answers."""


def _owner() -> str:
    return f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()}"


def _what(function: Any) -> Any:
    """The options that say what is wanted."""
    for option in reversed(
        (
            click.option("--vram", required=True, metavar="SIZE", help="GPU memory on each GPU, like 6GiB."),
            click.option("--exclusive", is_flag=True, help="Nothing else may hold memory on these GPUs."),
            click.option("--gpu", "gpus", multiple=True, metavar="N|UUID", help="This GPU (repeatable)."),
            click.option("--count", type=click.IntRange(1, 64), help="That many GPUs, the best ones."),
            click.option("--owner", default=_owner, help="Who holds it. [default: user@host]"),
            click.option("--reason", default="", help="What for; others read it when they have to wait."),
            click.option("--priority", type=click.IntRange(-100, 100), default=0, show_default=True),
            click.option("--ttl", callback=seconds, metavar="TIME", help="Longest silence. [default: the stack's]"),
            click.option("--wait", callback=seconds, default=DEFAULT_WAIT, show_default=True, metavar="TIME"),
            url_option,
        )
    ):
        function = option(function)
    return function


def _ask(words: Mapping[str, Any]) -> dict[str, object]:
    gpus = [int(gpu) if gpu.isdecimal() else gpu for gpu in words["gpus"]]
    given = {"count": words["count"], "ttl_s": words["ttl"], "reason": words["reason"], "gpus": gpus}
    return {
        "request_id": uuid.uuid4().hex,
        "vram": words["vram"],
        "exclusive": words["exclusive"],
        "owner": words["owner"],
        "priority": words["priority"],
        **{name: value for name, value in given.items() if value},
    }


@command.command("run", context_settings={"allow_interspersed_args": False})
@_what
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND…", type=click.UNPROCESSED)
def run_(words: tuple[str, ...], url: str, wait: float, **what: Any) -> int:
    """Run COMMAND with a lease around it; its exit code, or 75 when the wait ran out."""
    from imageworks.commands.lease_run import run

    # the pid lets the proxy end what outlives us
    return run(Proxy(url), {**_ask(what), "pid": os.getpid()}, wait, words)


@command.command("acquire")
@_what
@click.option("--pid", type=int, help="The process that holds it: its end ends the lease.")
def acquire_(url: str, wait: float, pid: int | None, **what: Any) -> int:
    """Print a lease as JSON; whoever takes it must renew it. 75 when the wait ran out."""
    from imageworks.commands.lease_run import EXIT_WAITED, acquire

    answer = acquire(Proxy(url), _ask(what) | ({"pid": pid} if pid else {}), wait)
    if answer is None:
        return 1
    if not answer.good:
        fail(answer.text)
        return EXIT_WAITED if answer.status in {409, 503} else 1
    result(json.dumps(answer.data, indent=2, sort_keys=True))
    return 0


def _token(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, int]:
    lease, _, token = text.rpartition(":")
    if not lease or not token.isdecimal():
        raise click.BadParameter(f"`{text}` is not LEASE:TOKEN, as $IMAGEWORKS_LEASE_TOKEN has it")
    return lease, int(token)


token_argument = click.argument("lease", metavar="LEASE:TOKEN", callback=_token, envvar="IMAGEWORKS_LEASE_TOKEN")


@command.command("renew")
@token_argument
@url_option
def renew_(lease: tuple[str, int], url: str) -> int:
    """Say that the holder lives; exit 1 when the lease is lost."""
    return _said(url, f"/v1/gpu/lease/{lease[0]}/renew", {"token": lease[1]})


@command.command("release")
@token_argument
@url_option
def release_(lease: tuple[str, int], url: str) -> int:
    """Give a lease back; again is no error."""
    return _said(url, "/v1/gpu/release", {"lease_id": lease[0], "token": lease[1]})


@command.command("force")
@click.argument("lease")
@url_option
def force_(lease: str, url: str) -> int:
    """End somebody's LEASE: its processes are ended, its memory is free once that is seen."""
    return _said(url, "/v1/gpu/force_release", {"lease_id": lease, "actor": _owner()})


@command.command("pardon")
@click.argument("holder")
@url_option
def pardon_(holder: str, url: str) -> int:
    """Count what HOLDER (a model or a lease) has in quarantine as free, whatever is measured."""
    return _said(url, "/v1/gpu/pardon", {"holder": holder, "actor": _owner()})


def _said(url: str, path: str, body: Mapping[str, object]) -> int:
    answer = _asked(url, "POST", path, body)
    if answer is None:
        return 1
    if not answer.good:
        hints = ("see who holds what: imageworks lease list",) if answer.status == http.HTTPStatus.NOT_FOUND else ()
        return fail(answer.text, *hints)
    result(json.dumps(answer.data, indent=2, sort_keys=True))
    return 0


def _asked(url: str, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer | None:
    try:
        return Proxy(url).call(method, path, body)
    except UnreachableError as error:
        fail(str(error), "start it: imageworks up")
        return None


@command.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@url_option
def list_(form: str, url: str) -> int:
    """Who holds what on which GPU, and who waits."""
    answer = _asked(url, "GET", "/v1/gpu/status")
    if answer is None:
        return 1
    if not answer.good:
        return fail(answer.text)
    result(json.dumps(answer.data, indent=2, sort_keys=True) if form == "json" else gpu_table(answer.data))
    return 0


def gpu_table(status: Mapping[str, Any]) -> str:
    """`/v1/gpu/status` for a person."""
    lines = []
    for gpu in status["gpus"]:
        used = f"{gpu['used_mib']} measured" if gpu["used_mib"] is not None else "not measured"
        lines.append(f"GPU {gpu['slot']} {gpu['uuid']}: {gpu['free_mib']} of {gpu['budget_mib']} MiB free, {used}")
        lines += [f"  {each['mib']:>8} MiB  {each['kind']} {each['id']} ({each['state']})" for each in gpu["holders"]]
    lines += [lease_line(lease) for lease in status["leases"]]
    lines += [f"waiting {each['position']}: {each['owner']}, {each['mib']} MiB" for each in status["waiting"]]
    return "\n".join(lines) if lines else "no GPU in this plan"


def lease_line(lease: Mapping[str, Any]) -> str:
    """One lease for a person."""
    kind = "exclusive" if lease["exclusive"] else "shared"
    why = f" ({lease['reason']})" if lease["reason"] else ""
    where = ", ".join(lease["gpus"])
    return f"lease {lease['lease_id']}: {lease['owner']}{why}, {kind}, {lease['mib']} MiB on {where}, {lease['state']}, {lease['expires_in_s']:.0f} s left"


def leases_of(folder: Path) -> list[dict[str, Any]]:
    """The leases that the proxy of the stack in `folder` holds; none when it does not answer."""
    from imageworks.commands import here

    try:
        answer = Proxy(here.address(folder) or "").call("GET", "/v1/gpu/status")
    except UnreachableError:
        return []
    return list(answer.data.get("leases", ())) if answer.good else []
