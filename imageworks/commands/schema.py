"""`imageworks schema`: the JSON Schema of stack.yaml, for editors; made from the declared keys and kept with them."""

from __future__ import annotations

import click

from imageworks.commands.console import result


@click.command("schema", help="Print the JSON Schema of stack.yaml: imageworks schema > stack.schema.json")
def command() -> int:
    """Print the schema that belongs to this version."""
    from importlib.resources import files

    result(files("imageworks.model").joinpath("stack.schema.json").read_text("utf-8").rstrip("\n"))
    return 0
