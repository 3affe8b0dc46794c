"""The facts of a model in Hugging Face layout: config.json, the weights' files, the tokenizer's template.

Owns the reading of those files. Nothing of the folder is executed or imported, no tensor is read; names of shards
count only inside the folder. Values that a config does not state stay unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imageworks.model.lock import Architecture, LockedFile, LockedModel
from imageworks.store.errors import FactsError

_MAX_JSON = 64 << 20
_LANGUAGE_PARTS = ("text_config", "llm_config", "language_config")
_METHODS = {"fp8": "fp8", "awq": "awq", "gptq": "gptq", "mxfp4": "mxfp4", "modelopt_fp4": "nvfp4"}
_TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_EMBEDDERS = ("BertModel", "CLIPModel", "SiglipModel", "Siglip2Model", "XLMRobertaModel")


def read_model(folder: Path) -> LockedModel:
    """Facts of the model in `folder`. Raises FactsError when it holds no config, no weights or not all of them."""
    config = _json(folder / "config.json")
    files = tuple(LockedFile(name=path.name, bytes=path.stat().st_size) for path in weight_files(folder))
    return LockedModel(
        origin="file",
        weights_bytes=sum(file.bytes for file in files),
        architecture=architecture(config),
        quantization=quantization(config),
        capabilities=capabilities(config, has_template=_has_template(folder)),
        files=files,
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights: those of the index, else all safetensors, else PyTorch's own."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = _json(index).get("weight_map")
        names = sorted({Path(str(name)).name for name in shards.values()}) if isinstance(shards, dict) else []
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise FactsError(f"{folder} is incomplete: {absent[0]} is missing ({len(absent)} of {len(names)} files)")
        if names:
            return tuple(folder / name for name in names)
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if found := tuple(sorted(folder.glob(pattern))):
            return found
    raise FactsError(f"{folder} holds no weights (*.safetensors)")


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """The language part's network; None when the config does not state its layers and heads."""
    text = _language(config)
    layers, heads = _count(text, "num_hidden_layers"), _count(text, "num_attention_heads")
    head_dim = _count(text, "head_dim") or (_count(text, "hidden_size") // heads if heads else 0)
    name, classes = config.get("model_type"), config.get("architectures")
    if not (isinstance(name, str) and layers and head_dim):
        return None
    return Architecture(
        family=name.replace("-", "_"),
        layers=layers,
        kv_heads=_count(text, "num_key_value_heads") or heads,
        head_dim=head_dim,
        context_limit=_count(text, "max_position_embeddings") or None,
        classes=tuple(str(one) for one in classes) if isinstance(classes, list) and classes else None,
    )


def _language(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with its language part, where it has one, laid over it."""
    nested: Mapping[str, Any] = next(
        (config[part] for part in _LANGUAGE_PARTS if isinstance(config.get(part), dict)), {}
    )
    return {**config, **nested}


def quantization(config: Mapping[str, Any]) -> str | None:
    """The stack's word for how the weights are stored; None for a method it has no word for."""
    declared = config.get("quantization_config")
    if isinstance(declared, dict):
        return _METHODS.get(str(declared.get("quant_method"))) or _compressed(declared)
    text = _language(config)
    return _TYPES.get(str(text.get("dtype") or text.get("torch_dtype")))


def _compressed(declared: Mapping[str, Any]) -> str | None:
    """compressed-tensors names its number format, not a method."""
    formats = {"float-quantized": "fp8", "int-quantized": "int8", "nvfp4-pack-quantized": "nvfp4"}
    return formats.get(str(declared.get("format")))


def capabilities(config: Mapping[str, Any], *, has_template: bool) -> tuple[str, ...]:
    """What the files prove: chat with a template, vision with an image encoder, embedding for encoders known as such."""
    names = config.get("architectures")
    embeds = isinstance(names, list) and any(name in _EMBEDDERS for name in names)
    proofs = {"chat": has_template, "embedding": embeds, "vision": "vision_config" in config}
    return tuple(name for name, proved in proofs.items() if proved)


def _has_template(folder: Path) -> bool:
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    tokenizer = folder / "tokenizer_config.json"
    return tokenizer.exists() and "chat_template" in _json(tokenizer)


def _count(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise FactsError(f"{path} is larger than {_MAX_JSON >> 20} MiB")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise FactsError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise FactsError(f"{path} is not a JSON object")
    return data
