"""The text templates: found, loaded, rendered.

Owns the jinja2 environment. Templates get values that `quoting` has already encoded; there is no filter that
escapes, for one is forgotten in silence. An undefined name is an error, not an empty text.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415 - 70 ms, and `check` renders nothing

    package = Path(__file__).resolve().parents[1]
    folder = package / "templates"
    return jinja2.Environment(  # noqa: S701 - the output is no HTML, and quoting happens before
        loader=jinja2.FileSystemLoader(folder if folder.is_dir() else package.parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, view: object) -> str:
    """The text of `template` for the attributes of `view`, which stands in it as `it`. Raises jinja2.TemplateError."""
    return _environment().get_template(template).render(it=view)
