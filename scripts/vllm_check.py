"""Whether vLLM's own argument parser takes every vLLM command under generated/.

    scripts/vllm-check [--check] [--date YYYY-MM-DD]      (finds an environment that has vLLM, runs this file in it)

Owns docs/vllm-check.json, the record of the last such run: a hash for each command, so that a test without vLLM can
tell which commands changed since. The same run tries values on every flag: what our rules take, vLLM must take. No
GPU and no model are used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs/vllm-check.json"
SCHEMA = 1
TOKENS = {"stack": ".", "state": ".imageworks", "store": "store", "python": "python", "models": "models"}
OK, REFUSED, DIFFERENT = 0, 1, 2
VALUES: Sequence[Any] = (
    True, False, 0, 1, 7, 16, -1, 2.5, "8", "+3", "1_000", "4k", "4K", "2.5k", "2.5K", "1e3", ".5", "8.0", " 8 ", "NaN",
    "", "None", "auto", "word", "a b", "-x", "true", "a=b", "{", "{}", "[1]", '{"a": 1}', {}, {"a": 1}, {"mode": 3},
    (), ("a",), ("a", "b"), (1, 2), (1.5,), (True,), ("-b",), ("auto",), ({"name": "x", "path": "y"},),
)  # fmt: skip


def commands(generated: Path) -> Mapping[str, Sequence[str]]:
    """The argument list of every vLLM program, as its exec spec has it, by `<profile>/<program>`, sorted."""
    found = {}
    for plan in sorted(generated.glob("*/plan.json")):
        for model in json.loads(plan.read_text("utf-8"))["models"]:
            if model["backend"] == "vllm" and model["launch"] is not None:
                program = model["launch"]["program"]
                spec = json.loads((plan.parent / "exec" / f"{program}.json").read_text("utf-8"))
                found[f"{plan.parent.name}/{program}"] = spec["argv"]
    return found


def digest(argv: Sequence[str]) -> str:
    """sha256 of an argument list."""
    return hashlib.sha256(json.dumps(argv).encode()).hexdigest()


def changed(record: Mapping[str, Any], current: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the commands that the recorded run did not see as they are now; those that are gone do not matter."""
    return [name for name, argv in current.items() if record["commands"].get(name) != digest(argv)]


def refusals(current: Mapping[str, Sequence[str]], parse: Callable[[Sequence[str]], None]) -> list[str]:
    """A line for each command that `parse` raises on, or that is not `<program> serve …`."""
    found = []
    for name, argv in current.items():
        try:
            if argv[1] != "serve":
                raise ValueError(f"`serve` was expected, not `{argv[1]}`")  # noqa: TRY301 - told like the parser's own
            parse(argv[2:])
        except (ValueError, TypeError, KeyError) as error:
            found.append(f"{name}: {error}")
    return found


def real_parser() -> Callable[[Sequence[str]], None]:
    """The parser of `vllm serve` itself, with the checks that follow it; it raises ValueError or TypeError."""
    arguments = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    contract = _ours("contract")

    def fail(self: object, message: str) -> NoReturn:
        del self
        raise ValueError(message)

    parser = arguments.make_arg_parser(type("Parser", (flexible,), {"error": fail})(prog="vllm serve"))

    def parse(words: Sequence[str]) -> None:
        arguments.validate_parsed_serve_args(parser.parse_args([contract.expand(word, TOKENS) for word in words]))

    return parse


def disagreements(version: str, parse: Callable[[Sequence[str]], None]) -> tuple[int, list[str]]:
    """Every flag with every value of `VALUES`: how many our rules take, and a line for each that vLLM then refuses.

    Left out are flags that may not be typed, or not alone, and chat-template, whose file must exist.
    """
    rules, values = _ours("plan.vllm_rules"), _ours("plan.vllm_values")
    typed, words = _ours("plan.launch_vllm").typed_words, _ours("targets.execspec").words
    table = _ours("model.vllm_table").table(version)
    skipped = {*rules.DERIVED, *rules.REFUSED, *rules.NEEDS, *rules.AT_LEAST, "chat-template"}
    tried, found = 0, []
    for name, flag in table.flags.items():
        for value in (*VALUES, *flag.choices):
            if name in skipped or values.complaint(flag, value) is not None:
                continue
            tried += 1
            argv = [word for item in typed(flag, value, "", None) for word in words(item)]
            found += [f"our rules take {line}" for line in refusals({" ".join(argv): ["", "serve", "m", *argv]}, parse)]
    return tried, found


def _ours(name: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"imageworks.{name}")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def record(version: str, date: str, current: Mapping[str, Sequence[str]], tried: int) -> dict[str, Any]:
    """What the run proved. `commit` is the one that the working tree was based on."""
    hashes = {name: digest(argv) for name, argv in current.items()}
    total = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return {
        "schema": SCHEMA,
        "vllm": version,
        "date": date or _git("log", "-1", "--format=%cs"),
        "commit": _git("rev-parse", "HEAD"),
        "accepted": len(hashes),
        "values": tried,
        "sha256": total,
        "commands": hashes,
    }


def main(arguments: Sequence[str]) -> int:
    """Exit code 0: all taken and recorded; 1: a command was refused; 2: with --check, the record is of other commands."""
    options = argparse.ArgumentParser(prog="scripts/vllm-check", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--check", action="store_true", help="do not write the record; exit 2 when it is not current")
    options.add_argument("--date", default="", help="day of the run; default: that of the last commit")
    chosen = options.parse_args(arguments)
    version = importlib.import_module("vllm").__version__.partition("+")[0]
    current = commands(ROOT / "generated")
    parse = real_parser()
    tried, refused = disagreements(version, parse)
    refused += refusals(current, parse)
    print("\n".join(refused) or f"vLLM {version} takes all {len(current)} commands and {tried} values of flags")
    if refused:
        return REFUSED
    if chosen.check:
        known = json.loads(RECORD.read_text("utf-8"))
        stale = changed(known, current)
        for name in stale:
            print(f"{RECORD.relative_to(ROOT)} is of another {name}; run: scripts/vllm-check", file=sys.stderr)
        return DIFFERENT if stale or known["vllm"] != version else OK
    RECORD.write_text(json.dumps(record(version, chosen.date, current, tried), indent=1) + "\n", "utf-8")
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
