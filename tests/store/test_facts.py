from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import LlamaFileType

from imageworks.model.lock import Architecture, Lock, LockedModel, read, write
from imageworks.store.errors import FactsError
from imageworks.store.facts import Weights, read_facts, update_lock
from imageworks.store.gguf_model import FILE_TYPES

Write = Callable[..., Path]
LLAMA: dict[str, Any] = {
    "llama__block_count": 32,
    "llama__context_length": 8192,
    "llama__embedding_length": 960,
    "llama__attention__head_count": 15,
    "llama__attention__head_count_kv": 5,
    "general__file_type": 7,
    "tokenizer__chat_template": "{{ messages }}",
}
CLIP: dict[str, Any] = {"clip__has_vision_encoder": True, "clip__projector_type": "idefics3"}
CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "vision_config": {"depth": 27},
    "quantization_config": {"quant_method": "fp8"},
    "text_config": {
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_size": 4096,
        "max_position_embeddings": 262144,
    },
}


def net(facts: LockedModel) -> dict[str, Any]:
    assert facts.architecture is not None
    return facts.architecture.model_dump(exclude_none=True)


def test_a_gguf_model_gives_all_facts(write_gguf: Write) -> None:
    file = write_gguf("m.gguf", "llama", **LLAMA)
    facts = read_facts(Weights(file))
    assert net(facts) == {"family": "llama", "layers": 32, "kv_heads": 5, "head_dim": 64, "context_limit": 8192}
    assert (facts.quantization, facts.capabilities, facts.origin) == ("q8_0", ("chat",), "file")
    assert facts.weights_bytes == file.stat().st_size


def test_a_stated_key_length_beats_the_division(write_gguf: Write) -> None:
    assert (
        net(read_facts(Weights(write_gguf("m.gguf", "llama", **LLAMA, llama__attention__key_length=128))))["head_dim"]
        == 128
    )


def test_of_heads_per_layer_the_largest_count_is_planned(write_gguf: Write) -> None:
    keys = LLAMA | {"llama__attention__head_count_kv": [4, 8, 2]}
    assert net(read_facts(Weights(write_gguf("m.gguf", "llama", **keys))))["kv_heads"] == 8


def test_a_network_without_the_counts_stays_unknown(write_gguf: Write) -> None:
    facts = read_facts(Weights(write_gguf("m.gguf", "llama", general__name="x")))
    assert (facts.architecture, facts.quantization, facts.capabilities) == (None, None, ())
    assert facts.weights_bytes is not None


def test_a_projector_adds_its_bytes_its_sense_and_the_family_of_its_images(write_gguf: Write) -> None:
    model = write_gguf("m.gguf", "llama", **LLAMA)
    vision = {
        "clip__vision__image_size": 512,
        "clip__vision__patch_size": 16,
        "clip__vision__projector__scale_factor": 4,
    }
    projector = write_gguf("p.gguf", "clip", **CLIP, **vision)
    facts = read_facts(Weights(model, projector))
    assert net(facts)["family"] == "smolvlm"
    assert facts.capabilities == ("chat", "vision")
    assert facts.weights_bytes == model.stat().st_size + projector.stat().st_size
    assert [file.name for file in facts.files] == ["m.gguf", "p.gguf"]


@pytest.mark.parametrize(
    ("kind", "family"),
    [("qwen3vl_merger", "qwen3_vl"), ("qwen2.5vl_merger", "qwen2_5_vl"), ("pixtral", "pixtral"), ("gemma3", "gemma3")],
)
def test_the_projector_names_the_family_as_configs_do(write_gguf: Write, kind: str, family: str) -> None:
    model, projector = write_gguf("m.gguf", "llama", **LLAMA), write_gguf("p.gguf", "clip", clip__projector_type=kind)
    assert net(read_facts(Weights(model, projector)))["family"] == family


def test_files_in_the_wrong_place_are_said(write_gguf: Write) -> None:
    model, projector = write_gguf("m.gguf", "llama", **LLAMA), write_gguf("p.gguf", "clip", **CLIP)
    with pytest.raises(FactsError, match="is a vision projector"):
        read_facts(Weights(projector))
    with pytest.raises(FactsError, match="is not a vision projector"):
        read_facts(Weights(model, model))


