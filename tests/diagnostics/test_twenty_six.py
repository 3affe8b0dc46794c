"""The mistakes of the language's specification: each with its code, place, reason and fix.

The place is marked «so» in the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from imageworks.diagnostics import human
from imageworks.diagnostics.fixes import repair
from imageworks.diagnostics.model import Diagnostic
from imageworks.model.load import load
from imageworks.model.lock import Architecture, Lock, LockedModel, write
from imageworks.plan.resolve import resolve
from imageworks.source.files import MemoryFiles
from imageworks.targets.registry import check

HEAD = "version: 1\nname: home-studio\n"
QWEN = "  qwen3-vl-8b-fp8:\n    backend: vllm\n    source: {path: Qwen/Qwen3-VL-8B}\n"
MODELS = HEAD + "models:\n" + QWEN
CARD16 = '  constrained_16gb: {match: {gpus: 1, vram: ">=14.9GiB <22.1GiB"}, headroom: 1.2GiB}\n'
CARD24 = (
    '  balanced_24gb: {match: {gpus: 1, vram: ">=22.1GiB <39GiB"}, headroom: 0.7GiB, max_concurrent_models: 2,'
    " strategy: concurrent_limited}\n"
)
GPT = (
    "    backend: vllm\n    source: {hf: openai/gpt-oss-20b}\n    capabilities: [chat, tools, reasoning]\n"
    "    context: 16384\n    vram: {weights: 12.85GiB, kv: 1.5GiB}\n    roles: {reasoning: 90}\n"
)
PIXTRAL = "  pixtral-12b-q4:\n    backend: ollama\n    source: {ollama: p}\n    capabilities: [chat, vision]\n"
KEY = "sk-wJ4rT8vN2mQ6xZ0pL3kH7dF1sA5gB9c"
PROMPT = {"prompts/base/personal_tagger/tagger_default.yaml": "version: 1\nuser: Describe it.\n"}


def net(family: str) -> Architecture:
    return Architecture(family=family, layers=40, kv_heads=8, head_dim=128, context_limit=131072)


LOCK = Lock(
    models={
        "pixtral-12b-q4": LockedModel(origin="published", weights_bytes=8 << 30, architecture=net("pixtral")),
        "florence-2-large": LockedModel(origin="published", weights_bytes=2 << 30, architecture=net("florence2")),
        **{
            name: LockedModel(origin="published", weights_bytes=10 << 30, architecture=net("qwen3_vl"))
            for name in ("qwen3-vl-8b-fp8", "siglip-large")
        },
    }
)


@dataclass(frozen=True)
class Mistake:
    """`says` stands in message, label, notes or sums, `fix` in a fix; `mended` is what a safe fix makes of the place."""

    text: str
    says: tuple[str, ...]
    fix: str
    mended: str | None = None


MISTAKES = {
    "IW101 a range needs quotes": Mistake(
        MODELS + "profiles:\n  mine:\n    match: {gpus: 1, vram: «>»=15GiB}\n",
        ("a range needs quotes", "YAML gives `>` a meaning of its own here"),
        '">=15GiB"',
        'vram: ">=15GiB"}',
    ),
    "IW102 a tab": Mistake(
        MODELS + "«\t»context: 8192\n", ("tab in indentation", "only blanks"), "4 blanks", "\n    context: 8192"
    ),
    "IW103 declared twice": Mistake(
        MODELS + "  «qwen3-vl-8b-fp8»:\n    backend: vllm\n",
        ("`qwen3-vl-8b-fp8` is declared twice", "first here", "second time"),
        "merge its keys into line 4",
    ),
    "IW104 a merge key": Mistake(
        MODELS + "    «<<: *vllm_common»\n",
        ("anchors and merge keys are not part of this language", "no line of its own"),
        "`defaults:`",
    ),
    "IW201 a misspelt key": Mistake(
        MODELS.replace("backend", "«bakend»"), ("unknown key `bakend`", "did you mean `backend`?"), "rename", "backend:"
    ),
    "IW201 a key of another backend": Mistake(
        MODELS.replace("8B}", "8B, «mmproj: x.gguf»}"),
        ("`mmproj` does not belong to backend vllm", "known for backend llamacpp", "reads the vision tower from"),
        "`backend: llamacpp` (line 5)",
    ),
    "IW203 GB": Mistake(
        MODELS + "    vram: {weights: «10.6GB»}\n", ("GB is ambiguous", "9.87GiB", "nvidia-smi", "10.6GiB"), "9.87GiB"
    ),
    "IW204 no unit": Mistake(
        HEAD + "defaults: {grace: «300»}\n" + "models:\n" + QWEN, ("a duration needs a unit", "seconds or minutes?"), "300s"
    ),
    "IW205 an unknown backend": Mistake(
        MODELS.replace("vllm", "«vlm»", 1),
        ("unknown backend `vlm`", "did you mean `vllm`?", "vllm llamacpp ollama openai", "checked all the same"),
        "",
    ),
    "IW206 a priority beyond 100": Mistake(
        MODELS + "    roles: {caption: «850»}\n", ("priority 850 is outside 0..100", "100 is the highest"), "85?"
    ),
    "IW207 a typed port": Mistake(
        MODELS + "    «port»: 24001\n", ("`port` is derived, not typed", "never reachable"), "pin: {port: {value: 24001"
    ),
    "IW208 an unknown strategy": Mistake(
        MODELS + "profiles:\n  development:\n    strategy: «load_unlod»\n",
        ("unknown strategy `load_unlod`", "did you mean `load_unload`?"),
        "load_unload",
        "strategy: load_unload\n",
    ),
    "IW301 an undeclared role": Mistake(
        MODELS + "    roles: {«captoin»: 85}\n",
        ("model serves an undeclared role", "did you mean `caption`", "would never get this model"),
        "rename",
        "{caption: 85}",
    ),
    "IW302 a group with an unknown model": Mistake(
        MODELS + "profiles:\n" + CARD24 + "groups:\n  day: {models: [«qwen3-vl-8b»], profiles: [balanced_24gb]}\n",
        ("group names an unknown model", "did you mean `qwen3-vl-8b-fp8`", "never skipped"),
        "rename",
        "[qwen3-vl-8b-fp8]",
    ),
    "IW303 one name, two models": Mistake(
        MODELS
        + '    aliases: ["gpt-4o-mini"]\n  other:\n    backend: vllm\n    source: {path: O}\n    aliases: [«"gpt-4o-mini"»]\n',
        ("one name, two models", "qwen3-vl-8b-fp8 answers to it", "also answers to this"),
        "two priorities of one role",
    ),
    "IW304 an absolute path": Mistake(
        MODELS.replace("Qwen/Qwen3-VL-8B", "«/srv/models/Qwen3»"),
        ("absolute path", "holds on one machine only", "compared on every machine"),
        "roots: {models: {default: /srv/models}}",
    ),
    "IW306 a secret": Mistake(
        MODELS + f"  phone: {{backend: openai, url: 'http://box:1', key: «{KEY}»}}\n",
        ("a secret stands in the file", "would be committed", "replace the key", "begins "),
        "secrets: {PHONE_KEY: {env: IMAGEWORKS_PHONE_KEY}}  and  key: {secret: PHONE_KEY}",
    ),
    "IW330 open to the network": Mistake(
        MODELS + "proxy:\n  bind: «0.0.0.0:8100»\n",
        ("open to the network without keys", "could use your GPU", "175,108"),
        "bind: 127.0.0.1:8100",
    ),
    "IW401 two profiles for one machine": Mistake(
        MODELS + "profiles:\n" + CARD16 + '  balanced_24gb: {match: {gpus: 1, vram: «">=20GiB <39GiB"»}}\n',
        ("constrained_16gb and balanced_24gb match the same machine", "overlaps from 20GiB to 22.1GiB", "constrained_16gb"),
        ">=22.1GiB <39GiB",
        '">=22.1GiB <39GiB"',
    ),
    "IW402 a role without a model": Mistake(
        HEAD + "profiles:\n" + CARD16 + "models:\n  gpt-oss-20b:\n" + GPT
        + "roles:\n  «reasoning»: {requires: [chat, reasoning], may_be_missing_on: [development]}\n",
        ("role `reasoning` has no model on constrained_16gb", "gpt-oss-20b: 15.9 GiB needed, 13.7 usable"),
        "may_be_missing_on: [constrained_16gb, development]",
    ),
    "IW410 a model that does not fit": Mistake(
        HEAD + "profiles:\n" + CARD16 + "models:\n  «gpt-oss-20b»:\n" + GPT
        + "roles:\n  reasoning: {requires: [chat, reasoning], may_be_missing_on: [development]}\n",
        ("gpt-oss-20b does not fit constrained_16gb: 2.2 GiB short", "15.9 GiB needed, 13.7 usable", "weights 12.85",
         "as declared stack.yaml:11", "KV cache 1.50", "activations 0.60", "CUDA + graphs 0.90", "needed 15.85 GiB",
         "GPU 14.90 lower end of match stack.yaml:4", "headroom -1.20", "usable, constrained_16gb 13.70 GiB"),
        "may_be_missing_on",
    ),
    "IW411 a group that does not fit": Mistake(
        HEAD + "profiles:\n" + CARD24 + "models:\n" + QWEN
        + "    context: 2048\n  siglip-large:\n    backend: vllm\n    source: {path: S}\n    context: 2048\n"
        "groups:\n  day:\n    models: [qwen3-vl-8b-fp8, siglip-large]\n    profiles: [«balanced_24gb»]\n",
        ("group day does not fit balanced_24gb", "GiB together, 21.4 usable", "qwen3-vl-8b-fp8 12.13 stack.yaml:6",
         "siglip-large 12.13 :10", "usable, GPU 0 21.40 GiB", "smallest set to drop: qwen3-vl-8b-fp8"),
        "drop models",
    ),
    "IW413 a request larger than the context": Mistake(
        HEAD + "profiles:\n" + CARD16 + "models:\n" + PIXTRAL + "    context: 8192\n    roles: {vision_general: 80}\n"
        "roles:\n  vision_general: {requires: [chat, vision], images: {max: «2», max_edge: 1024px}, max_tokens: 1024,"
        " may_be_missing_on: [development]}\n",
        ("one request of vision_general can exceed the context of pixtral-12b-q4", "2 x 4160 = 8320 tokens",
         "images 8320", "answer 1024 max_tokens", "reserve 64", "needed 9920 tokens", "context 8192 stack.yaml:10"),
        "context: 9984 or more",
    ),
    "IW502 a derived flag": Mistake(
        MODELS + "    vllm: {limit-mm-per-prompt: «{image: 4}»}\n",
        ("`limit-mm-per-prompt` is derived", "the roles of this model say", "would win over the derived value"),
        "images.max",
    ),
    "IW503 a network that vLLM gave up": Mistake(
        HEAD + "models:\n  florence-2-large:\n    backend: «vllm»\n    source: {path: F}\n",
        ("vLLM 0.32.0 cannot serve Florence2ForConditionalGeneration", "stop at start"),
        "backend: openai",
    ),
    "IW701 an unknown prompt profile": Mistake(
        MODELS + "    capabilities: [chat, vision]\n    roles: {caption: 80}\nprompts:\n  bind:\n"
        "    personal_tagger.caption: {role: caption, profile: «tager_default»}\n",
        ("unknown prompt profile", "did you mean `tagger_default`?", "looked in prompts/{base,app,user}/personal_tagger/"),
        "rename",
        "profile: tagger_default}",
    ),
}  # fmt: skip


Found = tuple[tuple[Diagnostic, ...], str]


def compiled(text: str) -> tuple[Diagnostic, ...]:
    """Everything that the compiler says about `text`."""
    files: dict[str, str | bytes] = {"stack.yaml": text, "models.lock": write(LOCK), **PROMPT}
    outcome = load("stack.yaml", MemoryFiles(files), "studio")
    if outcome.loaded is None:
        return outcome.diagnostics
    plans, found = resolve(outcome.loaded)
    return (*outcome.diagnostics, *found, *check(plans))


@pytest.fixture
def found() -> Callable[[str], Found]:
    """`found(name)`: what is said about a mistake, and its text without the marks."""

    def run(name: str) -> Found:
        text = MISTAKES[name].text.replace("«", "").replace("»", "")
        return compiled(text), text

    return run


def the_one(name: str, diagnostics: tuple[Diagnostic, ...]) -> Diagnostic:
    (item,) = (item for item in diagnostics if item.code == name[:5])
    return item


@pytest.mark.parametrize("name", MISTAKES)
def test_the_place_is_exact(name: str, found: Callable[[str], Found]) -> None:
    item = the_one(name, found(name)[0])
    before, _, rest = MISTAKES[name].text.partition("«")
    marked = rest.partition("»")[0]
    assert item.primary is not None
    span = item.primary.span
    assert (span.file, span.start, span.end) == ("stack.yaml", len(before), len(before) + len(marked))
    assert (span.line, span.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))


@pytest.mark.parametrize("name", MISTAKES)
def test_reason_and_fix_are_told(name: str, found: Callable[[str], Found]) -> None:
    diagnostics, text = found(name)
    item = the_one(name, diagnostics)
    told = " ".join(human.full([item], {"stack.yaml": text}).split())
    assert [words for words in MISTAKES[name].says if words not in told] == [], told
    assert MISTAKES[name].fix in " | ".join(fix.text for fix in item.fixes)


@pytest.mark.parametrize("name", MISTAKES)
def test_nothing_else_is_wrong(name: str, found: Callable[[str], Found]) -> None:
    errors = {item.code for item in found(name)[0] if item.is_error}
    beside = {"IW402": {"IW410"}, "IW410": {"IW402"}}.get(name[:5], set())
    assert errors == {name[:5]} | beside


@pytest.mark.parametrize("name", MISTAKES)
def test_exactly_the_safe_fixes_carry_edits_that_mend(name: str, found: Callable[[str], Found]) -> None:
    diagnostics, text = found(name)
    changes = repair(diagnostics, {"stack.yaml": text})
    mended = MISTAKES[name].mended
    assert bool(changes) == (mended is not None)
    if mended is not None:
        assert mended in changes["stack.yaml"].text
        assert [item.code for item in compiled(changes["stack.yaml"].text) if item.is_error] == []
