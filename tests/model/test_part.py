"""What a stack means depends on nothing else that is installed, and finding that out costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imageworks.model import stack
from imageworks.model.part import Part

ROOT = Path(__file__).parents[2]


def run(program: str, **variables: str) -> list[str]:
    """Words that `program` prints in a process of its own, in the repository's folder."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, env=variables
    )
    return done.stdout.split()


CHECK = "from pathlib import Path; from imageworks.commands.pipeline import compile_stack; import sys\n"


def test_a_stack_is_checked_without_a_look_at_installed_distributions() -> None:
    """The same work as `imageworks check`, then what was loaded for it."""
    loaded = run(CHECK + "assert not compile_stack(Path('stack.yaml')).failed\nprint(*sys.modules)")
    assert "imageworks.plan.resolve" in loaded
    assert not {"importlib.metadata", "email", "zipfile", "socket", "jinja2"} & set(loaded)


def test_who_wants_the_plugins_of_pydantic_gets_them() -> None:
    loaded = run(
        CHECK + "assert not compile_stack(Path('stack.yaml')).failed\nprint(*sys.modules)",
        PYDANTIC_DISABLE_PLUGINS="nobody",
    )
    assert "importlib.metadata" in loaded


def test_a_default_part_is_what_validation_would_make() -> None:
    """Defaults are made without a validator; each must be what an empty map in the file would give."""
    parts = [part for part in vars(stack).values() if isinstance(part, type) and issubclass(part, Part)]
    given = [field.default for part in parts for field in part.model_fields.values() if isinstance(field.default, Part)]
    assert len(given) > 10
    for default in given:
        assert default == type(default).model_validate({})


@pytest.mark.parametrize("key", ["model_config", "other"])
def test_an_unknown_key_is_refused_and_a_part_is_frozen(key: str) -> None:
    class Own(Part):
        size: int = 1

    with pytest.raises(ValueError, match="Extra inputs"):
        Own.model_validate({key: 1})
    with pytest.raises(ValueError, match="frozen"):
        Own().size = 2  # type: ignore[misc]
