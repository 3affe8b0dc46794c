"""The consumers' parsers find what they would otherwise pass over in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imageworks.output.consumers import read_supervisord, verify_units

CONF = "[supervisord]\n{0}\n[supervisorctl]\nserverurl=unix:///x\n{1}\n[program:x]\ncommand=/bin/true 'a b'\n{2}\n"


def read(tmp_path: Path, *settings: str) -> Path:
    conf = tmp_path / "supervisord.conf"
    conf.write_text(CONF.format(*settings, *[""] * (3 - len(settings))))
    return conf


def test_a_good_file_reads_clean(tmp_path: Path) -> None:
    found = read_supervisord(read(tmp_path, "umask=077", "prompt=x", "autorestart=false"))
    assert (found.problem, found.unread, found.socket) == (None, (), None)
    assert found.commands == {"x": ("/bin/true", "a b")}


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        (("logfil=x",), "supervisord.logfil"),
        (("", "serverul=x"), "supervisorctl.serverul"),
        (("", "", "stopwait=3"), "program:x.stopwait"),
    ],
)
def test_a_key_nobody_reads_is_found(settings: tuple[str, ...], unread: str, tmp_path: Path) -> None:
    assert read_supervisord(read(tmp_path, *settings)).unread == (unread,)


def test_a_value_supervisord_refuses_is_its_own_complaint(tmp_path: Path) -> None:
    found = read_supervisord(read(tmp_path, "", "", "autostart=perhaps"))
    assert found.problem
    assert "not a valid boolean value: 'perhaps'" in found.problem


@pytest.mark.parametrize(
    "line", ["MemoryMax=banana", "Restart=bogus", "NoSuchKey=1", "ExecStart=\nExecStart=/no/such/program"]
)
def test_systemd_complains_about_what_it_would_ignore(line: str, tmp_path: Path, tool: Callable[[str], str]) -> None:
    tool("systemd-analyze")
    unit = tmp_path / "x.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    assert verify_units([unit]) == ()
    unit.write_text(f"[Service]\nType=oneshot\nExecStart=/bin/true\n{line}\n")
    assert verify_units([unit])


def test_without_systemd_there_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verify_units([]) is None
