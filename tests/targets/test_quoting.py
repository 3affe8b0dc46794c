"""What goes in comes out of the consumers' own parsers.

The batch is seeded; a larger run: IMAGEWORKS_HOSTILE=100000 pytest tests/targets/test_quoting.py
"""

from __future__ import annotations

import os
import random
import re
import string
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser

from imageworks.output.consumers import read_supervisord
from imageworks.targets import quoting

COUNT = int(os.environ.get("IMAGEWORKS_HOSTILE", "5000"))
ALPHABET = [
    *"ab;#%\"'\\ \t\n\r$(){}[]=,&|<>*?~!:@+-\x01\x1b\x7f\x85\xa0\u2028\u3000é漢😀",
    "%(here)s", "%%(here)s", "%(ENV_HOME)s", "%n", "%h", "${HOME}", "$HOME", " ;", " #", '""', "[program:x]", "\\x41",
]  # fmt: skip
KNOWN = [
    "", "a ; b", "a #b", "a#b", "\xa0;b", "100%", "%s", "%(here)s", "%(ENV_HOME)s", 'a" ; "b', "\n[program:evil]\ncommand=x",
    "C:\\new", '{"image": 4}', "it's", "→é漢", "a%20b", "ends\\", ";", "#", "-x", "x # y", "\\q", "%%%(here)s", " ", "\\",
]  # fmt: skip


def hostile(count: int) -> Iterable[str]:
    dice = random.Random(20)
    yield from KNOWN
    for _ in range(count - len(KNOWN)):
        yield "".join(dice.choices(ALPHABET, k=dice.randint(0, 9)))


def accepted(encode: Callable[[str], str]) -> tuple[list[str], list[str], int]:
    """Texts the encoder takes, their encodings, and how many it refused."""
    texts, words, refused = [], [], 0
    for text in hostile(COUNT):
        try:
            words.append(encode(text))
        except quoting.QuotingError:
            refused += 1
        else:
            texts.append(text)
    return texts, words, refused


CONF = "[supervisord]\n{include}\n[supervisorctl]\nserverurl=unix:///x\n"


@pytest.mark.parametrize("included", [False, True])
def test_supervisord_reads_back_every_command_word(tmp_path: Path, *, included: bool) -> None:
    texts, words, refused = accepted(quoting.ini_word)
    program = f"[program:x]\ncommand=prog {' '.join(words)}\n"
    conf = tmp_path / "supervisord.conf"
    if included:  # an included file goes through one more replacement of %(here)s
        (tmp_path / "x.ini").write_text(program, "utf-8")
        conf.write_text(CONF.format(include="[include]\nfiles=x.ini\n"), "utf-8")
    else:
        conf.write_text(CONF.format(include="") + program, "utf-8")
    read = read_supervisord(conf)
    assert read.problem is None
    assert list(read.commands["x"][1:]) == texts
    assert 0 < refused < COUNT / 2


def test_ini_word_refuses_exactly_what_supervisord_cannot_carry() -> None:
    for text in ("\0", "a\nb", "\x85", "\u2028", "\ud800"):
        with pytest.raises(quoting.QuotingError) as caught:
            quoting.ini_word(text)
        assert "control characters" in caught.value.rule


def dump(tmp_path: Path, program: str, service: str) -> str:
    """Systemd's own view of a unit, as `systemd-analyze verify` logs it."""
    unit = tmp_path / "x.service"
    unit.write_text(f"[Service]\nType=exec\n{service}\n", "utf-8")
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", str(unit)],
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_LOG_TARGET": "console"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unescaped(line: str) -> list[str]:
    """Words of systemd's `Command Line:` dump: bare, or in double quotes with C escapes."""
    words = []
    for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|([^ ]+)', line):
        words.append(bare or re.sub(r"\\(x..|[0-7]{3}|.)", _escape, quoted))
    return words


