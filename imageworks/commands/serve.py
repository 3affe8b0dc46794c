"""`imageworks serve`: the proxy in the foreground, as supervisord and systemd start it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("serve", help="Run the proxy from a compiled routing table, in the foreground.")
@click.option("--routes", type=click.Path(path_type=Path), required=True, help="generated/<profile>/routes.json")
@click.option("--stack", type=click.Path(path_type=Path), default=Path(), help="The stack's folder.")
@click.option(
    "--init",
    type=click.Choice(["supervisord", "systemd-user", "systemd-system"]),
    default="supervisord",
    show_default=True,
    envvar="IMAGEWORKS_INIT",
    help="Who starts and stops the model programs.",
)
def command(routes: Path, stack: Path, init: str) -> int:
    """Serve until SIGTERM; exit 0 after draining, 1 when the proxy cannot start."""
    from imageworks.runtime.start import serve

    return serve(routes.absolute(), stack.absolute(), init)
