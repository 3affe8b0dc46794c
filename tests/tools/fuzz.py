"""Damaged stacks for the whole front end: `python tests/tools/fuzz.py --inputs 100000 --seed 1`.

Two outcomes are allowed for any bytes: compiled, or findings of which at least one is an error, each with a place
that lies in its file. An exception, an endless run or a finding that cannot be shown is a bug of ours; the bytes
that cause one are printed. Input N of a seed is always the same bytes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from imageworks.diagnostics import human, machine
from imageworks.diagnostics.codes import CODES
from imageworks.diagnostics.model import Applicability, Diagnostic
from imageworks.diagnostics.sarif import sarif
from imageworks.model.load import load
from imageworks.model.lock import Architecture, Lock, LockedModel, write
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles
from imageworks.source.text import SourceFile
from imageworks.targets.registry import check, emit

ROOT = Path(__file__).parents[2]
SLOWEST_S = 20.0
"""No input may take longer; a usual one takes some milliseconds, the shared machine the rest."""

SMALL = """version: 1
models:
  gemma-4b:
    backend: llamacpp
    source: {path: gemma-3-4b-it-Q4_K_M.gguf}
    vram: {weights: 2.5GiB, kv: 0.5GiB}
    roles: {chat: 50}
"""
CARD = """version: 1   # a comment
name: studio
defaults: {grace: 5m, start_timeout: 180s, context: 8192, concurrency: 2}
profiles:
  card:
    match: {gpus: 1, vram: ">=22.1GiB <39GiB", compute: ">=8.0"}
    headroom: 0.7GiB
    max_concurrent_models: 2
    strategy: concurrent_limited
    prefer_quantizations: [fp8, awq]
    selection_bias: balanced
models:
  qwen:
    aliases: ["Qwen (FP8)", 日本]
    backend: vllm
    source: {path: Qwen/Qwen3}
    quantization: fp8
    capabilities: [chat, vision, tools]
    context: {at_least: 6144, up_to: 32768}
    concurrency: {at_least: 1, up_to: 8}
    vram: {weights: 9.88GiB}
    roles: {caption: 85, chat: 70}
    sampling: {temperature: 0.3, top_p: 0.9}
    vllm: {enable-auto-tool-choice: true, tool-call-parser: hermes}
    pin: {port: {value: 24009, because: "a panel"}}
  far: {backend: openai, url: "http://192.168.1.20:8000/v1", roles: {chat: 3}}
  own:
    backend: openai
    command: [serve, --model, "${source}", --port, "${port}"]
    source: {hf: a/b, revision: main}
    vram: {total: 3500MiB, because: "measured"}
  copy: {backend: vllm, source: {same_as: qwen}, context: 2048}
"""
ROLES = """version: 1
profiles: {p: {match: {gpus: 1, vram: ">=16GiB"}}}
models:
  o: {backend: ollama, source: {ollama: "q:7b"}, vram: {weights: 6GiB, kv: 1GiB}, capabilities: [chat, vision],
      roles: {caption: 80, judge: 3}, context: 32768}
roles:
  caption: {requires: [vision], images: {max: 1, max_edge: 1024px}, max_tokens: 160, fallback: [judge],
            may_be_missing_on: [development]}
  judge: {requires: [vision], images: {max: 2, max_edge: 1536px}, deadline: 10m, may_be_missing_on: [development]}
groups:
  day: {models: [o], profiles: [p]}
prompts:
  path: prompts
  layers: [base, app]
  bind:
    app.caption: {role: caption, profile: tag}
proxy: {bind: "127.0.0.1:8100", limits: {body: 64MiB, queue: 256, queue_wait: 10m}}
targets: {supervisord: {enabled: true}, systemd: {scope: user}, vllm_scripts: {enabled: false}}
"""
LAYERED = """version: 1
include: [more.yaml]
variables: {FOLDER: Qwen, SIZE: big}
ports: {first: 24001, last: 24099}
profiles:
  mixed:
    match: {devices: [{vram: ">=22.1GiB", compute: ">=8.0"}, {mig: 3g.40gb}]}
    max_concurrent_models: 2
    strategy: concurrent_limited
    override:
      models: {a: {context: 4096, roles: {draft: 3}, aliases+: [x]}}
