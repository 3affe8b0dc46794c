"""Launch commands, flag by flag, and that a change in stack.yaml moves exactly the flags that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.contract import expand
from imageworks.diagnostics.model import Diagnostic
from imageworks.model.loaded import Loaded
from imageworks.model.lock import LockedModel
from imageworks.plan.ir import GIB, Flag, Launch, Need, PackageFile, Plan, PlannedModel
from imageworks.plan.launch_openai import fill

Read = Callable[..., Loaded]
Known = Callable[..., LockedModel]
Placed = Callable[..., PlannedModel]


def words(launch: Launch | None) -> list[str]:
    assert launch is not None
    return [word for flag in launch.flags for word in written(flag)]


def written(flag: Flag) -> list[str]:
    if not flag.name:
        return [flag.value or ""]
    if flag.value is None:
        return [flag.name]
    return [flag.name, flag.value] if flag.form == "pair" else [f"{flag.name}={flag.value}"]


def of(shipped: Mapping[str, Plan], profile: str, model: str) -> PlannedModel:
    found = shipped[profile].model(model)
    assert found is not None
    return found


def test_golden_argv_of_qwen3_vl_on_constrained_16gb(shipped: Mapping[str, Plan]) -> None:
    model = of(shipped, "constrained_16gb", "qwen3-vl-8b-fp8")
    assert words(model.launch) == [
        "vllm",
        "serve",
        "{models}/Qwen/Qwen3-VL-8B-Instruct-FP8",
        "--host=127.0.0.1",
        "--port=24003",
        "--served-model-name=qwen3-vl-8b-fp8",
        "--max-model-len=12800",  # (13.7 - 9.88 - 0.55 - 0.6 - 0.9) GiB / 144 KiB = 12 888, in steps of 256
        "--max-num-seqs=1",  # nothing is left for a second request
        "--gpu-memory-utilization=0.918",  # 13.69 / 14.90
        "--kv-cache-memory-bytes=1889796096",  # (12800 + 16) x 144 KiB
        '--limit-mm-per-prompt={"image":2}',
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
    ]
    assert model.launch is not None
    assert model.launch.program == "model-qwen3-vl-8b-fp8"
    assert model.launch.slots == (0,)
    assert model.launch.env == {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def test_every_flag_has_a_reason_and_every_tokenised_value_says_so(shipped: Mapping[str, Plan]) -> None:
    launches = [model.launch for plan in shipped.values() for model in plan.models if model.launch]
    for launch in [*launches, *(plan.proxy.launch for plan in shipped.values())]:
        for flag in launch.flags:
            assert flag.why
            assert flag.path is any(
                token in (flag.value or "") for token in ("{models}", "{store}", "{python}", "{stack}")
            )


STACK = """
version: 1
profiles:
  card: {{match: {{gpus: 1, vram: ">={vram}"}}, headroom: {headroom}}}
models:
  m:
    backend: vllm
    source: {{path: o/m}}
    capabilities: [chat, vision]
    context: {context}
    concurrency: 1
    roles: {{look: 50}}
    vllm: {flags}
roles:
  look: {{requires: [vision], images: {{max: {images}, max_edge: 1024px}}, max_tokens: 64, may_be_missing_on: [development]}}
