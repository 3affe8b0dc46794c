"""The command line: which verbs there are, and the only place that exits.

Each verb lives in `imageworks.commands.<verb>` and is imported when it is called, so that `--help` and
`--version` cost no more than click itself. A verb returns an exit code (design: 0 ok, 1 findings that are
errors, 2 differences, 3 a bug of ours, 130 interrupted) and never calls `sys.exit`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import NoReturn

import click

from imageworks import __version__

VERBS = {
    "init": "Write a small stack.yaml to start from.",
    "import": "Make a stack.yaml from another system's configuration.",
    "check": "Find every mistake in stack.yaml; write nothing.",
    "compile": "Turn stack.yaml into the files under generated/.",
    "plan": "What apply would do and why; writes nothing.",
    "apply": "Make what runs be what stack.yaml means; touch only what changed.",
    "diff": "How two stacks, or two revisions of one, differ.",
    "up": "Start everything on this machine and wait until it answers.",
    "down": "Stop everything.",
    "status": "What runs, and which models are loaded.",
    "logs": "Show what a program printed.",
    "ask": "Send one request and stream the answer.",
    "lease": "Hold GPU memory around a command, or see who holds it.",
    "roles": "Which model answers which role, and why.",
    "show": "The resolved plan of a model: every number with its reason.",
    "fmt": "Lay stack.yaml out evenly; comments stay.",
    "migrate": "Bring stack.yaml to the current version of the language; comments stay.",
    "schema": "The JSON Schema of stack.yaml, for editors.",
    "why": "Where a value comes from, what it stands over, and what follows from it.",
    "profile": "The hardware profiles, and which one this machine gets and why; `add` writes one for exactly it.",
    "doctor": "Check this machine: driver, ports, supervisor, leftovers, disk, limits, versions.",
    "simulate": "Try the scheduler out: random faults, every order of events, or a recorded trace.",
    "explain": "What a diagnostic code means and how to fix it.",
    "serve": "Run the proxy itself (what supervisord and systemd start).",
}

EXIT_FINDINGS = 1
EXIT_BUG = 3
EXIT_INTERRUPTED = 130


class Verbs(click.Group):
    """A group that knows its verbs by name and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs in the order of a working day."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `imageworks.commands.<verb>` and return its click command."""
        if cmd_name not in VERBS:
            ctx.fail(self._unknown(cmd_name))
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command = import_module(f"imageworks.commands.{module}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a verb's module without one is our bug
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    @staticmethod
    def _unknown(name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, VERBS, n=1)
        return f"no verb `{name}`" + (f"; did you mean `{close[0]}`?" if close else "")


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imageworks", message="%(prog)s %(version)s")
def cli() -> None:
    """Run your own AI models on your own GPUs by editing one file: stack.yaml."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    A verb is done when it returns. What it leaves in memory goes back to the system as a whole: taking it apart object
    by object would be a tenth of the time of a short verb.
    """
    _open_closed_streams()
    code = run(argv)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)  # the interpreter says what it could not write
    os._exit(code)


def _open_closed_streams() -> None:
    """Give a standard stream that we were started without (`>&-`) to /dev/null: the next file we open would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing but the code leaves this function."""
    try:
        code = cli.main(args=argv, prog_name="imageworks", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return EXIT_FINDINGS
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: nothing more to say
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where a bug of ours becomes a report
        return _failed(error, sys.argv[1:] if argv is None else argv)


def _failed(error: Exception, argv: list[str]) -> int:
    """Tell what this machine refused us (exit 1), or report a bug of ours (exit 3)."""
    from imageworks.commands.bugreport import write_report
    from imageworks.commands.console import fail
    from imageworks.commands.refusal import told

    refused = told(error) if isinstance(error, OSError) else None
    if refused is not None:
        return fail(*refused)
    click.echo(write_report(error, argv), err=True)
    return EXIT_BUG
