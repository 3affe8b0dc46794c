"""pydantic's plugins cannot change what a stack means."""

from __future__ import annotations

import subprocess
import sys


def test_what_a_stack_means_does_not_depend_on_installed_plugins() -> None:
    code = "import imageworks.model.stack; from pydantic.plugin._loader import get_plugins; assert get_plugins() == ()"
    subprocess.run([sys.executable, "-c", code], check=True)
