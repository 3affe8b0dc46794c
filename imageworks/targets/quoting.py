"""Every way a text becomes a word of somebody else's file format.

Owns the encoders and the types that only they make: a template or view that takes `IniWord` cannot be handed a
plain `str`, so mypy finds a forgotten escape. The rules are those of supervisor 4.3 (RawConfigParser with inline
comments, `%` formatting, POSIX shlex) and systemd 252 (extract-word, specifiers), each found by running the real
parser on hostile strings. What a format cannot carry is refused with `QuotingError`, never altered in silence.
"""

from __future__ import annotations

import re
import shlex
from typing import NewType

IniWord = NewType("IniWord", str)
"""One word of a supervisord `command=`."""
IniPath = NewType("IniPath", str)
"""A supervisord path that starts at the folder of the file, `%(here)s/…`."""
SafeName = NewType("SafeName", str)
"""A name that every format takes as it is."""
UnitWord = NewType("UnitWord", str)
"""One word of a systemd `ExecStart=`."""
UnitEnv = NewType("UnitEnv", str)
"""The value of one systemd `Environment=` line."""
UnitPath = NewType("UnitPath", str)
"""One path of a systemd list of paths (`ReadWritePaths=`)."""
UnitBare = NewType("UnitBare", str)
"""A systemd value that is not unquoted (`WorkingDirectory=`, `Description=`)."""
ShellWord = NewType("ShellWord", str)
"""One word of a POSIX shell command."""
Comment = NewType("Comment", str)
"""The text of a comment line, in any of these formats."""

# Compiled by re when first used: most runs need few of them, and the one of characters takes a millisecond.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_SAFE_PATH = r"[A-Za-z0-9_./-]+"
_INI_REFUSED = "[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]"
_UNIT_REFUSED = "[\x00\ud800-\udfff]"
_BARE_REFUSED = "[\x00-\x1f\x7f\ud800-\udfff]"
_UNIT_CONTROL = "[\x01-\x1f\x7f]"
_UNPRINTABLE = r"[\\]|[^ -~\u00a1-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\ud7ff\uf900-\ufffc]"
_PREFIX = r"(?:/|%[hSCEt])(?:[A-Za-z0-9 ._/@+~-]|%%|%[huUSCEt])*"


class QuotingError(ValueError):
    """A text cannot be written in a format; `rule` names the rule that forbids it."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text!a}")
        self.rule = rule


def _refuse(pattern: str, rule: str, text: str) -> None:
    if re.search(pattern, text):
        raise QuotingError(rule, text)


def safe_name(text: str) -> SafeName:
    """A program, profile or stack name. Raises QuotingError outside `[A-Za-z0-9][A-Za-z0-9_.-]*`."""
    if not re.fullmatch(_NAME, text):
        raise QuotingError("a name may hold only letters, digits, `_`, `.` and `-`", text)
    return SafeName(text)


def safe_way(text: str) -> SafeName:
    """A relative way such as `../..`. Raises QuotingError outside letters, digits and `_./-`."""
    if not re.fullmatch(_SAFE_PATH, text):
        raise QuotingError("a way between folders may hold only letters, digits and `_./-`", text)
    return SafeName(text)


def ini_word(text: str) -> IniWord:
    r"""`text` as one word of supervisord's `command=`. Raises QuotingError for control characters and line ends.

    >>> ini_word('a ;b')
    '"a "";b"'
    """
    _refuse(_INI_REFUSED, "supervisord.conf cannot carry control characters in a command", text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    split = re.sub(r"(\s)([;#])", r'\1""\2', escaped)
    return IniWord('"' + split.replace("%%(here)s", '%%""(here)s') + '"')


def ini_path(relative: str) -> IniPath:
    """`%(here)s/<relative>`. Raises QuotingError unless `relative` is of the safe alphabet."""
    if not re.fullmatch(_SAFE_PATH, relative):
        raise QuotingError("a path in supervisord.conf may hold only letters, digits and `_./-`", relative)
    return IniPath(f"%(here)s/{relative}")


def ini_path_word(path: IniPath) -> IniWord:
    """A path as one word of `command=`; quoted, for the folder may hold blanks."""
    return IniWord(f'"{path}"')


def _unit_escape(text: str) -> str:
    _refuse(_UNIT_REFUSED, "a unit file cannot carry NUL or lone surrogates", text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return re.sub(_UNIT_CONTROL, lambda match: f"\\x{ord(match[0]):02x}", escaped)


def unit_word(text: str) -> UnitWord:
    r"""`text` as one argument of `ExecStart=`. Raises QuotingError for NUL and lone surrogates.

    >>> unit_word('50% $HOME')
    '"50%% $$HOME"'
    """
    return UnitWord('"' + _unit_escape(text).replace("$", "$$") + '"')


def unit_env(name: str, text: str) -> UnitEnv:
    """`"NAME=text"`. Raises QuotingError for a name systemd would ignore, for NUL and lone surrogates."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise QuotingError("not the name of an environment variable", name)
    return UnitEnv(f'"{name}={_unit_escape(text)}"')


