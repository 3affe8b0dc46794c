"""Who may import whom: the boundaries of the design, read from the source text of every module.

An edge counts wherever it stands, also inside a function or under `if TYPE_CHECKING`. A boundary is
changed here and in docs/concepts.md together, or not at all.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "imageworks"


@dataclass(frozen=True)
class Layer:
    """`may` names modules (with everything below them); `never` takes modules of the standard library away."""

    may: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    everything: bool = False


EFFECTS = ("os", "io", "shutil", "tempfile", "subprocess", "socket", "time", "datetime", "random", "secrets", "locale")
# The judging half of the runtime: functions of their arguments, so that every order of events can be tested.
DECIDERS = tuple(
    f"runtime.{name}"
    for name in (
        "admission",
        "answer",
        "conversation",
        "history",
        "parameters",
        "pictures",
        "asking",
        "book",
        "canonical",
        "changes",
        "delta",
        "effects",
        "elide",
        "endpoints",
        "errors",
        "events",
        "eviction",
        "form",
        "health",
        "job",
        "lease_request",
        "leases",
        "leasing",
        "lives",
        "media",
        "memory",
        "ollama",
        "placing",
        "proof",
        "request",
        "queueing",
        "residency",
        "schemas",
        "scheduler",
        "selection",
        "serving",
        "snapshot",
        "state",
        "table",
        "tail",
        "timers",
        "toolcalls",
        "waiting",
        "wire.chunks",
        "wire.head",
        "wire.limits",
        "wire.writer",
    )
)
# The longest matching name decides. A module that none matches is an error: new code takes a place on purpose.
LAYERS: Mapping[str, Layer] = {
    "": Layer(),  # imageworks/__init__.py
    "values": Layer(),
    "diagnostics": Layer(),
    "source": Layer(may=("diagnostics", "ruamel")),
    "model": Layer(may=("source", "diagnostics", "pydantic", "pydantic_core")),
    "importers": Layer(may=("source", "diagnostics", "model"), never=("os", "subprocess")),
    "plan": Layer(may=("model", "diagnostics"), never=("os", "subprocess")),
    "targets": Layer(may=("plan.ir", "diagnostics", "contract", "jinja2"), never=EFFECTS),
    "output": Layer(may=("targets.artifact", "diagnostics", "contract", "supervisor")),
    "contract": Layer(),
    "locations": Layer(may=("contract",)),
    "credentials": Layer(may=("contract", "locations")),
    "launch": Layer(may=("contract", "locations", "credentials")),
    "runtime": Layer(
        may=("contract", "locations", "credentials", "aiohttp", "httptools", "msgspec", "uvloop", "multidict", "yarl")
    ),
    **{
        name: Layer(may=("contract", "msgspec", *DECIDERS), never=(*EFFECTS, "asyncio", "logging")) for name in DECIDERS
    },
    "runtime.sampler": Layer(may=("pynvml",)),
    "runtime.shrink": Layer(may=("PIL", "runtime.errors")),
    "simulation": Layer(
        may=("contract", "msgspec", *DECIDERS), never=tuple({*EFFECTS, "asyncio", "logging"} - {"random", "datetime"})
    ),
    "services": Layer(may=("xllamacpp",)),
    "store": Layer(may=("diagnostics", "model.lock", "contract", "locations")),
    "hardware": Layer(may=("diagnostics", "model.lock", "contract", "pynvml")),
    "commands": Layer(everything=True),
    "cli": Layer(everything=True),
    "__main__": Layer(everything=True),
}
# The form of our value classes; whoever may use the standard library's dataclasses may use it.
EVERYWHERE = ("values",)
# Nobody reaches back into the command line, except its own parts.
COMMAND_LINE = ("cli", "commands", "__main__")


@dataclass(frozen=True)
class Edge:
    """One import: `importer` and `imported` are full module names; `lazy` when it stands inside a function."""

    importer: str
    imported: str
    file: Path
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.importer} imports {self.imported}"


def modules(root: Path) -> Mapping[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for file in sorted((root / PACKAGE).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def edges(root: Path) -> Iterator[Edge]:
    known = modules(root)
    for name, file in known.items():
        tree = ast.parse(file.read_text("utf-8"), str(file))
        lazy = {id(inner) for node in ast.walk(tree) if isinstance(node, FUNCTIONS) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            for target in _targets(node, name, known, is_package=file.name == "__init__.py"):
                yield Edge(name, target, file.relative_to(root), getattr(node, "lineno", 0), id(node) in lazy)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _targets(node: ast.AST, importer: str, known: Mapping[str, Path], *, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = importer.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
        base = ".".join([*(above if node.level else ()), *([node.module] if node.module else ())])
        for alias in node.names:  # `from package import module` is an edge to the module
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
    elif isinstance(node, ast.Call) and _is_dynamic_import(node.func):
        argument = node.args[0] if node.args else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _is_dynamic_import(func: ast.expr) -> bool:
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    return name in {"import_module", "__import__"}


def layer_of(module: str) -> str | None:
    """The layer's name: the longest that is the module or a parent of it, relative to the package."""
    inner = module.removeprefix(PACKAGE).removeprefix(".")
    names = [name for name in LAYERS if _within(inner, name)]
    return max(names, key=len, default=None)


def _within(name: str, parent: str) -> bool:
    return name == parent or (bool(parent) and name.startswith(f"{parent}."))