def _escape(match: re.Match[str]) -> str:
    code = match[1]
    if code.startswith("x"):
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if len(code) == 3 else ESCAPES.get(code, code)


def test_systemd_reads_back_every_argument(tmp_path: Path, tool: Callable[[str], str]) -> None:
    texts, words, refused = accepted(quoting.unit_word)
    chunk = 400  # a line of a unit holds 1 MiB
    lines = [words[start : start + chunk] for start in range(0, len(words), chunk)]
    service = "Type=oneshot\n" + "\n".join(f"ExecStart=/bin/true {' '.join(line)}" for line in lines)
    shown = re.findall(r"Command Line: /bin/true ?(.*)", dump(tmp_path, tool("systemd-analyze"), service))
    # `$$` becomes `$` when the process is started (systemd.service(5)); the dump is from before that.
    assert [word.replace("$$", "$") for line in shown for word in unescaped(line)] == texts
    assert refused == 0


def test_systemd_reads_back_every_environment_value(tmp_path: Path, tool: Callable[[str], str]) -> None:
    texts, words, _ = accepted(lambda text: quoting.unit_env("K", f"{text}\x01end"))
    # a name for each, for the last of equal names wins
    numbered = (f"Environment={word.replace('K=', f'K{index}=', 1)}" for index, word in enumerate(words))
    text = dump(tmp_path, tool("systemd-analyze"), "ExecStart=/bin/true\n" + "\n".join(numbered))
    found = dict(re.findall(r"Environment: K(\d+)=(.*?)\x01end", text, re.DOTALL))
    assert [found[str(index)] for index in range(len(texts))] == texts


def test_systemd_takes_a_bare_value_as_it_is(tmp_path: Path, tool: Callable[[str], str]) -> None:
    for text in ("50% of $HOME", 'a "b" c', "x # y ; z"):
        shown = dump(
            tmp_path,
            tool("systemd-analyze"),
            f"ExecStart=/bin/true\nSyslogIdentifier=x\n[Unit]\nDescription={quoting.unit_bare(text)}",
        )
        assert f"Description: {text}\n" in shown


@pytest.mark.parametrize("text", ["a\nb", " a", "a ", "ends\\", "\0"])
def test_unit_bare_refuses_what_would_be_lost(text: str) -> None:
    with pytest.raises(quoting.QuotingError):
        quoting.unit_bare(text)