def unit_bare(text: str) -> UnitBare:
    """A value that systemd does not unquote. Raises QuotingError for control characters, outer blanks and a final backslash."""
    _refuse(_BARE_REFUSED, "this systemd setting cannot carry control characters", text)
    if text != text.strip() or text.endswith("\\"):
        raise QuotingError("this systemd setting loses outer blanks, and a final backslash joins the next line", text)
    return UnitBare(text.replace("%", "%%"))


def prefix_problem(prefix: str) -> str | None:
    """Why `prefix` cannot be the stack's folder in a unit, or None. Specifiers %h %u %U %S %C %E %t and %% are meant."""
    if not prefix.startswith(("/", "%")):
        return "it must be absolute: start with `/` or a specifier such as %h"
    if not re.fullmatch(_PREFIX, prefix) or prefix != prefix.strip():
        return "it may hold letters, digits, blanks, `._/@+~-` and the specifiers %h %u %U %S %C %E %t %%"
    return None


def _below(prefix: str, relative: str) -> tuple[str, str]:
    if problem := prefix_problem(prefix):
        raise QuotingError(problem, prefix)
    return prefix.rstrip("/"), f"/{relative}" if relative else ""


def unit_word_below(prefix: str, relative: str) -> UnitWord:
    """`<prefix>/<relative>` as a word of `ExecStart=`; specifiers in `prefix` stay. Raises QuotingError."""
    base, rest = _below(prefix, relative)
    return UnitWord(f'"{base}{unit_word(rest)[1:-1]}"')


def unit_path_below(prefix: str, relative: str, *, optional: bool = False) -> UnitPath:
    """`<prefix>/<relative>` in a list of paths; `optional` ones may be missing. Raises QuotingError."""
    base, rest = _below(prefix, relative)
    return UnitPath(f'"{"-" if optional else ""}{base}{_unit_escape(rest)}"')


def unit_env_below(name: str, prefix: str, relative: str) -> UnitEnv:
    """`"NAME=<prefix>/<relative>"`; specifiers in `prefix` stay. Raises QuotingError."""
    base, rest = _below(prefix, relative)
    return UnitEnv(f'"{name}={base}{_unit_escape(rest)}"')


def unit_folder(prefix: str) -> UnitBare:
    """`prefix` for `WorkingDirectory=`. Raises QuotingError."""
    return UnitBare(_below(prefix, "")[0])


def shell_word(text: str) -> ShellWord:
    """`text` as one word of a POSIX shell. Raises QuotingError for NUL and lone surrogates."""
    _refuse(_UNIT_REFUSED, "a shell script cannot carry NUL or lone surrogates", text)
    return ShellWord(shlex.quote(text))


def comment(text: str) -> Comment:
    """`text` on one comment line: whatever could end the line or join the next becomes `?`; a comment is never refused."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return Comment(text)
    return Comment(re.sub(_UNPRINTABLE, "?", text))
