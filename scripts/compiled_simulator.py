"""The scheduler and its simulator as machine code: the tree's own sources, compiled by mypyc into a folder.

Owns which modules are compiled, what their sources are called (one hash), and the proof that compiled and interpreted
schedules are the same. Needs gcc and what the lint needs (mypy); without them `build` raises CalledProcessError.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = ("imageworks.runtime.leases", "imageworks.runtime.residency")
"""Compiled events read these types when they are loaded; their sources import them for the type checker only."""
INTERPRETED = frozenset({"contract.py", "values.py", "__init__.py"})
"""What mypyc cannot compile: a class made from `str`, a function that stands for a decorator."""
LIST = "import sys, imageworks.simulation.campaign as _; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'imageworks'), sep='\\n')"
BUILD = """
import sys
from setuptools import setup
from mypyc.build import mypycify
files = sys.argv[1:]
sys.argv[1:] = ["-q", "build_ext", "--inplace"]
setup(name="simulator", packages=[], ext_modules=mypycify(files, opt_level="3", debug_level="0"))
"""
PLAY = f"""
import sys
import {", ".join(FIRST)}
from imageworks.simulation import campaign
print(campaign.__file__.endswith(".so"))
first, last, steps = map(int, sys.argv[1:])
for seed in range(first, last):
    print(campaign.run_seed(seed, steps))
"""


def sources() -> tuple[Path, ...]:
    """The files that a run of schedules imports, by name."""
    listed = _python(ROOT, "-c", LIST).split()
    return tuple(sorted(Path(file) for file in listed))


def digest(files: tuple[Path, ...]) -> str:
    """What is played: a hash of those files."""
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def build(folder: Path, files: tuple[Path, ...]) -> None:
    """Copy the package to `folder` and compile there what can be compiled."""
    shutil.copytree(ROOT / "imageworks", folder / "imageworks", ignore=shutil.ignore_patterns("__pycache__"))
    chosen = [str(file.relative_to(ROOT)) for file in files if file.name not in INTERPRETED]
    _python(folder, "-c", BUILD, *chosen)


def differing(folder: Path, seeds: range, steps: int) -> list[str]:
    """Outcomes (events, violation) of `seeds` that are others in `folder` than in the tree; [] is the proof."""
    asked = ("-c", PLAY, str(seeds.start), str(seeds.stop), str(steps))
    compiled, interpreted = (_python(where, *asked).splitlines() for where in (folder, ROOT))
    if compiled[0] != "True" or interpreted[0] != "False":
        return ["what was to be compiled is not, or the other way round"]
    return [f"{one} / {other}" for one, other in zip(compiled, interpreted, strict=True) if one != other][1:]


def _python(where: Path, *arguments: str) -> str:
    """Run the interpreter in a folder; `-c` puts that folder first on its path."""
    done = subprocess.run([sys.executable, *arguments], cwd=where, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