"""
AS_IS = {"vram": "15GiB", "headroom": "1GiB", "context": "8192", "images": "1", "flags": "{}"}
RANGE = "{at_least: 6144, up_to: 65536}"


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        pytest.param(
            {},
            {"context": "16384"},
            {"--max-model-len", "--gpu-memory-utilization", "--kv-cache-memory-bytes"},
            id="context",
        ),
        pytest.param({}, {"images": "3"}, {"--limit-mm-per-prompt"}, id="images.max"),
        pytest.param({}, {"headroom": "2GiB"}, set(), id="headroom with a demanded context"),
        pytest.param(
            {"context": RANGE},
            {"context": RANGE, "headroom": "2GiB"},
            {"--max-model-len", "--gpu-memory-utilization", "--kv-cache-memory-bytes"},
            id="headroom with a range",
        ),
        pytest.param({}, {"vram": "22GiB"}, {"--gpu-memory-utilization"}, id="a larger card"),
        pytest.param({}, {"flags": "{dtype: half}"}, {"--dtype"}, id="a typed flag"),
    ],
)
def test_a_change_moves_exactly_the_flags_that_follow(
    *, read: Read, known: Known, placed: Placed, before: dict[str, str], after: dict[str, str], moved: set[str]
) -> None:
    first, second = (
        {flag.name: written(flag) for flag in launch.flags if flag.name}
        for launch in (
            placed(read(STACK.format_map(AS_IS | values), m=known(8)), "card", "m").launch for values in (before, after)
        )
        if launch is not None
    )
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == moved


def test_typed_flags_are_written_in_declared_order(read: Read, known: Known, placed: Placed) -> None:
    flags = (
        '{enforce-eager: true, async-scheduling: false, hf-overrides: {a: [1, "x"], b: 0.5}, revision: "1.10", seed: 7}'
    )
    argv = words(placed(read(STACK.format_map(AS_IS | {"flags": flags}), m=known(8)), "card", "m").launch)
    typed = [
        "--enforce-eager",
        "--no-async-scheduling",
        '--hf-overrides={"a":[1,"x"],"b":0.5}',
        "--revision=1.10",
        "--seed=7",
    ]
    assert argv[-5:] == typed


def test_a_flag_of_several_words_has_each_as_one_word(read: Read, known: Known, placed: Placed) -> None:
    flags = "{cudagraph-capture-sizes: [1, 2, 4], middleware: [a.B, c.D], allowed-origins: [x], logits-processors: one}"
    argv = words(placed(read(STACK.format_map(AS_IS | {"flags": flags}), m=known(8)), "card", "m").launch)
    several = ["--cudagraph-capture-sizes", "1", "2", "4", "--middleware=a.B", "--middleware=c.D"]
    assert argv[-8:] == [*several, '--allowed-origins=["x"]', "--logits-processors=one"]


@pytest.mark.parametrize("flag", ["limit-mm-per-prompt: {image: 4}", "gpu_memory_utilization: 0.9", "port: 8000"])
def test_a_derived_flag_is_refused(read: Read, known: Known, one: Callable[..., Diagnostic], flag: str) -> None:
    found = one(read(STACK.format_map(AS_IS | {"flags": f"{{{flag}}}"}), m=known(8)), "IW502")
    assert flag.partition(":")[0] in found.message
    assert found.primary is not None
    assert found.primary.span.line == 13


def test_the_check_at_start_passes_beside_the_residents(shipped: Mapping[str, Plan]) -> None:
    for plan in shipped.values():
        shares = {model.id: _share(model) for model in plan.models if _share(model)}
        assert all(0 < share * plan.devices[0].capacity <= plan.devices[0].budget for share in shares.values())
        assert sum(share for name, share in shares.items() if name in plan.policy.resident) <= 1


def _share(model: PlannedModel) -> float:
    flags = model.launch.flags if model.launch else ()
    return next((float(flag.value or 0) for flag in flags if flag.name == "--gpu-memory-utilization"), 0.0)


def test_a_split_model_says_so_and_halves_its_cache(shipped: Mapping[str, Plan]) -> None:
    model = of(shipped, "multi_gpu_2x16gb", "gpt-oss-20b")
    argv = words(model.launch)
    cache = next(term.bytes for term in model.memory.terms if term.name == "KV cache")
    assert model.context == 51200  # 2 x 1.60 GiB are left, 34 952 tokens of 2 x 48 KiB above the least
    assert "--tensor-parallel-size=2" in argv
    assert f"--kv-cache-memory-bytes={cache // 2}" in argv


def test_a_model_without_a_cache_gets_no_cache_flag(shipped: Mapping[str, Plan]) -> None:
    argv = words(of(shipped, "constrained_16gb", "siglip-large").launch)
    assert not [word for word in argv if word.startswith("--kv-cache")]
    assert "--runner=pooling" in argv


def test_the_embedded_model_starts_through_our_launcher(shipped: Mapping[str, Plan]) -> None:
    model = of(shipped, "development", "smollm2-135m")
    path = "{store}/sha256/b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert words(model.launch) == [
        *("{python}", "-m", "imageworks.services.llama_server"),
        *("--model", path, "--alias", "smollm2-135m", "--host", "127.0.0.1", "--port", "24005"),
        *("--ctx-size", "4096", "--parallel", "2", "--threads", "1", "--n-gpu-layers", "0"),
    ]
    assert model.launch is not None
    assert model.launch.needs == (Need(path, "imageworks up"),)
    assert isinstance(model.package, PackageFile)
    assert model.package.path == path
    assert model.launch.slots == ()


def test_the_second_entry_shares_the_file(shipped: Mapping[str, Plan]) -> None:
    short, long = (of(shipped, "development", name) for name in ("smollm2-135m", "smollm2-135m-long"))
    assert short.package == long.package
    assert short.port != long.port
    assert "--ctx-size" in words(long.launch)


def test_a_vision_model_brings_its_projector_on_cpu_and_gpu(shipped: Mapping[str, Plan]) -> None:
    on_cpu, on_gpu = (words(of(shipped, name, "smolvlm-500m").launch) for name in ("development", "compact_8gb"))
    assert on_cpu[-2] == "--mmproj"
    assert on_cpu[on_cpu.index("--n-gpu-layers") + 1] == "0"
    assert on_gpu[on_gpu.index("--n-gpu-layers") + 1] == "999"


def test_missing_files_come_with_the_command_that_gets_them(shipped: Mapping[str, Plan]) -> None:
    hints = {
        model.id: {need.hint for need in model.launch.needs} for model in shipped["roomy_40gb"].models if model.launch
    }
    folder = "models/ggml-org/SmolVLM-500M-Instruct-GGUF"
    files = "SmolVLM-500M-Instruct-Q8_0.gguf mmproj-SmolVLM-500M-Instruct-Q8_0.gguf"
    assert hints["smolvlm-500m"] == {
        f"hf download ggml-org/SmolVLM-500M-Instruct-GGUF {files} --local-dir {folder}",
    }
    assert hints["gpt-oss-20b"] == {
        "hf download openai/gpt-oss-20b --exclude 'original/*' --exclude 'metal/*' --local-dir models/openai/gpt-oss-20b"
    }


def test_hints_carry_the_revision_and_plain_paths_are_brought_by_hand(read: Read, placed: Placed, known: Known) -> None:
    text = """