models:
  a: {backend: vllm, source: {path: "${FOLDER}/A"}, vram: {weights: 9GiB, kv: 1GiB}, roles: {chat: 1},
      aliases: [one, two]}
  b: {backend: vllm, source: {path: "${FOLDER}/$${B}"}, vram: {weights: 2GiB, kv: 1GiB}, concurrency: 1}
groups:
  pair: {models: [a, b], profiles: [mixed], allocation: balanced, startup: parallel}
"""
MORE = """models:
  c: {backend: llamacpp, source: {path: c.gguf}, vram: {weights: 1GiB, kv: 1GiB}, aliases: ["${SIZE} c"], roles: {draft: 2}}
roles:
  draft: {requires: [chat]}
"""
PROMPT = "version: 1\nsystem: You are terse.\nuser: |\n  Describe {{ subject }}.\n"
WORDS = """: - ? , # & * ! | > ' " % @ ` { } [ ] << ~ null true yes 0 -1 1e999 .inf .nan 0x1F 1_000 2026-11-22 ${X} $$ {{x}} {%
    --- ... |2- >+ !!int !!binary &a *a \\x \\u0000 >=15GiB 10GB 5m 300 version models profiles roles backend vllm llamacpp
    source path same_as include override variables secrets groups prompts pin because context at_least up_to
    qwen o caption chat fp8 /etc/passwd ../x C:\\x é 日本 😀""".split()  # noqa: SIM905 - as they stand in a file
CHARACTERS = [
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    "\ufeff".encode(),
    "\u2028".encode(),
    "\u0085".encode(),
    b"\0",
    b"\x1b",
]
BLANKS = [b"\n", b"\r", b"\r\n", b"\t", b" ", b"  ", b"\n\n", b"\n  ", b"\n    ", b": ", b"\n- "]

_WORD = re.compile(rb'"[^"\n]*"|[^\s:,{}\[\]#"]+')

Change = Callable[[Random, bytes], bytes]


def _spot(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((0, 1, 1, 2, 4, 8, 20, 80)))


def _insert(random: Random, data: bytes) -> bytes:
    at, _ = _spot(random, data)
    new = random.choice((*(word.encode() for word in WORDS), *BLANKS, *CHARACTERS))
    return data[:at] + new * random.choice((1, 1, 1, 1, 2, 60)) + data[at:]


def _replace(random: Random, data: bytes) -> bytes:
    start, end = _spot(random, data)
    return data[:start] + random.choice(WORDS).encode() + data[end:]


def _cut(random: Random, data: bytes) -> bytes:
    start, end = _spot(random, data)
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes) -> bytes:
    start, end = _spot(random, data)
    at, _ = _spot(random, data)
    return data[:at] + data[start:end] * random.choice((1, 1, 2, 30)) + data[at:]


def _flip(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _lines(random: Random, data: bytes) -> bytes:
    """Move, double or indent whole lines."""
    lines = data.splitlines(keepends=True) or [b""]
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one] = random.choice((lines[one] + lines[other], b"  " + lines[one], lines[one].lstrip(), lines[other]))
    return b"".join(lines)


def _exchange(random: Random, data: bytes) -> bytes:
    """One word or quoted text for another of the same file, or for one of ours: the shape stays whole."""
    words = list(_WORD.finditer(data))
    if not words:
        return data
    one = random.choice(words)
    new = random.choice(words)[0] if random.random() < 0.6 else random.choice(WORDS).encode()
    return data[: one.start()] + new + data[one.end() :]


def _soup(random: Random, data: bytes) -> bytes:
    del data
    pieces = [random.choice(WORDS).encode() if random.random() < 0.6 else random.choice(BLANKS) for _ in range(30)]
    return b" ".join(pieces) if random.random() < 0.5 else b"".join(pieces)


def _noise(random: Random, data: bytes) -> bytes:
    return random.randbytes(random.randrange(len(data) + 2))


CHANGES: Sequence[Change] = (
    *((_insert, _replace, _cut, _repeat, _flip, _lines) * 6),
    *((_exchange,) * 40),
    _soup,
    _noise,
)
SEEDS = (SMALL, CARD, CARD, ROLES, ROLES, LAYERED, LAYERED)


def damaged(seed: int, number: int) -> Sequence[bytes]:
    """(stack.yaml, a prompt file) of input `number`: always the same for the same seed."""
    random = Random(f"{seed}/{number}")
    stack, prompt = random.choice(SEEDS).encode(), PROMPT.encode()
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if random.random() < 0.08:
            prompt = random.choice(CHANGES)(random, prompt)
        else:
            stack = random.choice(CHANGES)(random, stack)
    return stack[: 1 << 16], prompt[: 1 << 16]


NET = Architecture(family="qwen3_vl", layers=36, kv_heads=8, head_dim=128, context_limit=262144)
LOCK = write(Lock(models={"qwen": LockedModel(origin="published", weights_bytes=10 << 30, architecture=NET)}))


def outcome(stack: bytes, prompt: bytes = PROMPT.encode()) -> str:
    """`compiled` or `refused`. Raises AssertionError, or whatever escapes, when it is neither."""
    files = MemoryFiles(
        {"stack.yaml": stack, "models.lock": LOCK, "more.yaml": MORE, "prompts/base/app/tag.yaml": prompt}
    )
    result = load("stack.yaml", files, "studio")
    found = result.diagnostics
    if result.loaded is not None:
        plans, about = resolve(result.loaded)
        found = (*found, *about, *check(plans))
        if not any(item.is_error for item in found):
            assert plans, "neither plans nor an error"
            assert all(emit(plan, plans) for plan in plans)
    _judge(found, {name: SourceFile(name, text) for name, text in result.texts.items()})
    if any(item.is_error for item in found):
        return "refused"
    assert result.loaded is not None, "nothing loaded and no error"
    return "compiled"


def _judge(found: Sequence[Diagnostic], files: dict[str, SourceFile]) -> None:
    """Every finding has a place in its file and can be shown."""
    for item in found:
        assert item.code in CODES
        assert item.primary is not None, f"{item.code} has no place: {item.message}"
        unmade = [fix.text for fix in item.fixes if fix.applicability is Applicability.SAFE and not fix.edits]
        assert not unmade, f"{item.code} promises a repair without an edit: {unmade}"
        labels = (item.primary, *item.secondary)
        spans = [label.span for label in labels]
        spans += [edit.span for fix in item.fixes for edit in fix.edits]
        spans += [term.span for sums in item.sums for term in (*sums.needed, *sums.available) if term.span]
        for span in spans:
            file = files[span.file]
            assert file.span(span.start, span.end) == span, f"{item.code}: {span} is no place of {span.file}"
    texts = {name: file.text for name, file in files.items()}
    assert human.full(found, texts).count("\n") >= len(found)
    assert human.concise(found).count("\n") == len(found)
    for text in (machine.json(found), machine.github(found), sarif(found, "0")):
        assert "\x1b" not in text


def run(seed: int, numbers: range, until: float = float("inf")) -> tuple[Counter[str], float]:
    """Outcomes of the inputs `numbers`, as far as time (`until`, monotonic) reaches, and the slowest in seconds."""
    counts: Counter[str] = Counter()
    slowest = 0.0
    for number in numbers:
        data = damaged(seed, number)
        before = time.monotonic()
        if before > until:
            break
        try:
            counts[outcome(*data)] += 1
        except BaseException:
            print(f"seed {seed}, input {number}: {data!r}", file=sys.stderr)  # noqa: T201 - what a command says
            raise
        slowest = max(slowest, time.monotonic() - before)
        assert slowest < SLOWEST_S, f"seed {seed}, input {number} took {slowest:.1f} s: {data!r}"
    return counts, slowest


def main() -> None:
    """Run as many inputs as asked for and tell the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    asked = parser.parse_args()
    begin = time.monotonic()
    counts, slowest = run(asked.seed, range(asked.first, asked.first + asked.inputs))
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"seed {asked.seed}: {sum(counts.values())} inputs in {time.monotonic() - begin:.0f} s: {told}")  # noqa: T201 - what a command says
    print(f"slowest input {slowest:.2f} s")  # noqa: T201 - what a command says


if __name__ == "__main__":
    main()
