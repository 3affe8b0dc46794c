"""Eight different mistakes in one file, in every format; and the repairs of `check --fix`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imageworks.commands.edit import replace

from .conftest import Verb

EIGHT = """\
# Größe zählt: 日本語 😀           # stays
version: 1
profiles:
  mine:                          # a comment stays
    match: {gpus: 1, vram: «>»=15GiB}
    strategy: «concurent_limited»   # this one too
    headroom: «10.6GB»
models:
  qwen:
    backend: vllm
    source: {hf: a/b, exclude: ["日本 😀"], «revison»: main}
    «port»: 24001                # and this
  small:
    backend: llamacpp
    source: {path: b.gguf}
    roles: {«captoin»: 80}       # größer
    grace: «300»
groups:
  day: {profiles: [mine], models: [qwen, «smal»]}   # 終
"""
PLAIN = EIGHT.replace("«", "").replace("»", "")
CODES = ("IW101", "IW208", "IW203", "IW201", "IW207", "IW301", "IW204", "IW302")
PLACES = [
    (code, line, text.index("«") + 1)
    for code, (line, text) in zip(
        CODES, ((number, text) for number, text in enumerate(EIGHT.splitlines(), 1) if "«" in text), strict=True
    )
]
FIXED = PLAIN
for wrong, right in (
    ("vram: >=15GiB", 'vram: ">=15GiB"'),
    ("concurent_limited", "concurrent_limited"),
    ("revison", "revision"),
    ("captoin", "caption"),
    ("smal]", "small]"),
):
    FIXED = FIXED.replace(wrong, right)


@pytest.fixture
def eight(folder: Path) -> Path:
    """A stack with the eight mistakes."""
    file = folder / "stack.yaml"
    file.write_text(PLAIN, "utf-8")
    return file


def _of_full(out: str, err: str) -> list[tuple[str, int, int]]:
    found = re.findall(r"^(IW\d{3}) .*   stack\.yaml:(\d+):(\d+)$", err, re.MULTILINE)
    assert out == ""
    return [(code, int(line), int(column)) for code, line, column in found]


def _of_concise(out: str, err: str) -> list[tuple[str, int, int]]:
    assert out == ""
    found = (re.fullmatch(r"stack\.yaml:(\d+):(\d+): (IW\d{3}) .*", text) for text in err.splitlines())
    return [(match[3], int(match[1]), int(match[2])) for match in found if match]


def _of_json(out: str, err: str) -> list[tuple[str, int, int]]:
    assert err == ""
    spans = [(item["code"], item["primary"]["span"]) for item in json.loads(out)]
    return [(code, span["line"], span["column"]) for code, span in spans]


def _of_github(out: str, err: str) -> list[tuple[str, int, int]]:
    assert err == ""
    found = re.findall(r"^::error file=stack\.yaml,line=(\d+),col=(\d+),.*title=(IW\d{3})::", out, re.MULTILINE)
    return [(code, int(line), int(column)) for line, column, code in found]


def _of_sarif(out: str, err: str) -> list[tuple[str, int, int]]:
    assert err == ""
    results = json.loads(out)["runs"][0]["results"]
    places = [(item["ruleId"], item["locations"][0]["physicalLocation"]["region"]) for item in results]
    return [(code, region["startLine"], region["startColumn"]) for code, region in places]


READERS = {"full": _of_full, "concise": _of_concise, "json": _of_json, "github": _of_github, "sarif": _of_sarif}


@pytest.mark.parametrize("form", READERS)
def test_one_run_tells_all_eight_at_their_places(eight: Path, verb: Verb, form: str) -> None:
    code, out, err = verb("check", "--format", form)
    assert code == 1
    assert READERS[form](out, err) == PLACES
    assert eight.read_text("utf-8") == PLAIN


def test_fix_repairs_the_safe_ones_and_leaves_all_else_alone(eight: Path, verb: Verb) -> None:
    code, out, err = verb("check", "--fix", "--format", "concise")
    assert (code, out) == (1, "")
    assert eight.read_text("utf-8") == FIXED
    fixed = [line.split()[2] for line in err.splitlines() if line.startswith("fixed stack.yaml:")]
    assert fixed == ["IW101", "IW208", "IW201", "IW301", "IW302"]
    assert "fixed stack.yaml:16:13 IW301 model serves an undeclared role: now caption" in err.splitlines()
    remaining = [line.split()[1] for line in err.splitlines() if line.startswith("stack.yaml:")]
    assert remaining == ["IW203", "IW207", "IW204"]


def test_fix_keeps_byte_order_mark_line_ends_rights_and_links(eight: Path, folder: Path, verb: Verb) -> None:
    def windows(text: str) -> bytes:
        return b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()

    home = folder / "elsewhere" / "real.yaml"
    home.parent.mkdir()
    home.write_bytes(windows(PLAIN))
    home.chmod(0o640)
    eight.unlink()
    eight.symlink_to(home)
    assert verb("check", "--fix")[0] == 1
    assert home.read_bytes() == windows(FIXED)
    assert home.stat().st_mode & 0o777 == 0o640
    assert eight.is_symlink()
    assert [file.name for file in home.parent.iterdir()] == ["real.yaml"]


def test_fix_goes_on_with_what_the_first_mistakes_hid(folder: Path, verb: Verb) -> None:
    file = folder / "stack.yaml"
    file.write_text(
        "# head\nmodels:\n  m: {backend: llamacpp, source: {path: m.gguf}, vram: {weights: 1GiB, kv: 1GiB}}\n"
        'profiles:\n  a: {match: {gpus: 1, vram: ">=15GiB <24GiB"}}\n  b: {match: {gpus: 1, vram: >=22GiB}}\n',
        "utf-8",
    )
    code, _, err = verb("check", "--fix")
    assert code == 0, err
    assert [line.split()[2] for line in err.splitlines() if line.startswith("fixed")] == ["IW210", "IW101", "IW401"]
    assert file.read_text("utf-8").startswith("# head\nversion: 1\nmodels:\n")
    assert '">=24GiB"' in file.read_text("utf-8")


def test_fix_changes_nothing_where_nothing_is_wrong(small: Path, verb: Verb) -> None:
    before = (small / "stack.yaml").stat()
    code, _, err = verb("check", "--fix")
    assert (code, "fixed" in err) == (0, False)
    assert (small / "stack.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_fix_never_makes_a_key_twice(folder: Path, verb: Verb) -> None:
    file = folder / "stack.yaml"
    text = "version: 1\nmodels:\n  m:\n    bakend: vllm\n    backend: llamacpp\n    source: {path: m.gguf}\n    roles: {captoin: 1, caption: 2}\n"
    file.write_text(text, "utf-8")
    assert verb("check", "--fix")[0] == 1
    assert file.read_text("utf-8") == text


def test_fix_mends_prompt_files_too(small: Path, verb: Verb) -> None:
    file = small / "prompts" / "base" / "app" / "p.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("versoin: 1  # größer\nuser: Describe it.\n", "utf-8")
    code, _, err = verb("check", "--fix")
    assert code == 0, err
    assert file.read_text("utf-8") == "version: 1  # größer\nuser: Describe it.\n"


def test_fix_tells_what_it_made_of_a_tab(small: Path, verb: Verb) -> None:
    file = small / "stack.yaml"
    text = file.read_text("utf-8")
    file.write_text(text + "\tgrace: 5m\n", "utf-8")
    code, _, err = verb("check", "--fix")
    assert code == 0, err
    assert err.splitlines()[0].endswith("IW102 tab in indentation: 4 blanks, as the lines around it")
    assert file.read_text("utf-8") == text + "    grace: 5m\n"


def test_a_folder_without_permission_is_told_and_nothing_changes(
    eight: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path, before: bytes, after: bytes) -> None:
        del before, after
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("imageworks.commands.edit.replace", refuse)
    code, _, err = verb("check", "--fix")
    assert code == 1
    assert "Permission denied" in err
    assert eight.read_text("utf-8") == PLAIN


def test_a_file_that_changed_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"new")
    with pytest.raises(OSError, match="changed meanwhile"):
        replace(file, b"old", b"mine")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device", handle)

    file = tmp_path / "a"
    file.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace(file, b"old", b"mine")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
