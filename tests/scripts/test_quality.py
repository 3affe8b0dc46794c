"""The two measures of the tests: which changes are made, and how packages are counted."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name: str) -> types.ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


mutate = script("mutate")
coverage_table = script("coverage_table")


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = a < b", {"x = a <= b", "x = a >= b"}),
        ("x = a is None", {"x = a is not None"}),
        ("x = a + b", {"x = a - b"}),
        ("x = a and b", {"x = a or b"}),
        ("x = -a", {"x = a"}),
        ("x = 7", {"x = 8", "x = 6"}),
        ("x = True", {"x = False"}),
        ("x = 'abc'", {"x = ''", "x = 'ac'"}),
        ("x = ''", {"x = 'x'"}),
        ("x = f'ab{c}'", {"x = f'{c}'", "x = f'a{c}'"}),
        ("x = a if b else c", {"x = a if not b else c"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if not a]"}),
        ("f(a)", {"pass"}),
        ("raise a", {"pass"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("def f(a: 'int'=1) -> 'int':\n    'words'", {
            "def f(a: 'int'=2) -> 'int':\n    \"\"\"words\"\"\"",
            "def f(a: 'int'=0) -> 'int':\n    \"\"\"words\"\"\"",
        }),
        ("from a import b\nC = NewType('C', str)\nD = Literal['x', 'y']", set()),
    ],
)  # fmt: skip
def test_each_kind_of_code_is_changed_in_these_ways(source: str, changed: set[str]) -> None:
    assert {item.source for item in mutate.mutants(source)} == changed


@pytest.mark.parametrize("module", list(mutate.TESTS))
def test_every_mutant_is_another_module_that_python_can_read(module: str) -> None:
    source = (ROOT / module).read_text("utf-8")
    found = mutate.mutants(source)
    assert len(found) > 100
    same = ast.unparse(ast.parse(source))
    for item in found:
        assert item.source != same
        ast.parse(item.source)
    assert (ROOT / mutate.TESTS[module]).is_file()


def test_a_seed_stands_for_its_sample() -> None:
    source = "\n".join(f"x{number} = {number}" for number in range(50))
    assert mutate.chosen(source, 20, 3) == mutate.chosen(source, 20, 3) != mutate.chosen(source, 20, 4)
    assert len(mutate.chosen(source, 20, 3)) == 20
    assert len(mutate.chosen(source, 200, 3)) == len(mutate.chosen(source, None, 3)) == 100


def report(folder: Path, taken: int) -> str:
    def file(lines: int, branches: int, of: int) -> dict[str, dict[str, int]]:
        counts = {"num_statements": 10, "covered_lines": lines, "num_branches": of, "covered_branches": branches}
        return {"summary": counts}

    files = {"a/plan/x.py": file(10, taken, 20), "a/plan/y.py": file(5, 80, 80), "a/source/z.py": file(10, 0, 0)}
    path = folder / "report.json"
    path.write_text(json.dumps({"files": files}), "utf-8")
    return str(path)


def test_packages_are_counted_by_their_branches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage_table.main([report(tmp_path, 15)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| plan | 20 | 75.0 % | 100 | 95.0 % |",
        "| source | 10 | 100.0 % | 0 | 100.0 % |",
        "| together | 30 | 83.3 % | 100 | 95.0 % |",
    ]


def test_too_few_branches_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage_table.main([report(tmp_path, 14)]) == 1
    assert capsys.readouterr().err == "less than 95 % of the branches taken: plan\n"
