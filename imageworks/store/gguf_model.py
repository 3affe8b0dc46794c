"""The facts of a model in GGUF form: what its keys mean.

Owns the reading of llama.cpp's key names (`<architecture>.block_count` …) and of the projector beside a vision
model. Sizes are those of the files: they are mapped into memory as they are. Reads headers only, never a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from imageworks.model.lock import Architecture, LockedFile, LockedModel
from imageworks.store.errors import FactsError
from imageworks.store.gguf import Value, read

# llama.cpp's llama_ftype, in the words of the stack's `quantization`.
FILE_TYPES = {
    0: "fp32", 1: "fp16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 32: "bf16",
    38: "mxfp4", 39: "nvfp4",
}  # fmt: skip
# clip.projector_type -> the family whose image processor it is.
PROJECTORS = {
    "qwen2vl_merger": "qwen2_vl",
    "qwen2.5vl_merger": "qwen2_5_vl",
    "qwen3vl_merger": "qwen3_vl",
    "mlp": "llava",
}
_PART = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf$")
_SMALL_TILE = 81
"""Tokens of one tile up to which an idefics3 projector is SmolVLM's."""


def read_model(path: Path, mmproj: Path | None) -> LockedModel:
    """Facts of the GGUF file `path` (or of all its parts) with its projector. Raises FactsError."""
    keys = read(path)
    if keys.get("general.architecture") == "clip":
        raise FactsError(f"{path} is a vision projector; name it as `mmproj` and the model as the file")
    projector = read(mmproj) if mmproj else {}
    if mmproj and projector.get("general.architecture") != "clip":
        raise FactsError(f"{mmproj} is not a vision projector")
    files = tuple(
        LockedFile(name=part.name, bytes=_size(part)) for part in (*parts(path), *([mmproj] if mmproj else ()))
    )
    return LockedModel(
        origin="file",
        weights_bytes=sum(file.bytes for file in files),
        architecture=architecture(keys, projector),
        quantization=FILE_TYPES.get(_whole(keys, "general.file_type", -1)),
        capabilities=capabilities(keys, projector),
        files=files,
    )


def parts(path: Path) -> tuple[Path, ...]:
    """All files of a model split as `x-00001-of-00003.gguf`; the file itself when it is whole."""
    match = _PART.match(path.name)
    if match is None:
        return (path,)
    count = int(match["parts"])
    return tuple(path.with_name(f"{match['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise FactsError(f"{path} cannot be read: {error.strerror}") from None


def architecture(keys: Mapping[str, Value], projector: Mapping[str, Value]) -> Architecture | None:
    """The network of the keys; None when they lack a count that the memory formula needs."""
    name = keys.get("general.architecture")
    layers, heads = _whole(keys, f"{name}.block_count"), _whole(keys, f"{name}.attention.head_count")
    width = _whole(keys, f"{name}.embedding_length")
    head_dim = _whole(keys, f"{name}.attention.key_length", width // heads if heads else 0)
    if not (isinstance(name, str) and layers and heads and head_dim):
        return None
    return Architecture(
        family=family(name, projector),
        layers=layers,
        kv_heads=_whole(keys, f"{name}.attention.head_count_kv", heads),
        head_dim=head_dim,
        context_limit=_whole(keys, f"{name}.context_length") or None,
    )


def family(name: str, projector: Mapping[str, Value]) -> str:
    """Name of the network as configs write it (`qwen3_vl`, `gpt_oss`): the projector's, which knows what an image costs, else `name`."""
    kind = projector.get("clip.projector_type", projector.get("clip.vision.projector_type"))
    if kind == "idefics3":
        side = _whole(projector, "clip.vision.image_size") // (_whole(projector, "clip.vision.patch_size") or 1)
        per_tile = (side // (_whole(projector, "clip.vision.projector.scale_factor") or 1)) ** 2
        return "smolvlm" if per_tile <= _SMALL_TILE else "idefics3"
    return PROJECTORS.get(kind, kind) if isinstance(kind, str) else name.replace("-", "_")


def capabilities(keys: Mapping[str, Value], projector: Mapping[str, Value]) -> tuple[str, ...]:
    """What the header proves: chat with a template, embedding with a pooling rule, vision and audio with an encoder."""
    proofs = {
        "chat": "tokenizer.chat_template" in keys,
        "embedding": f"{keys.get('general.architecture')}.pooling_type" in keys,
        "vision": projector.get("clip.has_vision_encoder") is True,
        "audio": projector.get("clip.has_audio_encoder") is True,
    }
    return tuple(name for name, proved in proofs.items() if proved)


def _whole(keys: Mapping[str, Value], key: str, default: int = 0) -> int:
    """A count that is not negative; of a list with one count per layer the largest."""
    value = keys.get(key, default)
    counts = value if isinstance(value, tuple) else (value,)
    return max((count for count in counts if type(count) is int and count >= 0), default=default)
