"""What happens when ImageWorks itself fails: a report in a file, one sentence on the screen.

Owns the text of the report. It holds the traceback, versions and the command line; never the stack or the environment.
"""

from __future__ import annotations

import platform
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from imageworks import __version__


def write_report(error: BaseException, argv: Sequence[str]) -> str:
    """Write the report of `error` to a new temporary file and return the sentence to print."""
    lines = [
        f"imageworks {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: imageworks {' '.join(argv)}",
        "",
        *traceback.format_exception(error),
    ]
    summary = f"{type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="imageworks-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as report:
            report.write("\n".join(lines))
    except OSError:
        return "\n".join([f"This is a bug in ImageWorks: {summary}", *lines])
    return f"This is a bug in ImageWorks, not in your files: {summary}\nThe report is in {Path(report.name)}; please send it."
