"""`python -m imageworks.services.llama_server`: llama.cpp's own HTTP server out of the xllamacpp wheel.

Owns the flags (llama-server's names, so that `backends.llamacpp.command` may name the real program), how it ends and
what it says when it cannot start. The engine runs in a forked child: it holds Python's interpreter lock while it
loads, so only another process can obey SIGTERM at any moment, read the engine's log for the root cause and give the
memory back before it exits. No model knowledge here; speaks no HTTP itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

ALL_LAYERS = 999
"""`--n-gpu-layers` for "the whole model": more than any model has."""

_PR_SET_PDEATHSIG = 1
_STOP = (signal.SIGTERM, signal.SIGINT)
_NOT_INSTALLED, _NO_GPU, _FAILED = 3, 4, 1
_REASONS = {
    _NOT_INSTALLED: "the bundled llama.cpp is not installed: pip install 'imageworks[demo]'",
    _NO_GPU: "--n-gpu-layers asks for a GPU, but this build of llama.cpp has no GPU support: set `placement: cpu` for the model, "
    "or let backends.llamacpp.command name a llama-server built for your GPU",
}
"""What the child's exit status means; the parent speaks, so that nothing is lost in the engine's own log."""


def parser() -> argparse.ArgumentParser:
    """The command line: the part of llama-server's that plans use, with its names and meanings."""
    flags = argparse.ArgumentParser(prog="imageworks.services.llama_server", allow_abbrev=False)
    flags.add_argument("-m", "--model", required=True, type=Path, help="GGUF file")
    flags.add_argument("--mmproj", type=Path, help="GGUF file of the vision projector")
    flags.add_argument("-a", "--alias", help="name in /v1/models; default: the model's path")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    flags.add_argument("-c", "--ctx-size", type=int, default=2048, help="tokens over all slots")
    flags.add_argument("-np", "--parallel", type=int, default=1, help="slots; each gets ctx-size / parallel tokens")
    flags.add_argument("-t", "--threads", type=int, default=1, help="compute threads, also for the prompt")
    flags.add_argument("-ngl", "--n-gpu-layers", type=int, default=0, help=f"layers on the GPU; {ALL_LAYERS} for all")
    return flags


def parameters(flags: argparse.Namespace, engine: Any) -> Any:
    """The engine's parameters for `flags`. What llama.cpp would decide by looking at the machine is fixed here."""
    values = engine.CommonParams()
    values.model.path = str(flags.model)
    if flags.mmproj:
        values.mmproj.path = str(flags.mmproj)
        values.mmproj_use_gpu = flags.n_gpu_layers > 0
    if flags.alias:
        values.model_alias = {flags.alias}
    values.hostnames, values.port = [flags.host], flags.port
    values.n_ctx, values.n_parallel = flags.ctx_size, flags.parallel
    values.cpuparams.n_threads = values.cpuparams_batch.n_threads = flags.threads
    values.n_gpu_layers = flags.n_gpu_layers
    values.n_threads_http = flags.parallel + 4  # its default grows with the cores; idle connections hold a thread each
    values.fit_params = False  # it would shrink the context silently where memory is short
    values.cache_ram_mib, values.cache_idle_slots = 0, False  # default: up to 8 GiB of host memory that no plan counted
    values.cors_origins, values.cors_origins_explicit = "", True  # default: any web page may ask
    values.cors_credentials = False
    values.ui = False
    values.endpoint_metrics = True
    return values


def has_gpu(devices: Sequence[dict[str, Any]]) -> bool:
    """Whether any of the engine's `devices` can hold layers beside the CPU."""
    return any("GPU" in device["type"].name for device in devices)


def serve(flags: argparse.Namespace) -> int:
    """Run the engine in this process. Returns an exit status when it does not come up, else never returns."""
    try:
        import xllamacpp as engine  # noqa: PLC0415 - an extra, and the parent process must stay small
    except ImportError:
        return _NOT_INSTALLED
    if flags.n_gpu_layers != 0 and not has_gpu(engine.get_device_info()):
        return _NO_GPU
    try:
        _server = engine.Server(parameters(flags, engine))  # serves from threads of its own while it is referenced
    except RuntimeError:
        return _FAILED  # the engine has said why on stderr
    while True:
        signal.pause()


def _child(flags: argparse.Namespace, log: int, parent: int) -> None:
    """Become the engine: stderr goes to the parent, only the parent's death or its SIGKILL ends us."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above: the signal will never come
    for number in _STOP:
        signal.signal(number, signal.SIG_IGN)  # a signal to the whole group must not look like a crash
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    os.dup2(log, 2)
    os.close(log)
    sys.exit(serve(flags))  # a proper exit: llama.cpp logs from a thread, which only then has written everything


def forward(lines: Iterable[bytes], out: int) -> str | None:
    """Copy the engine's log to descriptor `out`; returns its root cause: the first error line, later ones only follow from it.

    What comes after it on `out` begins on a line of its own, also when the engine died in the middle of one.
    """
    cause, line = None, b"\n"
    for line in lines:
        os.write(out, line)
        text = line.decode("utf-8", "replace").strip()
        if cause is None and " E " in text:
            cause = text.split(" E ", 1)[1]
    if not line.endswith(b"\n"):
        os.write(out, b"\n")
    return cause


def root_cause(flags: argparse.Namespace, cause: str | None, status: int) -> str:
    """One sentence for the user: why the engine ended with wait status `status`, `cause` its first error line."""
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) in _REASONS:
        return _REASONS[os.WEXITSTATUS(status)]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        likely = ", most likely because memory ran out" if name == "SIGKILL" else ""
        return f"llama.cpp was ended by {name} with {flags.model}{likely}"
    if cause and "couldn't bind" in cause:
        return f"port {flags.port} on {flags.host} is taken by another program"
    return f"llama.cpp cannot serve {flags.model}: {cause or 'no reason given'}"


def file_problem(flags: argparse.Namespace) -> str | None:
    """The first of the model's files that is not there; the engine would say it less clearly."""
    missing = (path for path in (flags.model, flags.mmproj) if path and not path.is_file())
    return next((f"model file {path} does not exist" for path in missing), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT (exit 0 at once, also in flight) or until the engine ends (exit 1)."""
    flags = parser().parse_args(arguments)
    if problem := file_problem(flags):
        sys.stderr.write(f"error: {problem}\n")
        return 1
    reader, writer = os.pipe()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # until both processes know what to do with one
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(flags, writer, parent)
    os.close(writer)
    _stop_with(child)
    with os.fdopen(reader, "rb") as log:
        cause = forward(log, 2)
    _, status = os.waitpid(child, 0)
    sys.stderr.write(f"error: {root_cause(flags, cause, status)}\n")
    return 1


def _stop_with(child: int) -> None:
    """From now on SIGTERM and SIGINT end the engine and then this process, with exit status 0."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # its memory is free when we are gone
        os._exit(0)

    for number in _STOP:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)


if __name__ == "__main__":
    sys.exit(main())
