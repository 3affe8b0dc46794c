"""`imageworks explain IW410`: the meaning of a diagnostic code, offline."""

from __future__ import annotations

import click

from imageworks.commands.console import fail, result


@click.command("explain", help="What a diagnostic code means and how to fix it. Without CODE: all codes, a line each.")
@click.argument("code", required=False)
def command(code: str | None) -> int:
    """Print the explanation of `code`, or the list of all codes."""
    from imageworks.diagnostics.codes import CODES, explain

    if code is None:
        for name, entry in sorted(CODES.items()):
            result(f"{name}  {entry.title}")
        return 0
    name = code.strip().upper()
    if name not in CODES:
        import difflib

        close = difflib.get_close_matches(name, CODES, n=3, cutoff=0.5)
        return fail(
            f"no diagnostic has the code `{code}`",
            f"close: {', '.join(close)}" if close else "imageworks explain lists all",
        )
    result(explain(name))
    return 0
