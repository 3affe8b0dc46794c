"""The documents are true: links lead somewhere, made pages are current, what is shown is accepted."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from imageworks.cli import VERBS
from imageworks.diagnostics.codes import CODES
from imageworks.model import scalars
from imageworks.model.load import load
from imageworks.model.written import Written
from imageworks.source.files import MemoryFiles

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def script(name: str) -> types.ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


gen_reference = script("gen_reference")
gen_errors = script("gen_errors")
gen_api = script("gen_api")
terminal_svg = script("terminal_svg")


def test_made_pages_are_current() -> None:
    assert gen_reference.main(["--check"]) == 0, "run: python scripts/gen_reference.py"


def test_the_page_of_the_api_is_current() -> None:
    assert gen_api.main(["--check"]) == 0, "run: python scripts/gen_api.py"


def test_pages_of_errors_are_current() -> None:
    assert gen_errors.main(["--check"]) == 0, "run: python scripts/gen_errors.py"
    assert set(gen_errors.pages()) == {"index.md", *(f"{code}.md" for code in CODES)}


def test_every_key_has_words_in_the_reference() -> None:
    silent = [line for line in gen_reference.page().splitlines() if re.match(r"\| `.*\|\s*\|$", line)]
    assert not silent, "give these a description in imageworks/model/stack.py:\n" + "\n".join(silent)


@pytest.mark.parametrize(("name", "scalar"), gen_reference.SCALARS.items(), ids=list(gen_reference.SCALARS))
def test_examples_of_values_are_accepted(name: str, scalar: object) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(getattr(scalars, name))
    examples = scalar.examples  # type: ignore[attr-defined]  # a dataclass of the script
    for example in examples:
        adapter.validate_python(Written(example, plain=True))


@pytest.mark.parametrize("name", BY_NAME)
def test_links_lead_to_files(name: str) -> None:
    page = BY_NAME[name]
    targets = [target for target in LINK.findall(page.read_text("utf-8")) if "://" not in target]
    dead = [target for target in targets if not (page.parent / target).exists()]
    assert not dead


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    named = set(re.findall(r": ([\w/-]+\.md)", nav))
    there = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert named == {name for name in there if not re.match(r"decisions/\d|errors/IW", name)}


@pytest.mark.parametrize("name", BY_NAME)
def test_verbs_and_codes_that_are_named_exist(name: str) -> None:
    text = BY_NAME[name].read_text("utf-8")
    verbs = set(re.findall(r"(?:`|\$ |^)imageworks ([a-z]+)", text, re.MULTILINE))
    assert verbs <= set(VERBS)
    assert set(re.findall(r"\bIW\d{3}\b", text)) <= set(CODES)


def stacks() -> Iterator[tuple[str, str]]:
    """Every YAML block that is a whole stack, by page."""
    for name, page in BY_NAME.items():
        for number, text in enumerate(YAML.findall(page.read_text("utf-8"))):
            if text.startswith("version: 1"):
                yield f"{name}-{number}", text


STACKS = dict(stacks())


@pytest.mark.parametrize("name", STACKS)
def test_a_shown_stack_is_accepted(name: str) -> None:
    outcome = load("stack.yaml", MemoryFiles({"stack.yaml": STACKS[name]}), "home")
    assert outcome.loaded is not None, outcome.diagnostics


def test_the_readme_shows_a_stack_of_ten_lines() -> None:
    (text,) = (text for name, text in STACKS.items() if name.startswith("README"))
    assert len(text.splitlines()) <= 10
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_decisions_are_short() -> None:
    long = [
        page.name
        for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md")
        if len(page.read_text("utf-8").splitlines()) > 40
    ]
    assert not long


def test_a_picture_shows_the_text_and_its_colours() -> None:
    picture = terminal_svg.picture(list(terminal_svg.visible("loading\r\x1b[1;32mready\x1b[0m <&>\n")), "demo")
    assert "loading" not in picture
    assert re.search(r'fill="#7ee787" font-weight="bold">ready</tspan>', picture)
    assert "&lt;&amp;&gt;</tspan>" in picture
    assert "\x1b" not in picture
