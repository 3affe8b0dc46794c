"""One failing example for each code of the front end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imageworks.model.load import Outcome, load
from imageworks.source.files import MemoryFiles

MODEL = "version: 1\nmodels:\n  m:\n    backend: llamacpp\n    source: {path: m.gguf}\n"
KEY = "hf_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0"
STACKS: dict[str, str | bytes | None] = {
    "IW100": MODEL + "groups: {day: {models: [m]\nproxy:\n  bind: 127.0.0.1:8100\n",
    "IW101": MODEL + "profiles:\n  mine:\n    match: {gpus: 1, vram: >=15GiB}\n",
    "IW102": MODEL + "\tcontext: 8192\n",
    "IW103": MODEL + "  m:\n    backend: vllm\n    source: {path: m}\n",
    "IW104": "version: 1\nmodels:\n  a: &common {backend: vllm, source: {path: A}}\n  b:\n    <<: *common\n    backend: vllm\n    source: {path: B}\n",
    "IW105": b"version: 1\nname: caf\xe9\n",
    "IW106": MODEL + "---\nversion: 1\n",
    "IW107": "# nothing yet\n",
    "IW108": "- version: 1\n",
    "IW109": MODEL + "? [a, b]\n: 1\n",
    "IW110": None,
    "IW112": b" " * ((4 << 20) + 1),
    "IW200": MODEL + "    aliases: gpt-4o-mini\n",
    "IW201": MODEL.replace("backend", "bakend"),
    "IW202": MODEL.replace("    source: {path: m.gguf}\n", ""),
    "IW203": MODEL + "    vram: {weights: 10.6GB}\n",
    "IW204": MODEL + "    grace: 300\n",
    "IW205": MODEL.replace("llamacpp", "lamacpp"),
    "IW206": MODEL + "    roles: {caption: 850}\n",
    "IW207": MODEL + "    port: 24001\n",
    "IW208": MODEL + "profiles:\n  development: {strategy: load_unlod}\n",
    "IW209": MODEL + "    context:\n",
    "IW210": MODEL.replace("version: 1", "version: 7"),
    "IW211": MODEL.replace("  m:", "  Qwen3 (FP8):"),
    "IW212": MODEL + 'profiles:\n  mine: {match: {gpus: 1, vram: ">=20GiB"}}\n  balanced_24gb: {headroom: 2GiB}\n',
    "IW213": MODEL + 'profiles:\n  mine: {match: {gpus: 1, vram: "15-22GiB"}}\n',
    "IW220": "version: 1\nmodels:\n  far: {backend: openai}\n",
    "IW301": MODEL + "    roles: {captoin: 85}\n",
    "IW302": MODEL + "groups:\n  day: {models: [caption], profiles: [developmnt]}\n",
    "IW303": MODEL
    + '    aliases: ["gpt-4o-mini"]\n  other: {backend: vllm, source: {path: x}, aliases: ["gpt-4o-mini"]}\n',
    "IW304": MODEL.replace("m.gguf", "/srv/models/m.gguf"),
    "IW305": MODEL.replace("llamacpp", "vllm")
    + "    vllm: {api-key: {secret: API_KEY}}\nsecrets: {API_KEY: {env: API_KEY}}\n",
    "IW306": MODEL + f"    aliases: [{KEY}]\n",
    "IW307": MODEL.replace("{path: m.gguf}", "{path: m.gguf, hf: a/b}"),
    "IW309": MODEL + "roles:\n  caption: {fallback: [keywords]}\n  keywords: {fallback: [caption]}\n",
    "IW310": MODEL + "include: [layers/none.yaml]\n",
    "IW311": MODEL + "include: [layers/low.yaml, layers/other.yaml]\n",
    "IW312": MODEL + "profiles-: [compact_9gb]\n",
    "IW313": MODEL + "    alaises+: [gpt-4o]\n",
    "IW314": MODEL
    + "    pin: {port: {value: 24001, because: panel}}\n  o: {backend: vllm, source: {path: x}, pin: {port: {value: 24001, because: x}}}\n",
    "IW315": MODEL.replace("m.gguf", '"${NAEM}.gguf"') + "variables: {NAME: m}\n",
    "IW330": MODEL + "proxy:\n  bind: 0.0.0.0:8100\n",
    "IW510": "version: 1\nmodels:\n  own: {backend: openai, command: [serve], env: {CUDA_VISIBLE_DEVICES: '1'}}\n",
    "IW522": MODEL + "targets: {systmd: {scope: system}}\n",
    "IW701": MODEL + "prompts:\n  bind:\n    personal_tagger.caption: {role: caption, profile: tager_default}\n",
    "IW702": MODEL + "prompts:\n  bind:\n    caption: {role: caption, profile: tagger_default}\n",
}
OTHER_FILES = {
    "prompts/base/personal_tagger/tagger_default.yaml": "version: 1\nuser: Describe it.\n",
    "layers/low.yaml": "defaults: {grace: 3m}\n",
    "layers/other.yaml": "defaults:\n  grace: 4m\n",
}


@pytest.fixture
def outcome() -> Callable[[str], Outcome]:
    """`outcome(code)`: what loading the example of `code` gives."""

    def run(code: str) -> Outcome:
        text = STACKS[code]
        files: dict[str, str | bytes] = dict(OTHER_FILES)
        if text is not None:
            files["stack.yaml"] = text
        return load("stack.yaml", MemoryFiles(files), "studio")

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `code` with every example."""
    if "code" in metafunc.fixturenames:
        metafunc.parametrize("code", sorted(STACKS))