def test_a_shell_reads_back_every_word() -> None:
    texts, words, _ = accepted(quoting.shell_word)
    done = subprocess.run(["sh"], input=f"printf '%s\\0' {' '.join(words)}".encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == texts


@given(st.text())
def test_a_comment_never_becomes_a_setting(text: str) -> None:
    parser: Any = UnhosedConfigParser()
    parser.read_string(f"; {quoting.comment(text)}\n[real]\n# {quoting.comment(text)}\nkey=value\n")
    assert parser.sections() == ["real"]
    assert parser.items("real") == [("key", "value")]
    assert not quoting.comment(text).endswith("\\")
    assert len(quoting.comment(text).splitlines()) <= 1


@pytest.mark.parametrize("name", ["a/b", "a b", "a:b", "", "%n", "a\n", "-x", "ü", "a]"])
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(quoting.QuotingError):
        quoting.safe_name(name)


@pytest.mark.parametrize("path", ["a b", "a%b", "", "x\n", "a;b"])
def test_a_path_outside_the_safe_alphabet_is_refused(path: str) -> None:
    for encode in (quoting.ini_path, quoting.safe_way):
        with pytest.raises(quoting.QuotingError):
            encode(path)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n"])
def test_a_name_systemd_would_ignore_is_refused(name: str) -> None:
    with pytest.raises(quoting.QuotingError):
        quoting.unit_env(name, "x")


@pytest.mark.parametrize("prefix", ["stack", "./x", "%q/x", "/a%n", "/a$b", "/a\nb", "/a ", '/a"b', "%"])
def test_a_prefix_that_a_unit_cannot_carry_is_refused(prefix: str) -> None:
    assert quoting.prefix_problem(prefix)
    for encode in (quoting.unit_word_below, quoting.unit_path_below):
        with pytest.raises(quoting.QuotingError):
            encode(prefix, "x")


@pytest.mark.parametrize("prefix", ["/srv/image works", "%h/imageworks", "%S/iw", "/a%%b"])
def test_systemd_takes_every_prefix_that_is_not_refused(
    prefix: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    service = (
        f"ExecStart=/bin/true {quoting.unit_word_below(prefix, 'gene%rated $x')}\n"
        f"WorkingDirectory={quoting.unit_folder(prefix)}\nReadWritePaths={quoting.unit_path_below(prefix, 'a b', optional=True)}"
    )
    text = dump(tmp_path, tool("systemd-analyze"), service)
    assert "/gene%rated \\$\\$x" in text
    assert re.search(r"WorkingDirectory: /", text)
    assert re.search(r"ReadWritePaths: \"?-/.*/a b", text)


PREFIX_KIND = "it must be absolute: start with `/` or a specifier such as %h"
PREFIX_LETTERS = "it may hold letters, digits, blanks, `._/@+~-` and the specifiers %h %u %U %S %C %E %t %%"
RULES: list[tuple[Callable[[str], str], str, str]] = [
    (quoting.safe_name, "a b", "a name may hold only letters, digits, `_`, `.` and `-`"),
    (quoting.safe_way, "a b", "a way between folders may hold only letters, digits and `_./-`"),
    (quoting.ini_word, "\0", "supervisord.conf cannot carry control characters in a command"),
    (quoting.ini_path, "a b", "a path in supervisord.conf may hold only letters, digits and `_./-`"),
    (quoting.unit_word, "\0", "a unit file cannot carry NUL or lone surrogates"),
    (lambda text: quoting.unit_env("K", text), "\udfff", "a unit file cannot carry NUL or lone surrogates"),
    (lambda text: quoting.unit_env(text, "x"), "1", "not the name of an environment variable"),
    (quoting.unit_bare, "\x7f", "this systemd setting cannot carry control characters"),
    (quoting.unit_bare, "a ", "this systemd setting loses outer blanks, and a final backslash joins the next line"),
    (quoting.unit_folder, "x", PREFIX_KIND),
    (quoting.unit_folder, "/x ", PREFIX_LETTERS),
    (lambda text: quoting.unit_env_below("K", text, "x"), "x", PREFIX_KIND),
    (quoting.shell_word, "\ud800", "a shell script cannot carry NUL or lone surrogates"),
]


@pytest.mark.parametrize(("encode", "text", "rule"), RULES)
def test_a_refusal_names_its_rule_and_shows_the_text_without_its_power(
    encode: Callable[[str], str], text: str, rule: str
) -> None:
    with pytest.raises(quoting.QuotingError) as caught:
        encode(text)
    assert (caught.value.rule, str(caught.value)) == (rule, f"{rule}: {text!a}")


def refused(encode: Callable[[str], str], alphabet: Iterable[str], around: str) -> str:
    """The characters of `alphabet` that are refused between the two halves of `around`."""
    found = ""
    for char in alphabet:
        try:
            encode(around.replace("*", char))
        except quoting.QuotingError:
            found += char
    return found


CONTROLS = "".join(map(chr, range(0x20)))
EDGES = "\x20\x7e\x7f\x80\x84\x85\x86\xa0\u2027\u2028\u2029\u202a\ud7ff\ud800\udbff\udfff\ue000\U0010ffff"
LONE = "\ud800\udbff\udfff"


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (quoting.ini_word, f"{CONTROLS}\x7f\x85\u2028\u2029{LONE}"),
        (quoting.unit_word, f"\0{LONE}"),
        (quoting.unit_bare, f"{CONTROLS}\x7f{LONE}"),
        (quoting.shell_word, f"\0{LONE}"),
    ],
)
def test_exactly_the_named_characters_are_refused(encode: Callable[[str], str], expected: str) -> None:
    assert refused(encode, CONTROLS + EDGES, "a*b") == expected