version: 1
models:
  a: {backend: llamacpp, source: {hf: o/a, file: a.gguf, revision: v1}, context: 512}
  b: {backend: llamacpp, source: {path: deep/b.gguf, mmproj: deep/p.gguf}, context: 512}
"""
    loaded = read(text, a=known(1), b=known(1))
    a, b = (placed(loaded, "development", name).launch for name in ("a", "b"))
    assert a is not None
    assert a.needs == (Need("{models}/o/a/a.gguf", "hf download o/a a.gguf --revision v1 --local-dir models/o/a"),)
    assert b is not None
    assert [need.path for need in b.needs] == ["{models}/deep/b.gguf", "{models}/deep/p.gguf"]
    assert b.needs[0].hint == "put it at models/deep/b.gguf, or point the models root at the folder that holds it"


def test_another_llama_server_replaces_ours(read: Read, known: Known, placed: Placed) -> None:
    text = """
version: 1
backends: {llamacpp: {command: llama-server, threads: 3}}
models:
  a: {backend: llamacpp, source: {path: a.gguf}, context: 512, concurrency: 1}
"""
    argv = words(placed(read(text, a=known(1)), "development", "a").launch)
    assert argv[:2] == ["llama-server", "--model"]
    assert argv[argv.index("--threads") + 1] == "3"


def test_the_commands_of_other_servers_are_filled_in(shipped: Mapping[str, Plan]) -> None:
    assert words(of(shipped, "constrained_16gb", "florence-2-large").launch) == [
        *("imageworks-florence", "--model", "{models}/florence-community/Florence-2-large"),
        *("--host", "127.0.0.1", "--port", "24001"),
    ]


def test_ollama_is_reached_by_its_tag_and_never_started(shipped: Mapping[str, Plan]) -> None:
    model = of(shipped, "constrained_16gb", "pixtral-12b-q4")
    assert (model.launch, model.port, model.served_name) == (None, None, "pixtral-local:latest")
    assert model.url == "http://127.0.0.1:11434"


def test_the_proxy_reads_the_routes_of_its_profile(shipped: Mapping[str, Plan]) -> None:
    assert words(shipped["development"].proxy.launch) == [
        *("{python}", "-m", "imageworks", "serve", "--routes", "{stack}/generated/development/routes.json"),
        *("--stack", "{stack}"),
    ]


PIECES = ("${source}", "${host}", "${HOST}", "$$", "$", "{stack}", "{models}", "{lb}", "{", "}", "a b", "%s")


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_filling_in_leaves_everything_else_alone(text: str) -> None:
    values = {"host": "H", "port": "P", "name": "N", "source": "{models}/S"}
    tokens = {"models": "/m", "stack": "/s", "state": "/t", "store": "/o", "python": "/p"}
    literal = fill(text, values | {"source": "/m/S"}, braces=False)
    assert expand(fill(text, values, braces=True), tokens) == literal


def test_dollars() -> None:
    assert fill("$HOME $$ $${host} ${other}", {"host": "h"}, braces=False) == "$HOME $ ${host} ${other}"


def test_capacity_is_the_unit_of_the_share(shipped: Mapping[str, Plan]) -> None:
    model = of(shipped, "constrained_16gb", "qwen3-vl-8b-fp8")
    assert model.memory.total / (14.9 * GIB) - _share(model) < 0.001