def test_a_split_model_is_all_its_parts_and_none_may_be_missing(write_gguf: Write) -> None:
    first, second = (write_gguf(f"m-0000{part}-of-00002.gguf", "llama", **LLAMA) for part in (1, 2))
    assert read_facts(Weights(first)).weights_bytes == first.stat().st_size + second.stat().st_size
    second.unlink()
    with pytest.raises(FactsError, match="m-00002-of-00002"):
        read_facts(Weights(first))


def test_file_types_are_those_of_the_format() -> None:
    theirs = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower() for kind in LlamaFileType}
    words = {"f32": "fp32", "f16": "fp16", "mxfp4_moe": "mxfp4"}
    assert {number: words.get(theirs[number], theirs[number]) for number in FILE_TYPES} == FILE_TYPES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "Qwen3-VL"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    (place / "tokenizer_config.json").write_text('{"chat_template": "x"}', "utf-8")
    (place / "model-1.safetensors").write_bytes(bytes(1000))
    (place / "model-2.safetensors").write_bytes(bytes(500))
    return place


def test_a_folder_gives_all_facts(folder: Path) -> None:
    facts = read_facts(Weights(folder))
    shape = {"family": "qwen3_vl", "layers": 36, "kv_heads": 8, "head_dim": 128, "context_limit": 262144}
    assert net(facts) == shape | {"classes": ("Qwen3VLForConditionalGeneration",)}
    assert (facts.weights_bytes, facts.quantization, facts.capabilities) == (1500, "fp8", ("chat", "vision"))


def test_only_the_files_of_the_index_count_and_none_may_be_missing(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}', "utf-8")
    assert read_facts(Weights(folder)).weights_bytes == 1000
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-9.safetensors"}}', "utf-8")
    with pytest.raises(FactsError, match=r"incomplete: model-9\.safetensors is missing \(1 of 2 files\)"):
        read_facts(Weights(folder))


def test_an_index_cannot_point_outside_its_folder(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(bytes(7))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret"}}', "utf-8")
    with pytest.raises(FactsError, match="secret is missing"):
        read_facts(Weights(folder))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}, "fp8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"quant_method": "something-new"}}, None),
        ({"quantization_config": None, "torch_dtype": "bfloat16"}, "bf16"),
        ({"quantization_config": None, "text_config": {"dtype": "float16"}}, "fp16"),
    ],
)
def test_how_weights_are_stored_is_told_in_the_words_of_the_stack(
    folder: Path, changes: dict[str, Any], expected: str | None
) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), "utf-8")
    assert read_facts(Weights(folder)).quantization == expected


def test_an_encoder_embeds_and_does_not_chat(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["SiglipModel"]}), "utf-8")
    assert read_facts(Weights(folder)).capabilities == ("embedding", "vision")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":' * 100_000, "\xff"])
def test_a_damaged_config_is_said(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FactsError, match=r"config\.json is not (a )?JSON"):
        read_facts(Weights(folder))


def test_a_folder_without_config_or_weights_is_said(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(FactsError, match="holds no weights"):
        read_facts(Weights(folder))
    (folder / "config.json").unlink()
    with pytest.raises(FactsError, match=r"config\.json cannot be read"):
        read_facts(Weights(folder))


def test_the_lock_learns_what_is_there_and_keeps_the_rest(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    lock = Lock(models={"other": LockedModel(origin="published", weights_bytes=5)})
    wanted = {"qwen": Weights(folder), "absent": Weights(tmp_path / "absent.gguf"), "broken": Weights(broken)}
    learnt = update_lock(lock, wanted)
    assert learnt.models == ("qwen",)
    assert set(learnt.lock.models) == {"other", "qwen"}
    assert learnt.problems == {"broken": f"{broken} is not a usable GGUF file: its header is cut off"}
    assert read(write(learnt.lock)) == learnt.lock


def test_what_was_published_stays_where_a_file_is_silent(write_gguf: Write) -> None:
    known = LockedModel(
        origin="published",
        weights_bytes=1,
        quantization="q4_1",
        capabilities=("chat", "tools"),
        architecture=Architecture(family="x", layers=1, kv_heads=1, head_dim=1, context_limit=None),
    )
    file = write_gguf("m.gguf", "llama", general__name="x")
    merged = update_lock(Lock(models={"m": known}), {"m": Weights(file)}).lock.models["m"]
    assert (merged.architecture, merged.quantization, merged.capabilities) == (
        known.architecture,
        "q4_1",
        ("chat", "tools"),
    )
    assert (merged.origin, merged.weights_bytes) == ("file", file.stat().st_size)