ALNUM = string.ascii_letters + string.digits
ASCII = "".join(map(chr, range(0x80)))


@pytest.mark.parametrize(
    ("encode", "around", "allowed"),
    [
        (quoting.safe_name, "*", ALNUM),
        (quoting.safe_name, "a*", f"{ALNUM}_.-"),
        (quoting.safe_way, "a*", f"{ALNUM}_./-"),
        (quoting.ini_path, "a*", f"{ALNUM}_./-"),
        (lambda name: quoting.unit_env(name, ""), "*", f"{string.ascii_letters}_"),
        (lambda name: quoting.unit_env(name, ""), "a*", f"{ALNUM}_"),
        (quoting.unit_folder, "*", "/"),
        (quoting.unit_folder, "/*b", f"{ALNUM} ._/@+~-"),
        (quoting.unit_folder, "/%*", "huUSCEt%"),
        (quoting.unit_folder, "%*", "hSCEt"),
    ],
)
def test_exactly_the_named_letters_are_allowed(encode: Callable[[str], str], around: str, allowed: str) -> None:
    assert set(ASCII) - set(refused(encode, ASCII, around)) == set(allowed)


def test_the_words_are_these() -> None:
    path = quoting.ini_path("run/x.sock")
    assert (path, quoting.ini_path_word(path)) == ("%(here)s/run/x.sock", '"%(here)s/run/x.sock"')
    assert quoting.safe_name("a.b-c_1") == "a.b-c_1"
    assert quoting.safe_way("../..") == "../.."
    assert quoting.ini_word('\\"%') == '"\\\\\\"%%"'
    assert quoting.ini_word("a ;b\xa0#c;d") == '"a "";b\xa0""#c;d"'
    assert quoting.ini_word("%(here)s") == '"%%""(here)s"'
    assert quoting.unit_word('a\n\x1f\x7f$%"\\') == '"a\\x0a\\x1f\\x7f$$%%\\"\\\\"'
    assert quoting.unit_env("_K1", "$x y") == '"_K1=$x y"'
    assert quoting.unit_bare("50% $x") == "50%% $x"
    assert quoting.shell_word("a b'c") == "'a b'\"'\"'c'"


def test_what_lies_below_a_prefix_is_escaped_and_the_prefix_is_not() -> None:
    assert quoting.unit_word_below("%h/", "a%$ b") == '"%h/a%%$$ b"'
    assert quoting.unit_path_below("/a//", "b%") == '"/a/b%%"'
    assert quoting.unit_path_below("/a", "b", optional=True) == '"-/a/b"'
    assert quoting.unit_env_below("K", "%S/x", "y%$") == '"K=%S/x/y%%$"'
    assert quoting.unit_env_below("K", "%S/x", "") == '"K=%S/x"'
    assert quoting.unit_folder("/a b/") == "/a b"
    assert quoting.prefix_problem("%h/a") is None


@pytest.mark.parametrize("text", ["a\\", "\\", "a\\b", "\u00e9\\"])
def test_a_comment_holds_no_backslash_for_a_last_one_would_join_the_next_line(text: str) -> None:
    assert quoting.comment(text) == text.replace("\\", "?")


def test_a_comment_keeps_what_can_be_shown() -> None:
    edges = " ~\xa1\u1fff\u2010\u2027\u2030\u205e\u2070\ud7ff\uf900\ufffc"
    assert quoting.comment(edges) == edges
    beyond = "\\\x1f\x7f\xa0\u2000\u200f\u2028\u202f\u205f\u206f\ud800\uf8ff\ufffd"
    assert quoting.comment(f"a{beyond}") == "a" + "?" * len(beyond)
