"""Change one detail of a module at a time and see whether its tests notice: mutation testing of two pure modules.

Owns the kinds of change and the count; docs/quality.md has the results. Every change is made in temporary copies of the
working tree, never in the tree itself. A mutant is killed when its tests fail or take too long; those that survive are
shown. Exit code 1 when a module's share is below LEAST, 2 when the tests do not pass as they are.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEAST = 85.0
"""Per cent of the mutants of each module that must be killed."""
LONGEST_S = 120
"""A change that makes the tests endless is noticed too: by whoever waits."""
TESTS: Mapping[str, str] = {
    "imageworks/plan/vram.py": "tests/plan/test_vram.py",
    "imageworks/targets/quoting.py": "tests/targets/test_quoting.py",
}
SWAPS: Mapping[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.FloorDiv,), ast.FloorDiv: (ast.Mult,), ast.Div: (ast.Mult,),
}  # fmt: skip
"""An operator and what takes its place."""
NOT_RUN = {"annotation", "returns", "decorator_list"}
"""Fields of the tree that say something to type checkers or are the frame of a class."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed module: its whole text, and what was changed in which line."""

    line: int
    what: str
    source: str


def mutants(source: str) -> tuple[Mutant, ...]:
    """Every mutant of a module's text, in order of its lines."""
    tree = ast.parse(source)
    whole = ast.unparse(tree).splitlines()
    found = []
    for line, parent, field, holder, key in tuple(_places(tree, 0)):
        old = holder[key]
        for kind, new in _changes(old, parent, field):
            holder[key] = new
            text = ast.unparse(tree)
            holder[key] = old
            before, after = next(pair for pair in zip(whole, text.splitlines(), strict=False) if pair[0] != pair[1])
            found.append(Mutant(line, f"{kind}: {before.strip()}\n      ->  {after.strip()}", text))
    return tuple(sorted(found, key=lambda item: item.line))


def _places(node: ast.AST, line: int) -> Iterator[tuple[int, ast.AST, str, Any, Any]]:
    """(line, parent, field, what holds it and its key there) of every node that does something when the module runs."""
    for field, value in ast.iter_fields(node):
        holder: Any = value if isinstance(value, list) else vars(node)
        for key in range(len(value)) if isinstance(value, list) else (field,):
            child = holder[key]
            if field not in NOT_RUN and isinstance(child, ast.AST) and not _is_said(child):
                here = getattr(child, "lineno", line)
                yield here, node, field, holder, key
                yield from _places(child, here)


def _is_said(node: ast.AST) -> bool:
    """An import, a docstring, or a type with its own name: words for people and type checkers."""
    value = getattr(node, "value", None)
    is_docstring = isinstance(node, ast.Expr) and isinstance(value, ast.Constant)
    is_type = isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("NewType(", "Literal["))
    return isinstance(node, ast.Import | ast.ImportFrom) or is_docstring or is_type


def _changes(node: ast.AST, parent: ast.AST, field: str) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.operator() | ast.cmpop() | ast.boolop():
            yield from (("operator", new()) for new in SWAPS.get(type(node), ()))
        case ast.Constant(value=value):
            yield from (("constant", ast.Constant(new)) for new in _constants(value, parent))
        case ast.UnaryOp(operand=operand):
            yield "sign", operand
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr() | ast.Raise():
            yield "dropped", ast.Pass()
    if field in {"test", "ifs"} and isinstance(node, ast.expr):
        yield "condition", ast.UnaryOp(ast.Not(), node)


def _constants(value: object, parent: ast.AST) -> Iterator[Any]:
    """Other values of its type: the numbers beside it; a text emptied, and without the character in its middle."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (value + 1, value - 1)
        case str() if value:
            yield from dict.fromkeys(("", value[: len(value) // 2] + value[len(value) // 2 + 1 :]))
        case str() if not isinstance(parent, ast.JoinedStr):
            yield "x"


def copied(folder: Path) -> Path:
    """A copy of the working tree in `folder`, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def survives(folder: Path, module: str, source: str) -> bool:
    """Whether the module's tests pass with `source` in its place."""
    path = folder / module
    path.write_text(source, "utf-8")
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*"):
        stale.unlink()  # a change within one second and of equal length would not be seen
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "--hypothesis-seed=0", TESTS[module]]
    environment = os.environ | {"PYTHONPATH": str(folder), "IMAGEWORKS_HOSTILE": "1000"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def judge(module: str, sample: Sequence[Mutant], folders: Sequence[Path]) -> tuple[Mutant, ...]:
    """The mutants of `sample` that survive; each copy of the tree tries its part of them, all at once."""

    def part(index: int) -> list[Mutant]:
        return [item for item in sample[index :: len(folders)] if survives(folders[index], module, item.source)]

    with ThreadPoolExecutor(len(folders)) as pool:
        alive = [item for found in pool.map(part, range(len(folders))) for item in found]
    return tuple(sorted(alive, key=lambda item: item.line))


def report(module: str, sample: Sequence[Mutant], folders: Sequence[Path]) -> bool:
    """Try and print the mutants of one module; whether enough of them were killed."""
    alive = judge(module, sample, folders)
    for mutant in alive:
        print(f"  {module}:{mutant.line}  {mutant.what}")
    percent = 100 * (1 - len(alive) / len(sample))
    print(f"{module}: {len(sample) - len(alive)} of {len(sample)} mutants killed, {percent:.1f} %", flush=True)
    return percent >= LEAST


def chosen(source: str, size: int | None, seed: int) -> tuple[Mutant, ...]:
    """All mutants of a module, or `size` of them, the same ones for the same seed."""
    found = mutants(source)
    if size is None or size >= len(found):
        return found
    return tuple(random.Random(seed).sample(found, size))  # noqa: S311 - a sample that can be repeated


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and try the mutants of each module named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], default=[])
    parser.add_argument("--sample", type=int, help="only so many mutants of each module, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    enough = True
    with ExitStack() as held:
        places = (held.enter_context(tempfile.TemporaryDirectory(prefix="mutate-")) for _ in range(options.jobs))
        folders = [copied(Path(place)) for place in places]
        for module in options.modules or TESTS:
            source = (ROOT / module).read_text("utf-8")
            if not survives(folders[0], module, ast.unparse(ast.parse(source))):
                print(f"{TESTS[module]} does not pass as it is", file=sys.stderr)
                return 2
            enough &= report(module, chosen(source, options.sample, options.seed), folders)
            for folder in folders:
                (folder / module).write_text(source, "utf-8")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