def objection(edge: Edge) -> str | None:
    """Why `edge` may not be; None when it may."""
    home = layer_of(edge.importer)
    if home is None:
        return f"{edge}: {edge.importer} belongs to no layer; add it to LAYERS"
    layer = LAYERS[home]
    if _within(edge.imported, PACKAGE):
        return _inner_objection(edge, home, layer)
    top = edge.imported.partition(".")[0]
    if layer.everything or any(_within(edge.imported, name) for name in layer.may):
        return None
    if top in sys.stdlib_module_names:
        forbidden = any(_within(edge.imported, name) for name in layer.never)
        return f"{edge}: {home} may not use `{top}`" if forbidden else None
    return f"{edge}: {home} may not use `{top}`"


def _inner_objection(edge: Edge, home: str, layer: Layer) -> str | None:
    inner = edge.imported.removeprefix(PACKAGE).removeprefix(".")
    if any(_within(inner, part) for part in COMMAND_LINE) and home not in COMMAND_LINE:
        return f"{edge}: nobody may import the command line"
    own = _within(inner, home) and (layer_of(edge.imported) == home or "." not in home)
    if not inner or own or layer.everything or any(_within(inner, name) for name in (*EVERYWHERE, *layer.may)):
        return None
    return f"{edge}: {home} may not import {edge.imported}"


def objections(root: Path) -> list[str]:
    """Every stray module and every forbidden edge, once."""
    strays = [f"{name} belongs to no layer; add it to LAYERS" for name in modules(root) if layer_of(name) is None]
    return [*strays, *dict.fromkeys(found for edge in edges(root) if (found := objection(edge)) is not None)]


def test_every_named_module_exists() -> None:
    """A rule for a module that was renamed would guard nothing."""
    there = {name.removeprefix(PACKAGE).removeprefix(".") for name in modules(ROOT)}
    assert set(LAYERS) <= there


def test_every_import_keeps_to_its_layer() -> None:
    found = objections(ROOT)
    assert not found, "\n" + "\n".join(found)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    known = modules(ROOT)
    for edge in edges(ROOT):
        if not edge.lazy and edge.imported in known and edge.imported != edge.importer:
            graph.setdefault(edge.importer, set()).add(edge.imported)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("diagnostics/human.py", "import click", "diagnostics may not use `click`"),
        ("source/parse.py", "from imageworks.model import stack", "source may not import imageworks.model.stack"),
        ("plan/resolve.py", "import subprocess", "plan may not use `subprocess`"),
        ("plan/resolve.py", "from os import path", "plan may not use `os`"),
        ("targets/routes.py", "from imageworks.plan import resolve", "targets may not import imageworks.plan.resolve"),
        ("targets/routes.py", "import os.path", "targets may not use `os`"),
        ("output/write.py", "from ..model.stack import Stack", "output may not import imageworks.model.stack"),
        ("contract.py", "import msgspec", "contract may not use `msgspec`"),
        ("launch.py", "def f():\n    import imageworks.store", "launch may not import imageworks.store"),
        ("runtime/app.py", "import pydantic", "runtime may not use `pydantic`"),
        ("runtime/app.py", "from imageworks import cli", "nobody may import the command line"),
        ("runtime/scheduler.py", "import asyncio", "runtime.scheduler may not use `asyncio`"),
        ("runtime/scheduler.py", "from . import drive", "runtime.scheduler may not import imageworks.runtime.drive"),
        ("runtime/table.py", "from time import monotonic", "runtime.table may not use `time`"),
        (
            "services/llama_server.py",
            "from importlib import import_module\nimport_module('jinja2')",
            "may not use `jinja2`",
        ),
        ("surprise.py", "import json", "imageworks.surprise belongs to no layer"),
    ],
)
def test_a_forbidden_import_is_reported_with_its_place(tmp_path: Path, module: str, text: str, complaint: str) -> None:
    for name in ("model/stack.py", "plan/resolve.py", "runtime/drive.py", "cli.py", module):
        file = tmp_path / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n" if name == module else "", "utf-8")
    found = objections(tmp_path)
    assert any(complaint in line for line in found), found
    line = text.count("\n") + 1
    assert "no layer" in complaint or any(line_.startswith(f"{PACKAGE}/{module}:{line}: ") for line_ in found), found


def test_allowed_imports_are_not_reported(tmp_path: Path) -> None:
    tree = {
        "__init__.py": "",
        "contract.py": "import json",
        "runtime/__init__.py": "",
        "runtime/table.py": "import msgspec\nfrom imageworks import contract",
        "runtime/app.py": "import asyncio\nfrom . import table\nfrom .table import x\nfrom ..contract import y",
        "cli.py": "import click\nimport imageworks.runtime.app",
        "commands/up.py": "from imageworks.cli import main",
        "__main__.py": "from imageworks.cli import main",
    }
    for name, text in tree.items():
        file = tmp_path / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", "utf-8")
    assert objections(tmp_path) == []


@pytest.mark.parametrize("half", ["runtime", "launch"])
def test_the_runtime_loads_no_part_of_the_compiler(half: str) -> None:
    """The text above sees direct imports only; this looks at what is really loaded in the end."""
    names = [name for name in modules(ROOT) if _within(name, f"{PACKAGE}.{half}")]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    loaded = {
        ".".join(name.split(".")[:2]) if _within(name, PACKAGE) else name.partition(".")[0]
        for name in done.stdout.split()
    }
    compiler = {
        "pydantic",
        "ruamel",
        "jinja2",
        "click",
        *(f"{PACKAGE}.{part}" for part in ("source", "model", "plan", "targets", "output")),
    }
    assert not loaded & compiler
